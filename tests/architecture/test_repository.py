"""What surrounds the source fits it: workflows, the Makefile, locked versions, the pages for newcomers."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import queue_system
from tests.kit.servers import server_binary
from tests.kit.source import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
NEWCOMERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", ".github/pull_request_template.md")]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
WRITERS = {"release.yml": {"attestations", "contents", "id-token"}}
"""What jobs may write: only a release writes anything."""


def load(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict), path
    return loaded


def jobs() -> Iterator[tuple[Path, str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in load(path)["jobs"].items():
            yield path, name, job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, name, job in jobs():
        yield from ((f"{path.name}: {name}", step) for step in job.get("steps", ()))


def targets_of(command: str) -> set[str]:
    """The targets that a command line hands to make: neither its options nor its variables."""
    called: set[str] = set()
    for words in re.findall(r"(?:^|[\s`])make\s([^\n|>#`]*)", command):
        if "-C" not in words.split():  # make in somebody else's folder
            called |= {word for word in words.split() if re.fullmatch(r"[a-z][a-z-]*", word)}
    return called


def test_the_workflows_call_only_targets_of_the_makefile() -> None:
    """What a workflow runs by make is a target, and CI, the nights and a release run what they are for."""
    called = {path.name: set[str]() for path in WORKFLOWS}
    for path, _, job in jobs():
        for step in job.get("steps", ()):
            called[path.name] |= targets_of(step.get("run", ""))
    assert set().union(*called.values()) <= TARGETS
    assert called["ci.yml"] >= {"test", "test-server", "package", "docs"}
    assert called["nightly.yml"] >= {"faults", "nemesis", "fuzz", "lock"}
    assert called["release.yml"] >= {"package", "sbom", "release-notes"}


def test_the_pages_for_newcomers_name_only_targets_of_the_makefile() -> None:
    """A command that begins with `make` in a page's code is a target."""
    for page in NEWCOMERS:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"(?:`|^ {4})make ([a-z-]+)", text, re.MULTILINE))
        assert named <= TARGETS, page.name


def test_make_help_lists_every_command() -> None:
    """Each target that is no file has its line in `make help`."""
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make (\S+)", listed, re.MULTILINE)) == TARGETS


def test_each_action_is_pinned_to_a_commit_and_says_its_version() -> None:
    """A tag can be moved; a commit cannot. Its version stands behind it."""
    for path in WORKFLOWS:
        for line in path.read_text(encoding="utf-8").splitlines():
            used = re.search(r"uses: (.*)", line)
            if used and not used[1].startswith("./"):
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used[1]), f"{path.name}: {line}"


def test_each_job_has_a_time_limit_and_only_the_rights_that_it_needs() -> None:
    """A workflow may read the source; what a job may write, it says itself; no checkout leaves its token behind."""
    for path in WORKFLOWS:
        assert load(path)["permissions"] == {"contents": "read"}, path.name
    for path, name, job in jobs():
        assert "uses" in job or 0 < job["timeout-minutes"] <= 360, f"{path.name}: {name}"
        written = {right for right, how in job.get("permissions", {}).items() if how == "write"}
        assert written <= WRITERS.get(path.name, set()), f"{path.name}: {name}"
    for place, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, place


def test_no_command_of_a_workflow_holds_what_a_stranger_may_write() -> None:
    """Expressions reach a shell as variables only, so that a branch's name is no code."""
    assert not [place for place, step in steps() if "${{" in step.get("run", "")]


