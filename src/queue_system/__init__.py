"""A job queue on Redis that loses nothing, is quick, and is a pleasure to read."""

from __future__ import annotations

from queue_system.client.dead_letters import DeadLetter, DeadLetterPage
from queue_system.client.lookup import OperationRecord
from queue_system.config import QueueConfig
from queue_system.errors import (
    AccessDeniedError,
    CertificateError,
    CircuitOpenError,
    ImportFailedError,
    InvalidInputError,
    ItemTooLargeError,
    OperationFailedError,
    ProcessDiedError,
    QueueSystemError,
    ResultUnavailableError,
    ServerError,
    ServerFullError,
    ServerUnreachableError,
    UnconfirmedError,
    UndecodableItemError,
    UnknownOperationError,
    UnresolvableNameError,
    UnserializableError,
    UnsupportedServerError,
    WaitTimeoutError,
    WrongKeyTypeError,
)
from queue_system.execution.snapshot import WorkerSnapshot
from queue_system.inspection.workers import WorkerRecord
from queue_system.loop import run
from queue_system.manager import QueueManager
from queue_system.model.encryption import Encryption
from queue_system.model.isolation import run_in_process
from queue_system.model.middleware import CallNext, Middleware, RunningOperation
from queue_system.model.retry import QueueRetryConfig
from queue_system.worker import QueueWorker

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "CallNext",
    "CertificateError",
    "CircuitOpenError",
    "DeadLetter",
    "DeadLetterPage",
    "Encryption",
    "ImportFailedError",
    "InvalidInputError",
    "ItemTooLargeError",
    "Middleware",
    "OperationFailedError",
    "OperationRecord",
    "ProcessDiedError",
    "QueueConfig",
    "QueueManager",
    "QueueRetryConfig",
    "QueueSystemError",
    "QueueWorker",
    "ResultUnavailableError",
    "RunningOperation",
    "ServerError",
    "ServerFullError",
    "ServerUnreachableError",
    "UnconfirmedError",
    "UndecodableItemError",
    "UnknownOperationError",
    "UnresolvableNameError",
    "UnserializableError",
    "UnsupportedServerError",
    "WaitTimeoutError",
    "WorkerRecord",
    "WorkerSnapshot",
    "WrongKeyTypeError",
    "__version__",
    "run",
    "run_in_process",
]
