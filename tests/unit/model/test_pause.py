"""The pause in the collection of garbage: it ends, whatever threads and forks meet in it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator

import pytest

from queue_system.model.operation import decode_item
from queue_system.model.pause import collections_paused
from tests.kit.threads import in_threads

MANY_PARTS = b'{"processor":"p","entity":[' + b",".join([b"[]"] * 600) + b"]}"


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    """Collections of garbage go on before each test, and after it whatever it found."""
    gc.enable()
    interval = sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval)
    gc.enable()


def test_threads_that_decode_at_the_same_time_leave_collections_switched_on() -> None:
    sys.setswitchinterval(1e-6)

    def decode() -> None:
        for _ in range(3000):
            decode_item(MANY_PARTS)

    in_threads(4, decode)
    assert gc.isenabled()


def test_collections_stay_off_until_the_last_one_is_done_and_where_the_application_wants_them_off() -> None:
    first, second = collections_paused(), collections_paused()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()
    gc.disable()
    with collections_paused():
        pass
    assert not gc.isenabled()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_that_is_forked_meanwhile_collects() -> None:
    with collections_paused():
        child = os.fork()
        if child == 0:
            os._exit(0 if gc.isenabled() else 1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert gc.isenabled()
