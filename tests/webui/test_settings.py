"""Settings from flags, environment and file; a wrong one is named, with what is allowed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from instructblip.errors import BadParameter
from webui.settings import PREFIX, Settings, is_loopback, logins, parser, read_settings, with_login

NAMES = [item.name for item in fields(Settings)]


def refusal(argv: list[str], environment: dict[str, str] | None = None) -> str:
    with pytest.raises(BadParameter) as caught:
        read_settings(argv, environment or {})
    return str(caught.value)


def config(folder: Path, text: str) -> list[str]:
    (folder / "page.toml").write_text(text, "utf-8")
    return ["--config", str(folder / "page.toml")]


# --- where they come from --------------------------------------------------------------------------


def test_without_anything_they_are_the_defaults() -> None:
    assert read_settings([], {}) == Settings()
    assert read_settings([], {PREFIX + "PORT": "", "PORT": "9"}) == Settings()
    assert Settings().loopback
    assert not Settings().asks_login
    assert Settings(auth=("ann:x",)).asks_login
    assert Settings(auth_file="f").asks_login


def test_the_later_source_wins(tmp_path: Path) -> None:
    flags = config(tmp_path, 'port = 1001\nhost = "0.0.0.0"\ngrace = 3\ndata = "from file"\n')
    environment = {PREFIX + "PORT": "1002", PREFIX + "HOST": "::1"}
    made = read_settings([*flags, "--port", "1003"], environment)
    assert (made.port, made.host, made.grace, made.data) == (1003, "::1", 3.0, "from file")
    environment[PREFIX + "CONFIG"] = flags[1]
    assert read_settings([], environment).data == "from file"


def test_every_setting_has_a_flag_a_variable_and_a_line_in_the_file(tmp_path: Path) -> None:
    values = {
        "model": "m", "vicuna": "v", "bert": "b", "eva": "e.pth", "instruct_blip": "i.pth",
        "device": "cuda:1", "dtype": "bf16", "host": "0.0.0.0", "port": "8080",
        "data": "d", "auth": "ann:a,bob:b:b", "shared_logins": "ann", "origins": "https://a.example/",
        "root_path": "/ui", "share": "true", "share_server": "frp.example:7000",
        "tunnel_command": "run {port}", "grace": "2.5", "max_waiting": "3", "per_owner": "4",
        "proxies": "10.0.0.0/8,::1", "max_upload": "5", "lang": "zh", "kv_memory": "1.5", "picture_memory": "0.5",
        "max_connections": "500", "patience": "4.5",
        "auth_file": "logins", "login_idle": "12",
        "owner_storage": "50", "storage": "1.5", "disk_reserve": "100",
    }  # fmt: skip
    assert sorted(values) == sorted(NAMES)
    by_variable = read_settings([], {PREFIX + name.upper(): text for name, text in values.items()})
    flags = [
        part
        for name, text in values.items()
        for part in (f"--{name.replace('_', '-')}", *([text] if name != "share" else []))
    ]
    assert read_settings(flags, {}) == by_variable
    lines = "".join(f'{name} = "{text}"\n' for name, text in values.items())
    assert read_settings(config(tmp_path, lines), {}) == by_variable
    assert logins(by_variable.auth) == {"ann": "a", "bob": "b:b"}
    assert by_variable.proxies == ("10.0.0.0/8", "::1")
    assert by_variable.origins == ("https://a.example",)
    assert (by_variable.share, by_variable.grace, by_variable.port) == (True, 2.5, 8080)


def test_lists_in_a_file_and_flags_that_switch_off(tmp_path: Path) -> None:
    flags = config(tmp_path, 'share = true\nauth = ["ann:a,b", "bob:c"]\n')
    made = read_settings([*flags, "--no-share"], {})
    assert not made.share
    assert logins(made.auth) == {"ann": "a,b", "bob": "c"}
    assert logins(with_login(made, "guest", "x").auth) == {"ann": "a,b", "bob": "c", "guest": "x"}


def test_help_tells_every_flag() -> None:
    words = parser().format_help()
    for name in NAMES:
        assert f"--{name.replace('_', '-')}" in words


# --- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--port", "0", "1 to 65535"), ("--port", "65536", "1 to 65535"), ("--port", "web", "whole"),
        ("--port", "80.5", "whole"), ("--grace", "-1", "0 to 86400"), ("--grace", "nan", "0 to"),
        ("--grace", "inf", "0 to"), ("--grace", "soon", "a number"), ("--max-waiting", "0", "1 to"),
        ("--per-owner", "1001", "1 to 1000"), ("--max-upload", "0", "1 to 1024"),
        ("--max-connections", "-1", "0 to 1e+06"), ("--patience", "0", "0.1 to 3600"),
        ("--lang", "de", "en or zh"), ("--origins", "chat.example", "https://chat.example.org"),
        ("--origins", "https://a.example/path", "https://"), ("--origins", "ftp://a.example", "https"),
        ("--origins", "https://", "https://"), ("--origins", "*", "https://"),
        ("--root-path", "ui", "/ui"), ("--root-path", "/ui/", "/ui"),
        ("--share-server", "frp.example", "host:port"), ("--share-server", ":7000", "host:port"),
        ("--share-server", "frp.example:²", "host:port"), ("--config", "/nowhere/x.toml", "read"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_is_allowed(flag: str, value: str, told: str) -> None:
    words = refusal([flag, value])
    assert words.startswith(flag)
    assert value in words
    assert told in words


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("port = true", "whole"), ("port = 80.5", "whole"), ("port = [1]", "whole"),
        ("grace = 'x'", "a number"), ("model = 5", "text"), ("model = true", "text"),
        ("model = ['a']", "text"), ("[data]\nfolder = 'x'", "text"), ("share = 'maybe'", "true or"),
        ("origins = 3", "list"), ("origins = [3]", "list"), ("prot = 1", "port"),
        ("port = ", "TOML"), ("host = 'ü", "TOML"),
    ],
)  # fmt: skip
def test_a_wrong_line_of_a_file_is_told(tmp_path: Path, line: str, told: str) -> None:
    assert told in refusal(config(tmp_path, line))


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "page.toml").write_bytes(b"\xff\xfe\x00")
    assert "TOML" in refusal(["--config", str(tmp_path / "page.toml")])
    assert "read" in refusal(["--config", str(tmp_path)])


@pytest.mark.parametrize(
    "value", ["hunter2", "ann:", ":hunter2", "ann:hunter2,ann:hunter3", "a\x07n:hunter2", "x" * 101 + ":hunter2"]
)  # fmt: skip
def test_a_wrong_login_is_refused_without_saying_the_password(value: str) -> None:
    words = refusal(["--auth", value])
    assert words.startswith("--auth")
    assert "USER:PASS" in words
    assert "hunter" not in words


@pytest.mark.parametrize("text", ["auth = {ann = 'hunter2'}", "auth = ['ann:a', 4, 'b:hunter2']", "[auth]\nann = 'hunter2'"])  # fmt: skip
def test_a_password_in_a_wrong_line_is_not_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadParameter) as caught:
        read_settings(config(tmp_path, text), {})
    assert "hunter" not in str(caught.value) + str(caught.value.values)


@given(
    st.sampled_from(NAMES),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
)
@example("port", "9" * 5000)
@example("grace", "1e999")
@example("auth", "猫:密码")
def test_any_text_is_a_setting_or_is_refused(name: str, text: str) -> None:
    try:
        made = read_settings([], {PREFIX + name.upper(): text})
    except BadParameter as error:
        words = str(error)
        assert words.startswith("--" + name.replace("_", "-"))
    else:
        assert hash(made)


@given(st.sampled_from(NAMES), st.integers() | st.floats() | st.booleans() | st.lists(st.text()))
def test_any_value_in_a_file_is_a_setting_or_is_refused(name: str, value: object) -> None:
    from webui.settings import _typed

    try:
        made = Settings(**{name: _typed(name, value)})
    except BadParameter:
        return
    assert type(getattr(made, name)) is type(getattr(Settings(), name))


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("localhost", True), ("::1", True),
        ("0.0.0.0", False), ("::", False), ("127.evil.example", False), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False), ("", False), ("192.168.0.4", False),
    ],
)  # fmt: skip
def test_which_names_are_this_machines_own(name: str, own: bool) -> None:
    assert is_loopback(name) is own
    assert Settings(host=name).loopback is own
