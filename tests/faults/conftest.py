"""The fixtures of the fault tests: a bench with worker processes, and the figures that each test reports."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.faults.support.bench import Bench
from tests.faults.support.table import Table
from tests.kit.servers import OwnServer, StartServer


class OpenBench(Protocol):
    """The `open_bench` fixture: a bench on a server of the test's own, which is started as `start_server` does."""

    def __call__(self, *, binary: Path | None = None, **options: str) -> Bench: ...


class Figures(Protocol):
    """The `figures` fixture: reports named values, printed and in the test's properties."""

    def __call__(self, **values: object) -> None: ...


def each_ran_once(bench: Bench, figures: Figures, ids: Iterable[str], **told: object) -> None:
    """Report how many of these operations were lost or repeated: each must have run to its end once, and no other."""
    expected, ended = dict.fromkeys(ids, 1), bench.journal.count("end")
    figures(lost=len(expected.keys() - ended.keys()), repeated=bench.journal.repeats(), **told)
    assert bench.journal.count("start") == ended == expected
    assert bench.counter("processed") == len(expected)


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether faults are injected as often as the fault matrix asks for, as `make faults` does."""
    return os.environ.get("QUEUE_SYSTEM_FAULTS") == "full"


@pytest.fixture
def bench(server: OwnServer, prefix: str, tmp_path: Path) -> Iterator[Bench]:
    with contextlib.closing(Bench(server, prefix, tmp_path)) as opened:
        yield opened


@pytest.fixture
def open_bench(start_server: StartServer, tmp_path: Path) -> Iterator[OpenBench]:
    with contextlib.ExitStack() as opened:

        def open_on(*, binary: Path | None = None, **options: str) -> Bench:
            server = start_server(binary=binary, tcp=False, **options)
            return opened.enter_context(contextlib.closing(Bench(server, "queue:", tmp_path)))

        yield open_on


@pytest.fixture
def figures(record_property: Callable[[str, object], None], request: pytest.FixtureRequest) -> Figures:
    def report(**values: object) -> None:
        for name, value in values.items():
            record_property(name, value)
        print(f"figures {request.node.name}:", *(f"{name}={value}" for name, value in values.items()))  # noqa: T201

    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what each fault test reported as a table; write it to the file that QUEUE_SYSTEM_FAULTS_TABLE names."""
    table = Table.of(report for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"))
    if not table.rows:
        return
    target = os.environ.get("QUEUE_SYSTEM_FAULTS_TABLE")
    if target:
        table.update(Path(target))
    if os.environ.get("QUEUE_SYSTEM_FAULTS") == "full":
        terminalreporter.section("figures of the fault tests")
        terminalreporter.write_line(str(table))
