"""All settings on one typed page: defaults, then a TOML file, the environment, and flags.

The later wins. The file is named by ``--config`` or ``INSTRUCTBLIP_CONFIG``; an environment
variable is ``INSTRUCTBLIP_`` and the setting's name in capitals.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from instructblip.errors import BadParameter
from webui.storage.room import Limits

PREFIX = "INSTRUCTBLIP_"


def _about(default: Any, words: str) -> Any:
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True)
class Settings:
    """What the server was told. Made by :func:`read_settings`."""

    model: str = _about("embedded", "'embedded', a folder with a checkpoint, or a hub name")
    vicuna: str = _about("", "folder of Vicuna, where LAVIS's files do not lie side by side")
    bert: str = _about("", "folder of bert-base-uncased, likewise")
    eva: str = _about("", "eva_vit_g.pth, likewise")
    instruct_blip: str = _about("", "instruct_blip_vicuna7b_trimmed.pth or the like, likewise")
    device: str = _about(
        "auto",
        "auto, cpu, cuda, mps or npu, or one by number (cuda:1); npu:0,npu:1 share the layers",
    )
    dtype: str = _about("auto", "auto, fp32, bf16 or fp16")
    kv_memory: float = _about(
        0.0, "GB of memory for the keys and values of running chats; 0: a share of what is free"
    )
    picture_memory: float = _about(
        0.25, "GB of memory for what the model saw in pictures; a picture that is asked about "
        "again after it had to go is looked at anew"
    )  # fmt: skip
    host: str = _about("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    port: int = _about(7860, "port to listen on")
    data: str = _about("data", "folder for chats, pictures and keys")
    auth: tuple[str, ...] = _about(
        (), "ask for a login: USER:PASS, several comma separated; everybody on this machine can "
        "read a flag (ps), so rather use --auth-file, or the variable INSTRUCTBLIP_AUTH"
    )  # fmt: skip
    auth_file: str = _about(
        "", "ask for a login: a file of names and hashes, made by bash launch.sh passwd FILE NAME; "
        "read again when it changes"
    )  # fmt: skip
    login_idle: float = _about(
        168.0, "hours without a visit after which a login ends; it lasts 30 days at most"
    )
    shared_logins: tuple[str, ...] = _about(
        ("guest",), "logins that many people use: each browser has chats of its own"
    )
    origins: tuple[str, ...] = _about(
        (), "further addresses under which the page is reached, as https://chat.example.org"
    )
    proxies: tuple[str, ...] = _about(
        (), "addresses or networks of your reverse proxies, as 127.0.0.1,10.0.0.0/8: their "
        "X-Forwarded headers are believed, nobody else's"
    )  # fmt: skip
    root_path: str = _about(
        "", "path prefix behind a reverse proxy, as /ui; it may strip or keep it"
    )
    share: bool = _about(False, "also make a public link through a tunnel, always with a login")
    share_server: str = _about("", "own frp share server, host:port, instead of Gradio's")
    tunnel_command: str = _about(
        "", "own tunnel program for --share; {port} is filled in, it prints the public address"
    )
    grace: float = _about(20.0, "seconds that an answer goes on when nobody looks on any more")
    max_waiting: int = _about(64, "requests that may wait for the model")
    per_owner: int = _about(16, "answers that one visitor may have running or waiting")
    max_upload: int = _about(32, "largest picture file, in MB")
    max_connections: int = _about(
        0, "connections that may be open at once; 0: as the limit of open files allows"
    )
    patience: float = _about(
        10.0, "seconds until the head of a request must have come; a body may pause for twice, "
        "and an answer may stay unread for six times as long"
    )  # fmt: skip
    owner_storage: int = _about(500, "what one visitor may keep here, pictures and texts, in MB")
    storage: float = _about(
        0.0, "what all visitors may keep together, in GB; 0: what the disk has but --disk-reserve"
    )
    disk_reserve: int = _about(200, "room that is left free on the disk, in MB")
    lang: str = _about("", "language of the page: en or zh; the browser's unless given")

    def __post_init__(self) -> None:
        _between("port", self.port, 1, 65535)
        _between("kv_memory", self.kv_memory, 0, 10_000)
        _between("picture_memory", self.picture_memory, 0, 10_000)
        _between("login_idle", self.login_idle, 0.01, 720)
        _between("grace", self.grace, 0, 86_400)
        _between("max_waiting", self.max_waiting, 1, 100_000)
        _between("per_owner", self.per_owner, 1, 1000)
        _between("max_upload", self.max_upload, 1, 1024)
        _between("max_connections", self.max_connections, 0, 1_000_000)
        _between("patience", self.patience, 0.1, 3600)
        _between("owner_storage", self.owner_storage, 1, 1_000_000)
        _between("storage", self.storage, 0, 1_000_000)
        _between("disk_reserve", self.disk_reserve, 0, 1_000_000)
        logins(self.auth)
        for origin in self.origins:
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or set(rest) & set("/*?# "):
                raise _bad("origins", origin, "an address as https://chat.example.org")
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise _bad("proxies", proxy, "an address as 10.0.0.5, or a network") from None
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise _bad("root_path", self.root_path, "a path as /ui, without a slash at its end")
        host, _, port = self.share_server.rpartition(":")
        if self.share_server and (not host or not re.fullmatch("[0-9]{1,5}", port)):
            raise _bad("share_server", self.share_server, "host:port")
        if self.lang not in ("", "en", "zh"):
            raise _bad("lang", self.lang, "en or zh")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def asks_login(self) -> bool:
        """Whether visitors log in."""
        return bool(self.auth or self.auth_file)

    @property
    def limits(self) -> Limits:
        """What visitors may keep, in bytes."""
        return Limits(self.owner_storage * 1e6, self.storage * 1e9, self.disk_reserve * 1e6)


def is_loopback(name: str) -> bool:
    """Whether this host name is this machine's own. ``127.evil.example`` is anybody's."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def logins(pairs: Sequence[str]) -> dict[str, str]:
    """Read ``USER:PASS`` pairs.

    Raises:
        BadParameter: one is not such a pair, or a name occurs twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, colon, password = pair.partition(":")
        name = name.strip()
        fits = name.isprintable() and len(name) <= 100 and name not in found
        if not (name and colon and password and fits):
            raise _bad("auth", pair, "USER:PASS, several comma separated, each user once")
        found[name] = password
    return found


def read_settings(
    argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Settings from flags, environment and file.

    Raises:
        BadParameter: a value or a name is not allowed; the message says which and what is.
    """
    environment = os.environ if environment is None else environment
    flags = vars(parser().parse_args(argv))
    config = flags.pop("config") or environment.get(PREFIX + "CONFIG", "")
    values: dict[str, Any] = _from_file(Path(config)) if config else {}
    for item in fields(Settings):
        text = environment.get(PREFIX + item.name.upper())
        if text:
            values[item.name] = text
        if flags[item.name] is not None:
            values[item.name] = flags[item.name]
    return Settings(**{name: _typed(name, value) for name, value in values.items()})


