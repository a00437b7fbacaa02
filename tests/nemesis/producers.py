"""Producers that enqueue at random, and send again what nobody knows the outcome of. Never judges an answer."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from queue_system import QueueConfig, QueueManager, QueueRetryConfig
from queue_system.errors import CircuitOpenError, QueueSystemError
from tests.nemesis import processors
from tests.nemesis.history import History

ATTEMPTS = 3
_DELAYS_S = (0.05, 0.2)
_KEYS = 6
_TIMEOUT_S = 1.0
_FINISH_WITHIN_S = 20.0
_SEND_AGAIN = 0.85
_SEND_KNOWN_AGAIN = 0.03

_quiet = logging.getLogger(__name__)  # each refused call would be a line, and each is in the history
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


@dataclass(frozen=True, slots=True)
class Order:
    """What one call asks for. Sent again, it asks for the same under the same ids. Times are in s."""

    ids: tuple[str, ...]
    keys: tuple[str, ...] = ()
    seconds: float = 0.01
    fails: int = 0
    delay: float = 0.0
    priority: str = "normal"
    queue: str = "work"
    on_success: bool = False
    on_failure: bool = False
    in_thread: bool = False
    padding: int = 0


def draw(rng: random.Random, name: str) -> Order:
    """Draw an order at random, whose ids begin with `name`."""
    size = rng.randint(2, 25) if rng.random() < 0.15 else 1
    keys = tuple(f"key-{rng.randrange(_KEYS)}" for _ in range(size)) if rng.random() < 0.25 else ()
    return Order(
        ids=(name,) if size == 1 else tuple(f"{name}.{i}" for i in range(size)),
        keys=keys,
        seconds=rng.choice((0.0, 0.005, 0.02, 0.1, 0.3)),
        fails=rng.choices((0, 1, 2, ATTEMPTS), (80, 10, 5, 5))[0],
        delay=rng.uniform(0.05, 1.5) if rng.random() < 0.2 else 0.0,
        priority=rng.choice(("high", "normal", "low")),
        queue=rng.choice(("work", "mail")),
        on_success=rng.random() < 0.2,
        on_failure=rng.random() < 0.3,
        in_thread=rng.random() < 0.15,
    )


class Producer(threading.Thread):
    """Sends orders until told to end, about `rate` a second; afterwards sends again what is still unknown.

    `retries` is how often the transport sends a call again by itself. With 0, each lost reply is an unknown outcome.
    """

    def __init__(self, name: str, url: str, prefix: str, history: Path, *, seed: int = 0, rate: float = 10.0) -> None:
        super().__init__(name=name, daemon=True)
        self._rng = random.Random(f"{seed} {name}")
        self._settings: dict[str, Any] = {"redis_url": url, "queue_prefix": prefix, "connection_timeout": _TIMEOUT_S}
        self._retries = self._rng.choice((0, 0, 3))
        self._rate = rate
        self._pen = History(history, name)
        self._again: deque[Order] = deque()
        self._calls = 0
        self._over = threading.Event()
        self._manager = self._connect()

    def finish(self) -> None:
        """Draw no more, and wait until all that was to be sent again has its answer."""
        self._over.set()
        self.join(_FINISH_WITHIN_S + 10.0)
        self.close()

    def close(self) -> None:
        self._manager.config.transport.close()

    def run(self) -> None:
        serial = 0
        while not self._over.wait(self._rng.expovariate(self._rate)):
            if self._again and self._rng.random() < 0.5:
                order = self._again.popleft()
            else:
                serial += 1
                order = draw(self._rng, f"{self.name}-{serial}")
            answered = self.send(order)
            if self._rng.random() < (_SEND_KNOWN_AGAIN if answered else _SEND_AGAIN):
                self._again.append(order)
        deadline = time.monotonic() + _FINISH_WITHIN_S
        while self._again and time.monotonic() < deadline:
            if not self.send(self._again[0]):
                time.sleep(0.1)
                continue
            self._again.popleft()

    def send(self, order: Order) -> bool:
        """Send an order, note what is known of it, and return whether it was answered."""
        self._calls += 1
        call = f"{self.name}/{self._calls}"
        plan = {name: asdict(order)[name] for name in ("ids", "keys", "delay", "fails", "on_success", "on_failure")}
        self._pen.note("invoke", "enqueue", call=call, retries=self._retries, attempts=ATTEMPTS, **plan)
        try:
            answers = self._enqueue(order)
        except CircuitOpenError as error:
            self._pen.note("fail", "enqueue", call=call, error=type(error).__name__)
            self.close()
            self._manager = self._connect()  # a producer that was started anew has a fresh breaker
            return False
        except QueueSystemError as error:
            self._pen.note("info", "enqueue", call=call, error=type(error).__name__)
            return False
        told = [[answer["status"], answer["operation_id"]] for answer in answers]
        self._pen.note("ok", "enqueue", call=call, answers=told)
        return True

    def _enqueue(self, order: Order) -> list[dict[str, Any]]:
        base = {"seconds": order.seconds, "fails": order.fails, "padding": "x" * order.padding}
        entities = [{"id": each, **base} for each in order.ids]
        options: dict[str, Any] = {
            "processor": processors.work_in_thread if order.in_thread else processors.work,
            "queue_name": order.queue,
            "priority": order.priority,
            "retry_config": QueueRetryConfig(ATTEMPTS, _DELAYS_S),
            "on_success": processors.on_success if order.on_success else None,
            "on_failure": processors.on_failure if order.on_failure else None,
            "delay": order.delay,
        }
        if len(entities) > 1:
            keys = list(order.keys) or None
            return self._manager.enqueue_batch(
                entities, operation_id=list(order.ids), deduplication_key=keys, **options
            )
        key = order.keys[0] if order.keys else None
        return [self._manager.enqueue(entities[0], operation_id=order.ids[0], deduplication_key=key, **options)]

    def _connect(self) -> QueueManager:
        config = QueueConfig(**self._settings, max_connection_retries=self._retries, logger=_quiet)
        return QueueManager(config)
