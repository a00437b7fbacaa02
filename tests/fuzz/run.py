"""Coverage-guided fuzzing of what reads foreign bytes, as `make fuzz` runs it. Never part of the tests.

The first byte of an input chooses what the others are: an item, or a text that may be a URL.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["queue_system"]):
    from queue_system.broker.failures import redact
    from queue_system.broker.urls import check_url
    from queue_system.errors import InvalidInputError
    from queue_system.metrics.logs import _field, _plain

from tests.kit.hostile_texts import CORPUS
from tests.unit.model.test_fuzz_items import HOSTILE, ITEM, accepted, check_dead_letter, check_settles

URLS = (
    "redis://user:secret@host:6379/0?socket_timeout=2", "rediss://h?ssl_cert_reqs=required&password=secret",
    "unix://:secret@/tmp/s?db=1", "embedded:///srv/data", "unknown command 'AUTH', with args beginning with: 'secret'",
)  # fmt: skip


def fuzz_item(item: bytes) -> None:
    """Any bytes are an operation that can be settled, or undecodable in one line."""
    operation = accepted(item)
    check_dead_letter(item)
    if operation is not None:
        check_settles(item, operation)


def fuzz_text(text: str) -> None:
    """Any text is redacted once for all, is one field of a log line, and is a URL or refused in one line."""
    assert redact(redact(text)) == redact(text)
    assert _plain(text).isprintable()
    assert _field(text).isprintable()
    try:
        check_url(text)
    except InvalidInputError as error:
        message = str(error)
    else:
        return
    assert message.isprintable()


def fuzz(data: bytes) -> None:
    """Run one input."""
    if data[:1] == b"t":
        fuzz_text(data[1:].decode(errors="surrogateescape"))
    else:
        fuzz_item(data[1:])


def plant(corpus: Path) -> None:
    """Write the inputs from which the fuzzer starts."""
    corpus.mkdir(parents=True, exist_ok=True)
    items = [ITEM, *(make(200) for make in HOSTILE.values())]
    texts = [text.encode(errors="surrogatepass") for text in (*URLS, *CORPUS.values())]
    for number, seed in enumerate([*(b"i" + item for item in items), *(b"t" + text for text in texts)]):
        (corpus / f"seed-{number}").write_bytes(seed)


if __name__ == "__main__":
    plant(Path(sys.argv[-1]))
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
