"""`operation show` and `operation wait`: a large and deep result costs what is shown of it."""

from __future__ import annotations

from typing import Any

import pytest

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.cli.support import RunCli
from tests.kit.workers import running


def nested(levels: int) -> Any:
    value: Any = [1] * 50_000
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("command", ["show", "wait"])
async def test_a_deep_result_costs_what_is_shown(cli: RunCli, config: QueueConfig, command: str) -> None:
    """Indented as a whole, it would be 45 MB. As JSON it is whole."""

    def work(entity: dict[str, int]) -> Any:
        return nested(entity["levels"])

    manager = QueueManager(config)
    operation_id = manager.enqueue({"levels": 450}, work)["operation_id"]
    async with running(QueueWorker(config, 1)):
        record = await manager.await_for(operation_id, timeout=30)
    assert record.result == nested(450)
    text = cli("operation", command, operation_id)
    assert (text.code, len(text.out) < 100_000) == (0, True)
    assert "--json prints the whole" in text.out
    whole = cli("operation", command, operation_id, "--json")
    assert len(whole.out) < 500_000
    assert whole.document["result"] == nested(450)
