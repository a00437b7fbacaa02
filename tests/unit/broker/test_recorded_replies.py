"""Errors that real servers answered while they moved, filled up or refused: the same kind whoever says it, and where.

Recorded from Valkey 9.1.2, Redis 7.0.15, 6.2.14 and 6.2.5; `WRAPPED` is how each wraps an error inside a script.
"""

from __future__ import annotations

import itertools
import ssl

import pytest
import redis.exceptions as client

from queue_system.broker.failures import is_of_replica, is_transient, leads_elsewhere, typed
from queue_system.broker.wire import ErrorReply
from queue_system.errors import (
    AccessDeniedError,
    CertificateError,
    QueueSystemError,
    ServerError,
    ServerFullError,
    ServerUnreachableError,
    UnsupportedServerError,
    WrongKeyTypeError,
)

ADDRESS = "redis://host:6379/0"
SHA = "ffd80bb2d8cb6770c6de5f80a67cb164486dd38c"
WRAPPED = (
    "{}",
    "{} script: on @user_script:2.",
    f"{{}} script: {SHA}, on @user_script:2.",
    f"ERR Error running script (call to f_{SHA}): @user_script:2: @user_script: 2: -{{}}",
    f"ERR Error running script (call to f_{SHA}): @user_script:2: {{}}",
    "@user_script: 80: -{}",  # Redis 6.2, where a script passes on an error that it has caught
)
OLD = f"ERR Error running script (call to f_{SHA}): @user_script:1: @user_script: 1: "
OLD_KEYS = "The user executing the script can't access at least one of the keys mentioned in the command arguments"
NEW = f" script: {SHA}, on @user_script:1."
ANYWHERE = [
    ("READONLY You can't write against a read only replica.", ServerUnreachableError, True),
    ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", ServerUnreachableError, True),
    ("CLUSTERDOWN Hash slot not served", ServerUnreachableError, True),
    ("CLUSTERDOWN The cluster is down", ServerUnreachableError, True),
    ("CLUSTERDOWN The cluster is down and only accepts read commands", ServerUnreachableError, True),
    ("MOVED 11377 127.0.0.1:39909", ServerUnreachableError, True),
    ("ASK 4748 127.0.0.1:39909", ServerUnreachableError, True),
    ("TRYAGAIN Multiple keys request during rehashing of slot", ServerUnreachableError, False),
    ("LOADING Redis is loading the dataset in memory", ServerUnreachableError, False),
    ("LOADING Valkey is loading the dataset in memory", ServerUnreachableError, False),
    (
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        ServerUnreachableError,
        False,
    ),
    ("OOM command not allowed when used memory > 'maxmemory'.", ServerFullError, False),
    (
        "MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk.",
        ServerFullError,
        False,
    ),
    ("MISCONF Errors writing to the AOF file: No space left on device", ServerFullError, False),
    ("NOREPLICAS Not enough good replicas to write.", ServerFullError, True),
    ("NOAUTH Authentication required.", AccessDeniedError, False),
    ("NOPERM User default has no permissions to run the 'set' command", AccessDeniedError, False),
    ("NOPERM this user has no permissions to access one of the keys used as arguments", AccessDeniedError, False),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", WrongKeyTypeError, False),
    ("CROSSSLOT Keys in request don't hash to the same slot", UnsupportedServerError, False),
    ("BUSYKEY Target key name already exists.", ServerError, False),
    ("BUSYGROUP Consumer Group name already exists", ServerError, False),
]
DOWN = "execute a write command while the cluster is down and readonly"
ACL = "ERR ACL failure in script: User default has no permissions to run the 'set' command"
DEMOTED = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
AS_THEY_ARE = [
    (DEMOTED, ServerUnreachableError, True),
    ("UNBLOCKED client unblocked via CLIENT UNBLOCK", ServerUnreachableError, False),
    (f"ERR Can not {DOWN} script: on @user_script:2.", ServerUnreachableError, True),
    (f"ERR Script attempted to {DOWN}{NEW}", ServerUnreachableError, True),
    (f"{OLD}Lua script attempted to execute a command while the cluster is down", ServerUnreachableError, True),
    ("ERR max number of clients reached", ServerUnreachableError, False),
    (f"ERR Attempted to access a non local key in a cluster node{NEW}", UnsupportedServerError, False),
    (f"ERR Script attempted to access a non local key in a cluster node{NEW}", UnsupportedServerError, False),
    (f"{OLD}Lua script attempted to access a non local key in a cluster node", UnsupportedServerError, False),
    (f"ERR Script attempted to access keys that do not hash to the same slot{NEW}", UnsupportedServerError, False),
    (f"{ACL} script: on @user_script:2.", AccessDeniedError, False),
    (f"{OLD}{OLD_KEYS}", AccessDeniedError, False),
    (f"ERR {OLD_KEYS}{NEW}", AccessDeniedError, False),
    (f"{OLD}attempt to concatenate a nil value", ServerError, False),
    ("ERR SELECT is not allowed in cluster mode", ServerError, False),
]
RECORDED = [
    (form.format(text), kind, elsewhere) for (text, kind, elsewhere), form in itertools.product(ANYWHERE, WRAPPED)
] + AS_THEY_ARE


