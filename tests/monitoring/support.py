"""What tests of monitoring share: a running probe server, a scrape. Tests nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from queue_system.execution.delivery import Delivery
from queue_system.execution.settlement import Settlement
from queue_system.model.operation import Operation
from queue_system.model.states import Verb
from queue_system.monitoring.labels import Place
from queue_system.monitoring.probes import ProbeServer

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
PATIENCE_S = 8.0
"""How long a test waits for an answer over HTTP: far less than the server's own limits in these tests."""


def settlement(queue: str, verb: Verb = Verb.COMPLETE) -> Settlement:
    """What becomes of an operation of a queue, such as "high:mails"."""
    return Settlement(Delivery("w", 1, queue.encode(), b"", Operation(processor="p"), 0.0), verb, b"")


class Probe:
    """A client of a probe server. Blocking, so a test with an event loop calls it in a thread."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S)

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        response = self._client.get(path)
        return response.status_code, response.json()

    def scrape(self) -> Samples:
        response = self._client.get("/metrics")
        assert response.status_code == 200
        return parsed(response.text)

    def close(self) -> None:
        self._client.close()


@contextlib.contextmanager
def probing(app: Starlette) -> Iterator[Probe]:
    """Serve an app on a free port from a thread of its own."""
    server = ProbeServer(app, "127.0.0.1:0")
    server.start()
    probe = Probe(server.port)
    try:
        yield probe
    finally:
        probe.close()
        server.stop()


def parsed(text: str) -> Samples:
    """Read Prometheus's text format with prometheus-client's own parser."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    """The value of one sample, or the sum of those that only server and prefix tell apart. Raises KeyError."""
    found = [value for (known, given), value in samples.items() if known == name and _matches(dict(given), labels)]
    if not found:
        raise KeyError(name, labels)
    return sum(found)


def _matches(given: dict[str, str], labels: dict[str, str]) -> bool:
    return {name: value for name, value in given.items() if name in labels or name not in Place._fields} == labels