def test_ci_runs_every_python_that_the_package_names() -> None:
    named = {line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)}
    matrix = load(ROOT / ".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert set(matrix["python"]) == named


def test_ci_runs_every_line_of_servers_that_is_supported() -> None:
    """Redis 6.2, 7 and 8; Valkey from 7.2 on."""
    matrix = load(ROOT / ".github/workflows/ci.yml")["jobs"]["server"]["strategy"]["matrix"]
    lines = {(each["program"], str(each["version"]).partition(".")[0]) for each in matrix["include"]}
    assert lines == {("redis-server", n) for n in "678"} | {("valkey-server", n) for n in "789"}


@pytest.mark.parametrize("group", ["dev", "release"])
def test_what_is_locked_is_what_is_asked_for(group: str) -> None:
    """Each requirement of pyproject.toml is locked to a version that fits it, with its hashes; no index is named."""
    text = (ROOT / f"requirements/{group}.txt").read_text(encoding="utf-8")
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", text, re.MULTILINE):
        locked.setdefault(name.lower(), set()).add(version)
    asked = PROJECT["dependency-groups"][group] + (PROJECT["project"]["dependencies"] if group == "dev" else [])
    wrong = []
    for requirement in map(Requirement, asked):
        versions = locked.get(requirement.name.lower().replace("_", "-"), set())
        if not versions or not all(requirement.specifier.contains(version, prereleases=True) for version in versions):
            wrong.append(f"{requirement}: locked {versions or 'nowhere'}; run `make lock`")
    assert not wrong
    assert text.count("--hash=") >= len(locked)
    assert "://" not in text
    assert "--index" not in text


def test_the_version_stands_in_one_place() -> None:
    """The package says its version, from which the build takes it."""
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert ROOT / PROJECT["tool"]["hatch"]["version"]["path"] == Path(queue_system.__file__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", queue_system.__version__)


def test_release_notes_are_refused_for_another_version() -> None:
    """A tag that is not the version ends its release before anything is built."""
    make = ["make", "--no-print-directory", "release-notes"]
    other = subprocess.run([*make, "VERSION=999.0.0"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert "expected that of src/queue_system/__init__.py, got '999.0.0'" in other.stderr


def test_the_project_s_address_is_told_in_one_place() -> None:
    """Only pyproject.toml decides on it; the pages that show how to install by git use the same."""
    address = PROJECT["project"]["urls"]["Repository"]
    told = {
        found
        for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        for found in re.findall(r"git\+(https://[^\s@'\"]+?)(?:\.git)?@", page.read_text(encoding="utf-8"))
    }
    assert told == {address}


def test_what_is_judged_before_a_commit_is_judged_by_the_locked_tools() -> None:
    """Hooks of our own take their programs from .venv; those of others name a release."""
    for repo in load(ROOT / ".pre-commit-config.yaml")["repos"]:
        if repo["repo"] == "local":
            assert all(hook["entry"].startswith(".venv/bin/") for hook in repo["hooks"])
        else:
            assert re.fullmatch(r"v\d+\.\d+\.\d+", repo["rev"])


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "AGENTS.md"])
def test_the_places_that_a_page_for_newcomers_names_exist(page: str) -> None:
    """Each path in backticks that has a slash or an extension leads to a file or a folder."""
    named = re.findall(r"`([\w./-]+(?:/|\.(?:py|md|lua|toml|yml|txt)))`", (ROOT / page).read_text(encoding="utf-8"))
    assert named
    folders = [ROOT / name for name in ("", "src/queue_system", "src/queue_system/broker/scripts", ".github/workflows")]
    assert not [name for name in named if not any((folder / name).exists() for folder in folders)]


def test_issue_forms_ask_for_what_they_need() -> None:
    """Each form has a name, a description and questions with labels."""
    forms = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert {path.stem for path in forms} == {"bug", "feature"}
    for path in forms:
        form = load(path)
        assert form["name"], path.name
        assert form["description"], path.name
        asked = [each for each in form["body"] if each["type"] != "markdown"]
        assert all(each["attributes"]["label"] for each in asked), path.name


def test_the_changelog_tells_of_the_version_below_what_is_unreleased() -> None:
    """A release of the version that the package says would have notes; what comes next has its place above them."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(queue_system.__version__)}\] - \d{{4}}-\d\d-\d\d", headings[1])
    make = ["make", "--no-print-directory", "release-notes", f"VERSION={queue_system.__version__}"]
    notes = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "\n### Added\n" in notes
    assert "\n## " not in notes


def test_the_tests_run_on_the_server_that_ci_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make test-server` hands its server on by QUEUE_SYSTEM_TEST_SERVER."""
    monkeypatch.setenv("QUEUE_SYSTEM_TEST_SERVER", "/somewhere/redis-server")
    assert server_binary.__wrapped__() == Path("/somewhere/redis-server")
    assert "QUEUE_SYSTEM_TEST_SERVER=$(abspath $(SERVER))" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_what_is_left_out_on_another_server_is_there() -> None:
    """No test that was renamed or moved comes back unseen, and none is left out by a name that leads nowhere."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    left = re.findall(r"^OF_OUR_SERVER := (.*)$", makefile, re.MULTILINE)
    assert all((ROOT / "tests/flow" / name).is_file() for name in left[0].split())
    ((file, test),) = re.findall(r"--deselect=(\S+)::(\w+)", makefile)
    assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
