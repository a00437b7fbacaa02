"""Reads a secret that lies in a file of its own, as containers and service managers hand it over."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from queue_system.errors import InvalidInputError
from queue_system.validation import refused, shown

_MOST_BYTES: Final = 16 * 1024


def read_secret(field: str, path: str) -> str:
    """Return the one line of a file, without white space around it.

    Raises:
        InvalidInputError: there is no such file, or its content is not one line of text; `field` is named,
            and nothing of what is in the file is shown.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MOST_BYTES + 1).decode()
    except OSError as error:
        raise InvalidInputError(
            field, f"{shown(path)} cannot be read: {error.strerror or 'it is not a file'}"
        ) from None
    except ValueError:
        raise refused(field, f"one line of text in {shown(path)}", "bytes that are not UTF-8") from None
    secret = text.strip()
    if not secret or len(text) > _MOST_BYTES or len(secret.splitlines()) > 1:
        got = "more than that" if secret else "an empty file"
        raise refused(field, f"one line of text in {shown(path)}", got)
    return secret
