"""QueueManager: operations come in. Never runs one."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from queue_system.broker.commands import MAX_ITEMS, NewOperation, split_batch
from queue_system.clock import ms_since, unix_seconds
from queue_system.config import BREAKER, QueueConfig, breaker_name
from queue_system.durability import run_confirmed
from queue_system.errors import InvalidInputError, ItemTooLargeError
from queue_system.inspection import read_status
from queue_system.model.arguments import (
    BatchOptions,
    check_batch_options,
    check_column,
    check_durability,
    check_list,
    check_seconds,
    check_unique,
    delay_milliseconds,
)
from queue_system.model.entity import canonical_entity, encode_entities, encode_entity
from queue_system.model.keys import check_identifier, join_queue, queue_name_from
from queue_system.model.operation import Operation, encode_item, encode_tail
from queue_system.model.registry import Processor, Reference
from queue_system.model.retry import QueueRetryConfig
from queue_system.model.sealing import Encode
from queue_system.resilience import circuit_breaker, try_catch

_AT_ONCE: Final = 0.0


class QueueManager:
    """Enqueues operations and shows the queues. Synchronous, thread-safe, and safe across a fork."""

    def __init__(self, config: QueueConfig) -> None:
        if not isinstance(config, QueueConfig):
            raise InvalidInputError("config", f"a {type(config).__name__} is no QueueConfig")
        self.config = config

    @try_catch
    def enqueue(
        self,
        entity: dict[str, Any],
        processor: Processor | str,
        queue_name: str | None = None,
        priority: str = "normal",
        operation_id: str | None = None,
        retry_config: QueueRetryConfig | None = None,
        on_success: Processor | str | None = None,
        on_failure: Processor | str | None = None,
        timeout: float | None = None,
        deduplication_key: str | None = None,
        custom_serializer: Callable[[Any], Any] | None = None,
        *,
        delay: float = _AT_ONCE,
        durability: str | None = None,
    ) -> dict[str, Any]:
        """Enqueue one operation; when this returns, the operation is in Redis, as safe as `durability` says.

        Args:
            entity: the input, a JSON value; dates, UUIDs, enums, dataclasses and the like are converted.
            processor: a callable or the name `"package.module.function"`; it is called with the entity.
            queue_name: default: the processor's own name.
            priority: `"high"`, `"normal"` or `"low"`.
            operation_id: default: a fresh one. With an id that is known already, nothing is added.
            retry_config: default: `QueueRetryConfig()`.
            on_success: called with `{"entity", "result", "operation_id"}`.
            on_failure: called with `{"entity", "error", "operation_id"}` after the last attempt.
            timeout: limit of one attempt, in s.
            deduplication_key: while an operation with this key is live, nothing is added.
            custom_serializer: turns what JSON cannot carry into something that it can.
            delay: how many s from now the operation is due.
            durability: wait for the server's memory (`"fast"`), disk (`"fsync"`) or a replica (`"replicated"`);
                default: the configuration's.

        Returns:
            `operation_id`, `status` (`"queued"` or `"duplicate"`), `has_callbacks`, `enqueue_time_ms`.

        Raises:
            InvalidInputError: an argument is wrong; nothing was written.
            UnconfirmedError: it is queued, but not yet as safe as `durability` asks for.
            ServerError: on ServerUnreachableError the outcome is unknown; enqueue again with the same `operation_id`.
            CircuitOpenError: the server has been unreachable; try again after `retry_after` s.
        """
        queue_data = self._header(processor, retry_config, on_success, on_failure, timeout)
        queue_data["entity"] = entity
        if operation_id is not None:
            queue_data["operation_id"] = operation_id
        if deduplication_key is not None:
            queue_data["deduplication_key"] = deduplication_key
        if delay is not _AT_ONCE:
            queue_data["delay"] = delay
        if durability is not None:
            queue_data["durability"] = durability
        name = _default_queue_name(queue_data["processor"]) if queue_name is None else queue_name
        return self._queue_operation(queue_data, name, priority, custom_serializer)

    @try_catch
    def enqueue_batch(
        self,
        entities: Sequence[dict[str, Any]],
        processor: Processor | str,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Enqueue many operations, up to 1,000 in a round trip. All are validated before the first is sent.

        `kwargs` are those of `enqueue`; `operation_id` and `deduplication_key` are lists as long as `entities`.
        Returns what `enqueue` returns, for each entity, and raises what it raises.
        """
        started_ns = time.perf_counter_ns()
        check_list("entities", entities)
        options = check_batch_options(kwargs)
        header = self._header(processor, options.retry_config, options.on_success, options.on_failure, options.timeout)
        name = _default_queue_name(header["processor"]) if options.queue_name is None else options.queue_name
        queue = join_queue(options.priority, name)
        delay_ms = delay_milliseconds(options.delay)
        durability = check_durability(options.durability, self.config.durability)
        operations, nonce = self._prepare_batch(queue, entities, header, options)
        ttl_ms = int(self.config.dedup_ttl * 1000)
        enqueue = self.config.commands.enqueue
        commands = [
            enqueue(queue, nonce, chunk, delay_ms=delay_ms, dedup_ttl_ms=ttl_ms) for chunk in split_batch(operations)
        ]
        replies = run_confirmed(self.config, commands, durability, [new.operation_id for new in operations])
        answers = [answer for reply in replies for answer in reply]
        duration_ms = ms_since(started_ns)
        if operations:
            self.config.metrics.add_many("enqueued", answers.count(1))
            self.config.metrics.log_batch("enqueue", len(operations), duration_ms)
        has_callbacks = options.on_success is not None or options.on_failure is not None
        return [
            _describe(new.operation_id, answer, has_callbacks, duration_ms)
            for new, answer in zip(operations, answers, strict=True)
        ]

    @try_catch
    @circuit_breaker(name=breaker_name, **BREAKER)
    def get_queue_status(self) -> dict[str, Any]:
        """Return the length of every registered list and of the dead letters, and figures of the whole fleet.

        The members: each list's key, `queue:failures`, `queue:system_errors`, `queue:delayed`, `queue:running`,
        `total_items` (the sum of the registered lists), `metrics` (the fleet's counters), `status_time` (Unix seconds).
        """
        return read_status(self.config)

    @try_catch
    def purge_queue(self, queue_name: str, priority: str = "normal") -> int:
        """Remove all items that wait in one queue, delayed ones included; return how many. Running ones go on."""
        queue = join_queue(priority, queue_name)
        commands, run = self.config.commands, self.config.run
        removed = page = run(commands.purge(queue))
        while page == MAX_ITEMS:
            page = run(commands.purge(queue))
            removed += page
        cursor, mark = "0", b"\n%b\n" % queue.encode()
        while True:
            cursor, members = run(commands.delayed_page(cursor))
            doomed = [m for m in members if m[m.find(b"\n") :].startswith(mark)]
            if doomed:
                removed += run(commands.purge(queue, doomed))
            if cursor == "0":
                return removed

    def _generate_operation_id(self) -> str:
        """Return a fresh random id of 32 hexadecimal digits."""
        return os.urandom(16).hex()

    def _hash_entity(self, entity: dict[str, Any]) -> str:
        """Return a digest that is equal for equal entities, whatever the order of their members."""
        return hashlib.sha256(canonical_entity(entity)).hexdigest()

    def _serialize_entity(self, entity: Any, default_serializer: Callable[[Any], Any] | None = None) -> str:
        """Return the entity as JSON; `default_serializer` is called for what JSON cannot carry."""
        return encode_entity(entity, default_serializer).decode()

    @try_catch
    def _queue_operation(
        self,
        queue_data: dict[str, Any],
        queue_name: str,
        priority: str = "normal",
        custom_serializer: Callable[[Any], Any] | None = None,
    ) -> dict[str, Any]:
        """Encode the members of one operation and put it into its queue; the answer is that of `enqueue`."""
        started_ns = time.perf_counter_ns()
        data = dict(queue_data)
        queue = join_queue(priority, queue_name)
        delay_ms = delay_milliseconds(data.pop("delay")) if "delay" in data else 0
        durability = check_durability(data.pop("durability", None), self.config.durability)
        operation_id, nonce = self._identify(data.pop("operation_id", None))
        if (key := data.get("deduplication_key")) is not None:
            check_identifier(key, "deduplication_key")
        entity = encode_entity(data.pop("entity", None), custom_serializer)
        tail = encode_tail(Operation(timestamp=unix_seconds(), nonce=nonce, **data))
        encode = self._encoder(queue)
        new = NewOperation(operation_id, self._check_size(encode(operation_id, entity, tail), "entity"), key or "")
        command = self.config.commands.enqueue(
            queue, nonce, (new,), delay_ms=delay_ms, dedup_ttl_ms=int(self.config.dedup_ttl * 1000)
        )
        if durability == "fast":
            (answer,) = self.config.run(command)
        else:
            ((answer,),) = run_confirmed(self.config, (command,), durability, (operation_id,))
        if answer == 1:
            self.config.metrics.update("enqueued")
        has_callbacks = "on_success" in data or "on_failure" in data
        return _describe(operation_id, answer, has_callbacks, ms_since(started_ns))

    def _prepare_batch(
        self, queue: str, entities: Sequence[Any], header: dict[str, Any], options: BatchOptions
    ) -> tuple[list[NewOperation], str]:
        ids = check_unique("operation_id", check_column("operation_id", options.operation_id, len(entities)))
        dedup_keys = check_column("deduplication_key", options.deduplication_key, len(entities))
        nonce = "" if ids is None else secrets.token_hex(8)
        base = secrets.token_hex(12)
        template = Operation(timestamp=unix_seconds(), nonce=nonce, **header)
        tail = encode_tail(template)
        encode = self._encoder(queue)
        operations = []
        for i, entity in enumerate(encode_entities(entities, options.custom_serializer)):
            operation_id, key = f"{base}{i:08x}" if ids is None else ids[i], ""
            if dedup_keys is not None:
                template.deduplication_key = key = dedup_keys[i]
                tail = encode_tail(template)
            item = encode(operation_id, entity, tail)
            if len(item) > self.config.max_item_bytes:
                self._check_size(item, f"entities[{i}]")
            operations.append(NewOperation(operation_id, item, key))
        return operations, nonce

    def _encoder(self, queue: str) -> Encode:
        sealing = self.config.sealing
        return encode_item if sealing is None else sealing.encoder(queue)

    def _identify(self, operation_id: object) -> tuple[str, str]:
        """Return id and nonce. A fresh id is its own proof of the call, so its nonce stays empty."""
        if operation_id is None:
            return self._generate_operation_id(), ""
        return check_identifier(operation_id, "operation_id"), secrets.token_hex(8)

    def _header(
        self,
        processor: Processor | str,
        retry_config: QueueRetryConfig | None,
        on_success: Processor | str | None,
        on_failure: Processor | str | None,
        timeout: float | None,
    ) -> dict[str, Any]:
        """Return the members of an item that do not depend on the entity."""
        registry = self.config.registry
        header: dict[str, Any] = {}
        _put(header, "processor", registry.reference(processor, "processor"))
        if on_success is not None:
            _put(header, "on_success", registry.reference(on_success, "on_success"))
        if on_failure is not None:
            _put(header, "on_failure", registry.reference(on_failure, "on_failure"))
        if timeout is not None:
            header["timeout"] = check_seconds("timeout", timeout)
        if retry_config is not None and not isinstance(retry_config, QueueRetryConfig):
            raise InvalidInputError("retry_config", f"a {type(retry_config).__name__} is no QueueRetryConfig")
        if retry_config is not None and not retry_config.is_default:
            header["max_attempts"], header["delays"] = retry_config.max_attempts, retry_config.delays
            if retry_config.timeout is not None:
                header["retry_timeout"] = retry_config.timeout
        return header

    def _check_size(self, item: bytes, field: str) -> bytes:
        """Return the item, or raise ItemTooLargeError when it exceeds `max_item_bytes`."""
        if len(item) > self.config.max_item_bytes:
            raise ItemTooLargeError(
                field,
                f"the item has {len(item)} bytes, more than max_item_bytes = {self.config.max_item_bytes};"
                " keep large data elsewhere and enqueue a reference to it",
            )
        return item

    def _log_error(self, operation: str, error: BaseException) -> None:
        self.config._log_error(operation, error)  # noqa: SLF001 - one way to report for config and manager


@lru_cache(maxsize=1024)
def _default_queue_name(processor: str) -> str:
    return queue_name_from(processor.partition("#")[0].rpartition(".")[2])


def _describe(operation_id: str, answer: int | bytes, has_callbacks: bool, duration_ms: float) -> dict[str, Any]:
    """Turn the script's answer for one operation into what `enqueue` returns."""
    return {
        "operation_id": answer.decode() if isinstance(answer, bytes) else operation_id,
        "status": "queued" if answer == 1 else "duplicate",
        "has_callbacks": has_callbacks,
        "enqueue_time_ms": duration_ms,
    }


def _put(header: dict[str, Any], name: str, reference: Reference) -> None:
    header[name] = reference.name
    if reference.module is not None:
        header[f"{name}_module"] = reference.module
