"""Answers to a batch of settlements: only a code for each is a verdict on them, whatever its length is."""

from __future__ import annotations

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.execution.ending import Ending
from queue_system.execution.engine import Engine
from queue_system.model.verdict import Complete, Release, Verdict
from tests.kit.configs import MakeConfig
from tests.kit.logs import LineLogger
from tests.kit.operations import work

MOST = 8
LOST = "lease lost: other workers run these operations again"


@pytest.fixture
def config(make_config: MakeConfig, log: LineLogger) -> QueueConfig:
    return make_config(logger=log, lease_seconds=60.0)


async def hold(config: QueueConfig, count: int) -> Engine:
    """Let a worker's engine, which takes no turns by itself, claim so many operations."""
    QueueManager(config).enqueue_batch([{"n": n} for n in range(count)], work)
    engine = QueueWorker(config, max_workers=MOST)._open_engine(MOST)
    for _ in range(4):
        await engine.turn()
    assert len(engine.inflight.held) == count
    return engine


async def settle(engine: Engine, verdict: Verdict) -> None:
    """Settle all that is held in one batch, and take in its answer."""
    for delivery in list(engine.inflight.held.values()):
        engine.completer.put(engine.inflight.settler.settle(delivery, verdict))
    for _ in range(2):
        await engine.turn()


@pytest.mark.parametrize("verdict", [Complete(None), Release()], ids=["complete", "release"])
@pytest.mark.parametrize("count", range(1, MOST + 1))
async def test_that_the_lease_is_lost_is_understood_however_many_settlements_were_sent(
    config: QueueConfig, client: redis.Redis, log: LineLogger, count: int, verdict: Verdict
) -> None:
    """The one word is as long as the codes of four: nothing counts as done, and a new incarnation begins."""
    engine = await hold(config, count)
    incarnation = engine.incarnation
    client.delete(config.keys.workers)
    await settle(engine, verdict)
    await Ending(engine).close()
    assert engine.incarnation != incarnation
    assert not engine.inflight.held
    assert [line["operations"] for line in log.of(LOST)] == [count]
    metrics = config.get_metrics()
    assert (metrics["processed"], metrics["lease_lost"]) == (0, count)
    assert client.hlen(config.keys.inflight(incarnation)) >= count, "whoever takes it over finds all of it"


async def test_an_outage_is_not_held_against_the_settlement_that_waited_for_its_end(config: QueueConfig) -> None:
    """It failed until the server answered again, as one that the server refuses does; so it is sent again as it is."""
    engine = await hold(config, 1)
    (delivery,) = engine.inflight.held.values()
    engine.completer.put(engine.inflight.settler.settle(delivery, Complete(None)))
    batch = engine.completer.choose()
    assert batch is not None
    while engine.completer._batch is batch:  # as if it had failed each time
        await engine.completer.reconsider(engine._transport)
    for _ in range(2):
        await engine.turn()
    await Ending(engine).close()
    metrics = QueueManager(config).get_queue_status()["metrics"]
    assert (metrics.get("processed", 0), metrics.get("system_errors", 0)) == (1, 0)
