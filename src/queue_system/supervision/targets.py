"""Turns `module:object` into the worker to run."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, Final

from queue_system.config import QueueConfig, check_modules
from queue_system.errors import InvalidInputError, QueueSystemError
from queue_system.imports.modules import top_folder
from queue_system.logs import without_passwords
from queue_system.resilience import in_daemon_thread
from queue_system.supervision.settings import WorkerSettings
from queue_system.tracebacks import line_of, trace
from queue_system.validation import refused, shown, type_name
from queue_system.worker import QueueWorker

_TO_INSTALL: Final = "; install it where the worker runs, or correct the import"
_WHAT_IT_IS: Final = "a target is a QueueConfig, a QueueWorker, or a function without arguments that returns one"


async def load_worker(settings: WorkerSettings) -> QueueWorker:
    """Return the worker that the settings ask for; modules of the current folder can be imported from now on.

    The target is imported, and called if it is a plain function, in a thread, so that the event loop goes on.

    Raises:
        InvalidInputError: `target` leads to nothing that can be run, or a value makes no sense. Its cause is what the
            target's own code raised.
    """
    import_from_here()
    found = _default_config(settings) if settings.target is None else await _find(settings.target)
    worker = found if isinstance(found, QueueWorker) else None
    config = worker.config if worker is not None else found
    if not isinstance(config, QueueConfig):
        expected = f"a QueueConfig or a QueueWorker from {shown(settings.target)}"
        raise refused("target", expected, type_name(config), _WHAT_IT_IS)
    if settings.tracebacks is not None:
        config.tracebacks = settings.tracebacks
    if settings.allowed_modules is not None:
        config.registry.application.allowed_modules = check_modules(settings.allowed_modules)
    if settings.target is not None:
        config.registry.application.add_folder(_folder_of(settings.target.partition(":")[0]))
    wanted: dict[str, Any] = {
        "max_workers": settings.concurrency,
        "work_timeout": settings.timeout,
        "queues": settings.queues,
    }
    if worker is not None:
        given = {
            "max_workers": worker.max_workers,
            "work_timeout": worker.work_timeout,
            "queues": worker.queues or None,
        }
        wanted = {name: given[name] if value is None else value for name, value in wanted.items()}
    checked = QueueWorker(config, **{name: value for name, value in wanted.items() if value is not None})
    if worker is None:
        return checked
    worker.max_workers = checked.max_workers
    worker.work_timeout = checked.work_timeout
    worker.queues = checked.queues
    return worker


def import_from_here() -> None:
    """Let modules of the current folder be imported."""
    here = str(Path.cwd())
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)


def _default_config(settings: WorkerSettings) -> QueueConfig:
    prefix: dict[str, Any] = {} if settings.prefix is None else {"queue_prefix": settings.prefix}
    return QueueConfig(redis_url=settings.url, **prefix)


async def _find(target: str) -> Any:
    module_name, _, path = target.partition(":")
    try:
        module = await in_daemon_thread(importlib.import_module, module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise _refusal(target, f"cannot be found: there is no module {error.name!r} on sys.path") from None
        raise _refusal(target, f"cannot be imported: {error}{_at(error)}{_TO_INSTALL}") from error
    except (Exception, SystemExit) as error:
        raise _refusal(target, f"cannot be imported: {type(error).__name__}: {error}{_at(error)}") from error
    try:
        found = functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        raise _refusal(target, f"cannot be found: {error}") from None
    return await _called(target, found) if callable(found) else found


def _folder_of(module_name: str) -> Path:
    """Return the folder from which the target's module was imported."""
    module = sys.modules[module_name]
    file = getattr(module, "__file__", None)
    return Path.cwd() if file is None else top_folder(module_name, file)


async def _called(target: str, factory: Any) -> Any:
    try:
        result = factory() if inspect.iscoroutinefunction(factory) else await in_daemon_thread(factory)
        return await result if inspect.isawaitable(result) else result
    except (Exception, SystemExit) as error:
        hint = "" if _takes_no_arguments(factory) else f"; {_WHAT_IT_IS}"
        raise _refusal(target, f"raised {type(error).__name__}: {error}{_at(error)}{hint}") from error


def _takes_no_arguments(factory: Any) -> bool:
    try:
        inspect.signature(factory).bind()
    except TypeError:
        return False
    except ValueError:  # a builtin without a known signature
        return True
    return True


def _refusal(target: str | None, problem: str) -> InvalidInputError:
    return InvalidInputError("target", without_passwords(f"{shown(target)} {problem}"))


def _at(error: BaseException) -> str:
    """Return where in the application an error arose, for a message."""
    line = "" if isinstance(error, SyntaxError) else line_of(error)  # a syntax error's own text names it
    return f", at {line}" if line else ""


def debug_hint(error: QueueSystemError) -> str:
    """Return how to see more of an error that a target's own code raised; "" for all others."""
    from_target = isinstance(error, InvalidInputError) and error.field == "target" and error.__cause__ is not None
    return "; --debug shows the traceback" if from_target else ""


def explain(error: QueueSystemError, *, debug: bool = False) -> str:
    """Return the error's text; with `debug`, after the traceback of what a target's own code raised."""
    cause = error.__cause__
    if not debug or cause is None:
        return f"{error}{debug_hint(error)}"
    return f"{trace(cause).text}{error}"


def complain(text: str) -> None:
    """Say on stderr why the worker cannot run."""
    sys.stderr.write(f"{text}\n")