@pytest.mark.parametrize("text, kind, elsewhere", RECORDED)
def test_a_reply_is_of_one_kind_inside_a_script_and_outside(
    text: str, kind: type[QueueSystemError], elsewhere: bool
) -> None:
    """Sent again is what may pass, and no connection is kept to whom another server has replaced."""
    reply = ErrorReply(text)
    assert type(typed(reply, ADDRESS)) is kind
    assert is_transient(reply) is (kind is ServerUnreachableError)
    assert leads_elsewhere(reply) is elsewhere


@pytest.mark.parametrize(
    "error, transient, elsewhere",
    [
        (client.ReadOnlyError("You can't write against a read only replica."), True, True),
        (client.MasterDownError("Link with MASTER is down and replica-serve-stale-data is set to 'no'."), True, True),
        (client.ClusterDownError("The cluster is down"), True, True),
        (client.MovedError("4748 127.0.0.1:39909"), True, True),
        (client.AskError("4748 127.0.0.1:39909"), True, True),
        (client.TryAgainError("Multiple keys request during rehashing of slot"), True, False),
        (client.BusyLoadingError("Redis is loading the dataset in memory"), True, False),
        (client.ClusterCrossSlotError("Keys in request don't hash to the same slot"), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_that_redis_py_has_a_class_for_is_known_without_its_code(
    error: Exception, transient: bool, elsewhere: bool
) -> None:
    assert (is_transient(error), leads_elsewhere(error)) == (transient, elsewhere)


@pytest.mark.parametrize("reason", ["TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_UNKNOWN_CA", "BAD_CERTIFICATE"])
def test_a_certificate_of_ours_that_the_server_refuses_is_told_and_not_tried_again(reason: str) -> None:
    alert = ssl.SSLError(1, f"[SSL: {reason}] alert (_ssl.c:2580)")
    wrapped = client.ConnectionError("Error 1 while reading from host:6379")
    wrapped.__context__ = alert
    for error in (alert, wrapped):
        assert not is_transient(error)
        assert type(typed(error, ADDRESS)) is CertificateError


def test_other_trouble_of_tls_may_pass() -> None:
    assert is_transient(ssl.SSLEOFError(8, "EOF occurred in violation of protocol"))
    assert is_transient(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"))


def test_words_of_a_connection_lead_nowhere_else() -> None:
    """Only what a server answered tells of it."""
    assert not leads_elsewhere(client.ConnectionError("Error 2 connecting to unix:/srv/READONLY. No such file."))
    assert not leads_elsewhere(None)


@pytest.mark.parametrize("form", WRAPPED)
def test_a_replica_is_told_plainly_with_its_primary(form: str) -> None:
    reply = ErrorReply(form.format("READONLY You can't write against a read only replica."))
    assert is_of_replica(reply)
    assert str(typed(reply, ADDRESS)) == f"{ADDRESS} is a replica: it takes no writes; connect to the primary"
    reply.primary = "10.0.0.1:6379"
    assert f"{ADDRESS} is a replica of 10.0.0.1:6379: it takes no writes" in str(typed(reply, ADDRESS))


def test_a_node_that_lost_a_slot_names_the_one_that_has_it() -> None:
    moved = str(typed(ErrorReply("MOVED 4748 10.0.0.2:6380"), ADDRESS))
    assert "slot 4748 lies on 10.0.0.2:6380; connect to that node" in moved
    handing_over = str(typed(ErrorReply("ASK 4748 10.0.0.2:6380"), ADDRESS))
    assert "in slot 4748, over to 10.0.0.2:6380: try again" in handing_over


def test_keys_in_many_slots_are_told_with_what_works() -> None:
    told = str(typed(ErrorReply("CROSSSLOT Keys in request don't hash to the same slot"), ADDRESS))
    assert "redis+cluster://" in told
    assert "queue_prefix='{queue}:'" in told
