"""Runs one role of one contestant: `python -m benchmarks.contestants NAME '{"role": "work", "url": ...}'`."""

from __future__ import annotations

import importlib
import json
import sys
from typing import cast

from benchmarks.contestants.protocol import PROBE, Module, Order
from benchmarks.contestants.sending import send


def main() -> None:
    """Import the contestant and do what the order says. Reports go to standard output, one line of JSON each."""
    name, text = sys.argv[1:]
    order = Order(**json.loads(text))
    # Imported by its name, not run as __main__, so that a queue which stores "module.function" finds it again.
    module = cast("Module", importlib.import_module(f"benchmarks.contestants.{name}"))
    if order.role == "work":
        PROBE.expect(order.count)
        module.work(order)
    else:
        send(module, order)


if __name__ == "__main__":
    main()
