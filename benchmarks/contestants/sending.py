"""The loops that enqueue: by count, by time, spaced, or in batches. Never knows which queue it fills."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from benchmarks.contestants.protocol import Module, Order, Payload, Sender, make_payload, say

BATCH_SIZE = 1000
_CLOCK_EVERY = 32


def send(module: Module, order: Order) -> None:
    """Enqueue what the order asks, and report how long the calls took and how many jobs they sent."""
    context = module.open_sender(order)
    if hasattr(context, "__aenter__"):
        asyncio.run(_send_async(context, order))
        return
    with context as sender:
        call = _call(sender, order)
        if call is None:
            say("unable")
        elif order.gap_ms:
            for number, wait_s in _schedule(order):
                time.sleep(wait_s)
                call(make_payload(order, number))
            say("sent", seconds=0.0, jobs=order.count)
        else:
            _timed(call, _arguments(order))


async def _send_async(context: Any, order: Order) -> None:
    async with context as sender:
        call = _call(sender, order)
        if call is None:
            say("unable")
        elif order.gap_ms:
            for number, wait_s in _schedule(order):
                await asyncio.sleep(wait_s)
                await call(make_payload(order, number))
            say("sent", seconds=0.0, jobs=order.count)
        else:
            await _timed_async(call, _arguments(order))


def _call(sender: Sender, order: Order) -> Callable[[Any], Any] | None:
    return sender.many if order.role == "batch" else sender.one


def _schedule(order: Order) -> Iterator[tuple[int, float]]:
    """Yield each job's number and how long to wait for its moment, which does not drift."""
    start = time.monotonic()
    for number in range(order.count):
        yield number, max(0.0, start + number * order.gap_ms / 1000 - time.monotonic())


def _arguments(order: Order) -> Iterator[tuple[Any, int]]:
    """Yield what each call takes and how many jobs that is. Payloads are made inside the measured time, for all."""
    if order.role == "batch":
        for start, size in _batches(order):
            batch: list[Payload] = [make_payload(order, number) for number in range(start, start + size)]
            yield batch, size
    else:
        for number in _numbers(order, _CLOCK_EVERY):
            yield make_payload(order, number), 1


def _batches(order: Order) -> Iterator[tuple[int, int]]:
    if order.seconds:
        for number in _numbers(order, 1):
            yield number * BATCH_SIZE, BATCH_SIZE
    else:
        for start in range(0, order.count, BATCH_SIZE):
            yield start, min(BATCH_SIZE, order.count - start)


def _numbers(order: Order, clock_every: int) -> Iterator[int]:
    """Yield 0, 1, 2, ... up to the order's count, or until its seconds are over."""
    if not order.seconds:
        yield from range(order.count)
        return
    end = time.monotonic() + order.seconds
    for number in itertools.count():
        if number % clock_every == 0 and time.monotonic() >= end:
            return
        yield number


def _timed(call: Callable[[Any], Any], arguments: Iterator[tuple[Any, int]]) -> None:
    jobs, before = 0, time.perf_counter()
    for argument, size in arguments:
        call(argument)
        jobs += size
    say("sent", seconds=time.perf_counter() - before, jobs=jobs)


async def _timed_async(call: Callable[[Any], Awaitable[Any]], arguments: Iterator[tuple[Any, int]]) -> None:
    jobs, before = 0, time.perf_counter()
    for argument, size in arguments:
        await call(argument)
        jobs += size
    say("sent", seconds=time.perf_counter() - before, jobs=jobs)
