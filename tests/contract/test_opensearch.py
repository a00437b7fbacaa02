"""The specification's two OpenSearch queries find what real loggers write, and the fields they read stand in it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import pytest
import structlog

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.kit.inbox import Inbox
from tests.kit.servers import OwnServer
from tests.kit.workers import running

OPENSEARCH: Final = """\
// Find all queue metric updates
GET logs-*/_search
{
  "query": {
    "match_phrase": {
      "message": "Queue metric update"
    }
  },
  "sort": [
    {
      "timestamp": {
        "order": "desc"
      }
    }
  ]
}

// Track success rate over time
GET logs-*/_search
{
  "query": {
    "bool": {
      "must": [
        { "match_phrase": { "message": "Queue metric update" } },
        { "match": { "metric_name": "success_rate" } }
      ]
    }
  },
  "sort": [
    {
      "timestamp": {
        "order": "asc"
      }
    }
  ],
  "aggs": {
    "success_rate_over_time": {
      "date_histogram": {
        "field": "timestamp",
        "calendar_interval": "hour"
      },
      "aggs": {
        "avg_success_rate": {
          "avg": {
            "field": "metric_value"
          }
        }
      }
    }
  }
}
"""

Document = dict[str, Any]


def bodies() -> list[Document]:
    return [json.loads(body) for body in re.split(r"//.*\nGET .*\n", OPENSEARCH)[1:]]


def matches(query: Document, document: Document) -> bool:
    """Tell whether a document matches, as far as these queries go."""
    ((kind, clause),) = query.items()
    match kind:
        case "match_phrase":
            return all(phrase in document.get(field, "") for field, phrase in clause.items())
        case "match":
            return all(document.get(field) == value for field, value in clause.items())
        case "bool":
            return all(matches(part, document) for part in clause["must"])
        case _:
            raise AssertionError(f"a query of kind {kind}")


def averaged(documents: Iterable[Document], metrics: set[str]) -> list[Any]:
    """What the second query averages over; the first finds these metrics at least, in the order of their time."""
    every, rates = bodies()
    found = [document for document in documents if matches(every["query"], document)]
    assert metrics <= {hit["metric_name"] for hit in found}
    for hit in found:
        assert isinstance(hit["metric_value"], int | float)
    ((by, _),) = every["sort"][0].items()
    stamps = [hit[by] for hit in found]
    assert stamps == sorted(stamps), "a log's stamps grow"
    rated = [document for document in found if matches(rates["query"], document)]
    aggregation = rates["aggs"]["success_rate_over_time"]
    assert all(aggregation["date_histogram"]["field"] in document for document in rated)
    return [document[aggregation["aggs"]["avg_success_rate"]["avg"]["field"]] for document in rated]


class JsonLog(logging.Handler):
    """Keeps each record as the document that a shipper of JSON logs sends."""

    def __init__(self) -> None:
        super().__init__()
        self.documents: list[Document] = []

    def emit(self, record: logging.LogRecord) -> None:
        document = {**vars(record), "message": record.getMessage(), "timestamp": record.created}
        self.documents.append(json.loads(json.dumps(document)))


@pytest.fixture
def stdlib_log(prefix: str) -> Iterator[tuple[object, Callable[[], list[Document]]]]:
    handler, logger = JsonLog(), logging.getLogger(f"contract.{prefix}")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield logger, lambda: handler.documents
    logger.removeHandler(handler)


@pytest.fixture
def structlog_log() -> tuple[object, Callable[[], list[Document]]]:
    captured = structlog.testing.CapturingLogger()
    logger = structlog.wrap_logger(
        captured,
        processors=[
            structlog.processors.TimeStamper(fmt="iso", key="timestamp"),
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ],
    )
    return logger, lambda: [json.loads(call.args[0]) for call in captured.calls]


@pytest.mark.parametrize("log", ["stdlib_log", "structlog_log"])
async def test_the_queries_find_the_records_of_a_working_system(
    log: str, server: OwnServer, prefix: str, request: pytest.FixtureRequest, inbox: Inbox
) -> None:
    logger, documents = request.getfixturevalue(log)
    config = QueueConfig(redis_url=server.url, queue_prefix=prefix, logger=logger)

    def note(entity: Any) -> None:
        inbox.put(entity)

    QueueManager(config=config).enqueue_batch([{"n": n} for n in range(3)], note)
    async with running(QueueWorker(config)):
        await inbox.take(3)
    config.update_metric("success_rate", 97.5, force_log=True)

    metrics = {"enqueued", "processed", "avg_process_time", "success_rate"}
    assert averaged(documents(), metrics) == [100.0, 97.5], "the worker's own, and the one set by hand"
