"""What tells one fleet's metrics from another's, and what no stranger and no reload can do to a scrape."""

from __future__ import annotations

import importlib
import itertools
import re
import socket
from typing import Any

import pytest
from prometheus_client import REGISTRY, Counter

from queue_system import QueueConfig, QueueManager
from queue_system.inspection.beats import Beats
from queue_system.inspection.fleet import FleetReader
from queue_system.monitoring import prometheus
from queue_system.monitoring.collectors import FleetCollector, HealthCollector
from queue_system.monitoring.health import WorkerHealth
from queue_system.monitoring.labels import EVENTS, SERVER_NAME, Place, place_of
from tests.kit.configs import MakeConfig
from tests.kit.servers import OwnServer
from tests.kit.source import ROOT
from tests.monitoring.support import Samples, of, parsed, settlement


def collected(*collectors: Any) -> Samples:
    return parsed(prometheus.exposition(collectors).decode())


def fleet_of(config: QueueConfig) -> FleetCollector:
    return FleetCollector(FleetReader(config), place_of(config))


def settle(config: QueueConfig, queue: str) -> None:
    """Count one success of a queue for a configuration."""
    for observer in config.observers:
        observer.settled([settlement(f"high:{queue}")])


def test_two_fleets_are_told_apart(make_config: MakeConfig, prefix: str) -> None:
    """Depths, events and executions of one never pass for the other's, also where their queues have one name."""
    first, second = (make_config(queue_prefix=f"{prefix}{name}:") for name in "ab")
    QueueManager(first).enqueue_batch([{}] * 3, "shop.work", queue_name="same")
    QueueManager(second).enqueue_batch([{}] * 5, "shop.work", queue_name="same")
    for config in (first, second):
        prometheus.enable(config)
        settle(config, "same")
    settle(second, "same")
    shown = collected(fleet_of(first), fleet_of(second))
    for config, depth, executed in ((first, 3, 1), (second, 5, 2)):
        place = place_of(config)._asdict()
        assert of(shown, "queue_system_queue_depth", queue="same", priority="normal", **place) == depth
        assert of(shown, "queue_system_fleet_events_total", event="enqueued", **place) == depth
        assert of(shown, "queue_system_operations_total", queue="same", outcome="succeeded", **place) == executed


