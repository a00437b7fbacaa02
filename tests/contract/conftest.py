"""Fixtures of the contract's tests: a patient inbox, a client that decodes, and modules of an application."""

from __future__ import annotations

import contextlib
import importlib
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import redis

from tests.kit.inbox import Inbox
from tests.kit.servers import OwnServer
from tests.kit.waiting import DEADLINE_S


@pytest.fixture
async def inbox() -> Inbox:
    """What the test's processors and callbacks receive, which may wait for a server that is started again."""
    return Inbox(DEADLINE_S)


@pytest.fixture
def raw(server: OwnServer) -> Iterator[redis.Redis]:
    """A bare client of the shared server."""
    with contextlib.closing(server.client(decode_responses=True)) as client:
        yield client


@pytest.fixture
def import_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Writes source code to a file of an application and imports it, under a name that nothing else has.

    The process stands in the application's folder, as its worker does.
    """
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: list[str] = []

    def load(source: str) -> ModuleType:
        name = f"app_{uuid.uuid4().hex[:12]}"
        names.append(name)
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)
