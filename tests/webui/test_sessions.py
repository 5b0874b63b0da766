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
from webui.bounds import Client
from webui.sessions import (
    COOKIE_AGE,
    Admission,
    Signer,
    Visitor,
    load_key,
    login_of,
    owner_of,
)

SIGNER = Signer(b"k" * 32)
# Written by version 0.1 with this key: no login, the login ann, and a browser with the login guest.
OLD_VISITOR = (
    "a1.0123456789abcdef0123456789abcdef.1790000000."
    "0a808154a8c14082880e0cae2bdd8705e51e551772aad119144570af8a481ff9"
)
OLD_ANN = "v1.616e6e.1790000000.57fad741bd9af86bee86390b70398523d30a8354fbc866ff16e6684cb46f4561"
OLD_GUEST = (
    "v1.6775657374003031323334353637383961626364656630313233343536373839616263646566.1790000000."
    "3bde768261f429242bd9632dacda9f103fb570fd9c22b759b753ad4b363bf89e"
)


# --- cookies ---------------------------------------------------------------------------------------


def test_a_visitor_is_known_again() -> None:
    made = [SIGNER.new_visitor() for _ in range(20)]
    assert len({visitor.owner for visitor in made}) == 20
    for visitor in made:
        cookie = SIGNER.cookie(visitor)
        assert SIGNER.read(cookie) == visitor
        assert cookie.isascii()
        assert not set(cookie) & set(' ";,\\')


def test_a_visitors_cookie_of_version_0_1_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.time, "time", lambda: 1790000000 + 3600)
    assert SIGNER.read(OLD_VISITOR) == Visitor("a-0123456789abcdef0123456789abcdef")


def test_a_logins_cookie_of_version_0_1_lets_nobody_in_and_names_its_chats() -> None:
    assert SIGNER.read(OLD_ANN) is None
    assert SIGNER.read(OLD_GUEST) is None
    assert SIGNER.old_account(OLD_ANN, "secret") == "ann"
    assert SIGNER.old_account(OLD_GUEST, "words") == "guest\x000123456789abcdef0123456789abcdef"
    assert SIGNER.old_account(OLD_GUEST, "secret") is None
    assert SIGNER.old_account(OLD_VISITOR, "") is None
    assert SIGNER.old_account(OLD_ANN[:-1] + "0", "secret") is None


def test_an_old_cookie_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = SIGNER.new_visitor()
    cookie = SIGNER.cookie(visitor)
    now = time.time()
    monkeypatch.setattr(sessions.time, "time", lambda: now + COOKIE_AGE - 60)
    assert SIGNER.read(cookie) == visitor
    monkeypatch.setattr(sessions.time, "time", lambda: now + COOKIE_AGE + 60)
    assert SIGNER.read(cookie) is None


@given(st.text(st.characters(exclude_categories=())))
@example("v1.zz.1." + "0" * 64)
@example("v1.ff.1." + "0" * 64)
@example("a1." + "0" * 32 + ".1." + "0" * 64)
@example("a1." + "0" * 32 + ".٣." + "0" * 64)
def test_no_made_up_cookie_is_taken(value: str) -> None:
    assert SIGNER.read(value) is None
    assert SIGNER.old_account(value, "secret") is None


@given(st.data())
def test_no_changed_cookie_is_taken(data: st.DataObject) -> None:
    cookie = SIGNER.cookie(SIGNER.new_visitor())
    at = data.draw(st.integers(0, len(cookie) - 1))
    changed = cookie[:at] + data.draw(st.sampled_from("0123456789abcdefv. ")) + cookie[at + 1 :]
    assume(changed != cookie)
    for shape in (changed, cookie[:at], cookie + changed[at], cookie + "\n"):
        assert SIGNER.read(shape) is None


def test_another_servers_cookie_is_not_taken() -> None:
    assert Signer(b"l" * 32).read(SIGNER.cookie(SIGNER.new_visitor())) is None


@pytest.mark.parametrize(
    ("owner", "login"), [("u-ann", "ann"), ("u-guest\0" + "0" * 32, "guest"), ("a-12", None)]
)
def test_an_owner_tells_the_login(owner: str, login: str | None) -> None:
    assert login_of(owner) == login


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
            self.admission.enter(Client(owner), chat, str(self.number))
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
                self.admission.check(Client(owner), chat)
        self.admission.check(Client("nobody"), "1")


TestAdmission = AdmissionMachine.TestCase


def test_newcomers_leave_a_part_of_all_answers_to_those_who_have_some() -> None:
    """One hostile visitor behind the tunnel, with a new cookie for each question."""
    admission = Admission(2, total=20)

    def ask_many() -> None:
        for n in range(100):
            admission.enter(Client(f"a-{n}"), f"chat {n}", f"turn {n}")

    with pytest.raises(Busy) as caught:
        ask_many()
    assert caught.value.code == "busy_answers_all"
    for n in range(5):
        admission.enter(Client(f"here-{n}", known=True), f"c{n}", f"t{n}")


def test_an_address_has_four_times_an_owners_answers() -> None:
    admission = Admission(2, total=100)
    clients = [Client(f"a-{n}", "203.0.113.9", known=True) for n in range(9)]
    for n, client in enumerate(clients[:8]):
        admission.enter(client, f"c{n}", f"t{n}")
    with pytest.raises(Busy) as caught:
        admission.enter(clients[8], "c8", "t8")
    assert caught.value.code == "busy_answers"
    admission.leave("t0")
    admission.enter(clients[8], "c8", "t8")
