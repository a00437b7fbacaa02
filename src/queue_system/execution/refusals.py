"""What to do about settlements that the server refuses again and again: one of them must not hold the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from queue_system.broker.aio import AioTransport
from queue_system.broker.protocol import Command
from queue_system.config import QueueConfig
from queue_system.errors import QueueSystemError
from queue_system.execution.outbox import Batch
from queue_system.execution.prefetch import LARGEST_TURN
from queue_system.execution.settlement import Settlement, Settler
from queue_system.model.states import Verb

_PATIENCE: Final = 3


class Refusals:
    """Counts the failures of a batch, and finds the settlement that is to blame by sending ever fewer at once."""

    def __init__(self, config: QueueConfig, settler: Settler) -> None:
        self._config = config
        self._settler = settler
        self._failures = 0
        """How many times in a row the present batch has failed since its answer was asked for."""
        self._blamed: dict[int, int] = {}
        """How often a settlement failed alone, by its token."""
        self.share = LARGEST_TURN
        """How many settlements may travel together."""

    def passed(self) -> None:
        """Note that a batch was answered."""
        self._failures = 0
        self.share = min(LARGEST_TURN, 2 * self.share)
        if self.share == LARGEST_TURN:
            self._blamed.clear()

    async def ask(self, transport: AioTransport, nothing: Command[bytes]) -> bytes | None:
        """Return the answer to a batch that failed again, b"" if it was not applied and never will be; None: unknown.

        `nothing` is a settlement of nothing under the batch's id: where the batch was applied, it brings that answer;
        where not, it takes the id, and shows that the server takes settlements.
        """
        self._failures += 1
        if self.share == LARGEST_TURN and self._failures % _PATIENCE:
            return None
        try:
            (codes,) = await transport.run(nothing)
        except QueueSystemError:
            return None
        self._failures = 0
        return bytes(codes)

    def split(self, batch: Batch, now_ms: int) -> Sequence[Settlement]:
        """Return what is to be sent instead of a refused batch: the same in parts, or what the server takes."""
        if len(batch.settlements) > 1:
            self.share = max(1, len(batch.settlements) // 2)
            return batch.settlements
        (refused,) = batch.settlements
        if refused.verb is Verb.RUNNING:
            return ()
        if refused.verb is Verb.RELEASE or refused.form == "shelve":
            return batch.settlements
        delivery = refused.delivery
        if not self._is_to_blame(delivery.token):
            return batch.settlements
        self._config.log.error(
            "the server refuses a verdict: the item is set aside",
            operation_id=delivery.operation_id, verdict=refused.verb, size=len(refused.packed),
        )  # fmt: skip
        kept_ms = int(self._config.backup_ttl * 1000)
        return (self._settler.shelve(refused, self._config.queue_prefix, now_ms, kept_ms),)

    def _is_to_blame(self, token: int) -> bool:
        """Return whether a settlement has failed often enough since the server has shown that it takes others.

        The first time it may have been the server, which was out of reach until it was asked.
        """
        self.share = 1  # it is asked after each failure, and so between any two of this settlement
        failures = self._blamed[token] = self._blamed.get(token, 0) + 1
        if failures <= _PATIENCE:
            return False
        del self._blamed[token]
        return True
