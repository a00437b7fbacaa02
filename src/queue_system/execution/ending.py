"""How an engine ends: in order, with its event loop, from another thread, or in a forked child. Starts nothing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial

from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import QueueSystemError
from queue_system.execution.engine import Engine
from queue_system.execution.runners.forks import guard, release
from queue_system.execution.runners.loop_guard import guard_loop, release_loop
from queue_system.execution.slot_tasks import shown_ids
from queue_system.execution.slots import NEVER
from queue_system.resilience import in_daemon_thread

_STOP_WITHIN_S = 2.0
_END_WITHIN_S = 0.25
_TIDY_UP_S = 1.0
_LEAVE_WITHIN_S = 3.75
_SIGN_OFF_WITHIN_S = 3.0
_STEP_S = 0.005
_LEAVE_TRIES = 3


class Ending:
    """Ends one engine. Until then, a forked child and an event loop that is closed find it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cancelled_at = NEVER
        """When, on the monotonic clock, what still ran was cancelled because the worker stops."""
        guard(self)
        guard_loop(engine.loop)

    async def wind_down(self, grace_s: float) -> None:
        """Claim no more; let running operations end for `grace_s`, then cancel them; settle all that can be settled."""
        await self._engine.claimer.stop()
        await self._until(lambda: not self._engine.executor.running, grace_s)
        self._cancelled_at = SYSTEM_CLOCK.monotonic()
        self._engine.tasks.stop_running()
        await self._until(lambda: not (self._engine.executor.running or self._engine.unsettled), _STOP_WITHIN_S)

    async def end_tasks(self, turns: asyncio.Task[None] | None) -> None:
        """End the tasks of the slots, and that of the turns; what does not end is abandoned."""
        tasks = self._engine.tasks.cancel()
        if turns is not None:
            turns.cancel()
            tasks.append(turns)
        if tasks:
            await asyncio.wait(tasks, timeout=_END_WITHIN_S)
        self._engine.tasks.abandon()
        self._engine.tasks.ended.set()

    async def close(self) -> None:
        """Drop the connections and sign off."""
        await self._close_connections()
        with contextlib.suppress(TimeoutError):
            left_s = self._cancelled_at + _LEAVE_WITHIN_S - SYSTEM_CLOCK.monotonic()
            async with asyncio.timeout(left_s if left_s > 0 else _SIGN_OFF_WITHIN_S):
                await in_daemon_thread(self._sign_off)

    async def discard(self) -> None:
        """Drop the connections and everything held, without a word to the server."""
        await self._close_connections()
        self._engine.claimer.leave_process()

    async def leave(self, *, dies: bool = False) -> None:
        """Do what `end_tasks` and `close` do at the end of the event loop, which waits for this as for any task.

        `dies`: what runs has ended the event loop of a process that is the worker's own, which counts as its death.
        """
        running = [slot.task for slot in self._engine.tasks.running() if slot.task is not None]
        if dies and running:
            self._die()
            return
        self._engine.tasks.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # there is no more time
            if running:
                await asyncio.wait(running, timeout=_TIDY_UP_S)
        self._engine.tasks.abandon()
        self._release()
        self._engine.drop_connections()
        _within(_SIGN_OFF_WITHIN_S, self._sign_off)

    def close_blocking(self) -> None:
        """Do what `close` does for an event loop that was closed."""
        self._release()
        self._engine.drop_connections()
        self._sign_off()

    def leave_blocked(self) -> None:
        """Hand everything back from another thread, because the event loop is blocked; this process ends then."""
        self._engine.tasks.log_abandoned()
        self._sign_off()

    def cut_off(self) -> None:
        """In a forked child: hold and start nothing any more, and end it when the event loop comes round."""
        self._engine.drop_connections()
        self._engine.inflight.renew()  # whatever this process may still send counts for nothing
        self._engine.dispatcher.closed = True
        self._engine.executor.cut_off()

    def _die(self) -> None:
        """Hand back what waits, and leave what runs to those who take over from dead workers: it may harm them, too.

        So its deaths are counted, and the one to blame is found.
        """
        running = self._engine.tasks.running()
        self._engine.log.error(
            "something that runs here has ended this worker's event loop or cancelled its tasks: the process ends,"
            " and what runs comes back as from a worker that died",
            operations=len(running), operation_ids=shown_ids(running),
        )  # fmt: skip
        self._engine.dispatcher.closed = True
        self._engine.inflight.release_waiting()
        self._release()
        self._engine.drop_connections()
        _within(_SIGN_OFF_WITHIN_S, self._settle_last)

    async def _close_connections(self) -> None:
        self._release()
        await self._engine.claimer.long_poll.end()
        self._engine.drop_connections()

    def _release(self) -> None:
        if not self._engine.loop.is_closed():
            self._engine.tasks.ended.set()
        release(self)
        release_loop(self._engine.loop)
        self._engine.executor.close()

    def _sign_off(self) -> None:
        """Settle and release whatever is still booked on this incarnation, and leave."""
        for _ in range(_LEAVE_TRIES):
            with contextlib.suppress(QueueSystemError):
                if self._leave():
                    break
        self._engine.claimer.leave_process()

    def _leave(self) -> bool:
        """Settle what can be, release the rest and sign off. Return whether all of that is done. Raises ServerError."""
        engine = self._engine
        commands = engine.shard.commands
        run = partial(engine.shard.transport.run, retries=0)
        engine.completer.settle_blocking(engine.shard.transport)
        pulse = run(commands.beat("leave", engine.incarnation, engine.lease_ms))
        if not pulse.alive or pulse.tokens == 0:
            return True
        engine.inflight.held.clear()
        engine.inflight.release_unknown(engine.incarnation, sorted(run(commands.tokens(engine.incarnation))))
        return False

    def _settle_last(self) -> None:
        with contextlib.suppress(QueueSystemError):
            self._engine.completer.settle_blocking(self._engine.shard.transport)

    async def _until(self, holds: Callable[[], bool], longest_s: float) -> None:
        deadline = SYSTEM_CLOCK.monotonic() + longest_s
        while not holds() and SYSTEM_CLOCK.monotonic() < deadline:
            self._engine.claimer.release_waiting()
            self._engine.dispatcher.changed.set()
            await asyncio.sleep(_STEP_S)


def _within(longest_s: float, work: Callable[[], None]) -> None:
    """Do what blocks in a thread, and wait for it for at most the given time."""
    thread = threading.Thread(target=work, name="queue-system-sign-off", daemon=True)
    thread.start()
    thread.join(longest_s)
