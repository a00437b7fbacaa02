"""Somebody who can write to the server gets dead letters from real workers in every layout, and runs no code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from queue_system import QueueConfig
from tests.kit.contents import documents
from tests.kit.servers import OwnServer
from tests.kit.source import SRC

SITE = sysconfig.get_path("purelib")
EVIL = """
from pathlib import Path
Path({marks!r}, __name__ + ".imported").touch()
def run(entity):
    Path({marks!r}, __name__ + ".run").touch()
"""
GOOD = """
from pathlib import Path
def run(entity):
    Path({marks!r}, "good").touch()
"""
SHELL = "-cimport pathlib; pathlib.Path({marks!r}, 'shell').touch()"
ALWAYS = [
    ("test.support.script_helper", "assert_python_ok"), ("test.support.script_helper", "spawn_python"),
    ("test.support.os_helper", "unlink"), ("_testcapi", "run_in_subinterp"), ("sitecustomize", "main"),
    ("subprocess", "getoutput"), ("os", "system"), ("builtins", "exec"), ("__hello__", "main"),
    ("redis.utils", "from_url"), ("msgspec", "convert"), ("typer.main", "get_command"), ("queue_system.cli.app", "run"),
    ("queue_system.__main__", "main"), ("__main__", "main"), ("shop.compat.subprocess", "getoutput"),
    ("shop.compat.helper", "assert_python_ok"), ("shop.__getattr__", "run"), ("scripts.reset", "anything"),
]  # fmt: skip


@dataclass
class Layout:
    """An application with attackers' targets in and around it."""

    folder: Path
    path: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app, self.outside, self.marks = self.folder / "app", self.folder / "outside", self.folder / "marks"
        for made in (self.app, self.outside, self.marks):
            made.mkdir()
        self.write(self.app / "jobs.py", GOOD)
        self.write(self.app / "scripts" / "reset.py")
        self.write(self.app / "shop" / "__init__.py", "")
        aliases = (
            "sys.modules[__name__ + '.subprocess'] = subprocess\nsys.modules[__name__ + '.helper'] = script_helper"
        )
        compat = f"import subprocess, sys\nfrom test.support import script_helper\n{aliases}\ndef run(entity): ..."
        self.write(self.app / "shop" / "compat.py", compat)

    def write(self, file: Path, text: str = EVIL) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(marks=str(self.marks)) if "{" in text else text)
        return file

    def installed(self, folder: Path, name: str, into: Path | None = None) -> None:
        """A distribution of one module, as pip makes it; with `into`, linked there, as uv does."""
        self.write(folder / f"{name}.py")
        metadata = folder / f"{name}-1.0.dist-info"
        self.write(metadata / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        self.write(metadata / "RECORD", f"{name}.py,,\n")
        if into is not None:
            into.mkdir(exist_ok=True)
            for made in (folder / f"{name}.py", metadata):
                (into / made.name).symlink_to(made)

    def on_path(self, entry: Path, *targets: str) -> None:
        self.path.append(str(entry))
        self.targets += targets


def folders(layout: Layout) -> None:
    """Whatever `PYTHONPATH` and the current folder may hold."""
    layout.installed(layout.app / "deps", "evil_target")
    layout.on_path(layout.app / "deps", "evil_target", "deps.evil_target")
    layout.installed(layout.outside / "cache", "evil_linked", into=layout.app / "linked")
    layout.on_path(layout.app / "linked", "evil_linked", "linked.evil_linked")
    layout.write(layout.outside / "lib" / "evil_outside.py")
    layout.write(layout.outside / "lib" / "shared" / "evil_part.py")
    layout.write(layout.app / "shared" / "jobs.py", GOOD)
    layout.on_path(layout.outside / "lib", "evil_outside", "shared.evil_part")
    layout.write(layout.app / "shop" / "_vendor" / "evil_vendored.py")
    layout.write(layout.app / "vendor" / "evil_vendor.py")
    layout.on_path(layout.app / "vendor", "shop._vendor.evil_vendored", "evil_vendor", "vendor.evil_vendor")
    layout.write(layout.app / "lib" / "dist-packages" / "evil_debian.py")
    layout.on_path(layout.app / "lib" / "dist-packages", "evil_debian")
    (layout.app / "conda" / "conda-meta").mkdir(parents=True)
    layout.write(layout.app / "conda" / "share" / "evil_conda.py")
    layout.targets.append("conda.share.evil_conda")
    (layout.app / "evil_link.py").symlink_to(layout.write(layout.outside / "evil_link.py"))
    layout.targets.append("evil_link")
    with zipfile.ZipFile(layout.outside / "libs.zip", "w") as archive:
        archive.writestr("evil_zipped.py", EVIL.format(marks=str(layout.marks)))
    layout.on_path(layout.outside / "libs.zip", "evil_zipped")


def environment(layout: Layout) -> str:
    """A virtual environment in the application's folder, with packages and a .pth file, and its interpreter."""
    home = layout.app / "env"
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    layout.installed(site, "evil_installed")
    layout.write(site / "evil_loose.py")
    layout.write(layout.outside / "develop" / "evil_pth.py")
    (site / "paths.pth").write_text(f"{layout.outside / 'develop'}\n{SITE}\n")
    layout.write(home / "bin" / "evil_script.py")
    layout.targets += ["evil_installed", "evil_loose", "evil_pth", "env.bin.evil_script"]
    return str(home / "bin" / "python")


def attack(client: redis.Redis, prefix: str, layout: Layout) -> int:
    """LPUSH every target, each to a queue of its own, and one operation of the application."""
    names = [*ALWAYS, *((target, "run") for target in layout.targets), ("jobs", "run")]
    for number, (module, name) in enumerate(names):
        key = f"{prefix}normal:attack{number}"
        item = {"processor": name, "processor_module": module, "entity": SHELL.format(marks=str(layout.marks))}
        client.sadd(f"{prefix}registry", key)
        client.lpush(key, json.dumps(item))
    return len(names) - 1


@pytest.mark.parametrize("kind", ["system", "environment", "root", "allowed"])
def test_a_pushed_name_never_leads_out_of_the_application(
    server: OwnServer, prefix: str, tmp_path: Path, kind: str, record_property: Callable[[str, object], None]
) -> None:
    layout, python, arguments = Layout(tmp_path), sys.executable, list[str]()
    folders(layout)
    if kind == "environment":
        python = environment(layout)
    if kind == "root":
        layout.path += ["/", str(layout.app)]
        arguments = ["starts:config"]
        config = f"QueueConfig(redis_url={server.url!r}, queue_prefix={prefix!r})"
        layout.write(
            layout.app / "starts.py", f"import shop.compat\nfrom queue_system import QueueConfig\nconfig = {config}"
        )
        layout.targets.append(".".join([*layout.outside.parts[1:], "lib", "evil_outside"]))
    if kind == "allowed":
        arguments = ["--allowed-modules", "jobs,shop"]
    where = [] if kind == "root" else ["--url", server.url, "--prefix", prefix]
    with server.client() as client:
        count = attack(client, prefix, layout)
        ended = subprocess.run(
            [python, "-m", "queue_system", "worker", "--burst", *where, *arguments],
            cwd="/" if kind == "root" else layout.app,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(SRC), SITE, *layout.path])},
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
        refused = documents(client, QueueConfig(queue_prefix=prefix).system_errors_queue)
    ran = sorted(mark.name for mark in layout.marks.iterdir())
    record_property("attacks", count)
    assert ran == ["good"], ended.stderr
    assert len(refused) == count
    assert {dead_letter["error_type"] for dead_letter in refused} == {"UnresolvableNameError"}
    assert ended.returncode == 0
