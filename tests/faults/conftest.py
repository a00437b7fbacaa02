"""The fixtures of the fault tests: a bench with worker processes, and the figures that each test reports."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.faults.support.bench import Bench
from tests.support.servers import OwnServer

OpenBench = Callable[[OwnServer], Bench]


class Figures(Protocol):
    """The `figures` fixture: reports named values, printed and in the test's properties."""

    def __call__(self, **values: object) -> None: ...


@pytest.fixture
def bench(server: OwnServer, prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """A bench on the shared server."""
    with contextlib.closing(Bench(server, prefix, tmp_path)) as opened:
        yield opened


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[OpenBench]:
    """Opens a bench on a server of the test's own."""
    with contextlib.ExitStack() as opened:
        yield lambda server: opened.enter_context(contextlib.closing(Bench(server, "queue:", tmp_path)))


@pytest.fixture
def figures(record_property: Callable[[str, object], None], request: pytest.FixtureRequest) -> Figures:
    """Reports figures under the test's name."""

    def report(**values: object) -> None:
        for name, value in values.items():
            record_property(name, value)
        print(f"figures {request.node.name}:", *(f"{name}={value}" for name, value in values.items()))  # noqa: T201

    return report
