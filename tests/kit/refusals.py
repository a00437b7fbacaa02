"""How a wrong argument is refused. Never takes an error of another kind for a refusal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from queue_system.errors import InvalidInputError


@contextlib.contextmanager
def refused(
    field: str, said: str | None = None, kind: type[InvalidInputError] = InvalidInputError
) -> Iterator[pytest.ExceptionInfo[InvalidInputError]]:
    """The block is refused: the error names the field, its text begins with it and matches `said`."""
    with pytest.raises(kind, match=said) as caught:
        yield caught
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
