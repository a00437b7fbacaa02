"""Every `queue-system` command that the documentation names is one, and has the options that it is given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from queue_system.cli.app import app
from tests.docs.blocks import PAGES, ROOT, read_blocks

_CALL = re.compile(r"(?:^|\s|`)(?:queue-system|python -m queue_system) ([a-z-][^`#|>&\n]*)")


def named_commands() -> Iterator[tuple[str, str]]:
    """Each command line that a page names, in a block or in its text, and where."""
    for page in PAGES:
        shells = "".join(block.text for block in read_blocks(page) if block.language in {"bash", "console"})
        calls = _CALL.findall(shells)
        calls += re.findall(r"`queue-system ([a-z-][^`]*)`", page.read_text(encoding="utf-8"))
        yield from ((str(page.relative_to(ROOT)), call) for call in dict.fromkeys(calls))


@pytest.mark.parametrize("call", [pytest.param(call, id=f"{page}: {call}") for page, call in named_commands()])
def test_a_command_that_a_page_names_exists(call: str) -> None:
    """The words lead to a command, and each option is one of its own or of the whole."""
    words = shlex.split(call)
    command: Any = typer.main.get_command(app)
    known = options_of(command)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
        known |= options_of(command)
    alone = words[:1] in (["--help"], ["--install-completion"], ["--version"])
    assert alone or not hasattr(command, "commands")
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given <= known | {"--help"}


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
