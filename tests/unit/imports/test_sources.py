"""What a module's source defines is read as often as is asked, by any thread."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_system.imports.modules import Found
from queue_system.imports.sources import defines

SOURCE = "\n".join(f"def f{number}(entity):\n    return [entity, {number} + 1]\n" for number in range(100))


@pytest.fixture
def yielding_collections() -> Iterator[None]:
    """Let each collection of garbage give way to another thread, as finalizers do."""

    def give_way(*_: Any) -> None:
        time.sleep(0)

    gc.callbacks.append(give_way)
    yield
    gc.callbacks.remove(give_way)


def at_depth(depth: int, fn: Callable[[], None]) -> None:
    """Call a function from so deep a stack."""
    if depth:
        at_depth(depth - 1, fn)
    else:
        fn()


@pytest.mark.usefixtures("yielding_collections")
def test_threads_that_read_sources_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A worker that has just started imports several processors at a time."""
    errors: list[BaseException] = []

    def read(number: int) -> None:
        file = tmp_path / f"module_{number}.py"
        file.write_text(SOURCE)
        try:
            assert defines(Found(file.stem, str(file), in_namespace=False, loader=None), "f99")
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            errors.append(error)

    threads = [threading.Thread(target=at_depth, args=(5 * n, lambda n=n: read(n))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