@pytest.mark.parametrize(
    "url, server",
    [
        ("redis://ada:secret@queues.example.org:6380/2", "redis://queues.example.org:6380/2"),
        ("redis://:secret@localhost/0", f"redis://localhost:6379/0 on {socket.gethostname()}"),
        ("redis://127.0.0.1:7/1", f"redis://127.0.0.1:7/1 on {socket.gethostname()}"),
        ("unix:///run/valkey.sock", f"unix:///run/valkey.sock on {socket.gethostname()}"),
        ("embedded:///srv/data", f"embedded:///srv/data on {socket.gethostname()}"),
    ],
)
def test_the_server_is_named_without_its_password_and_without_being_asked(
    url: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that leads to another server on every host names the host, too; a name of one's own is taken."""
    config = QueueConfig(redis_url=url, queue_prefix="q:")
    assert place_of(config) == Place(server, "q:")
    assert config.redis_client is None
    monkeypatch.setenv(SERVER_NAME, "main")
    assert place_of(config) == Place("main", "q:")


def test_every_event_is_told_before_it_happens(make_config: MakeConfig) -> None:
    """A first appearance is no rise, so an alert would miss it."""
    config = make_config()
    prometheus.enable(config)
    shown, place = collected(fleet_of(config)), place_of(config)._asdict()
    for event in EVENTS:
        assert of(shown, "queue_system_fleet_events_total", event=event, **place) == 0
    assert of(shown, "queue_system_lease_lost_total", **place) == 0


def test_every_event_that_a_script_counts_is_known() -> None:
    scripts = ROOT / "src/queue_system/broker/scripts"
    texts = "\n".join(path.read_text(encoding="utf-8") for path in sorted(scripts.rglob("*.lua")))
    counted = set(re.findall(r"\b(?:count|tally)\('(\w+)'", texts)) | set(re.findall(r"\bfinish\(.*'(\w+)'\)", texts))
    assert counted
    assert counted <= set(EVENTS)


def test_strangers_add_little_to_a_scrape(make_config: MakeConfig, server: OwnServer) -> None:
    """Whatever they write into the hash of the counters: many fields, long names, no numbers, or another type."""
    config = make_config()
    key = config.keys.metrics
    with server.client() as client:
        strange = {"of_a_later_release": 3, "x" * 10_000: 1, "no name": 1, "purged": "many"}
        client.hset(key, mapping={"enqueued": 7, **strange})
        shown = collected(fleet_of(config))
        assert of(shown, "queue_system_fleet_events_total", event="enqueued", **place_of(config)._asdict()) == 7
        assert of(shown, "queue_system_fleet_events_total", event="of_a_later_release") >= 3
        assert not {"x" * 10_000, "no name"} & events(shown)
        client.hset(key, mapping={f"stranger_{n}": n for n in range(5000)})
        shown = collected(fleet_of(config))
        assert of(shown, "queue_system_fleet_events_total", event="enqueued", **place_of(config)._asdict()) == 7
        assert len(events(shown)) < len(EVENTS) + 50
        client.delete(key)
        client.set(key, "a text")
        assert of(collected(fleet_of(config)), "queue_system_fleet_up", **place_of(config)._asdict()) == 1


def events(shown: Samples) -> set[str]:
    return {dict(labels)["event"] for name, labels in shown if name == "queue_system_fleet_events_total"}


def test_an_application_with_a_circuit_for_each_customer_has_bounded_labels() -> None:
    circuits = {f"customer-{n:04}": "open" for n in range(5000)} | {"redis": "closed"}
    place = Place("circuits", "q:")
    shown = collected(HealthCollector(lambda: [WorkerHealth(1, circuits=circuits)], place))
    labels = [dict(labels) for name, labels in shown if name == "queue_system_circuit_state"]
    assert len([each for each in labels if each["server"] == "circuits"]) <= 3 * 102
    assert of(shown, "queue_system_circuit_state", circuit="redis", state="closed", **place._asdict()) == 1
    assert of(shown, "queue_system_circuit_state", circuit="other", state="open", **place._asdict()) == 4900


def test_a_module_that_is_imported_again_goes_on_counting(make_config: MakeConfig) -> None:
    """As a development server, a notebook or a test runner does it; what was counted stays."""
    config = make_config()
    prometheus.enable(config)
    settle(config, "reloaded")
    again = importlib.reload(prometheus)
    again.enable(config)
    settle(config, "reloaded")
    other = make_config(queue_prefix=f"{config.queue_prefix}other:")
    again.enable(other)
    settle(other, "reloaded")
    shown = parsed(again.exposition([]).decode())
    counted = [
        of(shown, "queue_system_operations_total", queue="reloaded", outcome="succeeded", **place_of(each)._asdict())
        for each in (config, other)
    ]
    assert counted == [2, 1]


def test_what_another_program_registered_under_our_name_does_not_stop_us() -> None:
    """As an older release did in the same process, with other labels."""
    prometheus._instruments()
    known = REGISTRY._names_to_collectors["queue_system_lease_lost"]
    assert prometheus._once(Counter, "lease_lost", "Lost.", []) is known
    assert prometheus._once(Counter, "stranger", "One.", ["a"]) is not None
    other = prometheus._once(Counter, "stranger", "One.", ["b"])
    assert other._labelnames == ("server", "prefix", "b")
    REGISTRY.unregister(other)


def test_a_killed_worker_is_alive_no_longer_than_its_lease() -> None:
    """It stays registered while nobody takes over what it held, which is so when all were killed."""
    clock = itertools.count(0.0, 1.0)
    beats = Beats(lambda: next(clock))
    assert beats.alive({"w1": b"1:2000", "w2": b"1:2000", "dead:w3": b"9:2000"}) == 2
    assert beats.alive({"w1": b"2:2000", "w2": b"1:2000"}) == 2
    assert beats.alive({"w1": b"3:2000", "w2": b"1:2000"}) == 2
    assert beats.alive({"w1": b"4:2000", "w2": b"1:2000"}) == 1
    assert beats.alive({"w1": b"4:2000", "w2": b"2:2000", "w4": b"no number"}) == 3
    assert beats.alive({}) == 0


def test_one_who_may_not_read_the_workers_is_told_the_rest(server: OwnServer, prefix: str) -> None:
    name = f"blind-{prefix[:-1]}"
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", name, "on", "nopass", "~*", "+@all", "-hgetall")
        try:
            config = QueueConfig(redis_client=server.client(username=name, password="none"), queue_prefix=prefix)
            assert FleetReader(config)().alive is None
            shown, place = collected(fleet_of(config)), place_of(config)._asdict()
            assert of(shown, "queue_system_workers", **place) == 0
            with pytest.raises(KeyError):
                of(shown, "queue_system_workers_alive", **place)
        finally:
            client.execute_command("ACL", "DELUSER", name)


def test_a_loop_that_tells_of_itself_every_second_is_not_late_for_that() -> None:
    """What a child told 0.9 s ago says nothing of a lag; only longer silence than usual does."""
    health = WorkerHealth(1, running=True, loop_lag_s=0.002)
    assert health.aged(0.9, 1.0).loop_lag_s == 0.002
    assert health.aged(31.0, 1.0).loop_lag_s == 30.0
    starting = WorkerHealth(2)
    place = Place("lag", "q:")
    shown = collected(HealthCollector(lambda: [health.aged(0.9, 1.0), starting.aged(5.0, 1.0)], place))
    assert of(shown, "queue_system_event_loop_lag_seconds", **place._asdict()) == 0.002
