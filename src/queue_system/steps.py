"""Work on the server: written once as a generator of commands, run in two ways. Never decides what to send."""

from __future__ import annotations

import functools
import inspect
from asyncio import _get_running_loop  # what asyncio.get_running_loop calls, without an error for None
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from queue_system.broker.protocol import Command, Group
from queue_system.resilience.guard import report
from queue_system.resilience.validation import qualified_name

P = ParamSpec("P")
R = TypeVar("R")

Steps: TypeAlias = Generator[Command[Any] | Group, Any, R]
"""Yields a command, or a group of them, and is sent what came back; an error is raised where it was yielded."""


def run_steps(work: Steps[R], run: Callable[[Any], Any]) -> R:
    """Run steps to their end, each command by `run`; return their result."""
    try:
        request = next(work)
        while True:
            try:
                reply = run(request)
            except Exception as error:  # noqa: BLE001 - it is raised inside the steps
                request = work.throw(error)
            else:
                request = work.send(reply)
    except StopIteration as end:
        result: R = end.value
        return result


async def run_steps_async(work: Steps[R], run: Callable[[Any], Awaitable[Any]]) -> R:
    """Do what `run_steps` does, with an async `run`."""
    try:
        request = next(work)
        while True:
            try:
                reply = await run(request)
            except Exception as error:  # noqa: BLE001 - it is raised inside the steps
                request = work.throw(error)
            else:
                request = work.send(reply)
    except StopIteration as end:
        result: R = end.value
        return result


def blocking(steps: Callable[P, Steps[R]]) -> Callable[P, R]:
    """Make a method of an object with a `config` from its steps: it runs them on blocking connections.

    An error that leaves it is logged as by `try_catch`.
    """
    operation = qualified_name(steps)

    @functools.wraps(steps)
    def method(*args: P.args, **kwargs: P.kwargs) -> R:
        if _get_running_loop() is not None:
            args[0].config.notice_blocking(operation, f"a{steps.__name__}")  # type: ignore[attr-defined]
        try:
            return run_steps(steps(*args, **kwargs), args[0].config.run)  # type: ignore[attr-defined]
        except Exception as error:
            report(operation, args, error)
            raise

    _annotate(method, steps)
    return method


def awaiting(method: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Make the async twin of a method that `blocking` made: it runs the same steps, and blocks no event loop."""
    steps = cast("Callable[P, Steps[R]]", inspect.unwrap(method))
    operation = qualified_name(steps)

    @functools.wraps(steps)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await run_steps_async(steps(*args, **kwargs), args[0].config.arun)  # type: ignore[attr-defined]
        except Exception as error:
            report(operation, args, error)
            raise

    _annotate(twin, steps)
    twin.__doc__ = f"Do what `{steps.__name__}` does, without blocking the event loop."
    return twin


def _annotate(method: Callable[..., Any], steps: Callable[..., Any]) -> None:
    """Let the signature tell the result, not the steps to it."""
    result = str(steps.__annotations__["return"]).removeprefix("Steps[").removesuffix("]")
    method.__annotations__ = {**steps.__annotations__, "return": result}
    vars(method)["__signature__"] = inspect.signature(steps).replace(return_annotation=result)
