"""Callables by name: what is registered, what may be imported, and what is refused before any import."""

from __future__ import annotations

import functools
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_system.errors import ImportFailedError, InvalidInputError, UnresolvableNameError
from queue_system.imports.main import main_module_name
from queue_system.imports.policy import Application
from queue_system.model.registry import Reference, Registry, parse_reference
from tests.kit.refusals import refused
from tests.kit.threads import in_threads

Write = Callable[[str], str]

APPLICATION = """
import functools
from os.path import join
from functools import wraps

def work(entity): return ("work", entity)

def logged(fn):
    @wraps(fn)
    def wrapper(entity): return fn(entity)
    return wrapper

@logged
def decorated(entity): return ("decorated", entity)

class Kind:
    def method(self, entity): ...

def __secret__(entity): ...

instance = Kind()
number = 5
partial = functools.partial(work, 1)
builtin = len

def replaced(entity): ...
replaced = len

def borrowed(entity): ...
borrowed = join

def shadowed(entity): ...
class shadowed: ...
"""


def work(entity: Any) -> Any:
    return entity


class Job:
    """Instances of it have a method and a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, entity: Any) -> str:
        return self.name


class OtherJob:
    @staticmethod
    def run(entity: Any) -> str:
        return "other"


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes an importable application module and returns its name, which no other test uses."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: list[str] = []

    def write(text: str) -> str:
        name = f"application_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "text, reference",
    [
        ("package.module.function", Reference("function", "package.module")),
        ("package.module:function", Reference("function", "package.module")),
        ("function", Reference("function")),
        ("a._b", Reference("_b", "a")),
    ],
)
def test_a_name_is_split_into_module_and_function(text: str, reference: Reference) -> None:
    assert parse_reference(text, "processor") == reference
    assert str(reference) == text.replace(":", ".")


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a b", "1a", "a.1b", "a.<lambda>", "f()", "a-b", "a\n"])
def test_a_text_that_is_no_name_is_refused_and_its_field_named(text: str) -> None:
    with refused("on_success", r"use 'package\.module\.function'"):
        parse_reference(text, "on_success")


def test_a_registered_function_is_found_under_its_name_and_module_and_under_its_name_alone() -> None:
    registry = Registry()
    reference = registry.register(work)
    assert reference == Reference("work", __name__)
    assert registry.resolve("work", __name__) is work
    assert registry.resolve("work", None) is work
    assert registry.register(work) == reference


def test_a_callable_can_be_registered_under_other_names() -> None:
    registry = Registry()
    assert registry.register(work, "job", "shop") == Reference("job", "shop")
    assert registry.resolve("job", "shop") is work
    partial = functools.partial(work)
    assert registry.register(partial, name="partial", module="shop") == Reference("partial", "shop")
    assert registry.resolve("partial", "shop") is partial


def test_a_name_alone_that_two_callables_bear_is_unresolvable() -> None:
    registry = Registry()
    registry.register(lambda entity: 1, "job", "a")
    registry.register(lambda entity: 2, "job", "b")
    with pytest.raises(UnresolvableNameError, match="not registered"):
        registry.resolve("job", None)


def test_a_reloaded_function_replaces_the_one_of_its_name() -> None:
    registry = Registry()
    first: dict[str, Any] = {"__name__": "shop"}
    second: dict[str, Any] = {"__name__": "shop"}
    exec("def job(entity): return 1", first)  # noqa: S102 - as a reload would define it
    exec("def job(entity): return 2", second)  # noqa: S102
    assert registry.register(first["job"]) == registry.register(second["job"])
    assert registry.resolve("job", "shop") is second["job"]


def test_closures_of_one_name_are_told_apart() -> None:
    """Both may be enqueued, so each keeps a name of its own."""
    registry = Registry()

    def make(n: int) -> Callable[[Any], int]:
        return lambda entity: n

    closures = [make(n) for n in range(3)]
    references = [registry.reference(closure, "processor") for closure in closures]
    assert len(set(references)) == 3
    assert references == [registry.reference(closure, "processor") for closure in closures]
    assert [registry.resolve(r.name, r.module)(None) for r in references] == [0, 1, 2]


@pytest.mark.parametrize(
    "first, second", [(Job("one").run, Job("other").run), (Job("one").run, OtherJob.run)], ids=["objects", "classes"]
)
def test_methods_of_one_name_of_two_objects_or_classes_are_told_apart_or_refused(first: Any, second: Any) -> None:
    """The second must not take the operations of the first."""
    registry = Registry()
    try:
        references = [registry.reference(each, "processor") for each in (first, second)]
    except InvalidInputError:
        return
    assert [registry.resolve(r.name, r.module)(None) for r in references] == ["one", "other"]


@pytest.mark.parametrize("value", [None, 5, ["f"], {"f": 1}, b"module.function", 1.5])
def test_what_is_neither_callable_nor_name_is_refused(value: Any) -> None:
    with refused("on_failure", "expected a callable or the name of one, got "):
        Registry().reference(value, "on_failure")


def test_registering_what_is_not_callable_is_refused() -> None:
    not_callable: Any = "text"
    with refused("callback", "expected a callable, got 'text'"):
        Registry().register(not_callable)


def test_a_callable_without_a_name_is_refused_under_the_field_it_was_given_for() -> None:
    with refused("on_success", "expected a callable that has a name"):
        Registry().reference(functools.partial(work), "on_success")


def test_a_reference_to_a_callable_registers_it_and_a_name_is_taken_as_it_stands() -> None:
    registry = Registry()
    assert registry.reference(work, "processor") == Reference("work", __name__)
    assert registry.resolve("work", __name__) is work
    assert registry.reference("no.such.function", "processor") == Reference("function", "no.such")


def test_a_function_of_an_application_module_is_imported_once(write_module: Write) -> None:
    module = write_module(APPLICATION)
    registry = Registry()
    fn = registry.resolve("work", module)
    assert fn(1) == ("work", 1)
    assert registry.resolve("work", module) is fn
    assert registry.resolve("decorated", module)(2) == ("decorated", 2)


@pytest.mark.parametrize(
    "name, problem",
    [
        ("absent", "has no function"),
        ("Kind", "has no function"),
        ("instance", "has no function"),
        ("number", "has no function"),
        ("partial", "has no function"),
        ("builtin", "has no function"),
        ("join", "has no function"),
        ("wraps", "has no function"),
        ("method", "has no function"),
        ("wrapper", "has no function"),
        ("replaced", "expected a plain function, got builtin_function_or_method"),
        ("borrowed", "is defined elsewhere"),
        ("shadowed", "expected a plain function, got type"),
        ("__secret__", "does not name a function"),
        ("__import__", "does not name a function"),
        ("Kind.method", "is not a function of a module"),
    ],
)
def test_what_is_no_function_of_that_module_is_refused(write_module: Write, name: str, problem: str) -> None:
    with pytest.raises(UnresolvableNameError, match=problem):
        Registry().resolve(name, write_module(APPLICATION))


@pytest.mark.parametrize("module", ["os", "subprocess", "builtins", "sys", "os.path", "queue_system", "queue_system.x"])
def test_the_standard_library_and_this_package_are_never_imported(module: str) -> None:
    for allowed in (None, (module,)):
        with pytest.raises(UnresolvableNameError, match="not application code"):
            Application(allowed).find(module)


@pytest.mark.parametrize("module", ["msgspec", "redis.client", "hypothesis"])
def test_an_installed_package_is_imported_only_if_it_is_allowed(module: str) -> None:
    with pytest.raises(UnresolvableNameError, match="allowed_modules"):
        Application(None).find(module)
    Application((module,)).find(module)


def test_allowed_modules_include_their_submodules_and_nothing_else(
    write_module: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = write_module(APPLICATION)
    (tmp_path / "shop" / "jobs").mkdir(parents=True)
    for file in ("__init__.py", "jobs/__init__.py", "jobs/mail.py"):
        (tmp_path / "shop" / file).touch()
    monkeypatch.chdir("/")
    Application(("shop.jobs",)).find("shop.jobs.mail")
    Application(("shop.jobs",)).find("shop.jobs")
    for other in ("shop", "shop.jobs2", "shopjobs", module):
        with pytest.raises(UnresolvableNameError, match=r"not among allowed_modules \(.+\)$"):
            Application(("shop.jobs",)).find(other)


def test_a_module_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnresolvableNameError, match="cannot be found"):
        Application(None).find("no_such_module_anywhere")
    with pytest.raises(UnresolvableNameError):
        Application(("no_such_module_anywhere",)).import_function("f", "no_such_module_anywhere")


@pytest.mark.parametrize(
    "statement",
    ["raise RuntimeError", "raise SystemExit(3)", "raise KeyboardInterrupt", "import no_such_module", "(", "\0"],
)
def test_a_module_that_fails_at_import_is_no_missing_name(write_module: Write, statement: str) -> None:
    """What is missing may be there the next time, so that is a failed attempt."""
    with pytest.raises(ImportFailedError, match="cannot be imported"):
        Registry().resolve("work", write_module(f"def work(entity): ...\n{statement}"))


@pytest.mark.parametrize(
    "name, module, problem",
    [
        ("<lambda>", __name__, "is a lambda: .*use a module-level function"),
        ("<lambda>#2", __name__, "is a lambda: .*use a module-level function"),
        ("f.<locals>.g", __name__, "is a closure: .*use a module-level function"),
        ("absent", None, "without a module it cannot be imported"),
        *(("f", module, "does not name a function") for module in ("", "a..b", "a b", "../a", "a/b", "a.b()")),
    ],
)
def test_what_no_process_can_import_is_refused_with_the_way_out(name: str, module: str | None, problem: str) -> None:
    """A lambda or closure of another process, a name without a module, and a module whose name is none."""
    with pytest.raises(UnresolvableNameError, match=problem):
        Registry().resolve(name, module)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A `__main__` module of our own, without spec or file."""
    module = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def test_the_running_script_is_named_after_its_spec_or_its_file(main: Any) -> None:
    assert main_module_name() is None
    main.__file__ = "/srv/shop/jobs.py"
    assert main_module_name() == "jobs"
    main.__file__ = "/srv/shop/my-script.py"
    assert main_module_name() is None
    main.__spec__ = type("Spec", (), {"name": "shop.__main__"})()
    assert main_module_name() == "shop.__main__"
    main.__spec__ = type("Spec", (), {"name": "shop.jobs"})()
    assert main_module_name() == "shop.jobs"


