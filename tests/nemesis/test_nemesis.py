"""The queue keeps its promises under random faults, and the checker notices when its protocol is broken."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from queue_system import QueueConfig
from queue_system.broker.protocol import pack
from queue_system.broker.requests import NewOperation
from tests.faults.conftest import Figures
from tests.kit.servers import OwnServer
from tests.nemesis import mutants, runs
from tests.nemesis.checker import check, summary
from tests.nemesis.history import Event

SEED = 1
BREAKS = {
    "ignore-the-counter": "C5",
    "settle-without-token": "C4",
    "lease-by-age": "C5",
    "claim-anew": "C11",
}
"""By the name of a mutant, the promise that it surely breaks under its schedule."""


@pytest.mark.timeout(300)
def test_random_faults_break_no_promise(tmp_path: Path, figures: Figures, full: bool) -> None:
    events = runs.random_faults(tmp_path, 60.0 if full else 10.0, SEED)
    violations = check(events)
    figures(seed=SEED, **summary(events))
    assert not violations, "\n".join(str(violation) for violation in violations)


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[list[Event]]]:
    """The history of each mutant under its schedule; since they mostly wait, they are played at the same time."""
    with ThreadPoolExecutor(len(runs.SCHEDULES)) as pool:
        return {
            mutant: pool.submit(schedule, tmp_path_factory.mktemp(mutant), mutant)
            for mutant, schedule in runs.SCHEDULES.items()
        }


@pytest.mark.parametrize("mutant", sorted(mutants.MUTANTS))
def test_a_broken_protocol_is_noticed(plays: dict[str, Future[list[Event]]], figures: Figures, mutant: str) -> None:
    violations = check(plays[mutant].result())
    broken = sorted({violation.promise for violation in violations})
    figures(mutant=mutant, broken=broken)
    assert BREAKS[mutant] in broken


@pytest.mark.full_form
@pytest.mark.parametrize("mutant", sorted(mutants.MUTANTS))
def test_the_same_faults_break_no_promise_of_the_true_protocol(tmp_path: Path, mutant: str) -> None:
    violations = check(runs.SCHEDULES[mutant](tmp_path, ""))
    assert not violations, "\n".join(str(violation) for violation in violations)


def test_a_call_that_is_sent_again_is_told_that_it_queued_even_if_its_key_has_a_new_holder(
    server: OwnServer, prefix: str
) -> None:
    """The reply of `first` was lost; until it is sent again, its operation ends and another one takes its key."""
    config = QueueConfig(redis_url=server.url, queue_prefix=prefix)
    run, commands = config.transport.run, config.commands
    first, second = (
        commands.enqueue("normal:q", f"nonce-{name}", (NewOperation(name, b"{}", "key"),), dedup_ttl_ms=60_000)
        for name in ("first", "second")
    )
    record = b"succeeded\tnonce-first\t0\tnormal:q\tkey\t1\t0\t0\tw\n{}"
    try:
        assert run(first) == [1]
        run(commands.beat("register", "w", 60_000))
        claimed = run(commands.claim("w", "c1", 1))
        assert claimed is not None
        packed = pack(("complete", 60_000, 1, claimed.first_token, "first", record, "key", ""))
        assert run(commands.settle("w", "s1", packed, 8)) == b"d"
        assert run(second) == [1]
        assert run(first) == [1]
    finally:
        config.transport.close()
