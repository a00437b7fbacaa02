"""Fixtures of an operation's way: blocking and async forms of its steps, and the end of what hangs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flow.hostile import blocked, released


@pytest.fixture(params=[True, False], ids=["async", "sync"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Whether the test's processor, callback or call is the async one."""
    return bool(request.param)


@pytest.fixture(autouse=True)
def _release() -> Iterator[None]:
    """What hangs in a thread or ignores its cancellation ends with its test."""
    released.clear()
    blocked.clear()
    yield
    released.set()
