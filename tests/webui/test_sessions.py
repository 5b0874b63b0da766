"""The signed owner cookie, the key it is signed with, and how much one owner may have running."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from starlette.requests import Request

from instructblip.errors import BadRequest, Busy, InstructBlipError
from webui import sessions
from webui.sessions import (
    COOKIE_AGE,
    LOGIN_AGE,
    Admission,
    Signer,
    Visitor,
    load_key,
    owner_of,
)
from webui.settings import Settings

SIGNER = Signer(b"k" * 32)
LOGINS = {"ann": "secret", "bob": "words"}
NAMES = st.text(min_size=1, max_size=100).map(str.strip).filter(lambda n: n.isprintable() and n)


# --- cookies ---------------------------------------------------------------------------------------


def test_a_visitor_is_known_again() -> None:
    made = [SIGNER.new_visitor() for _ in range(20)]
    assert len({visitor.owner for visitor in made}) == 20
    for visitor in made:
        assert SIGNER.read(SIGNER.cookie(visitor), {}) == visitor


@given(
    NAMES.filter(lambda name: ":" not in name and "," not in name),
    st.text(min_size=1),
    st.booleans(),
)
@example("𝔘" * 100, "p", True)
@example("猫" * 100, "密码", True)
def test_every_login_that_may_be_set_up_is_known_again(
    name: str, password: str, shared: bool
) -> None:
    assume(password.isprintable())
    known = Settings(auth=(f"{name}:{password}",)).logins
    visitor = SIGNER.visitor_of_login(name, shared)
    cookie = SIGNER.cookie(visitor, password)
    assert SIGNER.read(cookie, known) == visitor
    assert len(cookie) < 4000  # what browsers keep
    assert cookie.isascii()
    assert not set(cookie) & set(' ";,\\')
    other = SIGNER.visitor_of_login(name, shared)
    assert (other == visitor) is not shared


def test_a_logins_cookie_ends_with_its_password_and_its_login() -> None:
    cookie = SIGNER.cookie(SIGNER.visitor_of_login("ann"), "secret")
    assert SIGNER.read(cookie, LOGINS) == Visitor("u-ann", "ann")
    assert SIGNER.read(cookie, {"ann": "changed"}) is None
    assert SIGNER.read(cookie, {"bob": "secret"}) is None
    assert SIGNER.read(cookie, {}) is None
    assert SIGNER.read(SIGNER.cookie(SIGNER.new_visitor()), LOGINS) is None


def test_a_login_cannot_become_another_visitor() -> None:
    owners = {
        SIGNER.visitor_of_login("ann").owner,
        SIGNER.visitor_of_login("ann", shared=True).owner,
        SIGNER.visitor_of_login("bob").owner,
        SIGNER.new_visitor().owner,
    }
    assert len(owners) == 4


@pytest.mark.parametrize(("logins", "age"), [({}, COOKIE_AGE), (LOGINS, LOGIN_AGE)])
def test_an_old_cookie_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, logins: dict[str, str], age: int
) -> None:
    visitor = SIGNER.visitor_of_login("ann") if logins else SIGNER.new_visitor()
    cookie = SIGNER.cookie(visitor, logins.get("ann", ""))
    now = time.time()
    monkeypatch.setattr(sessions.time, "time", lambda: now + age - 60)
    assert SIGNER.read(cookie, logins) == visitor
    monkeypatch.setattr(sessions.time, "time", lambda: now + age + 60)
    assert SIGNER.read(cookie, logins) is None


@given(st.text(st.characters(exclude_categories=())))
@example("v1.zz.1." + "0" * 64)
@example("v1.ff.1." + "0" * 64)
@example("a1." + "0" * 32 + ".1." + "0" * 64)
@example("a1." + "0" * 32 + ".٣." + "0" * 64)
def test_no_made_up_cookie_is_taken(value: str) -> None:
    for logins in ({}, LOGINS):
        assert SIGNER.read(value, logins) is None


@given(st.data())
def test_no_changed_cookie_is_taken(data: st.DataObject) -> None:
    logins = data.draw(st.sampled_from([{}, LOGINS]))
    visitor = SIGNER.visitor_of_login("ann") if logins else SIGNER.new_visitor()
    cookie = SIGNER.cookie(visitor, logins.get("ann", ""))
    at = data.draw(st.integers(0, len(cookie) - 1))
    changed = cookie[:at] + data.draw(st.sampled_from("0123456789abcdefv. ")) + cookie[at + 1 :]
    assume(changed != cookie)
    for shape in (changed, cookie[:at], cookie + changed[at], cookie + "\n"):
        assert SIGNER.read(shape, logins) is None


def test_another_servers_cookie_is_not_taken() -> None:
    assert Signer(b"l" * 32).read(SIGNER.cookie(SIGNER.new_visitor()), {}) is None


# --- the key ---------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    key = load_key(tmp_path / "data")
    assert load_key(tmp_path / "data") == key
    assert load_key(tmp_path / "other") != key
    (file,) = (tmp_path / "data").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_servers_that_start_together_have_one_key(tmp_path: Path) -> None:
    keys: list[bytes] = []
    threads = [Thread(target=lambda: keys.append(load_key(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cookie.key"]


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cookie.key").write_bytes(content)
    with pytest.raises(InstructBlipError) as caught:
        load_key(tmp_path)
    assert caught.value.code == "key_damaged"
    assert "cookie.key" in str(caught.value)
    assert "Delete it" in str(caught.value)


def test_a_folder_that_cannot_hold_a_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InstructBlipError) as caught:
        load_key(tmp_path / "file")
    assert caught.value.code == "store_unwritable"
    assert "--data" in str(caught.value)


# --- who asks --------------------------------------------------------------------------------------


def test_the_owner_is_what_the_guard_found() -> None:
    request = Request({"type": "http", "instructblip.visitor": Visitor("a-1")})
    assert owner_of(request) == "a-1"


@pytest.mark.parametrize("found", [None, "a-1", {"owner": "a-1"}])
def test_nothing_else_makes_an_owner(found: object) -> None:
    for request in (Request({"type": "http", "instructblip.visitor": found}), None, "a-1"):
        with pytest.raises(BadRequest) as caught:
            owner_of(request)
        assert caught.value.code == "no_owner"


# --- how much --------------------------------------------------------------------------------------


class AdmissionMachine(RuleBasedStateMachine):
    """Any order of comings and goings against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.admission, self.running, self.number = Admission(2), [], 0

    running: list[tuple[str, str, str]]

    @rule(owner=st.sampled_from("xyz"), chat=st.sampled_from("123"))
    def enter(self, owner: str, chat: str) -> None:
        self.number += 1
        mine = [each[1] for each in self.running if each[0] == owner]
        try:
            self.admission.enter(owner, chat, str(self.number))
            code = ""
        except Busy as error:
            code = error.code
        wanted = "busy_chat" if chat in mine else "busy_owner" if len(mine) >= 2 else ""
        assert code == wanted
        if not code:
            self.running.append((owner, chat, str(self.number)))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 10))
    def leave(self, which: int) -> None:
        self.admission.leave(self.running.pop(which % len(self.running))[2])

    @rule()
    def leave_twice(self) -> None:
        self.admission.leave("0")

    @invariant()
    def checking_changes_nothing(self) -> None:
        for owner, chat, _ in self.running:
            with pytest.raises(Busy):
                self.admission.check(owner, chat)
        self.admission.check("nobody", "1")


TestAdmission = AdmissionMachine.TestCase
