"""Whose code a module is, in every layout in which Python finds modules: only the application's is ever imported."""

from __future__ import annotations

import compileall
import functools
import importlib.util
import os
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from queue_system.errors import UnresolvableNameError
from queue_system.imports import policy
from queue_system.imports.libraries import library_paths
from queue_system.imports.policy import Application

EVIL = """
from pathlib import Path
Path({mark!r}).touch()
def evil(entity):
    Path({mark!r}).touch()
"""
GOOD = "def good(entity): return entity"


INSTALLED = ("evil-1.0.dist-info/METADATA", "evil-1.0.dist-info/RECORD")
EGG_INFO = "evil-1.0-py3.11.egg-info"
OLD_PIP = ("PKG-INFO", "SOURCES.txt", "installed-files.txt")
CONTENTS = {
    "METADATA": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
    "RECORD": "evil.py,,\nevil_1/__init__.py,,\n",
    EGG_INFO: "Metadata-Version: 1.0\nName: evil\nVersion: 1.0\n",
    "PKG-INFO": "Metadata-Version: 1.0\nName: evil\nVersion: 1.0\n",
    "SOURCES.txt": "evil.py",
    "installed-files.txt": "../evil.py",
    "pyvenv.cfg": "",
}
"""What stands in the files that no module is."""


class Layout:
    """An application's folder, one outside of it, and what each file in them says."""

    def __init__(self, folder: Path) -> None:
        self.app, self.outside, self.mark = folder / "app", folder / "outside", folder / "mark"
        self.app.mkdir()
        self.outside.mkdir()
        self.evil = EVIL.format(mark=str(self.mark))

    def write(self, path: Path, text: str | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONTENTS.get(path.name, self.evil) if text is None else text)
        return path


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """The application's folder is the current one, and on sys.path."""
    made = Layout(tmp_path)
    monkeypatch.chdir(made.app)
    monkeypatch.setattr(sys, "path", [str(made.app), *sys.path])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    yield made
    for name in set(sys.modules) - before:
        del sys.modules[name]


Way = Callable[[Layout], str]
"""Lets a module lie where Python finds it, and returns its name."""


@dataclass(frozen=True)
class Laid:
    """A way that is told by a folder and the files in it; `on_path`: the folder is put on sys.path."""

    module: str
    folder: str
    files: Sequence[str]
    on_path: bool = False
    text: str | None = None

    def __call__(self, layout: Layout) -> str:
        folder = layout.app.parent / self.folder
        for file in self.files:
            layout.write(folder / file, None if file.rpartition("/")[2] in CONTENTS else self.text)
        if self.on_path:
            sys.path.insert(1, str(folder))
        return self.module


def a_linked_file(layout: Layout) -> str:
    (layout.app / "evil.py").symlink_to(layout.write(layout.outside / "cache.py"))
    return "evil"


def a_linked_folder(layout: Layout) -> str:
    layout.write(layout.outside / "evil.py")
    (layout.app / "deps").symlink_to(layout.outside)
    return "deps.evil"


def linked_from_site_packages(layout: Layout) -> str:
    site = layout.outside / "lib" / "python3" / "site-packages"
    site.mkdir(parents=True)
    (site / "evil.py").symlink_to(layout.write(layout.app / "evil_1.py"))
    sys.path.insert(1, str(site))
    return "evil"


def linked_single_files_of_a_cache(layout: Layout) -> str:
    """As `uv pip install --target deps --link-mode symlink` makes them."""
    for file in INSTALLED:
        layout.write(layout.outside / file)
    (layout.app / "deps").mkdir()
    (layout.app / "deps" / "evil.py").symlink_to(layout.write(layout.outside / "evil.py"))
    (layout.app / "deps" / "evil-1.0.dist-info").symlink_to(layout.outside / "evil-1.0.dist-info")
    sys.path.insert(1, str(layout.app / "deps"))
    return "evil"


def vendored(layout: Layout) -> str:
    layout.write(layout.app / "shop" / "__init__.py", "")
    layout.write(layout.app / "shop" / "_vendor" / "evil.py")
    return "shop._vendor.evil"


def a_zip_file_outside(layout: Layout) -> str:
    with zipfile.ZipFile(layout.outside / "libs.zip", "w") as archive:
        archive.writestr("evil.py", layout.evil)
    sys.path.insert(1, str(layout.outside / "libs.zip"))
    return "evil"


def installed_into_a_zip_file(layout: Layout) -> str:
    with zipfile.ZipFile(layout.app / "libs.zip", "w") as archive:
        for file in ("evil.py", *INSTALLED):
            archive.writestr(file, CONTENTS.get(file.rpartition("/")[2], layout.evil))
    sys.path.insert(1, str(layout.app / "libs.zip"))
    return "evil"


