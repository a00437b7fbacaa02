"""The virtual environment of each contestant and the commands that start it. Never installs into the project's own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.roster import NODE, OWN, Contestant

ROOT = Path(__file__).parents[1]
_CONTESTANTS = Path(__file__).parent / "contestants"
_BULLMQ = _CONTESTANTS / "bullmq" / "contestant.mjs"
_FOLDER = ROOT / ".bench"
_NODE_FOLDER = _FOLDER / "node"
_OWN_PACKAGES = ("redis", "hiredis", "msgspec", "uvloop", "queue-system")


def prepare(contestant: Contestant) -> None:
    """Install the latest releases, unless the environment exists. Delete `.bench` to renew them all."""
    mark = _FOLDER / f"{contestant.environment}.installed"
    if mark.exists():
        return
    if contestant.environment == NODE:
        _NODE_FOLDER.mkdir(parents=True, exist_ok=True)
        _run("npm", "install", "--silent", "--prefix", str(_NODE_FOLDER), *contestant.requirements)
    else:
        folder = _environment(contestant)
        if not _python(contestant).exists():
            _run(sys.executable, "-m", "venv", str(folder))
        _run(str(_python(contestant)), "-m", "pip", "install", "--quiet", "--upgrade", *contestant.requirements)
    mark.touch()


def command(contestant: Contestant, order: dict[str, object]) -> list[str]:
    """Return the command line that gives an order to a contestant."""
    text = json.dumps(order)
    if contestant.environment == NODE:
        return ["node", str(_BULLMQ), str(_NODE_FOLDER / "node_modules"), text]
    return [str(_python(contestant)), "-m", "benchmarks.contestants", contestant.module, text]


def settings(contestant: Contestant) -> str:
    """Return what the contestant's file says about its settings."""
    if contestant.environment == NODE:
        comment = _BULLMQ.read_text().partition("/**")[2].partition("*/")[0]
        return "\n".join(line.strip().removeprefix("*").strip() for line in comment.strip().splitlines())
    tree = ast.parse((_CONTESTANTS / f"{contestant.module}.py").read_text())
    return ast.get_docstring(tree) or ""


def versions(contestant: Contestant) -> dict[str, str]:
    """Return the versions that are installed of the packages that matter."""
    if contestant.environment == NODE:
        modules = _NODE_FOLDER / "node_modules"
        packages = {n: json.loads((modules / n / "package.json").read_text()) for n in contestant.requirements}
        return {
            **{name: package["version"] for name, package in packages.items()},
            "node": _run("node", "--version").strip().removeprefix("v"),
        }
    listing = json.loads(_run(str(_python(contestant)), "-m", "pip", "list", "--format", "json"))
    found = {entry["name"].lower(): entry["version"] for entry in listing}
    wanted: tuple[str, ...] = _OWN_PACKAGES
    if contestant.environment != OWN:
        wanted = tuple(name.partition("[")[0] for name in contestant.requirements)
        wanted += ("redis", "coredis")
    return {name: found[name] for name in dict.fromkeys(wanted) if name in found}


def _environment(contestant: Contestant) -> Path:
    return _FOLDER / "venvs" / contestant.environment


def _python(contestant: Contestant) -> Path:
    return _environment(contestant) / "bin" / "python"


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout  # noqa: S603 - our own words
