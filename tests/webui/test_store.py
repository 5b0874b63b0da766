"""Chats as trees, whose they are, what a search finds, what a deletion removes, what a crash leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from instructblip.errors import UnknownTurn
from tests.tiny_picture import picture
from webui.records import TITLE_LENGTH, Chat, Turn
from webui.store import Store

quick = settings(deadline=None, max_examples=40)
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates and NUL among it


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all examples of a property; each example is an owner of its own."""
    return Store(tmp_path_factory.mktemp("shared"))


def somebody() -> str:
    return "a-" + uuid4().hex


def ask(
    store: Store, owner: str, chat: Chat, words: str = "What?", parent: Turn | None = None
) -> Turn:
    picture_id = store.add_picture(owner, picture())
    return store.add_turn(owner, chat.id, parent.id if parent else None, words, picture_id)


def finish(store: Store, turn: Turn, answer: str = "A cat.", ids: tuple[int, ...] = (1, 2)) -> None:
    store.finish_turn(
        turn.id, finish="stop", answer=answer, answer_ids=ids, qformer_text=turn.question,
        tokenizer="words", statistics={"new_tokens": 2.0},
    )  # fmt: skip


# --- turns ---------------------------------------------------------------------------------------


def test_a_turn_comes_back_as_it_was_written(store: Store) -> None:
    chat = store.new_chat("a-1")
    picture_id = store.add_picture("a-1", picture())
    turn = store.add_turn("a-1", chat.id, None, "What?", picture_id, {"layout": "keep"})
    assert (turn.finish, turn.answer, turn.answer_ids) == (None, "", ())
    store.finish_turn(
        turn.id, finish="error", answer="A", answer_ids=[5, 6], qformer_text="What? [SEP]",
        tokenizer="abc", statistics={"decode": 0.5}, error="No memory.", error_code="out_of_memory",
        error_values={"name": "x"},
    )  # fmt: skip
    kept = store.turn("a-1", turn.id)
    assert (kept.question, kept.picture_id, kept.parameters) == (
        "What?",
        picture_id,
        {"layout": "keep"},
    )
    assert (kept.finish, kept.answer, kept.answer_ids) == ("error", "A", (5, 6))
    assert (kept.qformer_text, kept.tokenizer) == ("What? [SEP]", "abc")
    assert (kept.error, kept.error_code, kept.error_values) == (
        "No memory.",
        "out_of_memory",
        {"name": "x"},
    )
    assert kept.statistics == {"decode": 0.5}


def test_retry_makes_a_version_and_edit_a_branch(store: Store) -> None:
    chat = store.new_chat("a-1")
    root = ask(store, "a-1", chat, "one")
    first = ask(store, "a-1", chat, "two", root)
    below = ask(store, "a-1", chat, "three", first)
    again = ask(store, "a-1", chat, "two", root)
    assert [turn.id for turn in store.path("a-1", chat.id)] == [root.id, again.id]
    assert [turn.id for turn in store.siblings("a-1", first.id)] == [first.id, again.id]
    store.set_leaf("a-1", chat.id, first.id, descend=True)
    assert store.path("a-1", chat.id)[-1] == below
    edited = ask(store, "a-1", chat, "another first question")
    assert [turn.id for turn in store.siblings("a-1", root.id)] == [root.id, edited.id]


def test_undo_of_the_first_question_shows_nothing_and_keeps_the_turn(store: Store) -> None:
    chat = store.new_chat("a-1")
    turn = ask(store, "a-1", chat)
    store.set_leaf("a-1", chat.id, None)
    assert store.path("a-1", chat.id) == []
    assert store.turn("a-1", turn.id) == turn
    assert [each.id for each in store.chats("a-1")] == [chat.id]


def test_a_turn_taken_back_leaves_the_chat_as_before(store: Store) -> None:
    chat = store.new_chat("a-1")
    refused = ask(store, "a-1", chat, "refused")
    store.drop_turn("a-1", refused.id)
    assert store.chats("a-1") == []
    root = ask(store, "a-1", chat, "taken")
    assert store.chat("a-1", chat.id).title == "taken"
    store.drop_turn("a-1", ask(store, "a-1", chat, "refused", root).id)
    assert [turn.id for turn in store.path("a-1", chat.id)] == [root.id]
    assert store.chat("a-1", chat.id).title == "taken"


def test_a_finished_answer_is_not_overwritten_by_a_late_save(store: Store) -> None:
    turn = ask(store, "a-1", store.new_chat("a-1"))
    store.write_answer(turn.id, "A c", [1])
    assert store.turn("a-1", turn.id).answer == "A c"
    finish(store, turn)
    store.write_answer(turn.id, "A", [1])
    assert store.turn("a-1", turn.id).answer == "A cat."


