"""What wraps the attempts of a worker: traces, and the application's middleware."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, assert_never

import msgspec
from msgspec.structs import replace

from queue_system.clock import SYSTEM_CLOCK
from queue_system.execution.callbacks import Callback
from queue_system.execution.delivery import Delivery
from queue_system.execution.executor import Executor, is_meant_for_the_process
from queue_system.execution.reporting import Reporter
from queue_system.execution.rests import full_name
from queue_system.execution.runners.forks import leave_if_forked
from queue_system.execution.runners.threads import ThreadPool
from queue_system.execution.slots import Slot, forget_cancellations, forget_task, is_the_end
from queue_system.model.lazy import PLAIN, finished
from queue_system.model.middleware import AROUND, RunningOperation, Wrapping, is_async, methods_of
from queue_system.model.verdict import (
    Complete,
    Fail,
    Interrupted,
    Outcome,
    Raised,
    Reject,
    Release,
    Retry,
    Succeeded,
    Unprocessable,
    Verdict,
    error_of,
)

HOOK_WITHIN_S: Final = 10.0
"""How long a hook may take that is called after the end of an attempt."""
_TIDY_UP_S: Final = 1.0
"""How long a hook may go on after its cancellation before it is abandoned."""
_MOST_ABANDONED: Final = 20
"""While this many hooks are abandoned and still run, no further one is begun."""

Call: TypeAlias = Callable[[Any], Awaitable[Outcome]]
"""Calls a processor or callback with its argument."""
_Run: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Calls it with an entity, and returns its result or raises its error."""
_MISSING: Final = object()


class Hook(msgspec.Struct, frozen=True):
    """A method of an application's middleware that is called when something happens."""

    name: str
    call: Callable[..., Any]
    is_async: bool

    async def run(self, arguments: Sequence[Any], threads: ThreadPool, home: int) -> BaseException | None:
        """Call it, and return what it raised. A sync one runs in a thread, and sets context variables here."""
        error: BaseException | None = None
        try:
            if self.is_async:
                await self.call(*arguments)
            else:
                result = await _in_thread(threads, partial(self.call, *arguments))
                if inspect.isawaitable(result):
                    await result
        except BaseException as raised:  # noqa: BLE001 - a task that lets SystemExit out ends its event loop
            error = raised
        leave_if_forked(home, error)
        return error


async def _in_thread(threads: ThreadPool, function: Callable[[], Any]) -> Any:
    context = contextvars.copy_context()
    try:
        return await threads.run(lambda _: context.run(function), None)
    finally:
        for variable, value in context.items():
            if variable.get(_MISSING) is not value:
                variable.set(value)


class Chain:
    """The wrapping of a worker's attempts, composed once: the first entry is the outermost."""

    def __init__(self, wrapping: Wrapping, reporter: Reporter) -> None:
        self.wrapping = wrapping
        self.tracing = wrapping.tracing
        self.reporter = reporter
        methods = [methods_of(entry) for entry in wrapping.middleware]
        arounds = [found[AROUND] for found in methods if AROUND in found]
        self.call = _composed(arounds)
        self.on_start = _hooks(methods, "on_start")
        self.surrounds = bool(arounds or self.on_start)
        """Whether anything is to be done around a processor."""
        self.at_end = {name: _hooks(methods, name)[::-1] for name in ("on_success", "on_failure", "on_retry")}
        """The hooks that hear of the end of an attempt, in their order: the outermost is the last."""
        self.telling: set[asyncio.Task[None]] = set()
        """The tasks that report attempts whose slots were abandoned."""
        self.abandoned: set[asyncio.Task[Any]] = set()
        """The hooks that ignore their cancellation."""


def _hooks(methods: Sequence[dict[str, Callable[..., Any]]], name: str) -> tuple[Hook, ...]:
    return tuple(Hook(name, found[name], is_async(found[name])) for found in methods if name in found)


def _composed(arounds: Sequence[Callable[..., Awaitable[Any]]]) -> Callable[[_Run, Any], Awaitable[Any]]:
    """Put arounds one into the other; what comes out takes what calls the processor, and the operation."""
    call: Callable[[_Run, Any], Awaitable[Any]] = _innermost
    for around in reversed(arounds):
        call = partial(_layer, around, call)
    return call


def _layer(
    around: Callable[..., Awaitable[Any]], inner: Callable[[_Run, Any], Awaitable[Any]], run: _Run, operation: Any
) -> Awaitable[Any]:
    return around(operation, partial(inner, run))


