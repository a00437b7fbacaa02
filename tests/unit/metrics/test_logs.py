"""Structured lines through stdlib logging, structlog and a user's own logger, and the throttle."""

from __future__ import annotations

import io
import logging
import signal
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from queue_system.metrics.logs import LogThrottle, StructuredLogger
from tests.kit.clocks import ManualClock
from tests.kit.logs import LineLogger
from tests.kit.refusals import refused
from tests.kit.threads import in_threads

LIMIT = 2048


class Records(logging.Handler):
    """Keeps each record, and its text as a console would show it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.console = io.StringIO()
        self._console_handler = logging.StreamHandler(self.console)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._console_handler.handle(record)

    @property
    def text(self) -> str:
        return self.console.getvalue()

    def field(self, name: str) -> Any:
        return getattr(self.records[-1], name)


@pytest.fixture
def stdlib() -> logging.Logger:
    logger = logging.Logger("test", logging.INFO)  # noqa: LOG001 - outside the global tree
    logger.addHandler(Records())
    return logger


@pytest.fixture
def records(stdlib: logging.Logger) -> Records:
    handler = stdlib.handlers[0]
    assert isinstance(handler, Records)
    return handler


@pytest.fixture
def structlog_defaults() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_no_logger_means_the_package_s_own() -> None:
    assert StructuredLogger.wrap(None).raw is logging.getLogger("queue_system")


def test_raw_is_the_user_s_object_and_wrapping_twice_changes_nothing(stdlib: logging.Logger) -> None:
    log = StructuredLogger.wrap(stdlib)
    assert log.raw is stdlib
    assert StructuredLogger.wrap(log) is log


@pytest.mark.parametrize("logger", ["a string", 5, object(), print])
def test_an_object_without_the_four_methods_is_refused(logger: object) -> None:
    with refused("logger"):
        StructuredLogger.wrap(logger)


def test_each_method_logs_at_its_level(stdlib: logging.Logger, records: Records) -> None:
    stdlib.setLevel(logging.DEBUG)
    log, own = StructuredLogger.wrap(stdlib), LineLogger()
    for each in (log, StructuredLogger.wrap(own)):
        each.debug("d")
        each.info("i")
        each.warning("w")
        each.error("e")
    assert [record.levelname for record in records.records] == ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert own.lines == [("debug", "d", {}), ("info", "i", {}), ("warning", "w", {}), ("error", "e", {})]


def test_a_disabled_level_does_not_even_render_its_fields(stdlib: logging.Logger, records: Records) -> None:
    class Witness:
        rendered = False

        def __str__(self) -> str:
            self.rendered = True
            return "witness"

    witness = Witness()
    StructuredLogger.wrap(stdlib).debug("quiet", witness=witness)
    assert not witness.rendered
    assert not records.records


def test_the_record_names_the_place_that_wrote_the_line(stdlib: logging.Logger, records: Records) -> None:
    StructuredLogger.wrap(stdlib).error("here")
    assert records.field("funcName") == "test_the_record_names_the_place_that_wrote_the_line"


def test_names_that_a_log_record_needs_get_an_underscore(stdlib: logging.Logger, records: Records) -> None:
    StructuredLogger.wrap(stdlib).info("text", message="m", name="n", args=3, asctime="now", taskName="t")
    assert records.records[-1].getMessage() == "text message=m name=n args=3 asctime=now taskName=t"
    assert [records.field(f"{name}_") for name in ("message", "name", "args", "asctime")] == ["m", "n", 3, "now"]


def test_an_adapter_keeps_its_own_fields_beside_ours(stdlib: logging.Logger, records: Records) -> None:
    class Prefixed(logging.LoggerAdapter[Any]):
        def process(self, msg: str, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
            return f"[app] {msg}", kwargs

    adapter = Prefixed(logging.LoggerAdapter(stdlib, {"tenant": "acme"}))
    StructuredLogger.wrap(adapter).info("hello", queue="mail")
    assert records.text == "[app] hello queue=mail\n"
    assert (records.field("tenant"), records.field("queue")) == ("acme", "mail")


def test_exc_info_becomes_a_traceback(stdlib: logging.Logger, records: Records) -> None:
    structured = StructuredLogger.wrap(stdlib)
    try:
        raise LookupError("lost")
    except LookupError as error:
        structured.error("first", exc_info=error)
        structured.error("second", exc_info=True)
    assert records.text.count("Traceback") == 2
    assert records.text.count("LookupError: lost") == 2


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value, kept, shown",
    [
        (10, 10, "10"),
        ("two words", "two words", '"two words"'),
        ("", "", '""'),
        ('a="b"', 'a="b"', '"a=\\"b\\""'),
        ("line\nbreak", "line\\nbreak", "line\\nbreak"),
        ("\x1b[31mred\x00\x7f\x9b", "\\x1b[31mred\\x00\\x7f\\x9b", "\\x1b[31mred\\x00\\x7f\\x9b"),
        ("\u2028\u202e\ud800", "\\u2028\\u202e\\ud800", "\\u2028\\u202e\\ud800"),
        (b"\n", "b'\\n'", "b'\\n'"),
        (None, None, "None"),
        ("Grüße", "Grüße", "Grüße"),
        ("5%d", "5%d", "5%d"),
        (Broken(), "<unprintable Broken>", '"<unprintable Broken>"'),
        ("x" * LIMIT, "x" * LIMIT, "x" * LIMIT),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str | int) else "",
)
def test_stdlib_gets_fields_as_attributes_and_as_text(
    stdlib: logging.Logger, records: Records, value: object, kept: object, shown: str
) -> None:
    """A value stays on its line and cannot steer a terminal, a percent sign is no placeholder; no value loses the line.

    One of exactly two kibibytes is kept whole.
    """
    StructuredLogger.wrap(stdlib).info("at 100%s", value=value)
    assert records.text == f"at 100%s value={shown}\n"
    assert records.field("value") == kept


@pytest.mark.parametrize("char", ["x", "é", "€", "😀", "\n", "\ud800"])
def test_a_long_value_is_cut_to_two_kibibytes_everywhere(stdlib: logging.Logger, records: Records, char: str) -> None:
    own = LineLogger()
    for logger in (stdlib, own):
        StructuredLogger.wrap(logger).info("text", value=char * 100_000, numbers=[1] * 100_000)
    extra, field = records.field("value"), own.lines[0][2]["value"]
    assert extra == field
    assert extra.endswith("...")
    assert len(extra.encode(errors="surrogatepass")) <= LIMIT
    console_value = records.text.split(" ")[1].removeprefix("value=")
    assert console_value.endswith("...")
    assert LIMIT - 10 < len(console_value.encode()) <= LIMIT
    assert len(own.lines[0][2]["numbers"]) <= LIMIT


def test_numbers_booleans_and_none_stay_as_they_are() -> None:
    own = LineLogger()
    StructuredLogger.wrap(own).info("text", count=3, share=0.5, ok=True, nothing=None, error=ValueError("bad"))
    assert own.lines == [("info", "text", {"count": 3, "share": 0.5, "ok": True, "nothing": None, "error": "bad"})]


def test_a_logger_that_raises_never_breaks_the_caller(stdlib: logging.Logger) -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    class Own(LineLogger):
        def info(self, message: str, **fields: Any) -> None:
            raise OSError("disk full")

    stdlib.addHandler(Raising())
    for logger in (stdlib, Own()):
        StructuredLogger.wrap(logger).info("text", a=1)


def test_an_own_logger_gets_fields_as_keywords_and_exc_info_only_when_given() -> None:
    own, error = LineLogger(), ValueError("bad")
    structured = StructuredLogger.wrap(own)
    structured.info("text", queue="mail", message="m", self=1)
    structured.error("text", exc_info=error)
    assert own.lines == [
        ("info", "text", {"queue": "mail", "message_": "m", "self_": 1}),
        ("error", "text", {"exc_info": error}),
    ]


@pytest.mark.usefixtures("structlog_defaults")
def test_structlog_gets_a_constant_event_and_fields() -> None:
    structured = StructuredLogger.wrap(structlog.get_logger())
    with capture_logs() as lines:
        structured.info("a line", metric_value=10, event="e", method_name="m", level="l")
        structured.error("broken", exc_info=True)
    assert lines == [
        {"event": "a line", "log_level": "info", "metric_value": 10, "event_": "e", "method_name_": "m", "level_": "l"},
        {"event": "broken", "log_level": "error", "exc_info": True},
    ]


@pytest.mark.usefixtures("structlog_defaults")
def test_structlog_over_stdlib_keeps_fields_and_bound_context(stdlib: logging.Logger, records: Records) -> None:
    bound = structlog.wrap_logger(
        stdlib,
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.filter_by_level, structlog.processors.JSONRenderer(sort_keys=True)],
    ).bind(tenant="acme")
    log = StructuredLogger.wrap(bound)
    log.info("hello", queue="mail")
    log.debug("quiet")
    assert records.text == '{"event": "hello", "queue": "mail", "tenant": "acme"}\n'


def test_a_throttle_passes_one_line_per_interval_and_counts_the_others() -> None:
    clock = ManualClock()
    throttle = LogThrottle(1.0, clock)
    assert [throttle.ready() for _ in range(3)] == [True, False, False]
    assert throttle.suppressed == 2
    clock.advance(0.9)
    assert not throttle.ready()
    clock.advance(0.1)
    assert throttle.ready()
    assert throttle.suppressed == 3
    assert not throttle.ready()
    assert throttle.suppressed == 1
    clock.advance(5.0)
    assert throttle.ready()
    clock.advance(5.0)
    assert throttle.ready()
    assert throttle.suppressed == 0


def test_threads_that_share_a_throttle_pass_one_line_together() -> None:
    throttle, passed = LogThrottle(1.0, ManualClock()), []

    def work() -> None:
        passed.extend([throttle.ready() for _ in range(1000)])

    in_threads(4, work)
    assert (sum(passed), throttle.suppressed) == (1, 3999)


def test_what_a_signals_handler_raises_during_a_log_call_is_not_lost() -> None:
    """Else a Ctrl-C, or the exit that a program's own handler of SIGTERM raises, would do nothing."""

    def leave(_number: int, _frame: object) -> None:
        raise SystemExit(7)

    class Sending:
        """Is signalled while it writes."""

        number = signal.SIGTERM

        def info(self, message: str, **fields: object) -> None:
            signal.raise_signal(self.number)

        debug = warning = error = info

    sending = Sending()
    before = signal.signal(signal.SIGTERM, leave)
    try:
        for sending.number, expected in ((signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)):
            with pytest.raises(expected):
                StructuredLogger.wrap(sending).info("a line")
    finally:
        signal.signal(signal.SIGTERM, before)
