"""The application that the tests' workers run. Never knows which test that is: the environment tells what it needs."""

from __future__ import annotations

import os
from pathlib import Path

from queue_system import QueueConfig


def make_config() -> QueueConfig:
    """Return what `worker tests.cli.shop:make_config` runs."""
    return QueueConfig(queue_prefix=os.environ["QUEUE_SYSTEM_PREFIX"], allowed_modules=["tests"])


def work(entity: dict[str, int]) -> None:
    """Note the entity's number."""
    with Path(os.environ["CLI_TEST_RUNS"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{entity['n']}\n")
