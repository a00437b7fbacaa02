"""Runs the commands of docs/cli.md and puts their output beneath them. Never runs what the page does not show.

`python -m tests.cli.page` rewrites the page and its picture; tests/cli/test_page.py fails where they differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.cli.app import PROGRAM, run
from queue_system.cli.status import Board
from queue_system.inspection.fleet import read_fleet
from tests.cli.support import PROGRAM as PROCESS
from tests.cli.support import clean_environment, contexts, variable_of
from tests.kit.servers import OwnServer
from tests.kit.source import ROOT

PAGE = ROOT / "docs" / "cli.md"
PICTURE = ROOT / "docs" / "images" / "status-watch.svg"
WIDTH = 110
PICTURE_WIDTH = 64
_FIXED = 1_795_611_600.0
SHARED = {"url", "url_file", "prefix", "config", "debug", "as_json", "help"}
_TABLE = re.compile(r"<!-- options of ([\w -]+) -->.*?<!-- end -->", re.DOTALL)
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROGRAM_TEXT = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_LETTER_ID = re.compile(r"\b[0-9a-f]{16,}\b")
_SPAN = r"\d[\d.,]*(?: (?:µs|ms|s|min|h|d)\b)"
_VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?"), "TIME"),
    (re.compile(r'("(?:\w+_at|time|timestamp|oldest_age_s|enqueue_time_ms)": )[\d.]+'), r"\1N"),
    (re.compile(rf"{_SPAN}(?: {_SPAN})?"), "SPAN"),
    (_LETTER_ID, "ID"),
    (re.compile(r"\b\S+:\d{2,}$", re.MULTILINE), "HOST:PID"),
    (re.compile(r"[ ─]+"), " "),  # what stands in columns moves with the widest
)
_MEASURED = ("doctor", "bench")
_ANY_NUMBER = re.compile(r"\d[\d.,]*(?: MiB)?")


@dataclass(slots=True)
class Shell:
    """Runs the page's commands, one after the other."""

    server: OwnServer
    folder: Path
    code: int = 0

    def run(self, line: str) -> str:
        """Return what a command prints, as it would look with a server at the default address."""
        if line == "echo $?":
            return f"{self.code}\n"
        program, *arguments = shlex.split(line)
        assert program == PROGRAM, line
        printed = self._process(arguments) if arguments[0] == "worker" else self._here(arguments)
        assert "/queue_system/" not in printed, printed  # what an operation raised is shown without our own lines
        printed = printed.replace(self.server.url, "redis://localhost:6379/0").replace(f"{self.folder}/", "/srv/")
        lines = [text.rstrip() for text in printed.splitlines()]
        return "\n".join(lines).strip("\n") + "\n" if any(lines) else ""

    def _here(self, arguments: list[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            self.code = run(arguments)
        return printed.getvalue()

    def _process(self, arguments: list[str]) -> str:
        env = clean_environment(QUEUE_SYSTEM_REDIS_URL=self.server.url, COLUMNS=str(WIDTH), TERM="dumb")
        done = subprocess.run(
            [*PROCESS, *arguments], env=env, cwd=self.folder, stdin=subprocess.DEVNULL, text=True, timeout=60,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        self.code = done.returncode
        return done.stdout


@contextlib.contextmanager
def prepared(page: str) -> Iterator[Shell]:
    """A fresh server, and a folder with the programs that the page shows."""
    settings = {"COLUMNS": str(WIDTH), "TERM": "dumb"}
    with tempfile.TemporaryDirectory() as folder, OwnServer(appendfsync="everysec") as server:
        for name, text in _PROGRAM_TEXT.findall(page):
            Path(folder, name).write_text(text, encoding="utf-8")
        settings["QUEUE_SYSTEM_REDIS_URL"] = server.url
        with (
            mock.patch.dict(os.environ, settings),
            mock.patch.object(sys, "stdin", io.StringIO()),
            mock.patch.object(sys, "path", list(sys.path)),
            contextlib.chdir(folder),
        ):
            yield Shell(server, Path(folder))


def regenerated(page: str, shell: Shell) -> str:
    """The page with the output of today. Ids that a command takes from an earlier output are those of today."""
    ids: dict[str, str] = {}

    def block(match: re.Match[str]) -> str:
        parts = re.split(r"^\$ (.*)\n", match[1], flags=re.MULTILINE)[1:]
        text = ""
        for command, shown in zip(parts[::2], parts[1::2], strict=True):
            now = _LETTER_ID.sub(lambda known: ids.get(known[0], known[0]), command)
            printed = shell.run(now)
            ids.update(zip(_LETTER_ID.findall(shown), _LETTER_ID.findall(printed), strict=False))
            text += f"$ {now}\n{printed}"
        return f"```console\n{text}```"

    return _TABLE.sub(_options, _BLOCK.sub(block, page))


def _options(match: re.Match[str]) -> str:
    """The options that a command has beyond those of all."""
    (context,) = [context for context in contexts() if context.command_path == f"{PROGRAM} {match[1]}"]
    rows = ["| option | environment variable | |", "|---|---|---|"]
    for option in context.command.params:
        if option.param_type_name != "option" or option.name in SHARED:
            continue
        value = "" if option.is_flag else f" {option.metavar}"
        named = ", ".join(f"`{name}{value}`" for name in reversed(option.opts))
        told = "" if option.is_flag or option.default in {None, "", 0.0} else f" Default: {_default(option)}."
        rows.append(f"| {named} | `{variable_of(context, option)}` | {option.help}{told} |")
    return "\n".join([f"<!-- options of {match[1]} -->", *rows, "<!-- end -->"])


def _default(option: Any) -> str:
    value = option.default.value if isinstance(option.default, Enum) else option.default
    return f"{value:g}" if isinstance(value, float) else str(value)


def masked(page: str) -> str:
    """The page without what no two runs have in common: times, ids, and the figures of what measures."""

    def block(match: re.Match[str]) -> str:
        parts = re.split(r"^(\$ .*\n)", match[1], flags=re.MULTILINE)[1:]
        return "".join(_masked(command, shown) for command, shown in zip(parts[::2], parts[1::2], strict=True))

    return _BLOCK.sub(block, page)


def _masked(command: str, shown: str) -> str:
    for pattern, mask in _VARYING:
        command, shown = pattern.sub(mask, command), pattern.sub(mask, shown)
    return command + (_ANY_NUMBER.sub("N", shown) if command.split()[2] in _MEASURED else shown)


async def picture(config: QueueConfig) -> str:
    """A frame of `status --watch` as it would be a second after some work, drawn by the command's own table."""
    manager, board = QueueManager(config), Board("redis://localhost:6379/0", config.queue_prefix)
    board.update(replace(read_fleet(config), at=_FIXED - 1))
    await _work(manager)
    for name, priority, many in (("send_mail", "high", 3), ("send_mail", "normal", 1240), ("report", "low", 57)):
        manager.enqueue_batch([{}] * many, f"shop.{name}", priority=priority)
    manager.enqueue({}, "shop.report", delay=3600)
    figures = read_fleet(config)
    queues = [replace(queue, oldest_age_s=12.5) for queue in figures.queues if queue.depth]
    board.update(replace(figures, at=_FIXED, workers=2, queues=queues))
    console = Console(file=io.StringIO(), record=True, width=PICTURE_WIDTH, force_terminal=True)
    with mock.patch.dict(os.environ, TZ="UTC"):
        time.tzset()
        console.print(board.view())
    time.tzset()
    svg = console.export_svg(title="queue-system status --watch", unique_id="status-watch")
    return _FONTS.sub("", svg)


async def _work(manager: QueueManager) -> None:
    """Let 900 operations succeed and 2 fail."""

    def resize(entity: dict[str, int]) -> None:
        if entity["n"] >= 900:
            raise ValueError("no picture")

    entities = [{"n": n} for n in range(902)]
    answers = manager.enqueue_batch(entities, resize, retry_config=QueueRetryConfig(max_attempts=1))
    worker = QueueWorker(manager.config)
    await worker.start()
    for answer in answers:
        await manager.await_for(answer["operation_id"])
    await worker.stop()


def write() -> None:
    """Write page and picture anew, the page only where more differs than times and measurements."""
    page = PAGE.read_text(encoding="utf-8")
    with prepared(page) as shell:
        now = regenerated(page, shell)
        if masked(now) != masked(page):
            PAGE.write_text(now, encoding="utf-8")
    with OwnServer(appendfsync="everysec") as server:
        config = QueueConfig(redis_url=server.url)
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(asyncio.run(picture(config)), encoding="utf-8")
        config.transport.close()


if __name__ == "__main__":
    write()
