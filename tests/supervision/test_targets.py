"""What `module:object` may lead to, and what the settings do to it."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from queue_system import InvalidInputError, QueueConfig, QueueWorker
from queue_system.supervision import WorkerSettings
from queue_system.supervision.targets import explain, load_worker
from tests.supervision import app

APP = "tests.supervision.app"


async def load(**settings: Any) -> QueueWorker:
    return await load_worker(WorkerSettings(**settings))


@pytest.mark.parametrize("name", ["config", "make_config"])
async def test_a_configuration_gets_a_worker_of_the_settings(name: str) -> None:
    worker = await load(target=f"{APP}:{name}", concurrency=9, timeout=2.5, queues=("a", "b"))
    assert worker.config is app.config
    assert (worker.max_workers, worker.work_timeout, worker.queues) == (9, 2.5, ("a", "b"))
    assert (await load(target=f"{APP}:{name}")).max_workers == QueueWorker(app.config).max_workers


@pytest.mark.parametrize("name", ["worker", "make_worker"])
async def test_a_worker_keeps_what_the_settings_leave_to_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "worker", QueueWorker(app.config, max_workers=3, work_timeout=7.0, queues=["some"]))
    worker = await load(target=f"{APP}:{name}", concurrency=4)
    assert worker is app.worker
    assert (worker.max_workers, worker.work_timeout, worker.queues) == (4, 7.0, ("some",))


async def test_without_a_target_url_and_prefix_make_the_configuration() -> None:
    config = (await load(url="redis://localhost:1/3", prefix="mine:")).config
    assert (config.redis_url, config.queue_prefix) == ("redis://localhost:1/3", "mine:")
    assert (await load()).config.queue_prefix == QueueConfig().queue_prefix


@pytest.mark.parametrize("target", [None, f"{APP}:config"])
async def test_allowed_modules_of_the_settings_take_the_place_of_the_configuration_s(
    target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.config.registry.application, "allowed_modules", None)
    config = (await load(target=target, allowed_modules=("shop.jobs",))).config
    assert config.registry.application.allowed_modules == ("shop.jobs",)
    with pytest.raises(
        InvalidInputError, match=r"^allowed_modules: expected .*, got 'profile', which belongs to Python"
    ):
        await load(target=target, allowed_modules=("profile",))


async def test_the_event_loop_goes_on_while_a_target_is_imported_and_its_factory_called() -> None:
    loop, seen = asyncio.get_running_loop(), list[threading.Thread]()
    monkeypatched = types.ModuleType("slow_target")
    gate = threading.Event()

    def make() -> QueueConfig:
        seen.append(threading.current_thread())
        loop.call_soon_threadsafe(gate.set)
        assert gate.wait(10), "the event loop stands still"
        return asyncio.run(made())

    async def made() -> QueueConfig:
        return app.config

    monkeypatched.make = make  # type: ignore[attr-defined]
    sys.modules["slow_target"] = monkeypatched
    try:
        assert (await load(target="slow_target:make")).config is app.config
    finally:
        del sys.modules["slow_target"]
    assert seen != [threading.main_thread()]


async def test_modules_of_the_current_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app_of_this_folder.py").write_text("class Made:\n    from tests.supervision.app import config\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere", str(Path(__file__).parents[2])])
    assert (await load(target="app_of_this_folder:Made.config")).config is app.config


@pytest.mark.parametrize(
    "target, problem",
    [
        ("no_such_app:config", "cannot be found: there is no module 'no_such_app' on sys.path"),
        (f"{APP}.more:config", f"cannot be found: there is no module '{APP}.more' on sys.path"),
        ("tests.supervision.needy_app:config", "cannot be imported: No module named 'a_module_that_is_missing'"),
        (f"{APP}:absent", f"cannot be found: module '{APP}' has no attribute 'absent'"),
        (f"{APP}:config.absent", "cannot be found: 'QueueConfig' object has no attribute 'absent'"),
        (f"{APP}:number", "got int; a target is a QueueConfig"),
        (f"{APP}:note", r"raised TypeError: note\(\) missing 2 required"),
        (
            f"{APP}:note",
            r".*; a target is a QueueConfig, a QueueWorker, or a function without arguments that returns one",
        ),
        (f"{APP}:fail", "raised LookupError: no settings for this host"),
    ],
)
async def test_a_wrong_target_is_a_typed_error_that_says_what_is_wrong(target: str, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"^target: (expected .* from )?'{target}',? {problem}") as caught:
        await load(target=target)
    of_target = any(word in str(caught.value) for word in ("imported", "raised"))
    assert explain(caught.value) == f"{caught.value}{'; --debug shows the traceback' if of_target else ''}"
    assert ("Traceback" in explain(caught.value, debug=True)) is of_target


@pytest.mark.parametrize(
    "source, problem",
    [
        ("import no_such_library\n", "cannot be imported: No module named 'no_such_library', at {}:1; install it"),
        ("\nfrom json import nothing_like_that\n", "cannot be imported: ImportError: cannot import .*, at {}:2$"),
        ("import json\njson.loads('{{')\n", "cannot be imported: JSONDecodeError: .*, at {}:2$"),
        ("def x(:\n", r"cannot be imported: SyntaxError: invalid syntax \(app_that_fails.py, line 1\)$"),
        ("raise OSError('redis://:hunter2@h is down')\n", r"cannot be imported: OSError: redis://:\*\*\*@h is down"),
        ("def config():\n    return {{}}['url']\n", "raised KeyError: 'url', at {}:2$"),
    ],
)
async def test_a_target_that_fails_is_told_on_one_line_with_the_application_s_own(
    source: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Module, what is missing, file and line; the traceback is for those who ask for it."""
    (tmp_path / "app_that_fails.py").write_text(source.replace("{{", "{").replace("}}", "}"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "app_that_fails", raising=False)
    with pytest.raises(InvalidInputError, match=problem.format(r"app_that_fails\.py")) as caught:
        await load(target="app_that_fails:config")
    monkeypatch.delitem(sys.modules, "app_that_fails", raising=False)
    assert "\n" not in explain(caught.value)
    assert "hunter2" not in explain(caught.value, debug=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"target": "app"}, {"target": ":config"}, {"target": "app:"}, {"processes": 0}, {"processes": True},
        {"grace": -1.0}, {"grace": float("nan")}, {"max_operations": 0}, {"max_memory_mb": 0}, {"log_format": "xml"},
        {"log_level": "LOUD"},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict[str, Any]) -> None:
    (field,) = settings
    with pytest.raises(InvalidInputError, match=f"^{field}: "):
        WorkerSettings(**settings)
