"""Fixtures of the command line's tests: the program on the shared server, in this process or in one of its own."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator, Mapping

import pytest

from queue_system.cli.app import run
from tests.cli.support import Answer, RunCli, RunProgram, run_program
from tests.kit.servers import OwnServer


@pytest.fixture
def place(server: OwnServer, prefix: str) -> dict[str, str]:
    """The environment variables that name the test's server and prefix."""
    return {"QUEUE_SYSTEM_REDIS_URL": server.url, "QUEUE_SYSTEM_PREFIX": prefix}


@pytest.fixture
def cli(place: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[RunCli]:
    def run_here(*arguments: str, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> Answer:
        typed = stdin.encode() if isinstance(stdin, str) else stdin
        with monkeypatch.context() as patch:
            for name, value in {"COLUMNS": "100", **place, **(env or {})}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
            patch.setattr(sys, "path", list(sys.path))
            capsys.readouterr()
            code = run(list(arguments))
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    yield run_here
    logging.getLogger("queue_system").handlers.clear()


@pytest.fixture
def program(place: dict[str, str]) -> RunProgram:
    def run_there(*arguments: str, env: Mapping[str, str] | None = None) -> Answer:
        return run_program(*arguments, **{**place, **(env or {})})

    return run_there
