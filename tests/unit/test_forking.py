"""Forked children and signal handlers: neither waits for a lock that nobody can release any more."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from queue_system import QueueConfig
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import CircuitOpenError
from queue_system.metrics import LogThrottle, MetricsRecorder, StructuredLogger
from queue_system.resilience import CircuitBreaker, get_breaker
from queue_system.resilience.circuits import breaker_states
from queue_system.resilience.threads import abandoned_threads, call_in_thread
from tests.kit.clocks import ManualClock

WITHIN_S = 10


def ends_well(work: Callable[[], object]) -> bool:
    """Whether a child forked now does that, and comes to its end."""
    child = os.fork()
    if not child:
        signal.alarm(WITHIN_S)  # ends a child that waits for ever
        try:
            work()
        except BaseException:  # noqa: BLE001 - the exit code tells
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def closure() -> Callable[..., Any]:
    return lambda entity: entity


def owners() -> dict[str, tuple[Any, Callable[[], object]]]:
    """What holds a lock, and a call that takes it."""
    recorder = MetricsRecorder(StructuredLogger(logging.getLogger("quiet")))
    throttle, breaker = LogThrottle(1.0, SYSTEM_CLOCK), CircuitBreaker("forked")
    config = QueueConfig(redis_url="redis://h")
    return {
        "recorder": (recorder, lambda: recorder.add_many("enqueued", 1)),
        "throttle": (throttle, throttle.ready),
        "breaker": (breaker, breaker.record_failure),
        "registry": (config.registry, lambda: config.registry.reference(closure(), "processor")),
    }


OWNERS = ["recorder", "throttle", "breaker", "registry"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that another thread runs is the point
@pytest.mark.parametrize("name", OWNERS)
def test_a_child_waits_for_no_lock_that_a_thread_of_its_parent_held(name: str) -> None:
    known = owners()
    owner, take = known[name]
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with owner._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert ends_well(take)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("name", OWNERS)
def test_a_signal_handler_may_call_what_it_interrupts(name: str) -> None:
    """In the same thread, so that it would wait for itself."""
    known = owners()
    owner, take = known[name]

    def interrupted() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: take())
        with owner._lock:
            signal.raise_signal(signal.SIGUSR1)

    assert ends_well(interrupted)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_children_of_threads_that_look_for_breakers_and_make_calls_may_do_so_too() -> None:
    stop = threading.Event()

    def keep_calling() -> None:
        while not stop.is_set():
            get_breaker("shared", keep=False)
            abandoned_threads()

    threads = [threading.Thread(target=keep_calling) for _ in range(2)]
    for thread in threads:
        thread.start()

    def work() -> None:
        breaker_states()
        call_in_thread(abandoned_threads, (), {}, 5.0)

    try:
        assert all(ends_well(work) for _ in range(20))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_child_of_a_process_with_a_trial_under_way_makes_a_trial_of_its_own() -> None:
    """The outcome of the parent's comes to the parent only."""
    clock = ManualClock()
    breaker = CircuitBreaker("service", 1, 30.0, 1, clock=clock)
    breaker.record_failure()
    clock.advance(30.0)
    breaker.before_call()
    with pytest.raises(CircuitOpenError):
        breaker.before_call()
    assert ends_well(lambda: breaker.run(str, (), {}))
    with pytest.raises(CircuitOpenError):
        breaker.before_call()
