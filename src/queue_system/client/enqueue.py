"""What `enqueue` does: check, encode, send, describe the answer."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Final

from queue_system.broker.protocol import Command, Group
from queue_system.broker.requests import NewOperation, split_batch
from queue_system.broker.shard import Shard
from queue_system.client.durability import confirmed
from queue_system.client.flow import Flow
from queue_system.client.options import AT_ONCE, EnqueueOptions
from queue_system.clock import ms_since, unix_seconds
from queue_system.config import QueueConfig
from queue_system.errors import CircuitOpenError, ItemTooLargeError, ServerError, UnconfirmedError
from queue_system.model.arguments import check_column, check_durability, check_unique, delay_milliseconds
from queue_system.model.entity import encode_entities, encode_entity
from queue_system.model.keys import check_identifier, join_queue, queue_name_from
from queue_system.model.operation import Operation, encode_item, encode_tail
from queue_system.model.record import keeping
from queue_system.model.retry import QueueRetryConfig
from queue_system.validation import check_callable, check_instance, check_list, check_seconds

_DEFAULT_TIMEOUT: Final = "use None for the worker's work_timeout"
_DEFAULT_TTL: Final = "use None for the configuration's result_ttl"


def fresh_id() -> str:
    """Return a random operation id of 32 hexadecimal digits."""
    return os.urandom(16).hex()


def describe_operation(config: QueueConfig, options: EnqueueOptions) -> Operation:
    """Return an operation with the members that do not depend on the entity. Raises InvalidInputError."""
    reference = config.registry.reference
    name = reference(options.processor, "processor")
    operation = Operation(processor=name.name, processor_module=name.module)
    if options.on_success is not None:
        name = reference(options.on_success, "on_success")
        operation.on_success = name.name
        operation.on_success_module = name.module
    if options.on_failure is not None:
        name = reference(options.on_failure, "on_failure")
        operation.on_failure = name.name
        operation.on_failure_module = name.module
    if options.custom_serializer is not None:
        check_callable("custom_serializer", options.custom_serializer, "a function of one value")
    if options.timeout is not None:
        operation.timeout = check_seconds("timeout", options.timeout, above=True, way_out=_DEFAULT_TIMEOUT)
    if options.result_ttl is not None:
        operation.result_ttl = check_seconds("result_ttl", options.result_ttl, way_out=_DEFAULT_TTL)
    if options.retry_config is not None:
        retry_config = check_instance("retry_config", options.retry_config, QueueRetryConfig)
        if not retry_config.is_default:
            operation.max_attempts = retry_config.max_attempts
            operation.delays = retry_config.delays
            operation.retry_timeout = retry_config.timeout
    return operation


def enqueue_flow(config: QueueConfig, operation: Operation, options: EnqueueOptions) -> Flow[dict[str, Any]]:
    """Encode one operation and put it into its queue; the answer is that of `enqueue`."""
    started_ns = time.perf_counter_ns()
    name = options.queue_name
    queue = join_queue(options.priority, queue_name_of(operation.processor) if name is None else name)
    delay_ms = 0 if options.delay is AT_ONCE else delay_milliseconds(options.delay)
    durability = config.durability if options.durability is None else check_durability(options.durability)
    operation_id = options.operation_id
    if operation_id is None:
        operation_id = fresh_id()
        nonce = ""  # a fresh id is its own proof of the call
    else:
        nonce = operation.nonce = secrets.token_hex(8)
        operation_id = check_identifier(operation_id, "operation_id")
    operation.timestamp = unix_seconds()
    if delay_ms:
        operation.due = operation.timestamp + delay_ms / 1000
    encode = _encoder(config, queue)
    item = encode(operation_id, encode_entity(options.entity, options.custom_serializer), encode_tail(operation))
    if len(item) > config.max_item_bytes:
        raise _too_large(config, item, "entity")
    new = NewOperation(operation_id, item, operation.deduplication_key)
    live_ms, kept_ms = config.lifetimes_ms if operation.result_ttl is None else _lifetimes_ms(config, operation)
    command = config.shard.commands.enqueue(
        queue, nonce, (new,), delay_ms=delay_ms, dedup_ttl_ms=live_ms, record_ttl_ms=kept_ms
    )
    if config.registry.local.counts:
        config.registry.local.hold(operation)
    try:
        if durability == "fast":
            (answer,) = yield command
        else:
            ((answer,),) = yield from confirmed(config.shard, (command,), durability, (operation_id,))
    except (ServerError, CircuitOpenError) as error:
        if not _may_be_queued(error):
            config.registry.local.release(operation)
        raise
    if answer == 1:
        config.metrics.add_many("enqueued", 1)
    else:
        config.registry.local.release(operation)
    return {
        "operation_id": answer.decode() if isinstance(answer, bytes) else operation_id,
        "status": "queued" if answer == 1 else "duplicate",
        "has_callbacks": operation.on_success is not None or operation.on_failure is not None,
        "enqueue_time_ms": ms_since(started_ns),
    }


def batch_flow(config: QueueConfig, options: EnqueueOptions) -> Flow[list[dict[str, Any]]]:
    """Encode operations that differ in entity, id and deduplication key only, and put them into one queue."""
    entities: Sequence[Any] = check_list("entities", options.entity)
    template = describe_operation(config, options)
    name = queue_name_of(template.processor) if options.queue_name is None else options.queue_name
    queue = join_queue(options.priority, name)
    flow = _batch_flow(config, queue, entities, template, options)
    if config.tracing is not None and entities:
        flow = config.tracing.sending(flow, template, queue, len(entities))
    return (yield from flow)


def _batch_flow(
    config: QueueConfig, queue: str, entities: Sequence[Any], template: Operation, options: EnqueueOptions
) -> Flow[list[dict[str, Any]]]:
    started_ns = time.perf_counter_ns()
    delay_ms = delay_milliseconds(options.delay)
    durability = check_durability(options.durability, config.durability)
    if delay_ms:
        template.due = unix_seconds() + delay_ms / 1000
    operations = _prepare(config, queue, entities, template, options)
    live_ms, kept_ms = _lifetimes_ms(config, template)
    enqueue = config.shard.commands.enqueue
    commands = [
        enqueue(queue, template.nonce, chunk, delay_ms=delay_ms, dedup_ttl_ms=live_ms, record_ttl_ms=kept_ms)
        for chunk in split_batch(operations)
    ]
    config.registry.local.hold(template, len(operations))
    try:
        replies = yield from _sent(config.shard, commands, durability, [new.operation_id for new in operations])
    except (ServerError, CircuitOpenError) as error:
        queued = _tell_queued(config, error, operations) if isinstance(error, ServerError) else 0
        if not _may_be_queued(error):
            config.registry.local.release(template, len(operations) - queued)
        raise
    answers = list(itertools.chain.from_iterable(replies))
    duration_ms = ms_since(started_ns)
    if operations:
        config.metrics.add_many("enqueued", answers.count(1))
        config.registry.local.release(template, len(operations) - answers.count(1))
        config.metrics.log_batch("enqueue", len(operations), duration_ms)
    has_callbacks = options.on_success is not None or options.on_failure is not None
    return [
        {
            "operation_id": answer.decode() if isinstance(answer, bytes) else new.operation_id,
            "status": "queued" if answer == 1 else "duplicate",
            "has_callbacks": has_callbacks,
            "enqueue_time_ms": duration_ms,
        }
        for new, answer in zip(operations, answers, strict=True)
    ]


def _sent(
    shard: Shard, commands: Sequence[Command[Any]], durability: str, operation_ids: Sequence[str]
) -> Flow[list[Any]]:
    if not commands:
        return []
    if durability == "fast":
        replies: list[Any] = yield Group(commands)
        return replies
    return (yield from confirmed(shard, commands, durability, operation_ids))


def _tell_queued(config: QueueConfig, error: ServerError, operations: Sequence[NewOperation]) -> int:
    """Note on the error of a batch that was refused midway what is queued nevertheless; return how many."""
    queued: list[str] = []
    for chunk, answers in zip(split_batch(operations), error.answers, strict=False):
        queued += [new.operation_id for new, answer in zip(chunk, answers or (), strict=False) if answer == 1]
    if queued:
        config.metrics.add_many("enqueued", len(queued))
        error.queued_ids = tuple(queued)
        error.args = (f"{error}; {len(queued)} of {len(operations)} operations are queued: queued_ids has their ids",)
    return len(queued)


def _may_be_queued(error: ServerError | CircuitOpenError) -> bool:
    """Return whether operations may be queued of which an error does not tell that they are."""
    return isinstance(error, UnconfirmedError) or (isinstance(error, ServerError) and error.outcome_unknown)


def _prepare(
    config: QueueConfig, queue: str, entities: Sequence[Any], template: Operation, options: EnqueueOptions
) -> list[NewOperation]:
    """Encode a batch. The template gets what all have in common, and keeps the last one's deduplication key."""
    ids = check_unique("operation_id", check_column("operation_id", options.operation_id, len(entities)))
    dedup_keys = check_column("deduplication_key", options.deduplication_key, len(entities))
    template.nonce = "" if ids is None else secrets.token_hex(8)
    template.timestamp = unix_seconds()
    base = secrets.token_hex(12)
    tail = encode_tail(template)
    encode = _encoder(config, queue)
    operations = []
    for i, entity in enumerate(encode_entities(entities, options.custom_serializer)):
        operation_id = f"{base}{i:08x}" if ids is None else ids[i]
        key = ""
        if dedup_keys is not None:
            template.deduplication_key = key = dedup_keys[i]
            tail = encode_tail(template)
        item = encode(operation_id, entity, tail)
        if len(item) > config.max_item_bytes:
            raise _too_large(config, item, f"entities[{i}]")
        operations.append(NewOperation(operation_id, item, key))
    return operations


