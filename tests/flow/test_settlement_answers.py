"""Answers to a batch of settlements: only a letter for each is a verdict on them, whatever its length is."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.execution.fetcher import Fetcher
from queue_system.model.verdict import Complete, Release, Verdict
from tests.kit.configs import MakeConfig
from tests.kit.logs import LineLogger

MOST = 8
LOST = "lease lost: other workers run these operations again"


def work(entity: Any) -> None:
    """Never runs: the tests send the verdicts."""


@pytest.fixture
def config(make_config: MakeConfig, log: LineLogger) -> QueueConfig:
    return make_config(logger=log, lease_seconds=60.0)


async def hold(config: QueueConfig, count: int) -> Fetcher:
    """Let a worker's fetcher, which takes no turns by itself, claim so many operations."""
    QueueManager(config).enqueue_batch([{"n": n} for n in range(count)], work)
    fetcher = QueueWorker(config, max_workers=MOST)._open_engine(MOST).fetcher
    for _ in range(4):
        await fetcher.turn()
    assert len(fetcher.inflight.held) == count
    return fetcher


async def settle(fetcher: Fetcher, verdict: Verdict) -> None:
    """Settle all that is held in one batch, and take in its answer."""
    for delivery in list(fetcher.inflight.held.values()):
        fetcher.put(fetcher.inflight.settler.settle(delivery, verdict))
    for _ in range(2):
        await fetcher.turn()


@pytest.mark.parametrize("verdict", [Complete(None), Release()], ids=["complete", "release"])
@pytest.mark.parametrize("count", range(1, MOST + 1))
async def test_that_the_lease_is_lost_is_understood_however_many_settlements_were_sent(
    config: QueueConfig, client: redis.Redis, log: LineLogger, count: int, verdict: Verdict
) -> None:
    """The one word is as long as the letters of four: nothing counts as done, and a new incarnation begins."""
    fetcher = await hold(config, count)
    incarnation = fetcher.incarnation
    client.delete(config.keys.workers)
    await settle(fetcher, verdict)
    await fetcher.close()
    assert fetcher.incarnation != incarnation
    assert not fetcher.inflight.held
    assert [line["operations"] for line in log.of(LOST)] == [count]
    metrics = config.get_metrics()
    assert (metrics["processed"], metrics["lease_lost"]) == (0, count)
    assert client.hlen(config.keys.inflight(incarnation)) >= count, "whoever takes it over finds all of it"


@pytest.mark.parametrize("letters", [count for count in range(MOST + 2) if count != 4])
async def test_an_answer_with_another_number_of_letters_than_settlements_proves_nothing(
    config: QueueConfig, client: redis.Redis, letters: int
) -> None:
    """A foreign program wrote it in the place of the last answer: what was held is left to run again."""
    fetcher = await hold(config, 4)
    incarnation = fetcher.incarnation
    next_batch = f"{fetcher._series}s1"
    client.hset(config.keys.inflight(incarnation), "#settle", f"{next_batch} {'d' * letters}")
    await settle(fetcher, Complete(None))
    await fetcher.close()
    assert fetcher.incarnation != incarnation
    assert config.get_metrics()["processed"] == 0


async def test_an_outage_is_not_held_against_the_settlement_that_waited_for_its_end(config: QueueConfig) -> None:
    """It failed until the server answered again, as one that the server refuses does; so it is sent again as it is."""
    fetcher = await hold(config, 1)
    (delivery,) = fetcher.inflight.held.values()
    fetcher.put(fetcher.inflight.settler.settle(delivery, Complete(None)))
    fetcher._choose()
    batch = fetcher._batch
    assert batch is not None
    while fetcher._batch is batch:  # as if it had failed each time
        await fetcher._reconsider(batch)
    for _ in range(2):
        await fetcher.turn()
    await fetcher.close()
    metrics = QueueManager(config).get_queue_status()["metrics"]
    assert (metrics.get("processed", 0), metrics.get("system_errors", 0)) == (1, 0)
