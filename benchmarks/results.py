"""The results file: what was measured, of whom, where and when. Never measures, never formats."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT

PATH = ROOT / "docs" / "benchmarks" / "results.json"


class Results:
    """The results of all suites in one JSON file, written after every contestant so that a stopped run loses little.

    `{"machine": {...}, "suites": {SUITE: {"when", "server", "runs", "contestants": {NAME: {"settings", "versions",
    "values": {MEASURE: {FIGURE: [one value per run]}}, "reasons": {MEASURE: why there is none}}}}}}`
    """

    def __init__(self, path: Path = PATH) -> None:
        self._path = path
        self.data: dict[str, Any] = {"suites": {}}
        if path.exists():
            self.data = json.loads(path.read_text())
        self.data["machine"] = self.data.get("machine") or describe_machine()

    def open_suite(self, suite: str, *, server: str, runs: int) -> dict[str, Any]:
        """Return the contestants of a suite; those of an earlier run on the same server stay until measured anew."""
        self.data["machine"] = describe_machine()
        entry = self.data["suites"].setdefault(suite, {"contestants": {}})
        if entry.get("server") != server:
            entry["contestants"] = {}
        entry |= {"server": server, "runs": runs, "when": time.strftime("%Y-%m-%d")}
        contestants: dict[str, Any] = entry["contestants"]
        return contestants

    def save(self) -> None:
        """Write the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.data, indent=1) + "\n")


def describe_machine() -> dict[str, str]:
    """Return the processor, cores, memory, kernel and Python of this machine."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_gb:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
