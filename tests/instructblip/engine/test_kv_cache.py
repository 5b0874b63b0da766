"""The arena: which slot a prompt gets, and what is in it."""

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instructblip.engine.kv_cache import Arena, CacheShape, Slot, rows_within
from instructblip.errors import OutOfMemory

SHAPE = CacheShape(layers=2, heads=2, width=4)


def arena(rows: int = 3, length: int = 32) -> Arena:
    return Arena(SHAPE, rows, length, torch.float32, torch.device("cpu"))


def write(a: Arena, slot: Slot, keys: list[int]) -> None:
    """Fill positions with numbers that tell their key and layer."""
    start = len(slot.keys)
    for n, key in enumerate(keys):
        for layer, buffer in enumerate((*a.keys, *a.values)):
            buffer[slot.row, :, start + n] = key * 10 + layer
    a.extend(slot, keys)


def holds(a: Arena, slot: Slot) -> list[float]:
    at = range(len(slot.keys))
    for layer, buffer in enumerate((*a.keys, *a.values)):
        for n in at:
            assert (buffer[slot.row, :, n] == slot.keys[n] * 10 + layer).all()
    return list(slot.keys)


def serve(a: Arena, keys: list[int]) -> tuple[Slot, int]:
    """As a request does: take, write what is missing, release."""
    taken = a.take(keys)
    assert taken is not None
    slot, reused = taken
    assert slot.keys == keys[:reused]
    write(a, slot, keys[reused:])
    assert holds(a, slot) == keys
    slot.busy = False
    return slot, reused


def test_a_conversation_goes_on_in_its_slot() -> None:
    a = arena()
    first, _ = serve(a, [1, 2, 3])
    again, reused = serve(a, [1, 2, 3, 4, 5])
    assert (again, reused) == (first, 3)


def test_the_same_prompt_again_computes_its_last_position() -> None:
    a = arena()
    serve(a, [1, 2, 3])
    assert serve(a, [1, 2, 3])[1] == 2


def test_a_branch_copies_its_prefix_and_leaves_the_old_one_whole() -> None:
    a = arena()
    old, _ = serve(a, [1, 2, 3, 4])
    branch, reused = serve(a, [1, 2, 9, 8])
    assert reused == 2
    assert branch is not old
    assert holds(a, old) == [1, 2, 3, 4]
    assert serve(a, [1, 2, 3, 4, 5]) == (old, 4)


def test_a_running_conversation_is_branched_by_copy_even_when_it_is_a_whole_prefix() -> None:
    a = arena()
    old, _ = serve(a, [1, 2, 3])
    old.busy = True
    other, reused = serve(a, [1, 2, 3, 7])
    assert other is not old
    assert reused == 3
    assert holds(a, old) == [1, 2, 3]


def test_with_all_slots_taken_there_is_none_and_the_least_used_goes_first() -> None:
    a = arena(rows=2)
    one, _ = serve(a, [1])
    two, _ = serve(a, [2])
    assert serve(a, [1, 5])[0] is one  # now two is the older
    assert serve(a, [3])[0] is two
    one.busy = two.busy = True
    assert a.take([4]) is None


def test_a_branch_with_no_empty_slot_goes_on_in_place() -> None:
    a = arena(rows=1)
    slot, _ = serve(a, [1, 2, 3, 4])
    again, reused = serve(a, [1, 2, 9])
    assert (again, reused) == (slot, 2)


def test_wiping_removes_every_number_of_one_slot() -> None:
    a = arena()
    one, _ = serve(a, [1, 2])
    two, _ = serve(a, [3, 4])
    a.keys[0][one.row] = float("nan")
    a.wipe(one)
    assert not any(b[one.row].any() for b in (*a.keys, *a.values))
    assert holds(a, two) == [3, 4]
    assert (one.keys, a.held) == ([], 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=25))
def test_whatever_comes_a_slot_holds_what_its_keys_say(prompts: list[list[int]]) -> None:
    a = arena(rows=3)
    for prompt in prompts:
        serve(a, prompt)
        for slot in a.slots:
            holds(a, slot)


def test_rows_are_what_fits_and_never_more() -> None:
    each = SHAPE.nbytes(100, torch.float16)
    assert each == 2 * 2 * 2 * 101 * 4 * 2
    assert rows_within(5 * each + 1, SHAPE, 100, torch.float16, most=16) == 5
    assert rows_within(50 * each, SHAPE, 100, torch.float16, most=16) == 16
    with pytest.raises(OutOfMemory, match="--kv-memory"):
        rows_within(each - 1, SHAPE, 100, torch.float16, most=16)
    made = Arena(SHAPE, 5, 100, torch.float16, torch.device("cpu"))
    assert made.nbytes() == 5 * each


def test_an_arena_takes_memory_only_where_it_is_written() -> None:
    def resident() -> int:
        return psutil.Process().memory_info().rss

    before = resident()
    made = Arena(SHAPE, 16, 500_000, torch.bfloat16, torch.device("cpu"))
    assert made.nbytes() > 450 * 2**20
    assert resident() - before < 100 * 2**20
    assert not made.keys[1][3, :, 77].any()
