"""The command line: `python -m benchmarks ours|peers|compare|report`. Never measures by itself."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare import run_comparison
from benchmarks.results import PATH, Results
from benchmarks.roster import FLOOR, OURS, OURS_WITHOUT_UVLOOP, PEERS, Contestant
from benchmarks.runner import QUICK, Effort, run_ratios, run_suite
from benchmarks.servers import usual_server


def main() -> None:
    """Run a suite, or write the report of what has been measured."""
    arguments = _parser().parse_args()
    results = Results(arguments.results)
    effort = QUICK if arguments.quick else Effort(runs=arguments.runs)
    if arguments.command == "report":
        # Imported here: measuring must work without matplotlib, which only the report needs.
        from benchmarks.report import write_report  # noqa: PLC0415

        write_report(results.data)
    elif arguments.command == "compare":
        run_comparison(
            arguments.other.absolute(), arguments.server or usual_server(), arguments.rounds, arguments.count
        )
    elif arguments.command == "ours":
        server, usual = arguments.server or usual_server(), arguments.server in {None, usual_server()}
        suite = "ours" if usual else f"ours on {server}"
        run_suite(suite, _chosen((*FLOOR, OURS, OURS_WITHOUT_UVLOOP), arguments.only), server, effort, results)
        if not arguments.only or "ratios" in arguments.only:
            run_ratios(suite, server, effort, results)
        if usual and (not arguments.only or "growth" in arguments.only):
            from benchmarks.growth import run_growth  # noqa: PLC0415

            run_growth(server, effort, results, huge=arguments.huge)
    else:
        run_suite("peers", _chosen((*FLOOR, OURS, *PEERS), arguments.only), arguments.server, effort, results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed measured side by side.")
    parser.add_argument("--results", type=Path, default=PATH, help="the results file")
    commands = parser.add_subparsers(dest="command", required=True)
    ours = commands.add_parser("ours", help="this queue against the floor, and its growth")
    ours.add_argument("--huge", action="store_true", help="grow to 10,000,000 ready items instead of 1,000,000")
    peers = commands.add_parser("peers", help="all peers, this queue and the floor on one server")
    compare = commands.add_parser(
        "compare", help="drain, enqueue, latency, small turns of this checkout and another one in turn"
    )
    compare.add_argument("other", type=Path, metavar="PATH", help="the other checkout, such as a worktree")
    compare.add_argument("--server", help="valkey, redis, or a server binary; default: as for `ours`")
    compare.add_argument("--rounds", type=int, default=7, help="how often both are measured; default: 7")
    compare.add_argument("--count", type=int, default=100_000, help="operations of each drain; default: 100,000")
    commands.add_parser("report", help="write docs/benchmarks.md and its plots from the results")
    for command, server, words in (
        (ours, None, "valkey, redis, or a server binary; default: redis where it is installed, else valkey"),
        (peers, "redis", "valkey, redis, or a server binary; default: redis"),
    ):
        command.add_argument("--server", default=server, help=words)
        command.add_argument("--runs", type=int, default=3, help="runs of each measure")
        command.add_argument("--quick", action="store_true", help="tiny runs, only to see that everything works")
        command.add_argument("--only", type=lambda names: names.split(";"), help="names, ratios, growth; split by ;")
    for command in (commands.choices["report"], compare):
        command.set_defaults(quick=False, runs=0)
    return parser


def _chosen(contestants: Sequence[Contestant], names: list[str] | None) -> list[Contestant]:
    return [contestant for contestant in contestants if names is None or contestant.name in names]


if __name__ == "__main__":
    main()