def parser() -> argparse.ArgumentParser:
    """The command line of ``python -m webui``."""
    made = argparse.ArgumentParser(
        prog="python -m webui", description="Chat about pictures with InstructBLIP in a browser."
    )
    made.add_argument("--config", metavar="FILE", help="TOML file with any of the settings below")
    for item in fields(Settings):
        flag = "--" + item.name.replace("_", "-")
        words = item.metadata["help"]
        if isinstance(item.default, bool):
            made.add_argument(
                flag,
                dest=item.name,
                action=argparse.BooleanOptionalAction,
                default=None,
                help=words,
            )
        else:
            default = ",".join(item.default) if isinstance(item.default, tuple) else item.default
            shown = "" if default == "" else f" (default {default})"
            made.add_argument(flag, dest=item.name, metavar="X", help=words + shown)
    return made


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _bad("config", str(path), f"a file that can be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _bad("config", str(path), f"a TOML file ({error})") from error
    known = {item.name for item in fields(Settings)}
    for name in values:
        if name not in known:
            raise _bad("config", f"{path}: {name}", "one of " + ", ".join(sorted(known)))
    return values


def _typed(name: str, value: Any) -> Any:
    """Bring text from flags and environment, or a TOML value, to the setting's type."""
    default = next(item.default for item in fields(Settings) if item.name == name)
    if isinstance(default, tuple):
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            raise _bad(name, value, "text, or a list of texts")
        return tuple(
            part.strip().rstrip("/") if name == "origins" else part.strip()
            for part in parts
            if part.strip()
        )
    if isinstance(default, bool):
        words = {"1": True, "true": True, "yes": True, "on": True}
        words |= {"0": False, "false": False, "no": False, "off": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() not in words:
            raise _bad(name, value, "true or false")
        return words[str(value).lower()]
    if isinstance(default, str):
        if not isinstance(value, str):
            raise _bad(name, value, "text (in quotes, in a file)")
        return value
    try:
        if isinstance(value, bool) or (isinstance(default, int) and isinstance(value, float)):
            raise ValueError(value)
        kind: type[Any] = type(default)
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        raise _bad(
            name, value, "a whole number" if isinstance(default, int) else "a number"
        ) from None


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise _bad(name, value, f"a number from {low:g} to {high:g}")


def _bad(name: str, value: object, wanted: str) -> BadParameter:
    flag = "--" + name.replace("_", "-")
    if name == "auth":
        value = "…"  # a secret is not repeated
    return BadParameter(
        f"{flag} {value} is not allowed: use {wanted}.",
        code="bad_setting",
        name=name,
        value=str(value),
        wanted=wanted,
    )


def with_login(settings: Settings, name: str, password: str) -> Settings:
    """The same settings with one login more."""
    return dataclasses.replace(settings, auth=(*settings.auth, f"{name}:{password}"))