def test_a_function_of_the_running_script_is_stored_under_its_importable_name_and_resolved_here(
    main: Any, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.py"
    file.write_text("def job(entity): return 5")
    main.__file__ = str(file)
    exec(compile(file.read_text(), file, "exec"), vars(main))  # noqa: S102 - defines it in the running script
    registry = Registry()
    assert registry.reference(main.job, "processor") == Reference("job", "jobs")
    assert Registry().resolve("job", "jobs") is main.job


def test_a_function_of_an_interactive_session_is_refused_unless_it_was_registered(main: Any) -> None:
    exec("def job(entity): return 5", vars(main))  # noqa: S102 - as a REPL or a notebook defines it
    registry = Registry()
    with refused("processor", "'job' was defined in an interactive session"):
        registry.reference(main.job, "processor")
    registry.register(main.job, module="notebook")
    assert registry.reference(main.job, "processor") == Reference("job", "notebook")
    assert registry.resolve("job", "notebook") is main.job


def test_registering_from_many_threads_loses_nothing() -> None:
    registry = Registry()
    found: list[tuple[Reference, Any]] = []
    start = threading.Barrier(8)

    def register() -> None:
        start.wait()
        for _ in range(50):
            closure = lambda entity: None  # noqa: E731 - a lambda's name is what is tested
            found.append((registry.reference(closure, "processor"), closure))

    in_threads(8, register)
    assert len({reference for reference, _ in found}) == 400
    assert all(registry.resolve(r.name, r.module) is closure for r, closure in found)
