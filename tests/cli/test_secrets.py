"""Secrets from files: the server's URL and the dashboard's token; nothing shows them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from queue_system import InvalidInputError, QueueConfig, QueueManager
from queue_system.cli.session import Place, Shared
from queue_system.supervision import WorkerSettings
from tests.cli.support import RunCli, RunProgram, read_until, started

SECRET = "a-canary-in-a-url"
TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
def url_file(place: dict[str, str], tmp_path: Path) -> str:
    """A file with the URL of the test's server, as a secret is mounted."""
    file = tmp_path / "url"
    file.write_text(f"{place['QUEUE_SYSTEM_REDIS_URL']}\n")
    return str(file)


def test_the_url_may_lie_in_a_file(cli: RunCli, program: RunProgram, url_file: str, prefix: str) -> None:
    """It is typed before or after the command, or named by the environment; the worker and the library read it, too."""
    nowhere = {"QUEUE_SYSTEM_REDIS_URL": "redis://127.0.0.1:1/0"}
    for arguments in (("--url-file", url_file, "status", "--json"), ("status", "--json", "--url-file", url_file)):
        assert cli(*arguments, env=nowhere).code == 0
    by_environment = {"QUEUE_SYSTEM_REDIS_URL": "", "QUEUE_SYSTEM_REDIS_URL_FILE": url_file}
    assert cli("status", "--json", env=by_environment).document["prefix"] == prefix
    assert program("worker", "--burst", env=by_environment).code == 0
    assert cli("status", "--url", "redis://127.0.0.1:1/0", env=by_environment).code == 3, "what is typed counts"


def test_the_library_reads_the_file_that_the_environment_names(
    url_file: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUEUE_SYSTEM_REDIS_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("QUEUE_SYSTEM_REDIS_URL_FILE", url_file)
    assert QueueManager(QueueConfig(queue_prefix=prefix)).get_queue_status()["total_items"] == 0
    monkeypatch.setenv("QUEUE_SYSTEM_REDIS_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(InvalidInputError, match="set as well"):
        QueueManager(QueueConfig(queue_prefix=prefix)).get_queue_status()


@pytest.mark.parametrize(
    "option, content",
    [("--url-file", None), ("--url-file", b" \n"), ("--url-file", b"a\nb"), ("--url-file", b"\xff\xfe"),
     ("--token-file", None), ("--token-file", b""), ("--token-file", b"x" * 20_000)],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_named_and_not_shown(
    cli: RunCli, tmp_path: Path, option: str, content: bytes | None
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    command = "status" if option == "--url-file" else "dashboard"
    answer = cli(command, option, str(file), env={"QUEUE_SYSTEM_REDIS_URL": ""})
    assert answer.code == 2
    assert str(file) in answer.err.replace("\n", "")
    assert "xxx" not in answer.err


def test_two_ways_to_say_the_same_are_one_too_many(cli: RunCli, url_file: str) -> None:
    both = cli("status", "--url", "redis://127.0.0.1:1/0", "--url-file", url_file)
    assert (both.code, "url_file: " in both.err) == (2, True)
    by_environment = cli("status", env={"QUEUE_SYSTEM_REDIS_URL_FILE": url_file})
    assert (by_environment.code, "url_file: " in by_environment.err) == (2, True)
    config = cli("--config", "shop:config", "status", "--url-file", url_file)
    assert config.err == "Error: config: it already names the server and the prefix; leave out --url-file\n"
    token = cli("dashboard", "--token", TOKEN, "--token-file", url_file)
    assert (token.code, "token_file: " in token.err) == (2, True)


def test_the_dashboard_tells_where_it_is_and_takes_its_token_from_a_file(place: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    arguments = ("dashboard", "--port", "0", "--token-file", str(file), "--root-path", "/ops")
    with started(*arguments, **place) as process:
        told = read_until(process, "Ctrl-C ends it")
        process.send_signal(signal.SIGTERM)
        told += process.communicate(timeout=30)[1].decode()
    assert "the dashboard is at http://127.0.0.1:" in told
    assert "/ops/ and reads only" in told
    assert TOKEN not in told


def test_no_repr_shows_a_password() -> None:
    url = f"redis://ada:{SECRET}@localhost:6379/0"
    config = QueueConfig(redis_url=url, signing_keys={"k": SECRET})
    config.endpoint()
    for shown in (
        config,
        WorkerSettings(url=url),
        Shared(url=url),
        Place(url=url),
        config.signer,
        config.cipher,
        config.endpoint(),
    ):
        assert SECRET not in repr(shown)
        assert SECRET not in str(shown)
    assert "localhost" in repr(config)
