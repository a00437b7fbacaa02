"""docs/deployment.md: its programs run; its files, and the pod of docs/monitoring.md, say what the worker needs."""

from __future__ import annotations

import configparser
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from queue_system.monitoring.probes import create_app
from queue_system.supervision import WorkerSettings, supervisor
from tests.kit.source import ROOT
from tests.supervision import app
from tests.supervision.support import Bench

PAGE = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
CONFIG = 'import os\nfrom queue_system import QueueConfig\nconfig = QueueConfig(queue_prefix=os.environ["PREFIX"])\n'
MONITORING = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
LEAVES_WITHIN_S = WorkerSettings().grace + supervisor._MARGIN_S


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_programs_run_as_they_stand(bench: Bench, tmp_path: Path) -> None:
    start, mark = blocks("python")
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp/queues.py").write_text(CONFIG + mark)
    (tmp_path / "main.py").write_text(start)
    operation_id = bench.queue.enqueue({"id": 7}, "myapp.queues.render")["operation_id"]
    variables = {**os.environ, **bench.variables, "QUEUE_SYSTEM_REDIS_URL": bench.variables["URL"]}
    with subprocess.Popen([sys.executable, "main.py"], cwd=tmp_path, env=variables) as process:
        try:
            assert bench.queue.wait_for(operation_id, timeout=30).result == {"pages": 3, "order": 7}
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_the_unit_of_systemd_leaves_the_worker_its_grace() -> None:
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(blocks("ini")[0])
    service = unit["Service"]
    assert (service["Type"], service["KillMode"]) == ("notify", "mixed")
    assert int(service["TimeoutStopSec"]) > LEAVES_WITHIN_S


@pytest.mark.parametrize(
    "spec",
    [yaml.safe_load(blocks("yaml")[0])["spec"]["template"]["spec"], yaml.safe_load(blocks("yaml", MONITORING)[0])],
    ids=["deployment", "monitoring"],
)
def test_a_manifest_leaves_the_worker_its_grace_and_probes_what_there_is(spec: Any) -> None:
    """Only a server that is away makes /readyz fail, so no probe that ends a container may ask for it."""
    assert spec["terminationGracePeriodSeconds"] > LEAVES_WITHIN_S
    (container,) = spec["containers"]
    routes = {route.path for route in create_app(app.config, list).routes}  # type: ignore[attr-defined]
    startup, liveness, readiness = (
        container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")
    )
    assert (startup["path"], liveness["path"], readiness["path"]) == ("/livez", "/livez", "/readyz")
    assert {"/livez", "/readyz"} <= routes
    port = container["args"][container["args"].index("--http") + 1].rpartition(":")[2]
    assert {probe["port"] for probe in (startup, liveness, readiness)} == {container["ports"][0]["name"]}
    assert int(port) == container["ports"][0]["containerPort"]


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"(?:queue-system worker|`)[^`\n]*?(--[a-z-]+)", PAGE))))
def test_each_flag_is_a_setting(flag: str) -> None:
    others = {"--init", "--stop-timeout"}  # docker's
    names = {field.name.removesuffix("_mb") for field in fields(WorkerSettings)}
    assert flag in others or flag.removeprefix("--").replace("-", "_") in names
