"""The specification's shorter code blocks, each run as a file of an application after the basic usage program."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from queue_system import CircuitOpenError, QueueRetryConfig
from tests.contract import blocks
from tests.contract.blocks import BASIC_USAGE, program
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import eventually

Load = Callable[..., ModuleType]


@pytest.fixture
def own(start_server: StartServer) -> OwnServer:
    """A server of the test's own, since the blocks use the default prefix."""
    return start_server()


@pytest.fixture
def basic(own: OwnServer, import_source: Callable[[str], ModuleType]) -> ModuleType:
    """The basic usage program, imported: it has enqueued one operation, and its worker is not started."""
    return import_source(program(BASIC_USAGE, redis_url=own.url))


@pytest.fixture
def load(basic: ModuleType, import_source: Callable[[str], ModuleType]) -> Load:
    """Runs blocks after the basic usage program."""

    def run(*sources: str) -> ModuleType:
        return import_source("\n".join([f"from {basic.__name__} import *", *sources]))

    return run


async def process_all(basic: ModuleType, count: int) -> None:
    """Run the program's worker until it has settled `count` operations."""
    await basic.worker.start()
    metrics = basic.config.get_metrics
    settled = ("processed", "failed", "system_errors")
    await eventually(lambda: sum(metrics()[name] for name in settled) >= count, f"{count} operations settled")
    await basic.worker.stop()


async def test_the_timeout_block(load: Load) -> None:
    operation = load(blocks.WITH_TIMEOUT).critical_operation
    assert await operation() is None


@pytest.mark.parametrize(
    "block, name",
    [(blocks.CIRCUIT_BREAKER, "redis_operation"), (blocks.RETRY_WITH_BACKOFF, "network_operation")],
)
def test_the_breaker_and_backoff_blocks(load: Load, block: str, name: str) -> None:
    assert getattr(load(block), name)() is None


@pytest.mark.parametrize(
    "block, max_attempts, delays, timeout",
    [
        (blocks.RETRY_DEFAULT, 5, [1, 2, 4, 8, 16], None),
        (blocks.RETRY_FIXED, 3, [30, 30, 30], 300),
        (blocks.RETRY_EXPONENTIAL, 5, [1, 2, 4, 8, 16], 3600),
        (blocks.RETRY_CUSTOM, 4, [60, 300, 1800, 7200], 86400),
    ],
)
def test_the_retry_configuration_blocks(
    load: Load, block: str, max_attempts: int, delays: list[float], timeout: float | None
) -> None:
    retry_config: QueueRetryConfig = load(block).retry_config
    assert retry_config.to_dict() == {"max_attempts": max_attempts, "delays": delays, "timeout": timeout}


async def test_the_callbacks_block(basic: ModuleType, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    shown = load(blocks.RETRY_DEFAULT, blocks.CALLBACKS)

    def breaks(data: Any) -> None:
        raise RuntimeError("no luck")

    failing = basic.queue.enqueue(
        {"n": 1}, breaks, retry_config=QueueRetryConfig(max_attempts=1), on_failure=shown.notify_failure
    )
    await process_all(basic, 3)

    printed = capsys.readouterr().out.splitlines()
    assert f"Operation {failing['operation_id']} failed: no luck" in printed
    succeeded = [line for line in printed if line.startswith("Operation ") and line.endswith(" succeeded")]
    assert len(succeeded) == 1
    assert any(line.startswith("Successfully processed: ") for line in printed)


def test_the_status_block(load: Load) -> None:
    assert load(blocks.STATUS).status["queue:high:process_data"] == 1


async def test_the_batch_block(basic: ModuleType, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    shown = load(blocks.RETRY_FIXED, blocks.BATCH)
    assert "Enqueued 3 items" in capsys.readouterr().out.splitlines()
    assert len({result["operation_id"] for result in shown.results}) == 3
    await process_all(basic, 4)
    assert basic.config.get_metrics()["processed"] == 4


async def test_the_metrics_block(basic: ModuleType, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    await process_all(basic, 1)
    capsys.readouterr()
    load(blocks.METRICS)
    rate, volumes, times = capsys.readouterr().out.splitlines()
    assert rate == "Success rate: 100.0%"
    assert volumes == "Processed: 1/1 (Failed: 0)"
    assert times.startswith("Average processing time: ")
    assert times.endswith("ms")


async def test_the_error_handling_block(basic: ModuleType, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    def breaks(data: Any) -> None:
        raise RuntimeError("no luck")

    basic.queue.enqueue({"n": 1}, breaks, retry_config=QueueRetryConfig(max_attempts=1))
    basic.queue.enqueue({"n": 2}, "nowhere.to.be_found")
    await process_all(basic, 3)
    capsys.readouterr()
    load(blocks.ERROR_HANDLING)
    assert capsys.readouterr().out.splitlines() == ["Failed operations: 1", "System errors: 1"]


def test_the_monitoring_block(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "queue_system"):
        load("current_rate = 97.5", blocks.MONITORING)
    logged = {vars(record)["metric_name"]: vars(record)["metric_value"] for record in caplog.records}
    assert logged == {"processed": 1, "success_rate": 97.5}


async def test_the_graceful_shutdown_block(basic: ModuleType, load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """It ends the worker and closes the client; what is used after that opens connections again."""
    shown = load("async def shutdown():", textwrap.indent(blocks.SHUTDOWN, "    "))
    await basic.worker.start()
    assert basic.worker.running
    with caplog.at_level(logging.INFO, "queue_system"):
        await shown.shutdown()
    assert "Shutting down queue system" in [record.getMessage() for record in caplog.records]
    assert not basic.worker.running
    assert basic.queue.enqueue({"n": 1}, basic.process_data)["status"] == "queued"
    await shown.shutdown()


def test_the_adjusted_breaker_opens_at_the_tenth_failure_for_a_minute(load: Load) -> None:
    call = load(blocks.ADJUSTED_BREAKER + "def call():\n    raise ConnectionError").call
    for _ in range(10):
        with pytest.raises(ConnectionError):
            call()
    with pytest.raises(CircuitOpenError) as caught:
        call()
    assert 30 < caught.value.retry_after <= 60


async def test_the_adjusted_timeout_lets_work_pass(load: Load) -> None:
    shown = load(
        *(
            blocks.ADJUSTED_TIMEOUT + f"{kind} {name}():\n    return 42"
            for kind, name in [("def", "a"), ("async def", "b")]
        )
    )
    assert shown.a() == 42
    assert await shown.b() == 42


def test_the_adjusted_retry_repeats_a_failed_call(load: Load) -> None:
    shown = load(
        "calls = []",
        blocks.ADJUSTED_RETRY + "def call():\n    calls.append(1)\n    if len(calls) < 2:\n        raise OSError",
    )
    shown.call()
    assert len(shown.calls) == 2