def test_a_parent_of_another_chat_is_refused(store: Store) -> None:
    one, two = store.new_chat("a-1"), store.new_chat("a-1")
    parent = ask(store, "a-1", one)
    with pytest.raises(UnknownTurn):
        ask(store, "a-1", two, parent=parent)
    with pytest.raises(UnknownTurn):
        store.set_leaf("a-1", two.id, parent.id)
    assert store.path("a-1", two.id) == []


@dataclass
class Tree:
    """What a chat should be, in plain Python: turn → parent, in the order in which they came."""

    parents: dict[str, str | None] = field(default_factory=dict)
    leaf: str | None = None

    def path(self, turn: str | None) -> list[str]:
        return [] if turn is None else [*self.path(self.parents[turn]), turn]

    def newest_below(self, turn: str) -> str:
        return [each for each in self.parents if turn in self.path(each)][-1]


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["ask", "retry", "undo", "version", "refused"]), st.integers(0, 99)),
    max_size=12,
)


@quick
@given(OPERATIONS)
def test_any_operations_give_the_tree_that_they_say(
    shared: Store, operations: list[tuple[str, int]]
) -> None:
    owner, tree = somebody(), Tree()
    chat = shared.new_chat(owner)
    picture_id = shared.add_picture(owner, picture())
    for name, number in operations:
        chosen = list(tree.parents)[number % len(tree.parents)] if tree.parents else None
        if name in ("ask", "refused") or chosen is None:
            parent = chosen if number % 2 else tree.leaf
            turn = shared.add_turn(owner, chat.id, parent, "q", picture_id)
            if name == "refused":
                shared.drop_turn(owner, turn.id)
                tree.leaf = parent
            else:
                tree.parents[turn.id] = parent
                tree.leaf = turn.id
        elif name == "retry":
            parent = tree.parents[chosen]
            turn = shared.add_turn(owner, chat.id, parent, "q", picture_id)
            tree.parents[turn.id] = parent
            tree.leaf = turn.id
        elif name == "undo":
            tree.leaf = tree.parents[chosen]
            shared.set_leaf(owner, chat.id, tree.leaf)
        else:
            tree.leaf = tree.newest_below(chosen)
            shared.set_leaf(owner, chat.id, chosen, descend=True)
        assert [turn.id for turn in shared.path(owner, chat.id)] == tree.path(tree.leaf)
    for turn_id, parent in tree.parents.items():
        versions = [each for each, other in tree.parents.items() if other == parent]
        assert [turn.id for turn in shared.siblings(owner, turn_id)] == versions


# --- owners --------------------------------------------------------------------------------------


def test_nothing_of_one_owner_is_reached_by_another(store: Store) -> None:
    chat = store.new_chat("a-1")
    turn = ask(store, "a-1", chat)
    own = store.new_chat("a-2")
    tries = (
        lambda: store.chat("a-2", chat.id),
        lambda: store.turn("a-2", turn.id),
        lambda: store.path("a-2", chat.id),
        lambda: store.path_to("a-2", turn.id),
        lambda: store.siblings("a-2", turn.id),
        lambda: store.set_leaf("a-2", chat.id, None),
        lambda: store.set_leaf("a-2", own.id, turn.id),
        lambda: store.rename_chat("a-2", chat.id, "mine"),
        lambda: store.delete_chat("a-2", chat.id),
        lambda: store.drop_turn("a-2", turn.id),
        lambda: store.picture_bytes("a-2", turn.picture_id),
        lambda: store.picture_mime("a-2", turn.picture_id),
        lambda: store.add_turn("a-2", chat.id, None, "q", turn.picture_id),
        lambda: store.add_turn("a-2", own.id, None, "q", turn.picture_id),
    )
    for attempt in tries:
        with pytest.raises(UnknownTurn):
            attempt()
    assert store.path("a-1", chat.id) == [turn]
    assert store.chats("a-2") == []
    assert not store.owns_picture("a-2", turn.picture_id)


@quick
@given(ANY_TEXT)
@example("\ud83d")
def test_a_forged_id_is_unknown_whatever_it_looks_like(shared: Store, forged: str) -> None:
    owner = somebody()
    chat = shared.new_chat(owner)
    for attempt in (
        lambda: shared.chat(owner, forged),
        lambda: shared.turn(owner, forged),
        lambda: shared.picture_path(owner, forged),
        lambda: shared.set_leaf(owner, chat.id, forged),
        lambda: shared.add_turn(owner, chat.id, forged, "q", "0" * 32),
    ):
        with pytest.raises(UnknownTurn) as caught:
            attempt()
        assert str(caught.value).encode()  # it can be shown and sent