def a_part_of_a_namespace(layout: Layout) -> str:
    layout.write(layout.app / "space" / "good.py", GOOD)
    layout.write(layout.outside / "space" / "evil.py")
    sys.path.insert(1, str(layout.outside))
    return "space.evil"


def a_package_that_extends_its_path(layout: Layout) -> str:
    layout.write(layout.app / "shop" / "__init__.py", f"__path__.append({str(layout.outside)!r})")
    layout.write(layout.outside / "evil.py")
    importlib.import_module("shop")
    return "shop.evil"


def bytecode_alone(layout: Layout) -> str:
    file = layout.write(layout.app / "evil.py")
    compileall.compile_file(file, legacy=True, quiet=1)
    file.unlink()
    return "evil"


def the_file_system_s_root_as_current_folder(layout: Layout) -> str:
    layout.write(layout.outside / "evil.py")
    os.chdir("/")
    sys.path.insert(0, "/")
    return ".".join(layout.outside.parts[1:]) + ".evil"


def another_folder_on_the_path_below_the_root(layout: Layout) -> str:
    os.chdir("/")
    return MERELY_ON_THE_PATH(layout)


def a_finder_of_an_editable_install_outside(layout: Layout) -> str:
    file = layout.write(layout.outside / "evil.py")
    sys.meta_path.append(Editable("evil", file))
    return "evil"


def by_name(*ways: Way) -> dict[str, Way]:
    return {way.__name__: way for way in ways}


class Editable:
    """What an editable install puts behind Python's own finders."""

    def __init__(self, name: str, file: Path) -> None:
        self.name, self.file = name, file

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.file) if name == self.name else None


