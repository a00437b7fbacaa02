"""`queue_system.run`: asyncio.run, faster where uvloop is installed."""

from __future__ import annotations

import asyncio
import sys

import pytest

from queue_system import run


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def test_it_uses_uvloop_where_that_is_installed() -> None:
    pytest.importorskip("uvloop")
    assert run(loop_module()) == "uvloop"


def test_it_uses_the_standard_loop_where_uvloop_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(loop_module()) == "asyncio"


def test_it_returns_what_the_coroutine_returns_and_raises_what_it_raises() -> None:
    async def fail() -> None:
        raise LookupError("x")

    assert run(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(LookupError):
        run(fail())
