"""The program on the page about dead letters runs as it stands, and does what the page says."""

from __future__ import annotations

import re
import time
from pathlib import Path

from queue_system.model.dead_letter import encode_dead_letter
from tests.contract.support import run
from tests.kit.servers import StartServer
from tests.kit.source import ROOT

PAGE = ROOT / "docs" / "dead-letters.md"


def test_the_program_lists_retries_and_drops(start_server: StartServer, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    server, now = start_server(), time.time()
    with server.client() as client:
        for n in range(25):
            item = b'{"operation_id":"op-%d","processor":"send_mail","processor_module":"mails"}' % n
            dead_letter = encode_dead_letter(
                item, b"high:" + (b"emails" if n < 5 else b"other"), "read timeout", "OSError", now
            )
            client.lpush("queue:failures", dead_letter)
        client.lpush("queue:system_errors", encode_dead_letter(b"\xff", b"high:emails", "bad", "E", now - 90_000))
        shown, _ = run("-c", block, cwd=tmp_path, QUEUE_SYSTEM_REDIS_URL=server.url)
        assert [line.split()[1] for line in shown.splitlines() if " op-" in line] == [
            f"op-{n}" for n in range(24, 4, -1)
        ]
        assert client.llen("queue:high:other") == 3
        assert client.llen("queue:high:emails") == 5
        assert client.llen("queue:failures") == 17
        assert client.llen("queue:system_errors") == 0
