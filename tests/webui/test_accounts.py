"""Accounts, their file, the command that makes it, and the sessions that end."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from driver import ROOT

from instructblip.errors import InstructBlipError
from webui import login_sessions
from webui.accounts import Accounts
from webui.authfile import made_hash, matches, read_hashes, write_account
from webui.devices import Device, Devices
from webui.login_sessions import LoginSessions, Session
from webui.sessions import Signer
from webui.settings import Settings

SIGNER = Signer(b"k" * 32)
ONE, TWO = made_hash("one"), made_hash("two")

Make = Callable[..., Accounts]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(**values: object) -> Accounts:
        return Accounts(Settings(data=str(tmp_path / "data"), **values), SIGNER)

    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "logins"
    write_account(path, "ann", ONE)
    write_account(path, "bob", TWO)
    return path


# --- the file --------------------------------------------------------------------------------------


def test_a_hash_is_argon2id_with_the_parameters_that_are_promised() -> None:
    assert ONE.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert matches(ONE, "one")
    assert not matches(ONE, "two")
    assert not matches("$argon2id$damaged", "one")


def test_lines_are_set_and_removed_and_the_rest_stays(file: Path) -> None:
    file.write_text("# who\n\n" + file.read_text() + "# end\n")
    assert write_account(file, "ann", TWO)
    assert file.read_text() == f"# who\n\nann:{TWO}\nbob:{TWO}\n# end\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert write_account(file, "bob", None)
    assert not write_account(file, "bob", None)
    assert read_hashes(file) == {"ann": TWO}
    assert [path.name for path in file.parent.iterdir()] == ["logins"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("carl", "it is not NAME:HASH"),
        (f":{ONE}", "it is not NAME:HASH"),
        ("carl:secret", "no whole argon2id hash"),
        (f"carl:{ONE[:-30]}", "no whole argon2id hash"),
        (f"carl:{ONE} x", "no whole argon2id hash"),
        (f"carl:{ONE.replace('65536', '4194304')}", "no whole argon2id hash"),
        (f"carl:{ONE.replace('argon2id', 'argon2i')}", "no whole argon2id hash"),
        (f"ann:{TWO}", "has a line already"),
        (f"c\tl:{ONE}", "it is not NAME:HASH"),
    ],
    ids=range(9),  # a hash is another one each time
)
def test_a_wrong_line_is_named_by_its_number(file: Path, line: str, words: str, make: Make) -> None:
    file.write_text(f"{file.read_text()}\n# next\n{line}\n")
    for act in (
        lambda: read_hashes(file), lambda: make(auth_file=str(file)),
        lambda: write_account(file, "dora", ONE),
    ):  # fmt: skip
        with pytest.raises(InstructBlipError) as caught:
            act()
        assert f"{file}, line 5: " in str(caught.value)
        assert words in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_has_no_login_or_is_no_text(tmp_path: Path, make: Make) -> None:
    for content, words in ((None, "cannot be read"), (b"# none\n", "no login"), (b"\xff", "UTF-8")):
        path = tmp_path / "logins"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InstructBlipError, match=words):
            make(auth_file=str(path))


def test_a_name_is_in_one_place(file: Path, make: Make) -> None:
    with pytest.raises(InstructBlipError, match="'ann' is in --auth and in"):
        make(auth=("ann:x",), auth_file=str(file))


# --- the command -----------------------------------------------------------------------------------


def passwd(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "webui.passwd", *words], input=given, capture_output=True,
        text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_the_command_makes_changes_and_removes(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    done = passwd(str(path), "猫", given="näher\n")
    assert done.returncode == 0, done.stderr
    assert f"added to {path}" in done.stdout
    assert "--auth-file" in done.stdout
    assert "näher" not in done.stdout + done.stderr + path.read_text()
    assert matches(read_hashes(path)["猫"], "näher")
    assert "changed in" in passwd(str(path), "猫", given="other\n").stdout
    assert matches(read_hashes(path)["猫"], "other")
    assert "removed from" in passwd(str(path), "猫", "--remove").stdout
    assert read_hashes(path) == {}
    for words, given in (
        (("猫", "--remove"), ""),
        (("a:b",), "x\n"),
        (("ann",), "\n"),
        (("#",), "x"),
    ):
        done = passwd(str(path), *words, given=given)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("again", "code"), [("quiet", 0), ("other", 2)])
def test_at_a_terminal_it_asks_twice_without_an_echo(tmp_path: Path, again: str, code: int) -> None:
    path = tmp_path / "logins"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "webui.passwd", str(path), "ann"], cwd=ROOT, stdin=theirs,
        stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    for asked, words in ((b"Password: ", "quiet"), (b"Once more: ", again)):
        while asked not in seen:
            seen += os.read(ours, 1000)
        os.write(ours, words.encode() + b"\n")
    try:
        while chunk := os.read(ours, 1000):
            seen += chunk
    except OSError:  # the other side is closed
        pass
    assert process.wait(60) == code
    os.close(ours)
    assert b"quiet" not in seen
    assert path.exists() is (code == 0)


def test_the_command_needs_neither_torch_nor_gradio() -> None:
    code = "import sys, webui.passwd; print({'torch', 'gradio', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


# --- accounts --------------------------------------------------------------------------------------


def test_passwords_are_checked_wherever_they_come_from(file: Path, make: Make) -> None:
    accounts = make(auth=("carl:three",), auth_file=str(file))
    assert accounts.asked
    assert accounts.check("ann", "one")
    assert accounts.check("carl", "three")
    for name, password in (("ann", "two"), ("carl", "one"), ("nobody", "one"), ("", "")):
        assert not accounts.check(name, password)
    assert "three" not in repr(vars(accounts))


def test_without_logins_nothing_is_written(make: Make, tmp_path: Path) -> None:
    accounts = make()
    visitor = SIGNER.new_visitor()
    assert not accounts.asked
    assert accounts.visitor(SIGNER.cookie(visitor)) == visitor
    assert not (tmp_path / "data").exists()


def test_a_session_is_of_its_login_and_ends_when_left(make: Make) -> None:
    accounts = make(auth=("ann:x", "guest:y"))
    ann, guest = accounts.enter("ann", "1" * 32), accounts.enter("guest", "2" * 32)
    found = [accounts.visitor(cookie) for cookie in (ann, guest)]
    assert [(v.owner, v.login) for v in found if v] == [
        ("u-ann", "ann"), ("u-guest\0" + "2" * 32, "guest"),
    ]  # fmt: skip
    accounts.leave(ann)
    accounts.leave("nonsense")
    assert accounts.visitor(ann) is None
    assert accounts.visitor(guest) is not None
    for wrong in ("", "s1.", "s1." + "0" * 64, guest[:-1], guest + "0", "é", "s1." + "x" * 10_000):
        assert accounts.visitor(wrong) is None
    assert accounts.visitor(SIGNER.cookie(SIGNER.new_visitor())) is None


def test_sessions_live_over_a_restart_until_the_password_changes(
    make: Make, tmp_path: Path
) -> None:
    first = make(auth=("ann:x", "bob:y"))
    ann, bob, left = (first.enter(name, "1" * 32) for name in ("ann", "bob", "ann"))
    first.leave(left)
    first.close()
    again = make(auth=("ann:x", "bob:other"))
    assert again.visitor(ann) is not None
    assert again.visitor(bob) is None
    assert again.visitor(left) is None
    again.close()
    restored = make(auth=("ann:x", "bob:y"))
    assert restored.visitor(bob) is None  # what has ended stays so
    assert restored.visitor(ann) is not None
    for path in (tmp_path / "data").glob("logins.sqlite3*"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert ann.removeprefix("s1.").encode() not in path.read_bytes()


def test_a_changed_file_counts_at_once(
    file: Path, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    accounts = make(auth_file=str(file))
    ann, bob = accounts.enter("ann", "1" * 32), accounts.enter("bob", "1" * 32)
    kept = file.read_text()
    write_account(file, "ann", None)
    assert accounts.visitor(ann) is None
    assert accounts.visitor(bob) is not None
    assert not accounts.check("ann", "one")
    file.write_text(kept)
    assert accounts.check("ann", "one")
    assert accounts.visitor(ann) is None  # it had ended
    file.write_text(f"ann:{ONE}\nbob:broken\n")
    assert accounts.check("ann", "one")
    assert accounts.visitor(bob) is None
    assert f"{file}, line 2: " in caplog.text
    file.unlink()
    assert not accounts.check("ann", "one")
    assert "cannot be read" in caplog.text
    file.write_text(kept)
    assert accounts.visitor(bob) is not None  # half a file has ended nothing for good
    file.chmod(0o644)
    accounts.check("ann", "one")
    assert "can be read by other users" in caplog.text


def test_a_session_ends_with_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = make(auth=("ann:x",), login_idle=1.0)
    idle, used = accounts.enter("ann", "1" * 32), accounts.enter("ann", "1" * 32)
    begun = time.time()
    monkeypatch.setattr(login_sessions.time, "time", lambda: now)
    for hours in range(1, 10):
        now = begun + 0.9 * hours * 3600
        assert accounts.visitor(used) is not None
    assert accounts.visitor(idle) is None
    now = begun + login_sessions.AGE - 60
    accounts = make(auth=("ann:x",), login_idle=720.0)
    assert accounts.visitor(used) is not None
    now = begun + login_sessions.AGE + 60
    assert accounts.visitor(used) is None


def test_the_table_is_bounded_and_those_who_are_here_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_sessions, "PER_LOGIN", 20)
    table, now = LoginSessions(tmp_path, 3600), time.time()
    monkeypatch.setattr(login_sessions.time, "time", lambda: now)
    ann, guest = (table.begin(Session(name, f"u-{name}", "p")) for name in ("ann", "guest"))
    for _ in range(100):
        now += 61
        assert table.read(guest) is not None
        table.begin(Session("guest", "u-guest", "p"))
    assert table.read(guest) is not None
    assert table._database.execute("SELECT count(*) FROM sessions").fetchone() == (20,)
    assert table.read(ann) is None  # idle for more than an hour


def test_a_damaged_table_is_moved_aside_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logins.sqlite3").write_bytes(b"no database, and not empty " * 100)
    table = LoginSessions(tmp_path, 3600)
    assert table.read(table.begin(Session("ann", "u-ann", "p"))) == Session("ann", "u-ann", "p")
    assert "all log in again" in caplog.text
    assert len(list(tmp_path.glob("logins.sqlite3.damaged-*"))) == 1


# --- browsers --------------------------------------------------------------------------------------


def test_a_browser_is_known_for_one_login_and_trusted_for_one_password() -> None:
    devices = Devices(SIGNER)
    number = "1" * 32
    cookies = {Devices.cookie_name("ann"): devices.value("ann", number, "proof")}
    assert devices.read("ann", cookies, "proof") == Device(number, True)
    assert devices.read("ann", cookies, "other") == Device(number, False)
    assert devices.read("bob", cookies, "proof") is None
    renamed = {Devices.cookie_name("bob"): cookies[Devices.cookie_name("ann")]}
    assert devices.read("bob", renamed, "proof") is None
    assert Devices(Signer(b"l" * 32)).read("ann", cookies, "proof") is None
    value = cookies[Devices.cookie_name("ann")]
    for wrong in (value[:-1], value + "0", value.replace("1" * 32, "2" * 32), "", "é"):
        found = devices.read("ann", {Devices.cookie_name("ann"): wrong}, "proof")
        assert found is None
