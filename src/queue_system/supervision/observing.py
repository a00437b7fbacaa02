"""Probes and metrics of a worker's processes, if `http` asks for them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from queue_system.config import QueueConfig
from queue_system.errors import InvalidInputError
from queue_system.monitoring.health import WorkerHealth


def count(config: QueueConfig) -> None:
    """Count what the workers of a configuration settle. Without prometheus-client, nothing is counted."""
    with contextlib.suppress(ImportError):
        from queue_system.monitoring import prometheus  # noqa: PLC0415 - an optional extra

        prometheus.enable(config)


def share_counts() -> Callable[[int], None]:
    """Let children, started from now on, count in one folder; return what to call with the id of one that has ended."""
    try:
        from queue_system.monitoring import prometheus  # noqa: PLC0415 - an optional extra
    except ImportError:
        return lambda _pid: None
    prometheus.prepare_multiprocess()
    return prometheus.mark_dead


@contextlib.contextmanager
def answering(
    config: QueueConfig, health: Callable[[], Sequence[WorkerHealth]], address: str, allowed_hosts: Sequence[str]
) -> Iterator[None]:
    """Answer probes at `"HOST:PORT"` inside a `with`, under names of a private network and `allowed_hosts`.

    Raises:
        InvalidInputError: the address is not free, or the libraries are not installed.
    """
    try:
        from queue_system.monitoring.probes import ProbeServer, create_app  # noqa: PLC0415 - an optional extra

        server = ProbeServer(create_app(config, health), address, allowed_hosts)
    except (ImportError, OSError, ValueError) as error:
        raise InvalidInputError("http", str(error).removeprefix("address: ")) from None
    server.start()
    try:
        yield
    finally:
        server.stop()
