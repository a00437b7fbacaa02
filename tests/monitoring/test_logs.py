"""The log formats: ECS with the specification's fields, one line a record, no entity; a stderr handler on demand."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from queue_system.logs import JsonFormatter, TextFormatter, configure
from queue_system.metrics import StructuredLogger
from tests.contract.test_opensearch import averaged
from tests.kit.hostile_texts import CORPUS
from tests.kit.servers import OwnServer
from tests.monitoring.busy_process import ENTITY
from tests.monitoring.conftest import Busy, run_busy

ECS = ("@timestamp", "log.level", "message")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was before at the end."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def written(formatter: logging.Formatter, message: str, **fields: Any) -> str:
    """What a formatter makes of a line of ours."""
    stream = io.StringIO()
    logger, handler = logging.Logger("t"), logging.StreamHandler(stream)  # noqa: LOG001 - outside the global tree
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    StructuredLogger.wrap(logger).info(message, **fields)
    return stream.getvalue()


def test_every_line_of_a_worker_is_one_ecs_document_that_begins_as_ecs_logging_asks(busy: Busy) -> None:
    assert len(busy.lines) > 50
    for line, document in zip(busy.lines, busy.documents, strict=True):
        assert line.isascii()
        assert line.isprintable()
        assert tuple(document)[:3] == ECS
        assert document["@timestamp"] == document["timestamp"]
        assert datetime.fromisoformat(document["timestamp"]).utcoffset() is not None
        assert document["log.level"] in {"info", "warning", "error"}
        assert document["service.name"] == "shop"
        assert document["process.pid"] > 0
        assert {"ecs.version", "log.logger", "host.name"} <= document.keys()


def test_the_specification_s_queries_find_the_lines_of_a_worker(busy: Busy) -> None:
    """What they match, what they sort by and what they average over stands in the lines as it is written."""
    assert {each["message"] for each in busy.documents if "metric_name" in each} == {"Queue metric update"}
    metrics = {"processed", "failed", "retried", "timeouts", "system_errors", "errors", "avg_process_time"}
    averages = averaged(busy.documents, metrics | {"success_rate"})
    assert averages[-1] == 97.5
    assert len(averages) > 1, "the worker logs its success rate by itself"


def test_our_own_fields_lie_under_one_object_and_errors_where_ecs_has_them(busy: Busy) -> None:
    failed = [document for document in busy.documents if document["message"] == "operation failed"]
    assert len(failed) == len(CORPUS) + 2
    for document in failed:
        assert set(document["queue_system"]) == {"operation_id", "processor"}
        assert document["error.type"] in {"ValueError", "TimeoutError"}
        assert isinstance(document["error.message"], str)


def test_a_line_of_the_application_keeps_its_text_and_names_its_span_and_error(busy: Busy) -> None:
    placed, wrong = (document for document in busy.documents if document["log.logger"] == "shop.orders")
    assert (placed["message"], placed["labels"]) == ("order 7\nplaced", {"order": "7"})
    assert (len(placed["trace.id"]), len(placed["span.id"])) == (32, 16)
    assert "trace.id" not in wrong
    assert (wrong["error.type"], wrong["error.message"]) == ("RuntimeError", "forged\n{}")
    assert wrong["error.stack_trace"].startswith("Traceback")


def test_no_line_tells_an_entity(busy: Busy) -> None:
    assert ENTITY not in "".join(busy.lines)


def test_text_for_people_has_no_line_that_an_error_or_a_message_forged(server: OwnServer) -> None:
    """Every line that is not indented begins with a time."""
    for line in run_busy(server, "text").lines:
        assert line.isprintable()
        if not line.startswith("    "):
            datetime.fromisoformat(line[:19])


@pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS)
def test_a_hostile_field_stays_one_printable_line_in_either_format(text: str) -> None:
    as_json = written(JsonFormatter(), text, value=text)
    assert as_json.removesuffix("\n").isprintable()
    assert as_json.isascii()
    json.loads(as_json)
    as_text = written(TextFormatter(), "message", value=text)
    assert as_text.removesuffix("\n").isprintable()


def test_what_json_cannot_carry_becomes_null() -> None:
    document = json.loads(written(JsonFormatter(), "m", metric_value=float("nan"), rate=float("inf")))
    assert document["metric_value"] is document["queue_system"]["rate"] is None


def test_structlog_s_own_formatter_takes_our_records() -> None:
    structlog = pytest.importorskip("structlog")
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
    document = json.loads(written(formatter, "Queue metric update", metric_name="processed", metric_value=1))
    assert document["queue_system_event"] == "Queue metric update"
    assert (document["metric_name"], document["metric_value"]) == ("processed", 1)


def test_configure_adds_one_handler_of_its_own_however_often(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    others = list(root.handlers)
    configure("json", "debug")
    configure("text", logging.WARNING)
    configure("json", "info")
    (added,) = [handler for handler in root.handlers if handler not in others]
    logging.getLogger("anything").info("told")
    logging.getLogger("anything").debug("not told")
    assert json.loads(stream.getvalue())["message"] == "told"
    assert added in root.handlers


@pytest.mark.parametrize("wrong", [("xml", "INFO"), ("json", "LOUD")])
def test_an_unknown_format_or_level_is_refused(root: logging.Logger, wrong: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"xml|LOUD"):
        configure(*wrong)
