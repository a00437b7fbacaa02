"""Configurations that end with their test: what they have connected is closed. Never judges what they do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from queue_system import QueueConfig
from tests.kit.logs import LineLogger

MakeConfig = Callable[..., QueueConfig]


@contextlib.contextmanager
def configs(url: str, prefix: str, **defaults: Any) -> Iterator[MakeConfig]:
    """Make configurations of one server and prefix, with a `LineLogger`; the settings that each is given come first."""
    with contextlib.ExitStack() as made:

        def make(**settings: Any) -> QueueConfig:
            usual = {"redis_url": url, "queue_prefix": prefix, "logger": LineLogger(), **defaults}
            config = QueueConfig(**{**usual, **settings})
            made.callback(close, config)
            return config

        yield make


def close(config: QueueConfig) -> None:
    """Close what a configuration has connected by itself."""
    config.transport.close()
    if config.redis_client is not None:
        config.redis_client.close()
