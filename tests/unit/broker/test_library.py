"""Scripts are put together from what they use of the library: each part once, in order, nothing else."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from queue_system.broker.commands import SCRIPTS
from queue_system.broker.library import assemble
from queue_system.model.states import VERBS, OperationState


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the package's."""
    (tmp_path / "scripts" / "lib").mkdir(parents=True)
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    return tmp_path / "scripts"


def write(folder: Path, script: str, **parts: str) -> str:
    """Write a script and parts of the library, and return what they make."""
    (folder / "own.lua").write_text(script)
    for name, text in parts.items():
        (folder / "lib" / f"{name}.lua").write_text(text)
    return assemble("own")


def test_a_part_stands_once_and_behind_what_it_uses_itself(make: Path) -> None:
    made = write(
        make, "-- Uses a b\nreturn x + y",
        a="-- Uses c\n\nlocal x = z", b="-- Uses c a\n\nlocal y = z", c="-- Its service.\n\nlocal z = KEYS[1]",
    )  # fmt: skip
    assert made.splitlines()[:3] == ["local z = KEYS[1]", "local x = z", "local y = z"]


def test_what_is_not_used_is_left_out(make: Path) -> None:
    part = "local x = 1 .. w\n\nlocal y = v\n\nlocal function f()\n  return 'x'\nend"
    made = write(make, "-- Uses a\nreturn x", a=part)
    assert made == "local x = 1 .. w\n-- Uses a\nreturn x"


def test_short_functions_and_constants_are_written_where_they_are_used(make: Path) -> None:
    part = """local MOST = 7

local WORD = 'a\\n'

local function key(name) return prefix .. name end

local function get(k) return call('GET', k) end
"""
    made = write(make, "-- Uses a\nlocal a, b = get(key(n or 'key(x)'))\nreturn MOST + #WORD -- MOST", a=part)
    assert made == "-- Uses a\nlocal a, b = call('GET', (prefix .. (n or 'key(x)')))\nreturn 7 + #'a\\n' -- MOST"


def test_what_only_a_rare_block_uses_stands_inside_it(make: Path) -> None:
    script = "-- Uses a b\nlocal n = f()\nif not n then\n  -- Rarely\n  n = g() + f()\nend\nreturn n\n"
    part = "local function f()\n  return 1\nend\n\nlocal function g()\n  return h()\nend"
    made = write(make, script, a=part + "\n\nlocal w = 1", b="-- Uses a\n\nlocal function h()\n  return 2\nend")
    before, _, inside = made.partition("if not n then\n")
    assert "function f()" in before
    assert "function g()" not in before
    assert inside.index("function g()") < inside.index("-- Rarely") < inside.index("return n")
    assert made.count("function f()") == made.count("function g()") == 1
    assert "local w" not in made


def test_an_argument_is_never_evaluated_twice(make: Path) -> None:
    with pytest.raises(ValueError, match="would be evaluated more than once"):
        write(make, "-- Uses a\nreturn twice(call())", a="local function twice(n) return n + n end")


def test_a_part_that_uses_itself_is_told_of(make: Path) -> None:
    with pytest.raises(ValueError, match=r"lib/a\.lua uses itself: a -> b"):
        write(make, "-- Uses a\nreturn 1", a="-- Uses b\n\nlocal x = 1", b="-- Uses a\n\nlocal y = 1")


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_script_reads_the_time_and_defines_each_name_once(name: str) -> None:
    source = SCRIPTS[name].source.decode()
    assert source.count("'TIME'") <= 1
    names = Counter(re.findall(r"^local (?:function )?(\w+)", source, re.MULTILINE))
    assert {each for each, count in names.items() if count > 1} == set()


def test_the_scripts_know_the_states_and_the_verbs() -> None:
    settle = SCRIPTS["settle"].source.decode()
    for state in OperationState:
        if state.is_final:
            assert f"status == '{state}'" in settle
    for verb, form in VERBS.items():
        assert f"{verb} = {form.arity}" in settle
        assert f"function apply.{verb}(" in settle
