"""The files under deploy: their structure, and that all they query stands in a real scrape and in real log lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cli.support import contexts
from tests.contract.test_opensearch import bodies
from tests.kit.source import ROOT
from tests.monitoring.conftest import Busy
from tests.monitoring.support import Samples

DEPLOY = ROOT / "deploy"
TEMPLATE = json.loads((DEPLOY / "opensearch/index-template.json").read_text(encoding="utf-8"))
OBJECTS = [
    json.loads(line) for line in (DEPLOY / "opensearch/dashboard.ndjson").read_text(encoding="utf-8").splitlines()
]
GRAFANA = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
AGGREGATED = {"avg": "double", "sum": "double", "date_histogram": "date", "terms": "keyword"}
"""What type a field must have for an aggregation."""


def expressions() -> list[str]:
    """Every PromQL expression that is shipped."""
    panels = [target["expr"] for panel in GRAFANA["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for rule in RULES]


def labels_of(scrape: Samples) -> dict[str, dict[str, set[str]]]:
    """The labels of each metric and their values; Prometheus itself adds `job` and `instance`."""
    found: dict[str, dict[str, set[str]]] = {}
    for name, labels in scrape:
        for label, value in labels:
            found.setdefault(name, {"job": set(), "instance": set()}).setdefault(label, set()).add(value)
        found.setdefault(name, {"job": set(), "instance": set()})
    return found


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_label_of_an_expression_is_in_a_real_scrape(expression: str, busy: Busy) -> None:
    known = labels_of(busy.scrape)
    known["up"] = {"job": set(), "instance": set()}  # Prometheus's own
    selectors = re.findall(r"\b(queue_system_\w+|up)\b(?:\{([^}]*)\})?", expression)
    assert selectors
    grouped = {
        label.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in group.split(",")
    }
    for name, matchers in selectors:
        assert name in known
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!=|=)\s*"([^"]*)"', matchers):
            assert label in known[name]
            if label in {"outcome", "state", "source"}:
                assert set(value.split("|")) <= known[name][label], operator
    everywhere = set().union(*(known[name] for name, _ in selectors))
    assert grouped <= everywhere
    assert expression.count("(") == expression.count(")")


def test_every_metric_of_the_package_is_shown_on_the_dashboard_or_watched_by_a_rule(busy: Busy) -> None:
    shown = "\n".join(expressions())
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name, _ in busy.scrape}
    ours = {name for name in families if name.startswith("queue_system_") and not name.endswith("_created")}
    assert [name for name in sorted(ours) if name not in shown] == ["queue_system_queues_complete"]


def test_the_page_describes_every_metric_and_no_other(busy: Busy) -> None:
    page = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    table = page.partition("## Metrics")[2].partition("\n\n- ")[0]
    described = {
        name for row in table.splitlines() for name in re.findall(r"`(queue_system_\w+)`", row.split(" | ")[0])
    }
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in busy.scrape}
    assert described == {
        name for name in families if name.startswith("queue_system_") and not name.endswith("_created")
    }


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) > 8
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "remedy"} == rule["annotations"].keys()
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))


def test_grafana_s_dashboard_has_its_variables_and_places_no_panel_upon_another() -> None:
    variables = {variable["name"]: variable for variable in GRAFANA["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["queue"]["query"]["query"] == (
        'label_values(queue_system_queue_depth{server="$server", prefix="$prefix"}, queue)'
    )
    assert not variables["server"]["includeAll"]
    assert not variables["prefix"]["includeAll"]
    taken: set[tuple[int, int]] = set()
    for panel in GRAFANA["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert len({panel["id"] for panel in GRAFANA["panels"]}) == len(GRAFANA["panels"])


def mapped(properties: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Each field of the index template with its type."""
    for name, definition in properties.items():
        if "properties" in definition:
            yield from mapped(definition["properties"], f"{above}{name}.")
        else:
            yield f"{above}{name}", definition["type"]


FIELDS = dict(mapped(TEMPLATE["template"]["mappings"]["properties"]))


def flat(document: dict[str, Any], above: str = "") -> dict[str, Any]:
    """A document's fields under their whole names, as an index has them."""
    fields: dict[str, Any] = {}
    for name, value in document.items():
        fields |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return fields


def found(query: str, busy: Busy) -> list[dict[str, Any]]:
    """The log lines that a saved query finds; it understands what ours say: phrases, words and alternatives."""

    def holds(clause: str, fields: dict[str, Any]) -> bool:
        match = re.fullmatch(r'([\w.]+):(?:"([^"]*)"|\(([^)]*)\)|(\w+))', clause)
        assert match, clause
        name, phrase, alternatives, word = match.groups()
        assert name in FIELDS
        if phrase:
            return phrase in str(fields.get(name, ""))
        return fields.get(name) in (alternatives.split(" OR ") if alternatives else [word])

    documents = [flat(document) for document in busy.documents]
    any_of = [query] if " AND " in query or "(" in query else query.split(" OR ")
    return [
        fields for fields in documents if any(all(holds(part, fields) for part in one.split(" AND ")) for one in any_of)
    ]


