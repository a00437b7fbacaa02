"""A flow: work on the server, written once as a generator of commands, run in two ways."""

from __future__ import annotations

import functools
import inspect
from asyncio import _get_running_loop  # what asyncio.get_running_loop calls, without an error for None
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar, cast

from queue_system.broker.protocol import Command, Group
from queue_system.resilience.guard import report
from queue_system.resilience.naming import qualified_name

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")
Taken = TypeVar("Taken")

Flow: TypeAlias = Generator[Command[Any] | Group, Any, R]
"""Yields a command, or a group of them, and is sent what came back; an error is raised where it was yielded."""


def run_flow(work: Flow[R], run: Callable[[Any], Any]) -> R:
    """Run a flow to its end, each command by `run`; return its result."""
    try:
        request = next(work)
        while True:
            try:
                reply = run(request)
            except Exception as error:  # noqa: BLE001 - it is raised inside the flow
                request = work.throw(error)
            else:
                request = work.send(reply)
    except StopIteration as end:
        result: R = end.value
        return result


async def run_flow_async(work: Flow[R], run: Callable[[Any], Awaitable[Any]]) -> R:
    """Do what `run_flow` does, with an async `run`."""
    try:
        request = next(work)
        while True:
            try:
                reply = await run(request)
            except Exception as error:  # noqa: BLE001 - it is raised inside the flow
                request = work.throw(error)
            else:
                request = work.send(reply)
    except StopIteration as end:
        result: R = end.value
        return result


def taking(make: Callable[P, Taken]) -> Callable[[Callable[[M, Taken], Flow[R]]], Callable[Concatenate[M, P], Flow[R]]]:
    """Let a flow that takes one value be called with the arguments from which `make`, a record's class, makes it.

    They are spelled and described in `make` only: signature and docstring are put together from both.
    """

    def decorate(flow: Callable[[M, Taken], Flow[R]]) -> Callable[Concatenate[M, P], Flow[R]]:
        name = qualified_name(flow).rpartition("queue_system.")[2]

        @functools.wraps(flow)
        def called(owner: M, /, *args: P.args, **kwargs: P.kwargs) -> Flow[R]:
            try:
                taken = make(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{name}: {error}") from None
            return flow(owner, taken)

        _adopt(called, flow, make)
        return called

    return decorate


def _adopt(called: Callable[..., Any], flow: Callable[..., Any], make: Any) -> None:
    """Give a function the signature of a record's class, and the rest of a flow's name and docstring."""
    types: dict[str, Any] = {}
    for each in reversed(make.__mro__):
        types |= inspect.get_annotations(each)
    owner, *_ = inspect.signature(flow).parameters.values()
    own = [each.replace(annotation=types[each.name]) for each in inspect.signature(make).parameters.values()]
    result = flow.__annotations__["return"]
    vars(called)["__signature__"] = inspect.Signature([owner, *own], return_annotation=result)
    called.__annotations__ = {**{each.name: each.annotation for each in own}, "return": result}
    arguments = f"Args:{inspect.getdoc(make).partition('Args:')[2]}\n\n"  # type: ignore[union-attr]
    called.__doc__ = inspect.cleandoc(flow.__doc__ or "").replace("Returns:", f"{arguments}Returns:")


def blocking(flow: Callable[P, Flow[R]]) -> Callable[P, R]:
    """Make a method of an object with a `config` from its flow: it runs that on blocking connections.

    An error that leaves it is logged as by `try_catch`.
    """
    operation = qualified_name(flow)

    @functools.wraps(flow)
    def method(*args: P.args, **kwargs: P.kwargs) -> R:
        if _get_running_loop() is not None:
            args[0].config.notice_blocking(operation, f"a{flow.__name__}")  # type: ignore[attr-defined]
        try:
            return run_flow(flow(*args, **kwargs), args[0].config.run)  # type: ignore[attr-defined]
        except Exception as error:
            report(operation, args, error)
            raise

    _annotate(method, flow)
    return method


def awaiting(method: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Make the async twin of a method that `blocking` made: it runs the same flow, and blocks no event loop."""
    flow = cast("Callable[P, Flow[R]]", vars(method)["__wrapped__"])
    operation = qualified_name(flow)

    @functools.wraps(flow)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await run_flow_async(flow(*args, **kwargs), args[0].config.arun)  # type: ignore[attr-defined]
        except Exception as error:
            report(operation, args, error)
            raise

    _annotate(twin, flow)
    twin.__doc__ = f"Do what `{flow.__name__}` does, without blocking the event loop."
    return twin


def _annotate(method: Callable[..., Any], flow: Callable[..., Any]) -> None:
    """Let the signature name the result, not the flow that leads to it."""
    result = str(flow.__annotations__["return"]).removeprefix("Flow[").removesuffix("]")
    method.__annotations__ = {**flow.__annotations__, "return": result}
    vars(method)["__signature__"] = inspect.signature(flow).replace(return_annotation=result)
