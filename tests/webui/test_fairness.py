"""The fair line: everybody has a turn, at every level."""

from hypothesis import given
from hypothesis import strategies as st

from webui.fairness import FairLine, SharedLine

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


def test_who_takes_long_gets_no_more_time_than_who_is_quick() -> None:
    line: SharedLine[str] = SharedLine()
    for n in range(100):
        line.add(f"slow {n}", (False, f"new cookie {n}"))
        line.add(f"quick {n}", (True, "one"))
    took = {"slow": 0.0, "quick": 0.0}
    for _ in range(66):
        kind = (line.take() or "").split()[0]
        seconds = 2.0 if kind == "slow" else 0.1
        took[kind] += seconds
        line.charge(kind == "quick", seconds)
    assert abs(took["slow"] - took["quick"]) <= 2.0


def test_who_was_away_has_saved_up_little() -> None:
    line: SharedLine[int] = SharedLine()
    for n in range(50):
        line.add(n, (False, "busy"))
        line.take()
        line.charge(False, 1.0)
    for n in range(10):
        line.add(n, (False, "busy"))
        line.add(n + 100, (True, "comes back"))
    first = []
    for _ in range(6):
        first.append(line.take() or 0)
        line.charge(first[-1] >= 100, 1.0)
    assert 2 <= sum(n >= 100 for n in first) <= 4


def test_what_left_a_shared_line_is_not_taken() -> None:
    line: SharedLine[int] = SharedLine()
    line.add(1, (True, "a"))
    line.remove(2, (False, "b"))
    line.remove(1, (True, "a"))
    assert not line
    assert not line.waits(True)
    assert line.take() is None