async def _innermost(run: _Run, operation: Any) -> Any:
    if not isinstance(operation, RunningOperation):
        given = type(operation).__name__
        raise TypeError(f"call_next: expected a RunningOperation, got {given}; pass on the operation that around got")
    return await run(operation.entity)


class WrappedAttempt:
    """One attempt on its way through what wraps it."""

    __slots__ = (
        "__weakref__", "_chain", "_delivery", "_executor", "_inner", "_is_over", "_operation", "_slot", "_trace",
        "settled",
    )  # fmt: skip

    def __init__(self, chain: Chain, executor: Executor, slot: Slot, delivery: Delivery) -> None:
        self.settled = False
        """Whether the attempt has been judged, so that only hooks run."""
        self._chain = chain
        self._executor = executor
        self._slot = slot
        self._delivery = delivery
        self._inner: Outcome | None = None
        self._is_over = False
        self._operation: RunningOperation | None = None
        tracing = chain.tracing
        operation = delivery.operation
        self._trace = None
        if tracing is not None:
            self._trace = tracing.processing(delivery.queue, delivery.operation_id, operation)

    @property
    def surrounds(self) -> bool:
        """Whether anything is to be done around the processor."""
        return self._chain.surrounds

    def resolved(self, argument: Any, limit_s: float) -> None:
        """Note what the processor or callback will be called with, and for how long at most."""
        if self._chain.wrapping.middleware:
            self._operation = self._record(argument.data if isinstance(argument, Callback) else argument, limit_s)

    async def around(self, call: Call, argument: Any) -> Outcome:
        """Let hooks and arounds run, and the processor within them. Raises what comes out of them."""
        operation = self._told_operation()
        if not operation.phase:
            for hook in self._chain.on_start:
                await self._start_hook(hook, operation)
        try:
            result = await self._chain.call(partial(self._run, call, argument), operation)
        except BaseException:
            if isinstance(self._inner, Interrupted):
                return self._inner
            raise
        finally:
            self._is_over = True
        inner = self._inner
        if isinstance(inner, Interrupted) or (isinstance(inner, Succeeded) and result is inner.result):
            return inner
        return Succeeded(result if type(result) in PLAIN else finished(result))

    async def _run(self, call: Call, argument: Any, entity: Any) -> Any:
        """Call the processor or callback; return its result, or raise its error."""
        slot = self._slot
        if self._is_over:
            raise RuntimeError("call_next: the attempt is over; await it within around")
        if slot.expired or slot.stopped:
            raise asyncio.CancelledError
        if isinstance(argument, Callback):
            entity = replace(argument, data=entity)
        try:
            outcome = await call(entity)
        except BaseException as error:
            if issubclass(type(error), SystemExit | KeyboardInterrupt) and asyncio.current_task() is not slot.task:
                raise RuntimeError(f"the processor raised {type(error).__name__}") from error  # it would end the loop
            raise
        self._inner = outcome
        match outcome:
            case Succeeded(result):
                return result
            case Raised():  # in a child process
                raise error_of(outcome)
            case Interrupted() | Unprocessable():
                raise RuntimeError("the processor was not begun")
        assert_never(outcome)

    async def end(self, outcome: Outcome, verdict: Verdict) -> None:
        """Tell the hooks how the attempt ended, and end its trace."""
        slot = self._slot
        self.settled = True
        try:
            if not slot.abandoned:
                await self._tell(outcome, verdict)
            if self._trace is not None:
                self._trace.end(outcome, verdict)
        except BaseException as error:
            if is_the_end(error, slot.task):
                raise
            self._chain.reporter.hook_failed(self._delivery, "tracing", error)

    def tell_apart(self, outcome: Outcome, verdict: Verdict) -> None:
        """Report to the hooks the end of an attempt whose slot was abandoned; its trace ends when it does."""
        if self._hooks_at(outcome, verdict)[0]:
            telling = asyncio.Task(self._tell(outcome, verdict), context=self._slot.context)
            self._chain.telling.add(telling)
            telling.add_done_callback(self._chain.telling.discard)

    async def _tell(self, outcome: Outcome, verdict: Verdict) -> None:
        hooks, arguments = self._hooks_at(outcome, verdict)
        if not hooks:
            return
        slot = self._slot
        slot.noted = float("inf")  # it is settled: nothing more is noted of it
        for hook in hooks:
            try:
                await self._run_hook(hook, arguments, SYSTEM_CLOCK.monotonic() + HOOK_WITHIN_S)
            except asyncio.CancelledError:
                break
            if slot.stopped:
                break
        forget_cancellations(slot.task)
        slot.stopped = False

    def _hooks_at(self, outcome: Outcome, verdict: Verdict) -> tuple[tuple[Hook, ...], tuple[Any, ...]]:
        """Return which hooks hear of a verdict, and with which arguments."""
        error = error_of(outcome) if isinstance(outcome, Raised | Unprocessable) else None
        told: tuple[Any, ...]
        match verdict:
            case Complete(result):
                name = "on_success"
                told = (result,)
            case Retry(delay):
                name = "on_retry"
                told = (error, delay)
            case Fail() | Reject():
                name = "on_failure"
                told = (error,)
            case Release():
                return (), ()
            case other:
                assert_never(other)
        hooks = self._chain.at_end[name]
        return (hooks, (self._told_operation(), *told)) if hooks and not self._delivery.operation.phase else ((), ())

    async def _start_hook(self, hook: Hook, operation: RunningOperation) -> None:
        await self._run_hook(hook, (operation,), None)
        if self._slot.expired or self._slot.stopped:
            raise asyncio.CancelledError

    async def _run_hook(self, hook: Hook, arguments: Sequence[Any], until: float | None) -> None:
        """Run a hook in a task of its own, but in the slot's context, and log what goes wrong.

        Raises CancelledError when the attempt is over or the worker stops.
        """
        if len(self._chain.abandoned) >= _MOST_ABANDONED:
            self._fail(hook, RuntimeError(f"{_MOST_ABANDONED} hooks ignore their cancellation, so none is called"))
            return
        work = hook.run(arguments, self._executor.helpers, os.getpid())
        task = asyncio.Task(work, name=f"queue-system-{hook.name}", context=self._slot.context)
        is_over = not await self._wait(task, until)
        error: BaseException | None = None
        if not task.done():
            await self._end_task(task)
            if not is_over:
                error = TimeoutError(f"it took longer than {HOOK_WITHIN_S:g} s, and was cancelled")
        elif task.cancelled():
            error = asyncio.CancelledError("the hook was cancelled")
        else:
            error = task.exception() or task.result()
        if error is not None:
            self._fail(hook, error)
        if is_over:
            raise asyncio.CancelledError

    async def _wait(self, task: asyncio.Task[Any], until: float | None) -> bool:
        """Wait for a hook, until then at most; False when the attempt is over or the worker stops."""
        slot = self._slot
        while not task.done():
            left_s = None if until is None else until - SYSTEM_CLOCK.monotonic()
            if left_s is not None and left_s <= 0:
                break
            try:
                await asyncio.wait({task}, timeout=left_s)
            except asyncio.CancelledError:
                if slot.expired or slot.stopped or slot.closing:
                    return False
                forget_cancellations(slot.task)  # it comes late, from what the operation left behind
        return True

    async def _end_task(self, task: asyncio.Task[Any]) -> None:
        """Cancel a hook; what ignores that is waited for no longer."""
        task.cancel()
        until = SYSTEM_CLOCK.monotonic() + _TIDY_UP_S
        while not task.done() and (left_s := until - SYSTEM_CLOCK.monotonic()) > 0:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task}, timeout=left_s)
        if not task.done():
            forget_task(task)
            self._chain.abandoned.add(task)
            task.add_done_callback(self._chain.abandoned.discard)

    def _fail(self, hook: Hook, error: BaseException) -> None:
        if not issubclass(type(error), Exception) and is_meant_for_the_process(error):
            self._slot.exit = error  # it is raised again when the attempt is over
        self._chain.reporter.hook_failed(self._delivery, hook.name, error)

    def _told_operation(self) -> RunningOperation:
        if self._operation is None:  # nothing could be begun
            self._operation = self._record(None, None)
        return self._operation

    def _record(self, entity: Any, timeout: float | None) -> RunningOperation:
        delivery = self._delivery
        operation = delivery.operation
        priority, _, queue = delivery.queue.decode(errors="replace").partition(":")
        return RunningOperation(
            operation_id=delivery.operation_id,
            processor=full_name(operation),
            queue=queue,
            priority=priority,
            entity=entity,
            attempt=operation.attempts + 1,
            max_attempts=operation.max_attempts,
            timeout=timeout,
            enqueued_at=operation.timestamp or None,
            deduplication_key=operation.deduplication_key,
            phase=operation.phase,
            worker_id=delivery.incarnation,
        )
