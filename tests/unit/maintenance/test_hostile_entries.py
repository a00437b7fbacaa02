"""What a foreign client may write where maintenance reads: it never ends a round for everybody else."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from queue_system.maintenance.reclaimer import _lease_s
from queue_system.model.dead_letter import read_time


@given(st.binary(max_size=50) | st.from_regex(rb"[0-9]{1,20}:[0-9]{1,20}", fullmatch=True))
@example(b"1:" + b"9" * 400)
def test_any_entry_of_a_worker_gives_a_lease(entry: bytes) -> None:
    """It ends the round of no reclaimer."""
    assert _lease_s(entry) >= 0.2


@given(st.binary(max_size=50) | st.floats(0, 1e12).map(lambda time: b'{"failed_at":%b}' % repr(time).encode()))
def test_any_dead_letter_is_old_enough_or_not(dead_letter: bytes) -> None:
    when = read_time(dead_letter)
    assert (when is not None) is dead_letter.startswith(b'{"failed_at":')
    assert when is None or 0 <= when <= 1e12


def test_a_dead_letter_whose_time_has_many_digits_does_not_keep_the_others_from_being_dropped() -> None:
    assert read_time(b'{"failed_at":%b}' % (b"9" * 400)) is None
