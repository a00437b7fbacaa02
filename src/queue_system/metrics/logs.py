"""One way to write structured log lines to whatever logger the user has."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from queue_system.clock import Clock
from queue_system.forking import renew_in_children
from queue_system.interrupts import sent_by_a_signal
from queue_system.logs import EVENT, RECORD_NAMES, printable, text_of
from queue_system.tracebacks import Trace, trace
from queue_system.validation import refused, type_name

_VALUE_LIMIT_BYTES: Final = 2048
_CUT_MARK: Final = "..."
_METHODS: Final = ("debug", "info", "warning", "error")
_KEYWORD_NAMES: Final = frozenset({"self", "event", "message", "msg", "method_name", "level", "logger", "timestamp"})
_CALLER: Final = 4  # frames from Logger.log up to the caller of debug, info, warning or error


class StructuredLogger:
    """Writes a constant message with named fields. A logger that raises never breaks the caller: the line is lost.

    A stdlib logger gets the fields as `extra=` and, for a plain console, as ` key=value` text after the message; the
    message alone is the extra `queue_system_event`. Any other logger gets the fields as keywords. A field whose name
    the logger needs itself gets a trailing underscore.

    Numbers, booleans and None stay as they are. Every other value is text of at most 2 KiB, in which what could begin a
    line, colour a terminal or turn the direction of writing is escaped. `exc_info` is an error, a `Trace` or True:
    handlers get the error itself, or one of its name where its text holds a password; what a stdlib formatter writes of
    it is bounded.
    """

    __slots__ = ("_write", "raw")

    raw: Any
    """The user's own logger."""

    def __init__(self, logger: object) -> None:
        self.raw = logger
        self._write: Callable[[int, str, dict[str, Any]], None]
        if isinstance(logger, logging.Logger | logging.LoggerAdapter):
            self._write = self._write_record
        elif all(callable(getattr(logger, method, None)) for method in _METHODS):
            self._write = self._write_keywords
        else:
            expected = f"an object with the methods {', '.join(_METHODS)}(message, **fields)"
            raise refused("logger", expected, type_name(logger), "use None for the standard library's logging")

    @classmethod
    def wrap(cls, logger: object = None) -> StructuredLogger:
        """Adapt `logger`; None stands for `logging.getLogger("queue_system")`. InvalidInputError if it cannot log."""
        if isinstance(logger, StructuredLogger):
            return logger
        return cls(logging.getLogger("queue_system") if logger is None else logger)

    def debug(self, message: str, /, **fields: Any) -> None:
        """Write a line for those who look into details."""
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: Any) -> None:
        """Write a line about normal work."""
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: Any) -> None:
        """Write a line about something that an operator should know."""
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: Any) -> None:
        """Write a line about something that an operator should act on."""
        self._log(logging.ERROR, message, fields)

    def _log(self, level: int, message: str, fields: dict[str, Any]) -> None:
        try:
            self._write(level, message, fields)
        except BaseException as error:
            if not issubclass(type(error), Exception) and sent_by_a_signal(error):
                raise

    def _write_record(self, level: int, message: str, fields: dict[str, Any]) -> None:
        target = self.raw
        if not target.isEnabledFor(level):
            return
        found = _found(fields)
        options: dict[str, Any] = {"exc_info": _exc_info(found), "stacklevel": _CALLER}
        extra = {**_named(fields, RECORD_NAMES), EVENT: message}
        text = " ".join([message, *(f"{name}={_plain(value)}" for name, value in fields.items())])
        options["extra"] = extra
        while isinstance(target, logging.LoggerAdapter):  # its own log() would replace our fields by the adapter's
            text, changed = target.process(text, options)
            options = {**changed, "extra": {**(changed.get("extra") or {}), **extra}}
            target = target.logger
        if not isinstance(found, Trace) or not isinstance(target, logging.Logger):
            target.log(level, text, **options)
            return
        path, line, function, _ = target.findCaller(stacklevel=_CALLER)
        record = target.makeRecord(
            target.name, level, path, line, text, (), options["exc_info"], function, options["extra"]
        )
        record.exc_text = _block(found.text or f"{found.kind}: {found.message}")  # what formatters then write
        target.handle(record)

    def _write_keywords(self, level: int, message: str, fields: dict[str, Any]) -> None:
        found = _found(fields)
        keywords = {} if found is None else {"exc_info": found.loggable if isinstance(found, Trace) else found}
        method = getattr(self.raw, logging.getLevelName(level).lower())
        method(message, **_named(fields, _KEYWORD_NAMES), **keywords)


class LogThrottle:
    """Lets one log line through per `interval_s` seconds and counts the others. Safe to use from several threads."""

    __slots__ = ("__weakref__", "_clock", "_held", "_interval_s", "_lock", "_next_at", "suppressed")

    def __init__(self, interval_s: float, clock: Clock) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may log, too
        self._next_at = float("-inf")
        self._held = 0
        self.suppressed = 0
        """Lines held back since the last one that passed; right after `ready()` said yes, those before that line."""
        renew_in_children(self)

    def renew(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def ready(self) -> bool:
        """Return whether a line may be written now, and take that permission."""
        now = self._clock.monotonic()
        with self._lock:
            passes = now >= self._next_at
            if passes:
                self.suppressed = self._held
                self._held = 0
                self._next_at = now + self._interval_s
            else:
                self._held += 1
                self.suppressed = self._held
            return passes


def _found(fields: dict[str, Any]) -> Any:
    """Take the error out of the fields: as a trace, or whatever else stands for one."""
    found = fields.pop("exc_info", None)
    return trace(found) if isinstance(found, BaseException) else found


def _block(text: str) -> str:
    """Return a text whose lines are indented, so that none can pass for a line of the log."""
    return "\n".join([f"    {printable(line)[:_VALUE_LIMIT_BYTES]}" for line in text.rstrip("\n").split("\n")])


def _exc_info(found: Any) -> Any:
    if not isinstance(found, Trace):
        return found
    error = found.loggable
    return type(error), error, error.__traceback__


def _named(fields: Mapping[str, Any], reserved: frozenset[str]) -> dict[str, Any]:
    return {f"{name}_" if name in reserved else name: _field(value) for name, value in fields.items()}


def _field(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    return _capped(_printable(text_of(value)))


def _plain(value: Any) -> str:
    """Render a value so that it cannot pass for another field."""
    text = text_of(value)[: _VALUE_LIMIT_BYTES + 1]
    if text and not any(char in text for char in ' ="'):
        return _capped(_printable(text))
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_capped(_printable(quoted))}"'


def _printable(text: str) -> str:
    return printable(text[: _VALUE_LIMIT_BYTES + 1])


def _capped(text: str) -> str:
    if len(text) * 4 <= _VALUE_LIMIT_BYTES:  # a character takes at most four bytes
        return text
    encoded = text[: _VALUE_LIMIT_BYTES + 1].encode("utf-8", "surrogatepass")
    if len(encoded) <= _VALUE_LIMIT_BYTES:
        return text
    return encoded[: _VALUE_LIMIT_BYTES - len(_CUT_MARK)].decode("utf-8", "ignore") + _CUT_MARK
