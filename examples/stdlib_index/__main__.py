"""The producer: finds the files, enqueues them, starts the workers, follows them, sums up. Never parses a file."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from rich.console import Console

from examples.stdlib_index.fleet import Fleet
from examples.stdlib_index.processors import index_module, on_failed, on_indexed
from examples.stdlib_index.progress import show_progress
from examples.stdlib_index.run import EventReader, Run
from examples.stdlib_index.sources import LIBRARY, Source, find_sources
from examples.stdlib_index.summary import Result, print_summary
from examples.stdlib_index.tally import Tally
from examples.stdlib_index.worker import QUEUE, SLOTS
from queue_system import QueueConfig, QueueManager, QueueRetryConfig
from queue_system.errors import QueueSystemError

WORKERS = 2
PRIORITIES = ("high", "normal", "low")
RETRY = QueueRetryConfig.fixed(0.2, max_attempts=2)

_LOOK_EVERY_S = 0.1
_STALLED_AFTER_S = 60.0  # a killed worker's files come back after 1.5 leases of 15 s
_PAGE = 500
_WIDTH = 120


class Interruption:
    """Notes SIGINT and SIGTERM, so that a run ends at a point of its own choice."""

    def __init__(self) -> None:
        self.signum = 0
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._note)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self.signum = signum


class Demo:
    """One run from its first file to its summary."""

    def __init__(
        self, console: Console, sources: Sequence[Source], manager: QueueManager, interruption: Interruption
    ) -> None:
        self._console = console
        self._sources = sources
        self._manager = manager
        self._config = manager.config
        self._interruption = interruption
        self._tally = Tally(sources)
        self._purged = 0
        self._run = Run.create()
        self._events = EventReader(self._run)
        self._fleet = Fleet(self._run.folder)

    def run(self) -> int:
        """Index the files and return the exit code. Whatever happens, no worker and no waiting file is left."""
        code = 1
        try:
            elapsed_s = self._index()
            code = self._conclude(elapsed_s)
        finally:
            if code != 1:
                shutil.rmtree(self._run.folder)
            else:
                print(f"The workers' logs are in {self._run.folder}", file=sys.stderr)
        return code

    def _index(self) -> float:
        """Enqueue all, follow the workers until the last outcome, stop them; return how many s the outcomes took."""
        started = time.monotonic()
        try:
            self._fleet.start(WORKERS)
            self._enqueue()
            with show_progress(self._console, self._tally) as show:
                for _ in self._look():
                    show()
            return time.monotonic() - started
        finally:
            self._fleet.stop()  # hands back what is held, so that the purge finds it
            self._purged = purge(self._manager)
            self._take_in()

    def _enqueue(self) -> None:
        for priority in PRIORITIES:
            paths = [source.path for source in self._sources if source.priority == priority]
            enqueued_at = time.time()
            self._manager.enqueue_batch(
                [{"run": self._run.name, "path": path, "enqueued_at": enqueued_at} for path in paths],
                index_module,
                queue_name=QUEUE,
                priority=priority,
                retry_config=RETRY,
                on_success=on_indexed,
                on_failure=on_failed,
            )

    def _look(self) -> Iterator[None]:
        """Take in events, yielding after each look, until nothing more is to come or an interruption."""
        finished, moved = 0, time.monotonic()
        while not self._interruption.signum:
            workers = self._fleet.alive
            self._take_in()
            yield
            if self._tally.finished > finished:
                finished, moved = self._tally.finished, time.monotonic()
            if not self._tally.missing() or not workers or time.monotonic() - moved > _STALLED_AFTER_S:
                return
            time.sleep(_LOOK_EVERY_S)

    def _take_in(self) -> None:
        for event in self._events.read():
            self._tally.add(event)

    def _conclude(self, elapsed_s: float) -> int:
        tally, signum = self._tally, self._interruption.signum
        if signum and tally.missing():
            self._console.print(
                f"Interrupted: {tally.finished} of {len(self._sources)} files are done,"
                f" {self._purged} that waited are purged, the workers have stopped."
            )
            return 128 + signum
        dead_letters = list(self._dead_letters())
        print_summary(self._console, Result(tally, elapsed_s, dead_letters))
        self._print_hints()
        if lost := tally.missing():
            print(f"Lost: {len(lost)} files have no outcome, such as {lost[0]}", file=sys.stderr)
        if len(dead_letters) != len(tally.failed):
            print(f"{len(tally.failed)} files failed, but queue:failures shows {len(dead_letters)}", file=sys.stderr)
        return int(bool(lost) or len(dead_letters) != len(tally.failed))

    def _dead_letters(self) -> Iterator[dict[str, Any]]:
        """Yield this run's dead letters; the newest of all stand first."""
        wanted, start = len(self._tally.failed), 0
        client = self._config.redis_client
        while wanted and client is not None:
            page: Any = client.lrange(self._config.failures_queue, start, start + _PAGE - 1)
            for dead_letter in map(json.loads, page):
                entity = dead_letter.get("entity")
                if isinstance(entity, dict) and entity.get("run") == self._run.name:
                    wanted -= 1
                    yield dead_letter
            if len(page) < _PAGE:
                return
            start += _PAGE

    def _print_hints(self) -> None:
        client = self._config.redis_client
        settings = client.connection_pool.connection_kwargs if client is not None else {}
        where = f"-s {settings['path']}" if "path" in settings else f"-h {settings['host']} -p {settings['port']}"
        self._console.print("\nLook further", style="bold")
        for line in (
            f"  redis-cli {where} LRANGE {self._config.failures_queue} 0 0",
            "      the newest failure; an embedded server answers while a process uses it, such as the next one",
            f"  {sys.executable} -m examples.stdlib_index.worker",
            "      one more worker: it joins a run, and keeps the server up",
            "  README.md says how to enqueue operations of your own",
        ):
            self._console.print(line, soft_wrap=True)


def purge(manager: QueueManager) -> int:
    """Remove the files that wait, in all priorities; return how many."""
    return sum(manager.purge_queue(QUEUE, priority) for priority in PRIORITIES)


def main() -> int:
    """Parse the command line, run, and return the exit code: 0, 1 if something was lost, 128 + n after signal n."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.stdlib_index", description="Index the Python standard library."
    )
    parser.add_argument("pattern", nargs="*", help="index files that match, such as 'json/*' (default: all)")
    patterns = parser.parse_args().pattern
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the broken files' reasons hold any character
    width = None if sys.stdout.isatty() else _WIDTH
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    sources = find_sources(patterns)
    if not sources:
        print(f"No .py file in {LIBRARY} matches {' '.join(patterns) or '*'}", file=sys.stderr)
        return 2
    interruption, manager = Interruption(), QueueManager(QueueConfig())
    try:
        if left := purge(manager):
            console.print(f"Purged {left} files that an earlier run had left waiting.")
        console.print(f"Indexing {len(sources)} files of {LIBRARY}")
        console.print(f"with {WORKERS} worker processes of {SLOTS} slots each")
        return Demo(console, sources, manager, interruption).run()
    except QueueSystemError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
