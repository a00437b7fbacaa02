"""Functions of the running program: workers started the same way find them, and those of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from queue_system import InvalidInputError, QueueConfig, QueueManager
from tests.contract.support import python, run
from tests.kit.contents import documents
from tests.kit.servers import OwnServer

PROGRAM = """\
import asyncio, multiprocessing, os, sys
from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.testing import run_until_idle

config = QueueConfig(redis_url=os.environ["URL"], queue_prefix=os.environ["PREFIX"])

def charge(entity):
    return "of the program"

def enqueue():
    print(QueueManager(config).enqueue({}, charge)["operation_id"])

def main():
    if sys.argv[1] == "enqueue":
        enqueue()
    elif sys.argv[1] == "spawn":
        child = multiprocessing.get_context("spawn").Process(target=enqueue)
        child.start()
        child.join()
    elif sys.argv[1] == "spawn-worker":
        child = multiprocessing.get_context("spawn").Process(target=work)
        child.start()
        child.join()
    else:
        work()

def work():
    asyncio.run(run_until_idle(config))

if __name__ == "__main__":
    main()
"""

WAYS = {
    "script.py": (["script.py"], "script"),
    "folder/script.py": (["folder/script.py"], "script"),
    "script as a module": (["-m", "script"], "script"),
    "a package's module": (["-m", "shop.script"], "shop.script"),
    "a package": (["-m", "shop"], "shop.__main__"),
}


def write(folder: Path) -> None:
    """The program in each of its places, and a function of the same name in the package itself."""
    for place in ("script.py", "folder/script.py", "shop/script.py", "shop/__main__.py"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(PROGRAM)
    (folder / "shop" / "__init__.py").write_text("def charge(entity):\n    return 'of the package'\n")


@pytest.mark.parametrize(
    "way, worker",
    [
        ("script.py", "command line"), ("folder/script.py", "the same"), ("script as a module", "the same"),
        ("a package's module", "command line"), ("a package", "the same"), ("a package", "command line"),
    ],
)  # fmt: skip
def test_a_function_of_the_program_is_found_by_workers_of_both_kinds(
    server: OwnServer, config: QueueConfig, raw: redis.Redis, tmp_path: Path, way: str, worker: str
) -> None:
    write(tmp_path)
    arguments, module = WAYS[way]
    variables = {"URL": server.url, "PREFIX": config.queue_prefix}
    operation_id = run(*arguments, "enqueue", cwd=tmp_path, **variables)[0].strip()
    (item,) = documents(raw, config.get_queue_key("charge"))
    assert (item["processor_module"], item["processor"]) == (module, "charge")
    if worker == "the same":
        run(*arguments, "work", cwd=tmp_path, **variables)
    else:
        command = ("-m", "queue_system", "worker", "--burst", "--url", server.url, "--prefix", config.queue_prefix)
        run(*command, cwd=tmp_path, **variables)
    assert result(config, operation_id) == "of the program"


@pytest.mark.parametrize("arguments", [["script.py"], ["-m", "shop.script"]], ids=["script", "module"])
def test_a_child_that_multiprocessing_spawned_enqueues_and_works_as_its_parent(
    server: OwnServer, config: QueueConfig, raw: redis.Redis, tmp_path: Path, arguments: list[str]
) -> None:
    write(tmp_path)
    variables = {"URL": server.url, "PREFIX": config.queue_prefix}
    operation_id = run(*arguments, "spawn", cwd=tmp_path, **variables)[0].strip()
    (item,) = documents(raw, config.get_queue_key("charge"))
    assert item["processor_module"] in {"script", "shop.script"}
    run(*arguments, "spawn-worker", cwd=tmp_path, **variables)
    assert result(config, operation_id) == "of the program"


@pytest.mark.parametrize("of_an_older_version", [False, True], ids=["by the package", "by an older version"])
def test_a_worker_that_is_a_package_s_main_finds_what_is_named_by_the_package(
    server: OwnServer, config: QueueConfig, tmp_path: Path, of_an_older_version: bool
) -> None:
    """What the package itself defines; else its main's, as an older version stored functions of `shop/__main__.py`."""
    write(tmp_path)
    if of_an_older_version:
        (tmp_path / "shop" / "__init__.py").write_text("")
    operation_id: str = QueueManager(config).enqueue({}, "shop.charge")["operation_id"]
    run("-m", "shop", "work", cwd=tmp_path, URL=server.url, PREFIX=config.queue_prefix)
    assert result(config, operation_id) == ("of the program" if of_an_older_version else "of the package")


REFUSED_PROGRAM = """\
import os
from queue_system import QueueConfig, QueueManager
{charge}
QueueManager(QueueConfig(redis_url=os.environ["URL"], queue_prefix=os.environ["PREFIX"])).enqueue({{}}, charge)
"""
NESTED = """\
def make():
    def charge(entity): ...
    charge.__qualname__ = "charge"
    return charge
charge = make()
"""
REFUSED = {
    "in -c": (["-c"], "interactive session or a script without a file"),
    "a name that none can import": (["my-script.py"], "whose name cannot be imported"),
    "a folder's main": (["."], "whose name cannot be imported"),
    "another module of that name": (["folder/deep.py"], "'deep' means another file"),
    "not at the top level": (["nested.py"], "is not a function that"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_worker_could_find_is_refused_at_enqueue_with_the_reason(
    config: QueueConfig, server: OwnServer, raw: redis.Redis, tmp_path: Path, case: str
) -> None:
    arguments, reason = REFUSED[case]
    text = REFUSED_PROGRAM.format(charge=NESTED if case == "not at the top level" else "def charge(entity): ...")
    if case == "in -c":
        arguments = ["-c", text]
    (tmp_path / "folder").mkdir()
    for file in ("my-script.py", "__main__.py", "nested.py", "folder/deep.py"):
        (tmp_path / file).write_text(text)
    (tmp_path / "other").mkdir()
    if case == "another module of that name":
        (tmp_path / "folder" / "deep.py").write_text("import sys\nsys.path[:1] = ['other']\n" + text)
        (tmp_path / "other" / "deep.py").write_text("")
    with python(*arguments, cwd=tmp_path, URL=server.url, PREFIX=config.queue_prefix) as process:
        _, errors = process.communicate(timeout=50)
    assert process.returncode == 1
    assert "InvalidInputError: processor: 'charge' " in errors
    assert reason in errors
    assert documents(raw, config.get_queue_key("charge")) == []


def test_a_name_of_the_running_script_as_such_is_refused(config: QueueConfig) -> None:
    """It would be another script in each process."""
    for name in ("__main__.charge", "__mp_main__:charge"):
        with pytest.raises(InvalidInputError, match=r"__main__ is another script in each process, got "):
            QueueManager(config).enqueue({}, name)


def result(config: QueueConfig, operation_id: str) -> Any:
    record = QueueManager(config).get_operation(operation_id)
    assert record is not None
    return record.result or record.error
