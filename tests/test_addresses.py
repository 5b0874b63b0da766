"""The README's list of outside addresses is whole and true: the sources are searched for them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh-CN.md")
# Code and what is installed by it. Texts for readers may name what they like.
CODE = (
    "instructblip/**/*.py", "webui/**/*.py", "webui/**/*.js", "webui/**/*.css", "webui/**/*.json",
    "webui/**/*.html", "launch.sh", ".ci/run", "requirements*.txt", "constraints*.txt",
    "pyproject.toml",
)  # fmt: skip
HOST = r"(?:[a-z0-9-]+\.)+[a-z]{2,}"
URL = re.compile(rf"\b(?:https?|wss?|ftp|git)://(?:[^/\s\"'@]*@)?({HOST})", re.IGNORECASE)
# A host without a scheme in front. Other endings read like attributes of Python.
BARE = re.compile(r"(?<![\w.@/-])((?:[a-z0-9-]+\.)+(?:com|org|net|cn|huggingface\.co))\b(?!\()")
# Names that RFC 2606 keeps for examples.
RESERVED = re.compile(r"(^|\.)example(\.(com|org|net))?$")
ATTRIBUTE = re.compile(r"^(self|torch|os|sys|args)\.")


def hosts(text: str) -> set[str]:
    """The outside hosts that a text names."""
    found = {host.lower() for host in (*URL.findall(text), *BARE.findall(text))}
    return {host for host in found if not RESERVED.search(host) and not ATTRIBUTE.search(host)}


def in_code() -> set[tuple[str, str]]:
    """(host, file) of the project's code."""
    files = {path for pattern in CODE for path in ROOT.glob(pattern)}
    return {
        (host, path.relative_to(ROOT).as_posix())
        for path in files
        if "__pycache__" not in path.parts
        for host in hosts(path.read_text("utf-8"))
    }


def listed(name: str) -> set[tuple[str, str]]:
    """(host, file or package) of a README's table."""
    text = (ROOT / name).read_text("utf-8")
    table = re.search(r"<!-- addresses -->(.*?)<!-- end -->", text, re.DOTALL)
    assert table
    rows = [line.strip("|").split("|") for line in table[1].splitlines() if line.startswith("|")]
    return {
        (host.strip(), place.strip(" `"))
        for cells, place, _ in rows[2:]
        for host in cells.split(",")
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"https://Some.host.io/x"', {"some.host.io"}), ("wss://a.b.app:7", {"a.b.app"}),
        ("see emojione.com.", {"emojione.com"}), ("http://user:word@x.org/", {"x.org"}),
        ("https://chat.example.org http://127.0.0.1:1 https://mirror/simple https://{host}", set()),
        ("self.net(x) parts.live settings.app a@b.com", set()),
    ],
)  # fmt: skip
def test_what_counts_as_an_address(text: str, found: set[str]) -> None:
    assert hosts(text) == found


@pytest.mark.parametrize("name", READMES)
def test_every_address_in_the_code_is_listed(name: str) -> None:
    assert len(in_code()) >= 3
    assert in_code() - listed(name) == set()


@pytest.mark.parametrize("name", READMES)
def test_every_listed_address_is_where_the_list_says(name: str) -> None:
    ours = {(host, place) for host, place in listed(name) if (ROOT / place).is_file()}
    assert ours - in_code() == set()
    for host, package in sorted(listed(name) - ours):
        assert any(host in text for text in sources(package)), (host, package)


def sources(package: str) -> list[str]:
    """The texts of an installed package's Python files."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is neither a file nor a package"
    assert spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations)))
    return [path.read_text("utf-8", "replace") for path in folder.rglob("*.py")]


def test_no_certificate_is_left_unchecked() -> None:
    """Nothing in the code turns the checks of certificates off."""
    off = re.compile(
        r"verify\s*=\s*False|CERT_NONE|_create_unverified_context|check_hostname\s*=\s*False"
        r"|--insecure|--trusted-host|PYTHONHTTPSVERIFY|curl\b.*\s-k\b|--no-check-certificate"
    )
    files = {path for pattern in CODE for path in ROOT.glob(pattern)}
    assert not [path.name for path in files if off.search(path.read_text("utf-8"))]
