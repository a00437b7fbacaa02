"""What ends a service, and what does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from queue_system import QueueConfig
from queue_system.broker.access import AccessBackoff
from queue_system.maintenance.service import PeriodicService
from queue_system.metrics import StructuredLogger
from tests.kit.logs import LineLogger

WITHIN_S = 5.0


class Rounds(PeriodicService):
    """Does its rounds without a pause, each of which may raise."""

    def __init__(self, logger: LineLogger, *errors: BaseException, access: AccessBackoff | None = None) -> None:
        super().__init__(StructuredLogger.wrap(logger), 0.001, QueueConfig().shard, access)
        self._errors: Iterator[BaseException] = iter(errors)
        self.went_on = threading.Event()

    def perform(self) -> float:
        for error in self._errors:
            raise error
        self.went_on.set()
        return 0.001


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_no_error_and_no_exit_ends_a_service(error: BaseException) -> None:
    logger = LineLogger()
    service = Rounds(logger, error)
    service.start()
    assert service.went_on.wait(WITHIN_S)
    service.stop()
    service.join(WITHIN_S)
    assert len(logger.of("maintenance task failed unexpectedly")) == 1


def test_a_service_holds_back_while_its_worker_is_denied_access() -> None:
    access = AccessBackoff()
    access.deny()
    service = Rounds(LineLogger(), access=access)
    assert service.hold_s() == service.interval_s
    access.answer()
    assert service.hold_s() == 0.0
    service.start()
    assert service.went_on.wait(WITHIN_S)
    service.stop()
    service.join(WITHIN_S)
