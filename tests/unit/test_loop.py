"""`queue_system.run`: asyncio.run, faster where uvloop is installed."""

from __future__ import annotations

import asyncio
import os
import subprocess
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


@pytest.mark.parametrize("closed", [(0,), (0, 1, 2)])
def test_a_program_whose_standard_streams_are_closed_ends_well(closed: tuple[int, ...]) -> None:
    """As under some service managers. uvloop aborts the process when it closes a descriptor of theirs."""
    program = "import asyncio, queue_system; queue_system.run(asyncio.sleep(0))"

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    ended = subprocess.run([sys.executable, "-c", program], preexec_fn=close, timeout=60, check=False)
    assert ended.returncode == 0
