"""The options of all commands: each has help and an environment variable, and the server may be named anywhere."""

from __future__ import annotations

import os

import pytest

from queue_system import QueueConfig
from tests.cli.support import RunCli, contexts, variable_of

WITHOUT_VARIABLE = {"help", "show_version", "install_completion", "show_completion"}
WITHOUT_JSON = {"worker", "dashboard", "exporter"}
"""They serve; they print no data."""


CONTEXTS = {context.command_path: context for context in contexts()}
COMMANDS = {path: context for path, context in CONTEXTS.items() if not hasattr(context.command, "commands")}


@pytest.mark.parametrize("path", CONTEXTS)
def test_every_option_has_help_and_an_environment_variable_that_acts(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = CONTEXTS[path]
    for option in context.command.params:
        assert option.help, f"{path} {option.name} has no help"
        if option.param_type_name != "option" or option.name in WITHOUT_VARIABLE:
            continue
        variable = variable_of(context, option)
        assert variable.startswith("QUEUE_SYSTEM_")
        monkeypatch.setenv(variable, "given")
        assert option.resolve_envvar_value(context) == "given"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_that_prints_data_has_json_and_all_name_the_server(path: str) -> None:
    options = {text for option in COMMANDS[path].command.params for text in option.opts}
    assert {"--url", "--prefix", "--config", "--debug"} <= options
    assert ("--json" in options) is (path.removeprefix("queue-system ") not in WITHOUT_JSON)
    assert COMMANDS[path].command.help


def test_the_server_may_be_named_before_and_after_the_command(cli: RunCli) -> None:
    """What is typed last counts, and what is typed beats the environment."""
    assert cli("--prefix", "a:", "status", "--json").document["prefix"] == "a:"
    assert cli("--prefix", "a:", "status", "--json", "--prefix", "b:").document["prefix"] == "b:"
    assert cli("status", "--json", env={"QUEUE_SYSTEM_PREFIX": "c:"}).document["prefix"] == "c:"
    assert cli("--prefix", "a:", "status", "--json", env={"QUEUE_SYSTEM_PREFIX": "c:"}).document["prefix"] == "a:"


def test_json_by_the_environment(cli: RunCli) -> None:
    assert cli("status", env={"QUEUE_SYSTEM_JSON": "1"}).document["waiting"] == 0


def test_a_config_of_the_application_names_the_server(cli: RunCli, prefix: str) -> None:
    target = f"{__name__}:make_config"
    answer = cli("status", "--json", "--config", target, env={"CLI_TEST_PREFIX": f"{prefix}x:"})
    assert answer.document["prefix"] == f"{prefix}x:"


def test_a_config_and_a_url_are_one_too_many(cli: RunCli) -> None:
    answer = cli("--config", "shop:config", "status", "--url", "redis://127.0.0.1:1/0")
    assert answer.code == 2
    assert answer.err == "Error: config: it already names the server and the prefix; leave out --url\n"


def test_a_typed_url_beats_a_config_of_the_environment(cli: RunCli, place: dict[str, str]) -> None:
    answer = cli("status", "--url", place["QUEUE_SYSTEM_REDIS_URL"], env={"QUEUE_SYSTEM_CONFIG": "no.such:config"})
    assert answer.code == 0


@pytest.mark.parametrize("target", ["nonsense", "no.such:thing", "json:dumps", "sys:path"])
def test_what_is_no_config_is_refused_by_name(cli: RunCli, target: str) -> None:
    answer = cli("status", "--config", target)
    assert answer.code == 2
    assert target in answer.err
    assert len(answer.err.splitlines()) == 1


def make_config() -> QueueConfig:
    """What an application's module offers for `--config`."""
    return QueueConfig(queue_prefix=os.environ["CLI_TEST_PREFIX"])
