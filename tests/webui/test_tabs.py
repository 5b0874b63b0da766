"""Whose a tab is, and when it is forgotten."""

from collections import Counter

import pytest

from instructblip.errors import Busy, UnknownTurn
from webui.bounds import Client
from webui.tabs import EVENTS, PER_ADDRESS, PER_OWNER, SILENT, STREAMS, TOTAL, Tabs

ME, OTHER = Client("me", known=True), Client("other", known=True)


class Tables:
    """Stands for what Gradio keeps."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []
        self.waiting: Counter[str] = Counter()

    def forget(self, session: str) -> None:
        self.forgotten.append(session)

    def pending(self, session: str) -> int:
        return self.waiting[session]

    def queued(self, session: str) -> bool:
        return session in self.waiting

    def sweep(self) -> None:
        pass


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def tabs(tables: Tables) -> Tabs:
    return Tabs(tables, keep=0)


def test_a_tab_is_of_whoever_used_it_first(tabs: Tabs) -> None:
    tabs.claim(ME, "abcd")
    tabs.claim(ME, "abcd")
    with pytest.raises(UnknownTurn) as caught:
        tabs.claim(OTHER, "abcd")
    assert caught.value.code == "tab_foreign"
    tabs.claim(ME, "abcd")


def test_a_tab_without_a_stream_is_forgotten(tabs: Tabs, tables: Tables) -> None:
    for session in ("open", "gone"):
        tabs.claim(ME, session)
    with tabs.streaming("open"):
        assert tabs.sweep() == 1
    assert tables.forgotten == ["gone"]
    assert tabs.sweep() == 1
    assert len(tabs) == 0
    tabs.claim(OTHER, "gone")  # now anybody's


def test_an_owner_with_many_tabs_loses_his_own_oldest(tabs: Tabs, tables: Tables) -> None:
    tabs.claim(OTHER, "other")
    for n in range(PER_OWNER + 3):
        tabs.claim(ME, f"mine{n}")
    assert tables.forgotten == ["mine0", "mine1", "mine2"]
    with tabs.streaming("other"):
        pass


def test_a_new_cookie_for_each_request_ends_nobodys_stream(tabs: Tabs, tables: Tables) -> None:
    newcomer = Client("new")
    tabs.claim(newcomer, "victim")
    tabs.claim(ME, "mine")
    with tabs.streaming("victim"), tabs.streaming("mine"):
        for n in range(3000):
            tabs.claim(Client(f"a-{n}"), f"evil{n}")
    assert {"victim", "mine"}.isdisjoint(tables.forgotten)
    assert len(tabs) <= SILENT + 2  # half a megabyte each is kept of tabs


def test_an_address_has_its_bound(tabs: Tabs) -> None:
    def open_many(address: str | None) -> int:
        held = []
        for n in range(TOTAL + 10):
            try:
                tabs.claim(
                    Client(f"{address}{n}", address, known=True), f"s{address}{n}".replace(".", "")
                )
            except Busy:
                break
            held.append(tabs.streaming(f"s{address}{n}".replace(".", "")))
            held[-1].__enter__()
        return len(held)

    assert open_many("203.0.113.1") == PER_ADDRESS
    assert open_many(None) == TOTAL - PER_ADDRESS


def test_of_all_open_streams_some_room_is_kept_for_those_who_have_answers(tabs: Tabs) -> None:
    held = []

    def open_many() -> None:
        for n in range(TOTAL):
            tabs.claim(Client(f"a-{n}"), f"evil{n}")
            held.append(tabs.streaming(f"evil{n}"))
            held[-1].__enter__()

    with pytest.raises(Busy) as caught:
        open_many()
    assert caught.value.code == "busy_tabs_all"
    for n in range(20):
        tabs.claim(Client(f"here-{n}", known=True), f"here{n}")


def test_a_tab_has_few_streams_and_few_events(tabs: Tabs, tables: Tables) -> None:
    tabs.claim(ME, "mine")
    with pytest.raises(UnknownTurn):
        tabs.check_stream("mine", events=True)
    tables.waiting["mine"] = EVENTS
    tabs.check_stream("mine", events=True)
    held = [tabs.streaming("mine") for _ in range(STREAMS)]
    for stream in held:
        stream.__enter__()
    with pytest.raises(Busy), tabs.streaming("mine"):
        pass
    with pytest.raises(Busy):
        tabs.check_events("mine")
