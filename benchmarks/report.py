"""Writes `docs/benchmarks.md` from the results. Never measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks.environments import ROOT
from benchmarks.figures import Suite
from benchmarks.plots import draw_plots
from benchmarks.roster import REGIMES
from benchmarks.runner import IN_TURN
from benchmarks.targets import GROWTH, targets

_PAGE = ROOT / "docs" / "benchmarks.md"
_FOLDER = ROOT / "docs" / "benchmarks"
_COLUMNS = (
    # title, measure, figure, digits
    ("drain, jobs/s", "drain", "rate", 0),
    ("drain of sync no-ops, jobs/s", "drain_sync", "rate", 0),
    ("enqueue, jobs/s", "enqueue", "rate", 0),
    ("batch enqueue, jobs/s", "batch", "rate", 0),
    ("latency p50, ms", "latency", "p50_ms", 2),
    ("latency p99, ms", "latency", "p99_ms", 2),
)
_COSTS = (
    ("worker RSS, MB", "drain", "rss_mb", 1),
    ("server CPU per job, µs", "drain", "server_us", 1),
    ("commands sent per job", "drain_probe", "sent_per_job", 2),
    ("commands executed per job, in scripts too", "drain", "calls_per_job", 1),
    ("commands per s, idle", "idle", "commands_per_s", 1),
    ("recovery after SIGKILL, s", "recovery", "seconds", 1),
)
_SMALL_TURNS = (
    *((regime.removeprefix("jitter "), regime) for regime in REGIMES), ("trickle, enqueue included", "trickle"),
)  # fmt: skip
_METHOD = """\
How each figure is taken:

- **drain**: N jobs are enqueued before one worker process starts, N so large that the run takes some seconds; the
  worker itself counts its jobs and takes the time from the first to the last. The processor is a no-op.
- **enqueue** and **batch enqueue**: one producer process, for two seconds, one job per call or 1,000 per call.
- **latency**: a second process enqueues 1,000 jobs (300 before 2026-11-25), one every 5 ms, to an idle
  worker; from before the call of enqueue to the processor's start, both on the machine's monotonic clock.
- **server CPU** and **commands executed**: the server's own counts (INFO) before and after the drain, per job.
  **Commands sent** by the worker are counted by MONITOR in a smaller drain of its own.
- **small turns**: workers run jobs that wait for 5 to 35 ms, the same ones for all, of which more are ready than they
  can take (`1x5` is one worker of five slots); *trickle*: one job every 20 ms to an idle worker, enqueue included.
  Processor time of the server in µs / commands, those in scripts included / processor time of the workers in µs, each
  per job and without what the same workers cost per second when idle, which stands beside it.
- **recovery**: two workers, one long job, and a trickle of others, 20 per second; the worker that runs the long one is
  ended by SIGKILL; until the other starts it. Leases are set to 2 s wherever a contestant lets them be set.
- Every contestant has a fresh server, without persistence, on loopback TCP. Medians of the runs; smallest and largest
  in parentheses. Ratios to the floor are measured in turn with it, since the machine's speed varies by the minute.
"""
_REPEAT = """\
## How to repeat it

```bash
make bench        # this queue against the floor, on Redis where it is installed, else on the embedded Valkey
make bench-peers  # all peers as well, on Redis: about an hour
```

`make bench-peers` needs `redis-server` and, for BullMQ, `node` and `npm`. It makes a virtual environment for each peer
under `.bench/`, with the latest releases; remove that folder to renew them.
`python -m benchmarks peers --only "repid;saq"` measures some of them anew and keeps the others' results; `--runs` and
`--server` say how often and on what.
"""


def write_report(data: dict[str, Any]) -> None:
    """Write the page and its plots from the results file's contents."""
    ours, peers = (Suite(data["suites"].get(name, {})) for name in ("ours", "peers"))
    _FOLDER.mkdir(parents=True, exist_ok=True)
    plots = draw_plots(peers if peers.contestants else ours, _FOLDER)
    others = [Suite(suite) for name, suite in data["suites"].items() if name.startswith("ours on ")]
    _PAGE.write_text("\n".join(_lines(data, ours, peers, others, plots)).rstrip() + "\n")


def _lines(
    data: dict[str, Any], ours: Suite, peers: Suite, others: Sequence[Suite], plots: Sequence[str]
) -> Iterator[str]:
    yield "# Benchmarks"
    yield "\nThis page is written by `python -m benchmarks report` from [results.json](benchmarks/results.json).\n"
    yield from _table(("machine", ""), data["machine"].items())
    yield "\n## Targets\n"
    yield f"On {_where(ours)}; what concerns peers, on {_where(peers)}.\n"
    yield from _table(("what", "target", "reached", "met"), (target.row() for target in targets(ours, peers)))
    if peers.contestants:
        yield f"\n## Side by side, on {_where(peers)}\n"
        yield from (f"![{plot.removesuffix('.svg')}](benchmarks/{plot})\n" for plot in plots)
        yield from _comparison(peers)
    for suite in (ours, *others):
        if suite.contestants:
            yield f"\n## Against the floor, on {_where(suite)}\n"
            yield from _comparison(suite)
            yield from _ratios(suite)
    if GROWTH in ours:
        yield "\n## Growth\n"
        yield from _growth(ours)
    yield f"\n{_METHOD}"
    yield _REPEAT
    yield from _settings(ours, peers)


