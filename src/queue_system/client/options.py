"""What `enqueue` takes, spelled here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from queue_system.errors import InvalidInputError
from queue_system.model.registry import Processor
from queue_system.model.retry import QueueRetryConfig

AT_ONCE: Final = 0.0


class _Specified(msgspec.Struct, frozen=True):
    """What the specification lists, in its order."""

    entity: dict[str, Any]
    processor: Processor | str
    queue_name: str | None = None
    priority: str = "normal"
    operation_id: str | None = None
    retry_config: QueueRetryConfig | None = None
    on_success: Processor | str | None = None
    on_failure: Processor | str | None = None
    timeout: float | None = None
    deduplication_key: str | None = None
    custom_serializer: Callable[[Any], Any] | None = None


class EnqueueOptions(_Specified, frozen=True, kw_only=True):
    """The arguments of one call.

    Args:
        entity: the input, a JSON value; dates, UUIDs, enums, dataclasses and the like are converted.
        processor: a callable or the name `"package.module.function"`; it is called with the entity.
        queue_name: default: the processor's own name.
        priority: `"high"`, `"normal"` or `"low"`.
        operation_id: default: a new one. With the id of a known operation, nothing is added.
        retry_config: default: `QueueRetryConfig()`.
        on_success: called with `{"entity", "result", "operation_id"}`.
        on_failure: called with `{"entity", "error", "operation_id"}` after the last attempt.
        timeout: limit of one attempt, in s.
        deduplication_key: while an operation with this key is live, nothing is added.
        custom_serializer: turns what JSON cannot carry into something that it can.
        delay: how many seconds from now the operation is due.
        durability: wait for the server's memory (`"fast"`), disk (`"fsync"`) or a replica (`"replicated"`);
            default: the configuration's.
        result_ttl: how long, in s, its record is kept once it is finished; default: the configuration's.
    """

    delay: float = AT_ONCE
    durability: str | None = None
    result_ttl: float | None = None


_OF_BATCHES: Final = EnqueueOptions.__struct_fields__[2:]


def batch_options(entities: Sequence[Any], processor: Processor | str, keywords: dict[str, Any]) -> EnqueueOptions:
    """Return the options of a batch: the entity, the ids and the deduplication keys are lists, the rest is shared.

    Raises InvalidInputError for a keyword that `enqueue` does not know.
    """
    for name in keywords:
        if name not in _OF_BATCHES:
            raise InvalidInputError(name, f"enqueue_batch has no such argument; use one of {', '.join(_OF_BATCHES)}")
    shared: Any = entities
    return EnqueueOptions(shared, processor, **keywords)
