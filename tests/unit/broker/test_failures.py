"""Errors of server and connection: each becomes one of our tree, and no password stays in its message."""

from __future__ import annotations

from urllib.parse import quote

import pytest
import redis.exceptions as client
from hypothesis import given
from hypothesis import strategies as st

from queue_system.broker.failures import is_transient, redact, typed
from queue_system.errors import (
    AccessDeniedError,
    QueueSystemError,
    ServerError,
    ServerFullError,
    ServerUnreachableError,
    UnresolvableNameError,
    UnsupportedServerError,
    WrongKeyTypeError,
)

ADDRESS = "redis://host:6379/0"
SECRET = "hunter2"

CASES = [
    (client.ConnectionError("Error 111 connecting to host:6379. Connection refused."), ServerUnreachableError, True),
    (client.TimeoutError("Timeout reading from socket"), ServerUnreachableError, True),
    (TimeoutError(), ServerUnreachableError, True),
    (ConnectionResetError(104, "Connection reset by peer"), ServerUnreachableError, True),
    (OSError(24, "Too many open files"), ServerUnreachableError, True),
    (EOFError(), ServerUnreachableError, True),
    (client.BusyLoadingError("Redis is loading the dataset in memory"), ServerUnreachableError, True),
    (client.ResponseError("LOADING Redis is loading the dataset in memory"), ServerUnreachableError, True),
    (client.ReadOnlyError("READONLY You can't write against a read only replica."), ServerUnreachableError, True),
    (client.ResponseError("UNBLOCKED force unblock from blocking operation"), ServerUnreachableError, True),
    (client.ResponseError("MASTERDOWN Link with MASTER is down"), ServerUnreachableError, True),
    (client.ResponseError("CLUSTERDOWN The cluster is down"), ServerUnreachableError, True),
    (client.ResponseError("BUSY Redis is busy running a script."), ServerUnreachableError, True),
    (client.ConnectionError("max number of clients reached"), ServerUnreachableError, True),
    (client.ResponseError("OOM command not allowed when used memory > 'maxmemory'."), ServerFullError, False),
    (client.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), ServerFullError, False),
    (client.ResponseError("MISCONF Errors writing to the AOF file"), ServerFullError, False),
    (client.ResponseError("NOREPLICAS Not enough good replicas to write."), ServerFullError, False),
    (client.AuthenticationError("invalid username-password pair"), AccessDeniedError, False),
    (client.AuthenticationError("Authentication required."), AccessDeniedError, None),
    (client.ResponseError("NOAUTH Authentication required."), AccessDeniedError, False),
    (client.ResponseError("WRONGPASS invalid username-password pair or user is disabled."), AccessDeniedError, False),
    (client.NoPermissionError("this user has no permissions to run the 'get' command"), AccessDeniedError, False),
    (client.ResponseError("NOPERM this user has no permissions"), AccessDeniedError, False),
    (client.ResponseError("WRONGTYPE Operation against a key holding the wrong kind"), WrongKeyTypeError, False),
    (client.ResponseError("unknown command 'EVALSHA', with args beginning with: "), UnsupportedServerError, False),
    (client.ResponseError("Wrong number of args calling Redis command From Lua script"), UnsupportedServerError, False),
    (client.ResponseError("Unknown Redis command called from Lua script"), UnsupportedServerError, False),
    (client.ResponseError("ERR something else"), ServerError, False),
    (client.InvalidResponse("Protocol Error"), ServerError, False),
]  # fmt: skip


@pytest.mark.parametrize("error, kind, transient", CASES, ids=lambda value: str(value)[:24] or None)
def test_an_error_gets_its_type_and_is_sent_again_only_where_that_may_help(
    error: Exception, kind: type[QueueSystemError], transient: bool | None
) -> None:
    converted = typed(error, ADDRESS)
    assert type(converted) is kind
    assert ADDRESS in str(converted) or kind is WrongKeyTypeError
    if transient is not None:
        assert is_transient(error) is transient


def test_an_error_of_our_own_stays_itself() -> None:
    own = UnresolvableNameError("no such name")
    assert typed(own, ADDRESS) is own


def test_an_error_without_a_text_is_named_after_its_type() -> None:
    assert "TimeoutError" in str(typed(TimeoutError(), ADDRESS))


@pytest.mark.parametrize("word", ["OOM", "NOPERM", "WRONGTYPE", "MISCONF"])
def test_a_mark_inside_an_address_decides_nothing(word: str) -> None:
    """A server that cannot be reached is unreachable, whatever its socket is called."""
    error = client.ConnectionError(f"Error 2 connecting to unix:/srv/R{word}/redis.sock. No such file or directory.")
    assert type(typed(error, ADDRESS)) is ServerUnreachableError
    assert is_transient(error)


@pytest.mark.parametrize(
    "text",
    [
        f"redis://:{SECRET}@host:6379/0",
        f"redis://user:{SECRET}@host:6379/0",
        f"rediss://user:{SECRET}@host/0 and unix://:{SECRET}@/tmp/s",
        f"redis://host?password={SECRET}&db=1",
        f"password: {SECRET}, db: 0",
        f"PASSWORD = {SECRET}",
        f"passwd={SECRET};",
        f"redis://user:ab@{SECRET}@host:6379/0",
    ],
)
def test_a_password_is_replaced(text: str) -> None:
    assert SECRET not in redact(text)
    assert "***" in redact(text)


@given(st.text(st.characters(codec="utf-8"), min_size=8), st.sampled_from(["", "user", "a.b-c"]))
def test_no_password_of_a_url_survives(password: str, user: str) -> None:
    secret = quote(password, safe="")
    assert redact(f"cannot reach redis://{user}:{secret}@host:6379/0, sorry") == (
        f"cannot reach redis://{user}:***@host:6379/0, sorry"
    )


@given(st.text(alphabet="abc /:.0123456789\n"))
def test_a_text_without_a_password_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_redacting_twice_changes_nothing_more() -> None:
    once = redact(f"redis://u:{SECRET}@h?password={SECRET}")
    assert redact(once) == once


def test_a_password_that_the_server_quotes_is_replaced() -> None:
    """A server without AUTH, such as one that renamed it, answers with the arguments it got."""
    error = client.ResponseError(f"unknown command 'AUTH', with args beginning with: 'default' '{SECRET}' ")
    assert SECRET not in str(typed(error, ADDRESS))