def _where(suite: Suite) -> str:
    if not suite.contestants:
        return "nothing yet"
    return f"{suite.data['server']} ({suite.data['when']}, {suite.data['runs']} runs)"


def _comparison(suite: Suite) -> Iterator[str]:
    names = [name for name in suite.contestants if name not in {GROWTH, IN_TURN}]
    names.sort(key=lambda name: suite.middle(name, "drain", "rate") or 0.0, reverse=True)
    for columns in (_COLUMNS, _COSTS):
        rows = ((name, *(_cell(suite, name, column) for column in columns)) for name in names)
        yield from _table(("", *(column[0] for column in columns)), rows)
        yield ""
    yield "Small turns, server µs / commands / workers' µs per job:\n"
    heading = ("", *(words for words, _ in _SMALL_TURNS), "the same per s, idle")
    measures = [measure for _, measure in _SMALL_TURNS] + ["rest"]
    yield from _table(heading, ((name, *(_costs(suite, name, measure) for measure in measures)) for name in names))
    yield ""
    yield "What is missing:\n"
    for name in sorted(names):
        reasons = suite.contestants[name].get("reasons", {})
        if reasons and not name.startswith("floor"):
            yield f"- {name}: {'; '.join(f'{measure} ({reason})' for measure, reason in reasons.items())}"


def _ratios(suite: Suite) -> Iterator[str]:
    if IN_TURN in suite:
        yield "\nMeasured in turn with the floor, as ratios:\n"
        parts = (
            ("`enqueue`", "send"),
            ("`enqueue_batch`", "batch"),
            ("latency p50", "p50"),
            ("latency p99", "p99"),
            ("latency p99 against p99", "tail"),
            ("drain, observed", "observed"),
        )
        yield from _table(
            [words for words, _ in parts], [[_cell(suite, IN_TURN, ("", "ratios", part, 2)) for _, part in parts]]
        )


def _cell(suite: Suite, name: str, column: tuple[str, str, str, int]) -> str:
    _, measure, part, digits = column
    figure = suite.figure(name, measure, part)
    if figure is None:
        return "-"
    if measure == "recovery" and suite.middle(name, measure, "limit"):
        return f"> {figure.middle:.0f}"
    return figure.text(digits)


def _costs(suite: Suite, name: str, measure: str) -> str:
    parts = [suite.middle(name, measure, part) for part in ("server_us", "commands", "worker_us")]
    server, commands, worker = parts
    if server is None or commands is None or worker is None:
        return "-"
    return f"{server:,.0f} / {commands:,.1f} / {worker:,.0f}"


def _growth(suite: Suite) -> Iterator[str]:
    taken = list(suite.measures(GROWTH))
    grown = [measure for measure in taken if suite.figure(GROWTH, measure, "drain")]
    parts = (("drain", 0), ("drain_server_us", 2), ("enqueue", 0), ("enqueue_server_us", 2))
    heading = ("besides", "drain, jobs/s", "server CPU per job, µs", "enqueue, jobs/s", "server CPU per job, µs")
    yield from _table(
        heading, ((measure, *(_cell(suite, GROWTH, ("", measure, *part)) for part in parts)) for measure in grown)
    )
    yield "\nThe rest of it (memory in MB, times in ms, busy as a share of one core):\n"
    for measure in taken:
        if measure not in grown:
            yield f"- {measure}: {'; '.join(_described(suite, measure))}"
    yield from (f"- {measure}: {reason}" for measure, reason in suite.contestants[GROWTH]["reasons"].items())


def _described(suite: Suite, measure: str) -> Iterator[str]:
    for part in suite.contestants[GROWTH]["values"][measure]:
        figure = suite.figure(GROWTH, measure, part)
        if figure is not None:
            yield f"{part.replace('_', ' ')} {figure.text(0 if part == 'rate' else 2)}"
    server, worker = (suite.middle(GROWTH, measure, part) for part in ("server_busy", "worker_busy"))
    if server is not None and worker is not None:
        yield "the server is the limit" if server > worker else "the workers are the limit"


def _settings(ours: Suite, peers: Suite) -> Iterator[str]:
    yield "## Settings and versions\n"
    seen: set[str] = set()
    for name, entry in (*peers.contestants.items(), *ours.contestants.items()):
        if entry["settings"] in seen:
            continue
        seen.add(entry["settings"])
        yield f"### {name.partition(',')[0]}\n"
        yield f"{entry['settings']}\n"
        yield f"Versions: {', '.join(f'{package} {version}' for package, version in entry['versions'].items())}.\n"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heading)} |"
    yield f"|{'---|' * len(heading)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
