"""A few users beside one hostile visitor: whatever he does, they get what they would get alone."""

from __future__ import annotations

from tests.security.crowd import measure

LOG = 100_000  # bytes


def test_users_beside_a_hostile_visitor_get_the_answers_they_would_get_alone() -> None:
    run = measure("hostile", 6, 8, (), pauses=(0.2, 1.0), chosen=range(4, 8))
    assert len(run.crowd.waits) >= 6 * 3, run.crowd.refused
    assert not run.crowd.refused
    assert run.wrong == 0
    assert run.log < LOG
    assert not run.traceback
    for attack in ("A_picture", "E_body", "E_tiny", "G_half", "G_unread", "G_drip", "H_file"):
        assert run.counts.get(attack) or run.counts.get(attack + " cut"), run.counts
