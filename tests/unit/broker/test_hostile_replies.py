"""What a foreign client may have put into the keys that are read: the reading never fails for all the rest."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from queue_system.broker.commands import Commands
from queue_system.model.keys import Keys

COMMANDS = Commands(Keys("queue:"), 1)
MANY_DIGITS = b"9" * 5000
names = st.binary(max_size=20)


@given(st.lists(st.tuples(names, st.integers(0, 9))), st.lists(st.tuples(names, names)))
@example([], [(b"processed", MANY_DIGITS)])
def test_any_names_of_lists_and_counters_can_be_read(
    lists: list[tuple[bytes, int]], counters: list[tuple[bytes, bytes]]
) -> None:
    flat = [part for pair in counters for part in pair]
    page = COMMANDS.status("0").parse([b"0", [part for pair in lists for part in pair], 1, 2, 3, 4, 5, flat, 6])
    assert set(page.lists) == {name.decode(errors="replace") for name, _ in lists}


@given(st.lists(st.tuples(names, st.floats(allow_nan=False).map(lambda score: str(score).encode()))))
def test_any_notes_of_queues_that_are_left_alone_can_be_read(notes: list[tuple[bytes, bytes]]) -> None:
    flat = [part for pair in notes for part in pair]
    page = COMMANDS.status("0").parse([b"0", [], 1, 2, 3, 4, 5, [], 6, flat])
    assert len(page.resting) == len(notes)


@given(st.lists(st.tuples(names, names)))
def test_any_entries_of_workers_can_be_read(entries: list[tuple[bytes, bytes]]) -> None:
    COMMANDS.incarnations().parse([part for pair in entries for part in pair])


@given(st.lists(names))
def test_any_fields_among_the_tokens_are_passed_over(fields: list[bytes]) -> None:
    assert all(token >= 0 for token in COMMANDS.tokens("w").parse(fields))


def test_a_token_of_many_digits_does_not_hide_the_others() -> None:
    assert COMMANDS.tokens("w").parse([MANY_DIGITS, b"7"]) == [7]
