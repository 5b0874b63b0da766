"""The fair line: everybody has a turn, at every level."""

from hypothesis import given
from hypothesis import strategies as st

from webui.fairness import FairLine

KEYS = st.tuples(st.booleans(), st.sampled_from("xyz"), st.sampled_from("abc"))


def drained(line: FairLine[int]) -> list[int]:
    items = []
    while line:
        item = line.take()
        assert item is not None
        items.append(item)
    assert line.take() is None
    return items


def test_owners_take_turns() -> None:
    line: FairLine[int] = FairLine()
    for n in range(5):
        line.add(n, ("many",))
    line.add(10, ("one",))
    line.add(20, ("two",))
    assert drained(line) == [0, 10, 20, 1, 2, 3, 4]


def test_an_address_with_many_owners_has_one_turn_in_a_round() -> None:
    line: FairLine[int] = FairLine()
    for n in range(5):
        line.add(n, ("address", f"new cookie {n}"))
    line.add(10, ("other address", "somebody"))
    assert drained(line)[:2] == [0, 10]


def test_who_comes_back_at_once_does_not_overtake() -> None:
    line: FairLine[str] = FairLine()
    line.add("a1", ("a",))
    line.add("b1", ("b",))
    line.add("b2", ("b",))
    assert line.take() == "a1"
    line.add("a2", ("a",))
    assert [line.take() for _ in range(3)] == ["b1", "a2", "b2"]


@given(st.lists(KEYS, max_size=30), st.data())
def test_each_is_taken_once_unless_it_leaves_and_nothing_is_kept(keys, data) -> None:
    line: FairLine[int] = FairLine()
    for number, key in enumerate(keys):
        line.add(number, key)
    gone = data.draw(st.sets(st.integers(0, max(len(keys) - 1, 0)))) if keys else set()
    for number in gone:
        line.remove(number, keys[number])
        line.remove(number, keys[number])
    assert sorted(drained(line)) == [n for n in range(len(keys)) if n not in gone]
    assert not line._groups
