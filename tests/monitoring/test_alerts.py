"""The alert rules under a real Prometheus: each outage of a whole kind of process is seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from queue_system import QueueConfig, QueueManager
from tests.kit.servers import StartServer, free_port
from tests.kit.source import ROOT
from tests.kit.waiting import wait_until

RULES = ROOT / "deploy/prometheus/alerts.yml"
TARGET = "tests.monitoring.fleet_app:config"
WITHIN_S = 30.0


def tool(name: str) -> str:
    """The path of Prometheus or its tool; without it the test is skipped, which CI does not allow."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install prometheus")
    return found


@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", str(RULES)), ("check", "config", str(RULES.with_name("prometheus.yml"))),
     ("test", "rules", str(ROOT / "tests/monitoring/alerts_test.yml"))],
    ids=["rules", "scraping", "cases"],
)  # fmt: skip
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


class Watched:
    """A server, an exporter, a worker, and a Prometheus that scrapes both four times a second."""

    def __init__(self, folder: Path, url: str, prefix: str) -> None:
        self._folder = folder
        self._environment = {
            **os.environ, "URL": url, "PREFIX": prefix, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        }  # fmt: skip
        self._stack = contextlib.ExitStack()
        ports = [free_port() for _ in range(3)]
        self._api = httpx.Client(base_url=f"http://127.0.0.1:{ports[2]}/api/v1", timeout=10)
        self.exporter = self._ours("exporter", "--config", TARGET, "--http", f"127.0.0.1:{ports[0]}")
        self.worker = self._ours("worker", TARGET, "--http", f"127.0.0.1:{ports[1]}")
        self._write_settings(ports)
        self._start(
            tool("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{ports[2]}", "--log.level=error",
        )  # fmt: skip

    def _write_settings(self, ports: list[int]) -> None:
        """The rules that are shipped, without their patience."""
        rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
        for rule in rules["groups"][0]["rules"]:
            rule["for"] = "0s"
        jobs = [
            {"job_name": f"queue-system-{name}", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for name, port in zip(("exporter", "worker"), ports, strict=False)
        ]
        every = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"}
        settings = {"global": every, "rule_files": ["alerts.yml"], "scrape_configs": jobs}
        (self._folder / "alerts.yml").write_text(json.dumps(rules), encoding="utf-8")
        (self._folder / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")

    def _ours(self, *arguments: str) -> subprocess.Popen[bytes]:
        return self._start(sys.executable, "-m", "queue_system", *arguments)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        log = (self._folder / f"{Path(command[-1]).name}.log").open("wb")
        with log:
            process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def value(self, query: str) -> float | None:
        """What Prometheus knows by now."""
        with contextlib.suppress(httpx.HTTPError, ValueError):  # it is not ready yet
            found: list[Any] = self._api.get("/query", params={"query": query}).json()["data"]["result"]
            return float(found[0]["value"][1]) if found else None
        return None

    def firing(self) -> set[str]:
        """The names of the alerts that fire, of a target's with its job."""
        try:
            alerts: list[Any] = self._api.get("/alerts").json()["data"]["alerts"]
        except (httpx.HTTPError, ValueError):
            return set()
        down = [a["labels"] for a in alerts if a["state"] == "firing"]
        return {f"{a['alertname']} {a['job']}" if a["alertname"].endswith("Down") else a["alertname"] for a in down}

    def wait_for(self, *alerts: str) -> None:
        wait_until(lambda: set(alerts) <= self.firing(), f"{alerts} fire", WITHIN_S)

    def close(self) -> None:
        self._api.close()
        self._stack.close()


@pytest.fixture
def watched(start_server: StartServer, tmp_path: Path) -> Iterator[tuple[Watched, Any, QueueConfig]]:
    """What is watched, its server, and a configuration of the same fleet."""
    own = start_server()
    setting = Watched(tmp_path, own.url, "watched:")
    try:
        yield setting, own, QueueConfig(redis_url=own.url, queue_prefix="watched:")
    finally:
        setting.close()


def test_every_outage_of_a_whole_kind_of_process_fires_an_alert(watched: tuple[Watched, Any, QueueConfig]) -> None:
    """The first event of its kind, all workers killed, the server away, and the exporter gone: one after the other."""
    setting, own, config = watched
    wait_until(lambda: setting.value("queue_system_workers_alive") == 1, "the worker is seen", WITHIN_S)
    wait_until(lambda: setting.value('up{job="queue-system-worker"}') == 1, "it is scraped", WITHIN_S)
    wait_until(lambda: not setting.firing(), "all is well", WITHIN_S)

    QueueManager(config).enqueue({}, "nowhere.to_be_found")
    setting.wait_for("QueueSystemUnprocessableItems", "QueueSystemFailureRatio")

    setting.worker.send_signal(signal.SIGKILL)
    setting.wait_for("QueueSystemNoWorkers", "QueueSystemTargetDown queue-system-worker")
    assert setting.value("queue_system_workers") == 1, "it is still registered: nobody has taken over"

    own.kill()
    setting.wait_for("QueueSystemServerUnreachable")
    own.start()
    wait_until(lambda: "QueueSystemServerUnreachable" not in setting.firing(), "it is back", WITHIN_S)

    setting.exporter.send_signal(signal.SIGTERM)
    assert setting.exporter.wait(WITHIN_S) == 0
    setting.wait_for("QueueSystemUnwatched", "QueueSystemTargetDown queue-system-exporter")
