"""The claim of a worker without work: it waits for the wake-up marker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from queue_system.broker.access import AccessBackoff
from queue_system.broker.aio import AioTransport, Request
from queue_system.broker.loop_end import cancel_before_close
from queue_system.broker.protocol import Command
from queue_system.broker.replies import Claimed
from queue_system.broker.shard import Shard
from queue_system.execution.reconnect import Reconnect
from queue_system.execution.slots import WorkerTask
from queue_system.metrics import StructuredLogger


class LongPoll:
    """Blocks on the marker and claims behind it, in one round trip, on a connection of its own."""

    def __init__(
        self, shard: Shard, log: StructuredLogger, flush_counts: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        self._commands = shard.commands
        self._transport = AioTransport(shard.route)
        self._reconnect = Reconnect(
            log, shard.outage, flush_counts, AccessBackoff(), longest_wait_s=lambda: shard.route.longest_wait_s
        )
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        """The poll that is under way; it also waits here before a next try when the server has failed."""
        self.asked: str | None = None
        """The id of the claim that waits for its answer."""

    @property
    def waits(self) -> bool:
        """Whether it is under way."""
        return self._task is not None

    def start(
        self,
        names: Sequence[str],
        claim: Command[Claimed | None],
        block_s: float,
        answered: Callable[[Claimed | None], None],
        failed: Callable[[], None],
    ) -> None:
        """Wait for work in queues, all if none is named, for at most `block_s`; claim, and call one of both.

        After a failure the claim may have been run.
        """
        wait = self._commands.wait_for_wake(names, block_s)
        request = self._transport.send((wait, claim), patience=block_s)  # at once: beside what the turn settles
        waiting = self._wait(request, answered, failed)
        loop = asyncio.get_running_loop()
        self._task = WorkerTask(waiting, loop=loop, name="queue-system-long-poll")
        cancel_before_close(loop, self._task)
        self._task.add_done_callback(self._over)  # called even if it is cancelled before it begins

    def cancel(self) -> str | None:
        """Give up; return the id of the claim under way, which may have been run and answered to nobody."""
        asked = self.asked
        self.asked = None
        if asked is not None and self._task is not None:
            self._task.cancel()
        return asked

    async def end(self) -> None:
        """Give up, and wait until that is done."""
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def drop_connection(self) -> None:
        """Drop the connection."""
        self._transport.close()

    async def _wait(
        self, request: Request, answered: Callable[[Claimed | None], None], failed: Callable[[], None]
    ) -> None:
        try:
            _, claimed = await self._transport.receive(request)
            self._reconnect.over()
            self.asked = None
            self._task = None  # so that the next one begins with the turn that settles what this one has brought
            answered(claimed)
            self._ended()
        except Exception as error:  # noqa: BLE001 - as in the turns
            self.asked = None
            failed()
            await self._reconnect.wait(error)

    def _over(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._transport.close()  # even if it had not begun: the next would read the replies that are still to come
        if self._task is task:
            self._task = None
            self._ended()
