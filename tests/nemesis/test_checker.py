"""The checker rejects a history that breaks a promise, and accepts the same one mended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nemesis.checker import check
from tests.nemesis.history import Event, History, read_history
from tests.nemesis.story import Story

Tale = Callable[[Story, bool], None]


def lost(story: Story, broken: bool) -> None:
    story.enqueue("a")
    if not broken:
        story.serve("a")


def lost_though_its_outcome_was_unknown_at_first(story: Story, broken: bool) -> None:
    story.enqueue("a", answer="unknown")
    story.enqueue("a", answer="known")
    if not broken:
        story.serve("a")


def acknowledged_without_a_run(story: Story, broken: bool) -> None:
    story.enqueue("a")
    token = story.claim("a", "w1")
    if not broken:
        story.run("a", "w1", token)
    story.settle("a", "w1", token, "complete")


def failed_without_a_dead_letter(story: Story, broken: bool) -> None:
    story.enqueue("a", fails=1)
    story.serve("a", verb="fail")
    if broken:
        story.dead_letters["failures"].clear()


def never_enqueued(story: Story, broken: bool) -> None:
    if not broken:
        story.enqueue("a")
    story.serve("a")
    story.counters["enqueued"] = 1


def held_by_another_and_run_all_the_same(story: Story, broken: bool) -> None:
    story.enqueue("a", key="k")
    story.enqueue("b", key="k", answer="held")
    story.serve("a")
    if broken:
        story.serve("b")
        story.counters["enqueued"] = 2


def run_before_it_was_due(story: Story, broken: bool) -> None:
    story.enqueue("a", delay=5.0)
    story.wait(1.0 if broken else 5.0)
    story.serve("a")


def succeeded_though_it_was_to_fail(story: Story, broken: bool) -> None:
    story.enqueue("a", fails=1)
    story.serve("a", verb="complete" if broken else "fail")


def another_callback_than_its_own(story: Story, broken: bool) -> None:
    story.enqueue("a", on_success=True)
    story.serve("a")
    story.callback("a", "on_success")
    if broken:
        story.callback("a", "on_failure")


def started_after_its_end(story: Story, broken: bool) -> None:
    story.enqueue("a")
    late = story.claim("a", "w2")
    if broken:
        story.serve("a")
    else:
        with story.fault("freeze", "w2"):
            story.wait(2.0)
            story.serve("a")
    story.run("a", "w2", late)


def ended_twice(story: Story, broken: bool) -> None:
    story.enqueue("a")
    late = story.claim("a", "w2")
    with story.fault("freeze", "w2"):
        story.wait(2.0)
        story.serve("a")
    story.run("a", "w2", late)
    story.settle("a", "w2", late, "complete", accepted=broken)


def ended_twice_though_no_worker_lived_to_tell(story: Story, broken: bool) -> None:
    story.enqueue("a")
    story.serve("a")
    story.counters["processed"] += broken


def dead_lettered_twice(story: Story, broken: bool) -> None:
    story.enqueue("a", fails=1)
    story.serve("a", verb="fail")
    story.dead_letters["failures"] *= 1 + broken


def repeated_without_a_fault(story: Story, broken: bool) -> None:
    story.enqueue("a")
    token = story.claim("a", "w2")
    story.run("a", "w2", token, "info")
    if not broken:
        with story.fault("kill", "w2"):
            story.wait(0.01)
        story.wait(1.5)
    story.serve("a")


def repeated_after_a_fault_of_another_worker(story: Story, broken: bool) -> None:
    story.enqueue("a")
    token = story.claim("a", "w2")
    story.run("a", "w2", token, "info")
    with story.fault("freeze", "w3" if broken else "w2"):
        story.wait(2.0)
    story.serve("a")


def repeated_after_a_short_freeze(story: Story, broken: bool) -> None:
    story.enqueue("a")
    token = story.claim("a", "w2")
    story.run("a", "w2", token, "info")
    with story.fault("freeze", "w2"):
        story.wait(0.3 if broken else 1.5)
    story.serve("a")


def run_twice_under_one_token(story: Story, broken: bool) -> None:
    story.enqueue("a", fails=0)
    token = story.claim("a", "w1")
    story.run("a", "w1", token, "info")
    if not broken:
        story.settle("a", "w1", token, "release")
        token = story.claim("a", "w1")
    story.run("a", "w1", token)
    story.settle("a", "w1", token, "complete")


def run_under_a_smaller_token(story: Story, broken: bool) -> None:
    story.enqueue("a")
    first, second = story.claim("a", "w1"), story.claim("a", "w2")
    before, after = ("w2", second), ("w1", first)
    if not broken:
        before, after = after, before
    story.run("a", *before, "info")
    story.settle("a", *before, "release")
    story.run("a", *after)
    story.settle("a", *after, "complete")


def ended_under_a_token_that_is_not_the_last(story: Story, broken: bool) -> None:
    story.enqueue("a")
    token = story.claim("a", "w1")
    if broken:
        story.claim("a", "w2")
    story.run("a", "w1", token)
    story.settle("a", "w1", token, "complete")


def two_holders_of_one_key(story: Story, broken: bool) -> None:
    story.enqueue("a", key="k")
    if not broken:
        story.serve("a")
    story.enqueue("b", key="k")
    if broken:
        story.serve("a")
    story.serve("b")


def callback_forgotten(story: Story, broken: bool) -> None:
    story.enqueue("a", on_failure=True, fails=1)
    story.serve("a", verb="fail")
    if not broken:
        story.callback("a", "on_failure")


def vanished_from_the_server(story: Story, broken: bool) -> None:
    story.enqueue("a")
    story.serve("a")
    if broken:
        story.counters["enqueued"] += 1


def relieved_late(story: Story, broken: bool) -> None:
    story.enqueue("a")
    token = story.claim("a", "w2")
    story.run("a", "w2", token, "info")
    with story.fault("kill", "w2"):
        story.wait(0.01)
    story.wait(8.0 if broken else 3.0)
    story.serve("a")


def relieved_late_since_the_server_was_down(story: Story, broken: bool) -> None:
    story.enqueue("a")
    token = story.claim("a", "w2")
    story.run("a", "w2", token, "info")
    with story.fault("kill", "w2"):
        story.wait(0.01)
    with story.fault("server_kill" if not broken else "script_flush", "server"):
        story.wait(6.0)
    story.serve("a")


def suspect_claimed_late(story: Story, broken: bool) -> None:
    _lose_twice(story, "a")
    story.wait(5.5 if broken else 4.0)
    story.settle("a", "w1", story.claim("a", "w1"), "release")
    story.wait(0.5)
    story.serve("a")


def suspect_run_late(story: Story, broken: bool) -> None:
    _lose_twice(story, "b", "a")
    story.settle("a", "w1", story.claim("a", "w1"), "release")
    story.settle("b", "w1", story.claim("b", "w1"), "release")
    story.wait(9.0 if broken else 7.0)
    story.serve("a")
    story.serve("b")


def _lose_twice(story: Story, *operations: str) -> None:
    for each in operations:
        story.enqueue(each)
    for worker in ("w2", "w3"):
        for each in operations:
            story.run(each, worker, story.claim(each, worker), "info")
        with story.fault("kill", worker):
            story.wait(0.01)


def idle_after_a_heal(story: Story, broken: bool) -> None:
    story.enqueue("a")
    with story.fault("server_kill", "server"):
        story.wait(1.0)
    story.wait(12.0 if broken else 8.0)
    story.serve("a")
    story.wait(3.0)


TALES: dict[str, tuple[Tale, ...]] = {
    "C1": (
        lost, lost_though_its_outcome_was_unknown_at_first, acknowledged_without_a_run, failed_without_a_dead_letter,
    ),
    "C2": (
        never_enqueued, held_by_another_and_run_all_the_same, run_before_it_was_due, succeeded_though_it_was_to_fail,
        another_callback_than_its_own,
    ),
    "C3": (started_after_its_end,),
    "C4": (ended_twice, ended_twice_though_no_worker_lived_to_tell, dead_lettered_twice),
    "C5": (
        repeated_without_a_fault, repeated_after_a_fault_of_another_worker, repeated_after_a_short_freeze,
    ),
    "C6": (run_twice_under_one_token, run_under_a_smaller_token, ended_under_a_token_that_is_not_the_last),
    "C7": (two_holders_of_one_key,),
    "C8": (callback_forgotten,),
    "C9": (vanished_from_the_server,),
    "C10": (
        relieved_late, relieved_late_since_the_server_was_down, suspect_claimed_late, suspect_run_late,
    ),
    "C11": (idle_after_a_heal,),
}  # fmt: skip
EVERY = [pytest.param(promise, tale, id=f"{promise}-{tale.__name__}") for promise in TALES for tale in TALES[promise]]


@pytest.mark.parametrize("promise, tale", EVERY)
def test_a_broken_promise_is_found_and_the_mended_history_is_accepted(promise: str, tale: Tale) -> None:
    broken, sound = Story(), Story()
    tale(broken, True)
    tale(sound, False)
    assert promise in {violation.promise for violation in check(broken.end())}
    accepted = check(sound.end())
    assert not accepted, "\n".join(str(violation) for violation in accepted)


def test_a_violation_names_its_operation_and_shows_the_events() -> None:
    story = Story()
    lost(story, True)
    (violation,) = check(story.end())
    assert str(violation).startswith("C1: a was enqueued and has not ended")
    assert [event.what for event in violation.evidence] == ["enqueue", "enqueue"]


def test_lines_of_several_writers_are_read_by_time_and_an_unfinished_one_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history"
    one, other = History(path, "one"), History(path, "other")
    one.note("invoke", "run", id="a", token=1)
    other.note("ok", "heal")
    one.note("ok", "run", id="a", token=1)
    one.close()
    other.close()
    with path.open("a") as file:
        file.write(json.dumps({"at": 0, "by": "killed"}))
    events = read_history(path)
    assert [(event.by, event.kind, event.what) for event in events] == [
        ("one", "invoke", "run"),
        ("other", "ok", "heal"),
        ("one", "ok", "run"),
    ]
    assert events == sorted(events, key=lambda event: event.at)
    assert events[0] == Event(events[0].at, "one", "invoke", "run", {"id": "a", "token": 1})