def _encoder(config: QueueConfig, queue: str) -> Callable[[str, bytes, bytes], bytes]:
    """Return what encodes the items of a queue: `encode_item`, or what encrypts and signs as configured, too."""
    if config.signer is None and config.cipher is None:
        return encode_item
    return partial(_encode_protected, config, queue.encode())


def _encode_protected(config: QueueConfig, queue: bytes, operation_id: str, entity: bytes, tail: bytes) -> bytes:
    if config.cipher is not None:
        entity = config.cipher.encrypt(entity, "entity", operation_id)
    item = encode_item(operation_id, entity, tail)
    return item if config.signer is None else config.signer.sign(queue, item)


@lru_cache(maxsize=1024)
def queue_name_of(processor: str) -> str:
    """Return the queue's name that serves a processor unless another is given."""
    return queue_name_from(processor.partition("#")[0].rpartition(".")[2])


def _lifetimes_ms(config: QueueConfig, operation: Operation) -> tuple[int, int]:
    """Return the configuration's lifetimes, with that of the record as the operation has it."""
    live_ms, kept_ms = config.lifetimes_ms
    return live_ms, kept_ms if operation.result_ttl is None else keeping(operation.result_ttl)[1]


def _too_large(config: QueueConfig, item: bytes, field: str) -> ItemTooLargeError:
    return ItemTooLargeError(
        field,
        f"the item has {len(item)} bytes, more than max_item_bytes = {config.max_item_bytes};"
        " keep large data elsewhere and enqueue a reference to it",
    )
