"""Runs reads for those who show what is on the server."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

from queue_system.broker.protocol import Command, Group
from queue_system.broker.shard import Shard
from queue_system.client.flow import Flow, run_flow

R = TypeVar("R")


def read(shard: Shard, flow: Flow[R], retries: int | None = 1) -> R:
    """Run a flow of reads, resent `retries` times; None: as often as its configuration has it. Raises ServerError.

    Few, since who shows an outage must see it. Blocks.
    """
    return run_flow(flow, partial(_run, shard, retries))


def _run(shard: Shard, retries: int | None, request: Command[Any] | Group) -> Any:
    if isinstance(request, Group):
        return shard.transport.run_many(request.commands, retries=retries, together=request.together)
    return shard.transport.run(request, retries=retries)
