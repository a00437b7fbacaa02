"""What ends a duty, and what does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from queue_system.broker.contact import Contact
from queue_system.clock import SYSTEM_CLOCK
from queue_system.metrics import LogThrottle, StructuredLogger
from queue_system.upkeep.duty import Duty
from tests.kit.logs import LineLogger

WITHIN_S = 5.0


class Rounds(Duty):
    """Does its rounds without a pause, each of which may raise."""

    def __init__(self, logger: LineLogger, *errors: BaseException, contact: Contact | None = None) -> None:
        super().__init__(StructuredLogger.wrap(logger), 0.001, LogThrottle(1.0, SYSTEM_CLOCK), contact)
        self._errors: Iterator[BaseException] = iter(errors)
        self.went_on = threading.Event()

    def perform(self) -> float:
        for error in self._errors:
            raise error
        self.went_on.set()
        return 0.001


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_no_error_and_no_exit_ends_a_duty(error: BaseException) -> None:
    logger = LineLogger()
    duty = Rounds(logger, error)
    duty.start()
    assert duty.went_on.wait(WITHIN_S)
    duty.stop()
    duty.join(WITHIN_S)
    assert len(logger.of("maintenance task failed unexpectedly")) == 1


def test_a_duty_holds_back_while_its_worker_is_denied_access() -> None:
    contact = Contact()
    contact.deny()
    duty = Rounds(LineLogger(), contact=contact)
    assert duty.hold_s() == duty.interval_s
    contact.answer()
    assert duty.hold_s() == 0.0
    duty.start()
    assert duty.went_on.wait(WITHIN_S)
    duty.stop()
    duty.join(WITHIN_S)
