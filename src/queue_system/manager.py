"""QueueManager: operations come in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from queue_system.client.dead_letters import DeadLetterPage, Selection, count_flow, drop_flow, list_flow, retry_flow
from queue_system.client.enqueue import batch_flow, describe_operation, enqueue_flow, fresh_id, queue_name_of
from queue_system.client.flow import Flow, awaiting, blocking, taking
from queue_system.client.lookup import OperationRecord, operation_flow, wait_flow
from queue_system.client.options import EnqueueOptions, batch_options
from queue_system.client.purge import purge_flow
from queue_system.config import QueueConfig
from queue_system.inspection.status import status_flow
from queue_system.inspection.workers import WorkerRecord, workers_flow
from queue_system.model.entity import canonical_entity, encode_entity
from queue_system.model.keys import check_identifier
from queue_system.model.operation import Operation
from queue_system.model.registry import Processor
from queue_system.validation import check_instance


class QueueManager:
    """Enqueues operations and shows the queues. Thread-safe, and safe across a fork.

    Every method has an async twin, named with an `a` in front, for any event loop: `await queue.aenqueue(...)`.
    """

    def __init__(self, config: QueueConfig) -> None:
        self.config = check_instance("config", config, QueueConfig)

    @blocking
    @taking(EnqueueOptions)
    def enqueue(self, options: EnqueueOptions) -> Flow[dict[str, Any]]:
        """Enqueue one operation; when this returns, the operation is in Redis, as safe as `durability` says.

        Returns:
            `operation_id`, `status` (`"queued"` or `"duplicate"`), `has_callbacks`, `enqueue_time_ms`.

        Raises:
            InvalidInputError: an argument is wrong; nothing was written.
            UnconfirmedError: it is queued, but not yet as safe as `durability` asks for.
            ServerError: on ServerUnreachableError the outcome is unknown; enqueue again with the same `operation_id`.
            CircuitOpenError: the server has been unreachable; try again after `retry_after` s.
        """
        config = self.config
        operation = describe_operation(config, options)
        if options.deduplication_key is not None:
            operation.deduplication_key = check_identifier(options.deduplication_key, "deduplication_key")
        flow = enqueue_flow(config, operation, options)
        if config.tracing is None:
            return flow
        queue = f"{options.priority}:{options.queue_name or queue_name_of(operation.processor)}"
        return config.tracing.sending(flow, operation, queue)

    @blocking
    def enqueue_batch(
        self,
        entities: Sequence[dict[str, Any]],
        processor: Processor | str,
        **kwargs: Any,
    ) -> Flow[list[dict[str, Any]]]:
        """Enqueue many operations, up to 1,000 in a round trip. All are validated before the first is sent.

        `kwargs` are those of `enqueue`; `operation_id` and `deduplication_key` are lists as long as `entities`.
        Returns what `enqueue` returns, for each entity, and raises what it raises.
        """
        return batch_flow(self.config, batch_options(entities, processor, kwargs))

    @blocking
    def get_operation(self, operation_id: str) -> Flow[OperationRecord | None]:
        """Return what is known of an operation, its result included; None when nothing is, or no longer."""
        return operation_flow(self.config, operation_id)

    @blocking
    def wait_for(self, operation_id: str, timeout: float | None = None) -> Flow[OperationRecord]:
        """Return the record of an operation as soon as it has succeeded or failed for good.

        Raises:
            UnknownOperationError: nothing is known of it, or no longer.
            WaitTimeoutError: it has not ended within `timeout` s; it goes on.
        """
        return wait_flow(self.config, operation_id, timeout)

    @blocking
    def get_queue_status(self) -> Flow[dict[str, Any]]:
        """Return the length of every registered list and of the dead letters, and numbers of the whole fleet.

        The members: each list's key, `queue:failures`, `queue:system_errors`, `queue:delayed`, `queue:running`,
        `total_items` (the sum of the registered lists), `metrics` (the fleet's counters), `status_time` (Unix seconds),
        and if there are any, `resting`: which worker leaves which queue alone, `until` when and for what `reason`. On a
        replica, whose data may be old, `replica_of` is the address of the primary.
        """
        return status_flow(self.config.shard)

    @blocking
    def list_workers(self) -> Flow[list[WorkerRecord]]:
        """Return the workers that are registered, and of the first 200 what each reports of itself and holds.

        They are in the order of their places, those that are declared dead at the end. A killed worker is listed until
        another one has taken over its work: a worker lives if its `heartbeat` has grown a while later.

        Raises:
            AccessDeniedError: the user of the server may not look at the workers.
        """
        return workers_flow(self.config.shard)

    @blocking
    def purge_queue(self, queue_name: str, priority: str = "normal") -> Flow[int]:
        """Remove all items that wait in one queue, delayed ones included; return how many. Running ones go on."""
        return purge_flow(self.config.shard, queue_name, priority)

    @blocking
    def list_dead_letters(
        self,
        source: str = "failures",
        *,
        letter_ids: Collection[str] | None = None,
        queue: str | None = None,
        processor: str | None = None,
        error: str | None = None,
        min_age: float | None = None,
        max_age: float | None = None,
        limit: int = 50,
        cursor: str = "",
    ) -> Flow[DeadLetterPage]:
        """Return a page of dead letters, the newest first; its cursor leads to the next one, and is "" at the end.

        Args:
            source: `"failures"` or `"system_errors"`.
            letter_ids: those with these ids.
            queue: those from this queue, `"emails"` or `"high:emails"`.
            processor: those for this processor, `"mails.send"` or `"send"`.
            error: those whose error, `"TYPE: text"`, holds this text, in any case.
            min_age: those that failed at least this many seconds ago. Dead letters without a time are passed over.
            max_age: those that failed at most this many seconds ago. Dead letters without a time are passed over.
            limit: the largest number of dead letters, up to 1,000.
            cursor: that of the page before.
        """
        selection = Selection(letter_ids, queue, processor, error, min_age, max_age)
        return list_flow(self.config, source, selection, limit, cursor)

    @blocking
    def count_dead_letters(
        self,
        source: str = "failures",
        *,
        letter_ids: Collection[str] | None = None,
        queue: str | None = None,
        processor: str | None = None,
        error: str | None = None,
        min_age: float | None = None,
        max_age: float | None = None,
    ) -> Flow[int]:
        """Return how many dead letters there are that `list_dead_letters` would list."""
        return count_flow(self.config, source, Selection(letter_ids, queue, processor, error, min_age, max_age))

    @blocking
    def retry_dead_letters(
        self,
        source: str = "failures",
        *,
        letter_ids: Collection[str] | None = None,
        queue: str | None = None,
        processor: str | None = None,
        error: str | None = None,
        min_age: float | None = None,
        max_age: float | None = None,
    ) -> Flow[int]:
        """Put the chosen dead letters back into their queues, attempts reset; return how many. Without a choice: all.

        Each moves in one step: it is never lost nor doubled. Those that come while this runs are left alone. One stays
        if no worker would take its item, or if its operation lives or has succeeded; one warning in the log says how
        many stayed.
        """
        selection = Selection(letter_ids, queue, processor, error, min_age, max_age)
        return retry_flow(self.config, source, selection)

    @blocking
    def drop_dead_letters(
        self,
        source: str = "failures",
        *,
        letter_ids: Collection[str] | None = None,
        queue: str | None = None,
        processor: str | None = None,
        error: str | None = None,
        min_age: float | None = None,
        max_age: float | None = None,
    ) -> Flow[int]:
        """Drop the chosen dead letters for good; return how many. Without a choice: all that are there now."""
        selection = Selection(letter_ids, queue, processor, error, min_age, max_age)
        return drop_flow(self.config, source, selection)

    aenqueue = awaiting(enqueue)
    aenqueue_batch = awaiting(enqueue_batch)
    aget_operation = awaiting(get_operation)
    await_for = awaiting(wait_for)
    aget_queue_status = awaiting(get_queue_status)
    alist_workers = awaiting(list_workers)
    apurge_queue = awaiting(purge_queue)
    alist_dead_letters = awaiting(list_dead_letters)
    acount_dead_letters = awaiting(count_dead_letters)
    aretry_dead_letters = awaiting(retry_dead_letters)
    adrop_dead_letters = awaiting(drop_dead_letters)

    async def aclose(self) -> None:
        """Close the idle connections of the running event loop, which its end does as well."""
        await self.config.aclose()

    def _generate_operation_id(self) -> str:
        """Return a fresh random id of 32 hexadecimal digits."""
        return fresh_id()

    def _hash_entity(self, entity: dict[str, Any]) -> str:
        """Return a digest that is equal for equal entities, whatever the order of their members."""
        return hashlib.sha256(canonical_entity(entity)).hexdigest()

    def _serialize_entity(self, entity: Any, default_serializer: Callable[[Any], Any] | None = None) -> str:
        """Return the entity as JSON; `default_serializer` is called for what JSON cannot carry."""
        return encode_entity(entity, default_serializer).decode()

    @blocking
    def _queue_operation(
        self,
        queue_data: dict[str, Any],
        queue_name: str,
        priority: str = "normal",
        custom_serializer: Callable[[Any], Any] | None = None,
    ) -> Flow[dict[str, Any]]:
        """Encode the members of one operation and put it into its queue; the answer is that of `enqueue`."""
        data = dict(queue_data)
        entity = data.pop("entity", None)
        how = {name: data.pop(name) for name in ("operation_id", "delay", "durability") if name in data}
        operation = Operation(**data)
        if "deduplication_key" in data:
            check_identifier(operation.deduplication_key, "deduplication_key")
        options = EnqueueOptions(
            entity, operation.processor, queue_name, priority, custom_serializer=custom_serializer, **how
        )
        return enqueue_flow(self.config, operation, options)

    def _log_error(self, operation: str, error: BaseException) -> None:
        self.config._log_error(operation, error)  # noqa: SLF001 - one way to report for config and manager