def searched(saved: dict[str, Any]) -> str:
    source = json.loads(saved["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
    assert source["query"]["language"] == "lucene"
    query: str = source["query"]["query"]
    return query


def test_the_template_maps_every_line_of_a_worker_without_a_conflict(busy: Busy) -> None:
    fits: dict[str, tuple[type, ...]] = {
        "date": (str,), "text": (str,), "keyword": (str,), "double": (int, float), "long": (int,),
    }  # fmt: skip
    dynamic = [
        next(iter(each.values()))["path_match"] for each in TEMPLATE["template"]["mappings"]["dynamic_templates"]
    ]
    assert set(dynamic) == {"labels.*", "queue_system.*"}
    kinds: dict[str, set[type]] = {}
    for document in busy.documents:
        for name, value in flat(document).items():
            if name in FIELDS:
                assert isinstance(value, fits[FIELDS[name]]), name
            else:
                assert name.startswith(("labels.", "queue_system.")), f"{name} is not mapped"
                kinds.setdefault(name, set()).add(float if isinstance(value, int | float) else type(value))
    assert [name for name, types in kinds.items() if len(types - {type(None)}) > 1] == []
    assert all(pattern.startswith("logs-") for pattern in TEMPLATE["index_patterns"]), "the queries say logs-*"


def test_the_specification_s_queries_fit_the_template() -> None:
    """A phrase needs text, a term an exact value, a histogram over time a date, and an average a number."""
    every, rates = bodies()
    aggregation = rates["aggs"]["success_rate_over_time"]
    assert FIELDS[next(iter(every["query"]["match_phrase"]))] == "text"
    assert FIELDS[next(iter(every["sort"][0]))] == FIELDS[aggregation["date_histogram"]["field"]] == "date"
    assert FIELDS[aggregation["aggs"]["avg_success_rate"]["avg"]["field"]] == "double"
    assert FIELDS[next(iter(rates["query"]["bool"]["must"][1]["match"]))] == "keyword"


def test_the_saved_objects_refer_to_one_another_and_to_nothing_else() -> None:
    known = {(saved["type"], saved["id"]) for saved in OBJECTS}
    assert len(known) == len(OBJECTS)
    assert {kind for kind, _ in known} == {"index-pattern", "search", "visualization", "dashboard"}
    for saved in OBJECTS:
        assert {(reference["type"], reference["id"]) for reference in saved["references"]} <= known
    (pattern,) = [saved for saved in OBJECTS if saved["type"] == "index-pattern"]
    assert (pattern["attributes"]["title"], pattern["attributes"]["timeFieldName"]) == ("logs-*", "timestamp")
    (dashboard,) = [saved for saved in OBJECTS if saved["type"] == "dashboard"]
    panels = [panel["panelRefName"] for panel in json.loads(dashboard["attributes"]["panelsJSON"])]
    assert panels == [reference["name"] for reference in dashboard["references"]]
    assert {reference["id"] for reference in dashboard["references"] if reference["type"] == "visualization"} == {
        saved["id"] for saved in OBJECTS if saved["type"] == "visualization"
    }


@pytest.mark.parametrize(
    "saved", [saved for saved in OBJECTS if saved["type"] in {"search", "visualization"}], ids=lambda saved: saved["id"]
)
def test_every_saved_query_finds_lines_of_a_worker_that_carry_the_fields_it_shows(
    saved: dict[str, Any], busy: Busy
) -> None:
    lines = found(searched(saved), busy)
    assert lines
    for column in saved["attributes"].get("columns", []):
        assert column in FIELDS
        assert all(column in line for line in lines)
    state = json.loads(saved["attributes"].get("visState", '{"aggs": [], "title": ""}'))
    assert state["title"] in {"", saved["attributes"]["title"]}
    for aggregation in state["aggs"]:
        if (field := aggregation["params"].get("field")) is not None:
            assert FIELDS[field] == AGGREGATED[aggregation["type"]]
            assert all(field in line for line in lines)


def exporter_commands() -> dict[str, list[str]]:
    """How each manifest starts the exporter."""
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes/exporter.yaml").read_text(encoding="utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    compose = yaml.safe_load((DEPLOY / "compose/exporter.yaml").read_text(encoding="utf-8"))
    unit = (DEPLOY / "systemd/queue-system-exporter.service").read_text(encoding="utf-8")
    started = re.findall(r"^ExecStart=(\S+) (.*)$", unit, re.MULTILINE)
    return {
        "kubernetes": container["args"],
        "compose": compose["services"]["queue-exporter"]["command"],
        "systemd": [started[0][0].rpartition("/")[2], *started[0][1].split()],
    }


@pytest.mark.parametrize("manifest", ["kubernetes", "compose", "systemd"])
def test_each_manifest_starts_an_exporter_with_options_that_there_are(manifest: str) -> None:
    program, name, *options = exporter_commands()[manifest]
    assert (program, name) == ("queue-system", "exporter")
    (context,) = [context for context in contexts() if context.command_path == "queue-system exporter"]
    known = {text for option in context.command.params for text in option.opts}
    assert {option for option in options if option.startswith("--")} <= known
    assert options[options.index("--http") + 1].endswith(":9201")
