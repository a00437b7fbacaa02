"""The README's quick start runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_quick_start_sends_its_mail_on_an_embedded_server(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(# mails\.py\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mails.py").write_text(block, encoding="utf-8")
    unset = ("QUEUE_SYSTEM_REDIS_URL", "REDIS_URL", "QUEUE_SYSTEM_DATA_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "mails.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert re.fullmatch(r"[0-9a-f]{32} \{'sent_to': 'ada@example.org'\}\n", done.stdout)
    assert "Traceback" not in done.stderr
    assert (tmp_path / ".queue-system").is_dir()
