"""The two READMEs: their commands work, their files exist, and they say the same."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pytest

from instructblip import cli
from instructblip.ascend import cann_rows
from tests.launch.conftest import Tree
from tests.tiny import make_checkpoint
from webui import passwd
from webui.authfile import read_hashes
from webui.settings import Settings, parser, read_settings

ROOT = Path(__file__).resolve().parents[1]
FILES = ("README.md", "README.zh-CN.md")
PLACEHOLDER = re.compile(r"[A-Z]{3,}|[^\x00-\x7f]+")


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def fenced(text: str) -> list[str]:
    """The command lines of the fenced blocks, without comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [shlex.join(shlex.split(line, comments=True)) for line in lines]


def spans(text: str) -> list[str]:
    """The inline code."""
    return re.findall(
        r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    )


def without_port(text: str) -> str:
    """The text without the table of the port's steps, which tests/test_port.py follows."""
    return re.sub(r"^<!-- port -->$.*?^<!-- end -->$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """All that a reader may type into a shell."""
    text = without_port(text)
    return fenced(text) + [span for span in spans(text) if span.startswith(("bash ", "pytest "))]


def flags(text: str) -> list[str]:
    """Flags that stand alone."""
    return [span for span in spans(text) if span.startswith("--")]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables, as cells."""
    lines = [line.strip() for line in text.splitlines() if line.lstrip().startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def links(text: str) -> list[str]:
    """Files that are linked, pictures among them."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [t.partition("#")[0] for t in targets if "://" not in t and not t.startswith("#")]


def bare(code: str) -> str:
    """Code without the words that stand for the reader's own, which are translated."""
    return PLACEHOLDER.sub("…", code)


def all_commands() -> list[str]:
    return list(dict.fromkeys(command for name in FILES for command in commands(read(name))))


def passed_on(stdout: str) -> list[str]:
    """What the fake Python of the launch tests was called with."""
    found = re.findall(r"^<.*>$", stdout, re.MULTILINE)
    return found[-1][1:-1].split("><") if found else []


def launched(tree: Tree, command: str) -> list[str]:
    """Run a command's ``bash launch.sh …`` on a made-up machine; the Python module and arguments."""
    words = shlex.split(command)
    assert words[:2] == ["bash", "launch.sh"]
    for word in words:
        if word in ("DIR", "目录") and "--wheelhouse" in words:
            (tree.home / word).mkdir()
    done = tree.launch(*words[2:])
    assert done.returncode == 0, done.stderr
    return passed_on(done.stdout)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A machine with a fake Python, as the tests of launch.sh have it."""
    made = Tree(tmp_path)
    made.python()
    return made


def with_folders(arguments: list[str], home: Path) -> list[str]:
    """The reader's own folders: a checkpoint that is there, and a place for a new one."""
    if {"FOLDER", "文件夹"} & set(arguments):
        made = str(make_checkpoint(home / "checkpoint", width=128))
        new = str(home / "converted")
        real = {"FOLDER": made, "文件夹": made, "CONVERTED": new, "新文件夹": new}
        return [real.get(word, word) for word in arguments]
    return arguments


# --- the commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", all_commands())
def test_a_command_is_understood(
    command: str, tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    if words[0] == "pytest":
        assert all((ROOT / word).exists() for word in words[1:])
        return
    arguments = launched(tree, command)
    if words[2:3] == ["install"]:
        assert tree.installs()
        assert arguments == []
    elif words[2:3] == ["test"]:
        assert arguments[:2] == ["-m", "pytest"]
        assert not [a for a in arguments[2:] if a.startswith("tests")]  # all of them
    elif words[2:3] == ["wheelhouse"]:
        assert tree.calls("-m pip download")
    elif "--page-help" in words:
        assert arguments == ["-P", "-m", "webui", "--help"]
        with pytest.raises(SystemExit, match="0"):
            read_settings(["--help"], {})
        assert "--tunnel-command" in capsys.readouterr().out
    elif arguments[2] == "webui":
        assert arguments[:2] == ["-P", "-m"]
        assert isinstance(read_settings(arguments[3:], {}), Settings)
    elif arguments[2] == "webui.passwd":
        monkeypatch.chdir(tree.home)
        monkeypatch.setattr("sys.stdin", io.StringIO("a password\n"))
        assert passwd.main(arguments[3:]) == 0
        assert arguments[4] in read_hashes(Path(arguments[3]))
    else:  # on the embedded model, or a small one in the reader's folder, for real
        assert arguments[:3] == ["-P", "-m", "instructblip"]
        arguments = with_folders(arguments, tree.home)
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr("sys.stdin", io.StringIO("What is in the picture?\n/quit\n"))
        assert cli.main(arguments[3:]) == 0
        assert re.search(r"\w \w+.*\.", capsys.readouterr().out)  # a sentence


@pytest.mark.parametrize("name", FILES)
def test_the_flags_it_names_are_the_pages_or_those_of_infer(name: str) -> None:
    known = [option for action in parser()._actions for option in action.option_strings]
    commands = next(a for a in cli._parser()._actions if a.dest == "command").choices
    for flag in flags(read(name)):
        words = shlex.split(flag)
        if words[0] not in known:
            infer = dict(commands)["infer"]  # type: ignore[arg-type]
            assert words[0] in infer._option_string_actions
            assert len(words) == 1 or infer.parse_args(["--img_path", "x", *words])
        elif len(words) > 1:
            assert isinstance(read_settings(words, {}), Settings)


def test_the_flags_of_the_launchers_help_are_the_pages(tree: Tree) -> None:
    page = tree.launch("--help").stdout.partition("Options for the page:")[2]
    named = re.findall(r"^  (--[a-z-]+)", page.partition("Options for the installation")[0], re.M)
    known = {option for action in parser()._actions for option in action.option_strings}
    assert set(named) <= known
    assert {"--model", "--device", "--host", "--port", "--share", "--auth"} <= set(named)


def test_what_it_says_of_the_page_holds() -> None:
    settings = Settings()
    for name in FILES:
        assert f"http://{settings.host}:{settings.port}" in read(name)
        assert f"`{settings.data}/`" in read(name)
    with pytest.MonkeyPatch.context() as patch:  # "each is also an INSTRUCTBLIP_… variable"
        patch.setenv("INSTRUCTBLIP_TUNNEL_COMMAND", "x {port}")
        assert read_settings([]).tunnel_command == "x {port}"


@pytest.mark.parametrize(("name", "to"), zip(FILES, (" to ", " 至 "), strict=True))
def test_the_table_of_canns_is_the_launchers(name: str, to: str) -> None:
    found = re.search(r"^\| CANN \|.*\n\| ---.*\n((?:\|.*\n)+)", read(name), re.MULTILINE)
    assert found is not None
    oldest = "3.11"  # pyproject.toml's
    assert rows(found[1]) == [
        [row.cann, ", ".join(row.torch_npu), to.join(dict.fromkeys((oldest, row.newest_python)))]
        for row in cann_rows()
    ]


# --- both say the same -----------------------------------------------------------------------------


def test_both_hold_the_same_commands() -> None:
    english, chinese = ([bare(c) for c in commands(read(name))] for name in FILES)
    assert chinese == english
    assert len(english) > 8


def test_both_hold_the_same_code() -> None:
    english, chinese = (sorted(bare(c) for c in spans(read(name))) for name in FILES)
    assert chinese == english


def test_both_hold_the_same_sections() -> None:
    english, chinese = (re.findall(r"^(#+) ", read(name), re.MULTILINE) for name in FILES)
    assert chinese == english
    english, chinese = (re.findall(r"^( *[-*]|\d+\.) ", read(name), re.MULTILINE) for name in FILES)
    assert chinese == english


def test_the_tables_have_the_same_rows() -> None:
    english, chinese = (rows(read(name)) for name in FILES)
    assert [len(row) for row in chinese] == [len(row) for row in english]
    for one, other in zip(english, chinese, strict=True):
        for cell, translated in zip(one, other, strict=True):
            assert numbers(translated) == numbers(cell), (cell, translated)
            assert sorted(map(bare, spans(translated))) == sorted(map(bare, spans(cell)))


def numbers(cell: str) -> list[str]:
    """Figures and dates, wherever the sentence puts them."""
    return sorted(re.findall(r"\d[\d.,:-]*", cell))


def test_both_link_the_same_files_and_each_other() -> None:
    english, chinese = (links(read(name)) for name in FILES)
    assert FILES[1] in english
    assert FILES[0] in chinese
    assert sorted(set(chinese) - set(FILES)) == sorted(set(english) - set(FILES))


# --- the files -------------------------------------------------------------------------------------


def documents() -> list[str]:
    """All texts of the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "assets").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@pytest.mark.parametrize("name", documents())
def test_what_is_linked_exists(name: str) -> None:
    folder = (ROOT / name).parent
    missing = [target for target in links(read(name)) if not (folder / target).exists()]
    assert not missing


@pytest.mark.parametrize("name", FILES)
def test_named_files_of_the_repository_exist(name: str) -> None:
    named = [
        word for span in spans(read(name)) for word in span.split()
        if word.startswith(("assets/", "tests/", "instructblip/", "webui/"))
    ]  # fmt: skip
    assert [word for word in named if not (ROOT / word).exists()] == []
