"""Closures and methods that were enqueued here: kept while an operation may name them, and bounded after that."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from queue_system.errors import UnresolvableNameError
from queue_system.model import local as module
from queue_system.model.operation import Operation
from queue_system.model.registry import Reference, Registry
from tests.kit.refusals import refused


class Service:
    """Each has a method of the same name."""

    def __init__(self, n: int) -> None:
        self.n = n

    def run(self, _: Any) -> int:
        return self.n


class Unhashable(Service):
    """Its methods have no hash either."""

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]  # as it is meant


def closure(n: int) -> Callable[[Any], int]:
    return lambda _: n


MAKERS = [closure, lambda n: Service(n).run, lambda n: Unhashable(n).run]
IDS = ["closure", "method", "method without a hash"]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SETTLED", 3)
    monkeypatch.setattr(module, "MOST_QUEUED", 20)


def named(reference: Reference, **more: Any) -> Operation:
    """An operation whose processor it is."""
    return Operation(processor=reference.name, processor_module=reference.module, **more)


@pytest.mark.parametrize("make", MAKERS, ids=IDS)
def test_what_queued_operations_name_is_kept_and_of_the_rest_the_newest(make: Callable[[int], Any]) -> None:
    registry = Registry()
    operations = []
    for n in range(15):
        operations.append(named(registry.reference(make(n), "processor")))
        registry.local.hold(operations[-1], 2)
    for operation in operations:
        registry.local.release(operation)
    for n, operation in enumerate(operations):
        assert registry.resolve(operation.processor, operation.processor_module)(None) == n
    for operation in operations:
        registry.local.release(operation)
    assert len(registry.local.known) == 3
    assert registry.resolve(operations[-1].processor, operations[-1].processor_module)(None) == 14
    with pytest.raises(UnresolvableNameError, match="which has forgotten it"):
        registry.resolve(operations[0].processor, operations[0].processor_module)


def test_callbacks_of_queued_operations_are_kept() -> None:
    registry = Registry()
    reference = registry.reference(closure(1), "on_success")
    operation = Operation(processor="f", on_success=reference.name, on_success_module=reference.module)
    registry.local.hold(operation)
    for n in range(10):
        registry.reference(closure(n), "processor")
    assert registry.resolve(reference.name, reference.module)(None) == 1


def test_more_than_may_be_queued_are_refused_and_none_is_lost() -> None:
    registry = Registry()
    operations = [named(registry.reference(closure(n), "processor")) for n in range(3)]
    for operation in operations:
        registry.local.hold(operation)
    for n in range(17):
        registry.local.hold(named(registry.reference(closure(n), "processor")))
    one_too_many = named(registry.reference(closure(0), "processor"))
    with refused("processor", "not known to be settled"):
        registry.local.hold(one_too_many)
    registry.local.hold(operations[0])  # it is among them already
    registry.local.release(operations[1])
    registry.local.hold(one_too_many)
    assert registry.resolve(operations[2].processor, operations[2].processor_module)(None) == 2


def test_the_name_of_one_that_was_forgotten_is_never_given_to_another() -> None:
    """An operation that is retried long after must not run another's code."""
    registry = Registry()
    assert len({registry.reference(closure(n), "processor") for n in range(50)}) == 50
    assert len(registry.local.known) == 3


def test_one_that_was_forgotten_before_it_was_queued_is_refused() -> None:
    registry = Registry()
    operation = named(registry.reference(closure(0), "processor"))
    for n in range(10):
        registry.reference(closure(n), "processor")
    with refused("processor", "enqueue it again"):
        registry.local.hold(operation)


def test_a_function_that_another_has_replaced_is_let_go() -> None:
    registry = Registry()
    replaced = []
    for _ in range(5):
        space: dict[str, Any] = {"__name__": "shop"}
        exec("def job(entity): ...", space)  # noqa: S102 - as a reload would define it
        registry.reference(space["job"], "processor")
        replaced.append(weakref.ref(space["job"]))
        del space
    gc.collect()
    assert [ref() is None for ref in replaced] == [True] * 4 + [False]