def test_absent_and_foreign_look_the_same(store: Store) -> None:
    chat = store.new_chat("a-1")
    said = []
    for wanted in (chat.id, "0" * len(chat.id)):
        with pytest.raises(UnknownTurn) as caught:
            store.chat("a-2", wanted)
        said.append((caught.value.code, str(caught.value).replace(wanted, "ID")))
    assert said[0] == said[1]


def test_an_owner_has_answers_once_one_has_ended_with_words(store: Store) -> None:
    turn = ask(store, "a-1", store.new_chat("a-1"))
    finish(store, ask(store, "a-2", store.new_chat("a-2")), answer="")
    store.write_answer(turn.id, "A c", [1])
    assert not store.has_answers("a-1")
    finish(store, turn)
    assert store.has_answers("a-1")
    assert not store.has_answers("a-2")
    assert not store.has_answers("a-3")
    store.delete_chat("a-1", turn.chat_id)
    assert not store.has_answers("a-1")


# --- texts, titles, search -------------------------------------------------------------------------


@quick
@given(ANY_TEXT, ANY_TEXT)
@example("cut \ud83d", "a\0b")
def test_any_question_and_answer_is_kept_and_listed(
    shared: Store, question: str, answer: str
) -> None:
    owner = somebody()
    turn = ask(shared, owner, shared.new_chat(owner), question)
    finish(shared, turn, answer)
    kept = shared.turn(owner, turn.id)
    for said, given_text in ((kept.question, question), (kept.answer, answer)):
        assert said == given_text.encode("utf-8", "replace").decode()
    (listed,) = shared.chats(owner)
    assert len(listed.title) <= TITLE_LENGTH
    assert "\n" not in listed.title


@quick
@given(st.text(min_size=1), st.data())
def test_search_finds_every_piece_of_a_text(shared: Store, words: str, data: st.DataObject) -> None:
    owner = somebody()
    turn = ask(shared, owner, shared.new_chat(owner), words)
    start = data.draw(st.integers(0, len(words) - 1))
    piece = words[start : data.draw(st.integers(start + 1, len(words)))]
    assert [chat.id for chat in shared.chats(owner, piece)] == [turn.chat_id]
    assert [chat.id for chat in shared.chats(owner, piece.upper())] == [
        turn.chat_id for _ in range(piece.upper().strip().casefold() in words.casefold())
    ]


@quick
@given(ANY_TEXT)
@example("\ud83d")
def test_any_search_is_answered(shared: Store, words: str) -> None:
    owner = somebody()
    ask(shared, owner, shared.new_chat(owner), "What?")
    assert len(shared.chats(owner, words)) <= 1


def test_search_looks_at_answers_and_titles_and_takes_signs_literally(store: Store) -> None:
    chat = store.new_chat("a-1")
    finish(store, ask(store, "a-1", chat, "Was ist das?"), "Eine STRASSE, 100%_sicher")
    store.rename_chat("a-1", chat.id, "Müller’s 猫")
    for found in ("straße", "100%_", "MÜLLER", "猫", "  was ist "):
        assert store.chats("a-1", found), found
    for absent in ("100__", "%", "x"):
        assert bool(store.chats("a-1", absent)) is (absent == "%"), absent


def test_the_newest_chat_comes_first_and_empty_ones_are_not_listed(store: Store) -> None:
    one, two = store.new_chat("a-1"), store.new_chat("a-1")
    store.new_chat("a-1")
    first = ask(store, "a-1", one)
    ask(store, "a-1", two)
    assert [chat.id for chat in store.chats("a-1")] == [two.id, one.id]
    finish(store, first)
    assert [chat.id for chat in store.chats("a-1")] == [one.id, two.id]


def test_a_title_is_the_first_question_until_it_is_renamed(store: Store) -> None:
    chat = store.new_chat("a-1")
    root = ask(store, "a-1", chat, "What\n is " + "very " * 40 + "long?")
    title = store.chat("a-1", chat.id).title
    assert title.startswith("What is very")
    assert title.endswith("…")
    store.rename_chat("a-1", chat.id, "  Mine  ")
    ask(store, "a-1", chat, "more", root)
    assert store.chat("a-1", chat.id).title == "Mine"
    store.rename_chat("a-1", chat.id, " \n ")
    assert store.chat("a-1", chat.id).title == "Mine"  # a list needs something to click
    store.rename_chat("a-1", chat.id, "x" * 1000)
    assert len(store.chat("a-1", chat.id).title) == 200
