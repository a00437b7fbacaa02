"""Fixtures of an operation's way: each of its steps has a blocking and an async form."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[True, False], ids=["async", "sync"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Whether the test's processor, callback or call is the async one."""
    return bool(request.param)