MERELY_ON_THE_PATH = Laid("evil", "outside", ["evil.py"], on_path=True)
ATTACKS: dict[str, Way] = {
    "installed into a folder": Laid("evil", "app/deps", ["evil.py", *INSTALLED], on_path=True),
    "installed into a folder, named from above": Laid("deps.evil", "app/deps", ["evil.py", *INSTALLED], on_path=True),
    "installed beside the application": Laid("evil_1", "app", ["evil_1/__init__.py", *INSTALLED]),
    "installed without a list of files": Laid("deps.evil", "app/deps", ["evil.py", INSTALLED[0]]),
    "installed as an egg info": Laid("deps.evil", "app/deps", ["evil.py", EGG_INFO]),
    "installed by an old pip": Laid("deps.evil", "app/deps", ["evil.py", *(f"{EGG_INFO}/{file}" for file in OLD_PIP)]),
    "installed outside": Laid("evil", "outside", ["evil.py", *INSTALLED], on_path=True),
    "merely on the path": MERELY_ON_THE_PATH,
    "vendored on the path": Laid("evil", "app/third_party", ["evil.py"], on_path=True),
    "of node": Laid("node_modules.flatted.evil", "app/node_modules/flatted", ["evil.py"]),
    "site-packages in the application": Laid("evil", "app/env/lib/site-packages", ["evil.py"], on_path=True),
    "dist-packages": Laid("evil", "app/usr/lib/python3/dist-packages", ["evil.py"], on_path=True),
    "a virtual environment in the application": Laid("env.bin.evil", "app/env", ["pyvenv.cfg", "bin/evil.py"]),
    "an environment of conda": Laid("env.share.evil", "app/env", ["conda-meta/history", "share/evil.py"]),
    "an egg": Laid("evil", "app/evil-1.0-py3.11.egg", ["evil.py"], on_path=True),
    **by_name(
        a_linked_file, a_linked_folder, linked_from_site_packages, linked_single_files_of_a_cache, vendored,
        a_zip_file_outside, installed_into_a_zip_file, a_part_of_a_namespace, a_package_that_extends_its_path,
        bytecode_alone, the_file_system_s_root_as_current_folder, another_folder_on_the_path_below_the_root,
        a_finder_of_an_editable_install_outside,
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_is_not_the_application_s_own_is_refused_and_not_imported(layout: Layout, attack: Way) -> None:
    module = attack(layout)
    with pytest.raises(UnresolvableNameError):
        Application().import_function("evil", module)
    assert not layout.mark.exists()


@pytest.mark.parametrize("entry", ["", "."])
def test_a_relative_entry_of_the_path_does_not_follow_the_process_into_another_folder(
    layout: Layout, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [entry, *sys.path])
    application = Application()
    layout.write(layout.outside / "evil.py")
    monkeypatch.chdir(layout.outside)
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(UnresolvableNameError):
        application.import_function("evil", "evil")
    assert not layout.mark.exists()


@pytest.mark.parametrize(
    "reference",
    [
        "test.support.script_helper.assert_python_ok", "test.support.os_helper.rmtree", "_testcapi.run_in_subinterp",
        "sitecustomize.main", "__hello__.main", "__phello__.spam.main", "idlelib.pyshell.main", "pydoc.cli",
        "app.__init__.main", "__init__.main", "app.__pycache__.x.main",
        "subprocess.call", "__main__.main", "__mp_main__.main", "queue_system.__main__.main",
        "queue_system.cli.app.run", "utils.with_timeout", "pip.main", "pytest.main", "redis.client.Redis",
    ],
)  # fmt: skip
@pytest.mark.parametrize("current", ["application", "root", "library"])
def test_nothing_of_python_itself_or_of_an_installed_package_is_the_application_s(
    layout: Layout, reference: str, current: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if current != "application":
        monkeypatch.chdir("/" if current == "root" else Path(os.__file__).parent)
    module, _, name = reference.rpartition(".")
    library_paths()  # sysconfig imports its data when it is first asked
    for allowed in (None, (module,)) if module.startswith("test") else (None,):
        before = set(sys.modules)
        with pytest.raises(UnresolvableNameError):
            Application(allowed).import_function(name, module)
        assert set(sys.modules) == before


def test_an_alias_among_the_imported_modules_leads_nowhere(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `six.moves` and the like put them there: under the application's name, another module."""
    layout.write(layout.app / "shop" / "__init__.py", "")
    layout.write(
        layout.app / "shop" / "compat.py", "import subprocess, sys; sys.modules['shop.compat.sub'] = subprocess"
    )
    importlib.import_module("shop.compat")
    for allowed in (None, ("shop",)):
        with pytest.raises(UnresolvableNameError, match="cannot be found"):
            Application(allowed).import_function("call", "shop.compat.sub")


@pytest.mark.parametrize("allowed", [None, ("shop",)])
def test_a_module_that_stands_in_another_s_place_leads_nowhere(
    layout: Layout, allowed: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.write(layout.app / "shop.py", "def call(entity): ...\ndef other(entity): ...")
    monkeypatch.setitem(sys.modules, "shop", sys.modules["os"])
    with pytest.raises(UnresolvableNameError, match="another module has this name"):
        Application(allowed).import_function("call", "shop")
    monkeypatch.setitem(sys.modules, "shop", types.SimpleNamespace(call=print, __name__="shop"))
    with pytest.raises(UnresolvableNameError, match="SimpleNamespace"):
        Application(allowed).import_function("call", "shop")


def test_what_a_module_makes_up_for_its_attributes_is_not_asked(layout: Layout) -> None:
    layout.write(layout.app / "shop.py", "import os\ndef __getattr__(name): return os.system")
    with pytest.raises(UnresolvableNameError, match="has no function 'system'"):
        Application().import_function("system", "shop")


def test_allowed_modules_name_what_may_be_imported_wherever_it_lies_but_nobody_else_s_below_it(layout: Layout) -> None:
    layout.write(layout.outside / "site-packages" / "shop" / "__init__.py", GOOD)
    layout.write(layout.outside / "site-packages" / "shop" / "_vendor" / "evil.py")
    sys.path.insert(1, str(layout.outside / "site-packages"))
    application = Application(("shop",))
    assert application.import_function("good", "shop")(5) == 5
    with pytest.raises(UnresolvableNameError, match="'_vendor'"):
        application.import_function("evil", "shop._vendor.evil")
    assert not layout.mark.exists()
    Application(("shop._vendor.evil",)).import_function("evil", "shop._vendor.evil")


good = functools.partial(Laid, text=GOOD)
A_FLAT_MODULE = good("jobs", "app", ["jobs.py"])
A_PACKAGE = good("shop", "app/shop", ["__init__.py"])


def a_module_of_a_package_that_was_imported(layout: Layout) -> str:
    layout.write(layout.app / "shop" / "__init__.py", "")
    layout.write(layout.app / "shop" / "jobs.py", GOOD)
    importlib.import_module("shop.jobs")
    return "shop.jobs"


def a_folder_utils_without_init(layout: Layout) -> str:
    importlib.import_module("utils")  # ours, before the application's folder is on the path
    layout.write(layout.app / "utils" / "jobs.py", GOOD)
    return "utils.jobs"


def a_folder_src(layout: Layout) -> str:
    layout.write(layout.app / "src" / "shop" / "__init__.py", "")
    layout.write(layout.app / "src" / "shop" / "jobs.py", GOOD)
    layout.write(layout.app / "src" / "shop.egg-info" / "PKG-INFO", "Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    layout.write(layout.app / "src" / "shop.egg-info" / "SOURCES.txt", "src/shop/__init__.py\nsrc/shop/jobs.py\n")
    sys.path.append(str(layout.app / "src"))
    return "shop.jobs"


def an_editable_install_by_a_finder(layout: Layout) -> str:
    file = layout.write(layout.app / "src" / "jobs.py", GOOD)
    sys.meta_path.append(Editable("jobs", file))
    return "jobs"


def through_a_link_to_the_current_release(layout: Layout) -> str:
    A_PACKAGE(layout)
    (layout.outside / "current").symlink_to(layout.app)
    os.chdir(layout.outside / "current")
    sys.path[0] = str(layout.outside / "current")
    return "shop"


def linked_inside_the_application(layout: Layout) -> str:
    """As Kubernetes mounts a ConfigMap."""
    layout.write(layout.app / "data" / "jobs.py", GOOD)
    (layout.app / "jobs.py").symlink_to(layout.app / "data" / "jobs.py")
    return "jobs"


def an_archive_in_the_application(layout: Layout) -> str:
    with zipfile.ZipFile(layout.app / "app.pyz", "w") as archive:
        archive.writestr("shop/__init__.py", "")
        archive.writestr("shop/jobs.py", GOOD)
    sys.path.insert(1, str(layout.app / "app.pyz"))
    return "shop.jobs"


def under_a_condition(layout: Layout) -> str:
    text = "try:\n    import nothing\nexcept ImportError:\n    if True:\n        async def good(entity): return entity"
    layout.write(layout.app / "jobs.py", text)
    return "jobs"


def behind_decorators(layout: Layout) -> str:
    layout.write(layout.app / "jobs.py", f"from utils import circuit_breaker\n@circuit_breaker()\n{GOOD}")
    return "jobs"


USES: dict[str, Way] = {
    "a flat module": A_FLAT_MODULE,
    "a package": A_PACKAGE,
    "a package's main": good("shop.__main__", "app/shop", ["__init__.py", "__main__.py"]),
    "a folder without init": good("shop.deep.jobs", "app/shop/deep", ["jobs.py"]),
    # As `pip install -t .` makes it, for functions in a cloud.
    "beside installed packages": good("jobs", "app", ["jobs.py", *INSTALLED]),
    "beside its own environment": good("jobs", "app", ["jobs.py", "pyvenv.cfg", ".venv/pyvenv.cfg"]),
    **by_name(
        a_module_of_a_package_that_was_imported, a_folder_utils_without_init, a_folder_src,
        an_editable_install_by_a_finder, through_a_link_to_the_current_release, linked_inside_the_application,
        an_archive_in_the_application, under_a_condition, behind_decorators,
    ),
}  # fmt: skip


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_an_application_s_functions_are_found_in_the_usual_layouts(layout: Layout, use: Way) -> None:
    assert Application().import_function("good", use(layout)).__name__ == "good"


def test_a_folder_of_the_worker_s_target_is_the_application_s_wherever_the_process_is(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    module = A_FLAT_MODULE(layout)
    application = Application()
    with pytest.raises(UnresolvableNameError, match="which holds Python itself"):
        application.import_function("good", module)
    application.add_folder(layout.app)
    assert application.import_function("good", module)


def test_a_package_is_not_imported_a_second_time_by_the_name_of_its_file(layout: Layout) -> None:
    layout.write(layout.app / "shop" / "__init__.py")
    with pytest.raises(UnresolvableNameError, match="does not name a function"):
        Application().import_function("evil", "shop.__init__")
    assert not layout.mark.exists()


def test_a_folder_that_holds_python_itself_is_no_application_s_alone(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies right in it may be meant; what lies deeper is anybody's."""
    python = layout.app / ".pyenv" / "lib"
    monkeypatch.setattr(policy, "standard_library_paths", lambda: frozenset({python.resolve()}))
    module = A_FLAT_MODULE(layout)
    assert Application().import_function("good", module)
    layout.write(layout.app / "projects" / "other" / "evil.py")
    with pytest.raises(UnresolvableNameError, match="which holds Python itself; run the worker in a folder of its own"):
        Application().import_function("evil", "projects.other.evil")
    assert not layout.mark.exists()


def test_a_module_is_not_imported_for_a_function_that_it_does_not_define(layout: Layout) -> None:
    layout.write(layout.app / "scripts" / "reset_db.py")
    with pytest.raises(UnresolvableNameError, match="has no function 'anything' in its source"):
        Application().import_function("anything", "scripts.reset_db")
    assert not layout.mark.exists()


AT_ONCE = """
import sys, threading
from queue_system.imports.libraries import library_paths
sys.setswitchinterval(1e-6)
together, found = threading.Barrier(8), []
def look():
    together.wait()
    found.append(library_paths())
threads = [threading.Thread(target=look) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len(set(found)))
"""


def test_threads_that_are_the_first_to_ask_for_the_library_paths_all_get_them() -> None:
    """The standard library fills its variables at the first question, and shows others half of them meanwhile."""
    answers = [
        subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, check=True).stdout
        for _ in range(5)
    ]
    assert answers == ["8 1\n"] * 5
