"""The README's quick start runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

from tests.contract.support import run
from tests.kit.source import ROOT

README = ROOT / "README.md"


def test_the_quick_start_sends_its_mail_on_an_embedded_server(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(# mails\.py\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mails.py").write_text(block, encoding="utf-8")
    shown, errors = run("mails.py", cwd=tmp_path)
    assert re.fullmatch(r"[0-9a-f]{32} \{'sent_to': 'ada@example.org'\}\n", shown)
    assert "Traceback" not in errors
    assert (tmp_path / ".queue-system").is_dir()
