"""Hostile URLs and error texts: a usable URL or one typed error, and in neither case does a password get out."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import redis
import redis.exceptions as client
from hypothesis import example, given
from hypothesis import strategies as st

from queue_system.broker.connection import Endpoint
from queue_system.broker.failures import redact, typed
from queue_system.broker.urls import SCHEMES, check_url, make_client
from queue_system.broker.wire import ErrorReply
from queue_system.errors import InvalidInputError

SECRET = "c4n4ry"
awkward = st.sampled_from(
    [*":/?#@[]&=;,%'\"\\ +~!$*(){}|<>^`", "\t", "\n", "\x00", "\u00a0", "\u2028", "é", "😀", "://"]
)
passwords = st.lists(awkward | st.just(""), min_size=1, max_size=6).map(lambda parts: SECRET.join([*parts, ""]))
"""Such as `:c4n4ry@c4n4ry`: whatever longer part of one gets out holds the canary."""
users = st.sampled_from(["", "user", "a.b-c", "us@er", "us%40er"])
schemes = st.sampled_from([*SCHEMES, "http", "", "REDIS", "redis+tls"])
places = st.sampled_from(["", "host", "host:6379", "host:6379/0", "[::1]:6379/1", "/tmp/s", "h/abc", "h:x", "h/0#f"])
options = st.sampled_from([
    "", "?", "?&&=", "?db=1", "?db=x", "?socket_timeout=2", "?socket_timeout=nan", "?unknown=1", "?client_name=a@b",
    "?username=me@corp", "?ssl_cert_reqs=none", "?ssl_cert_reqs=required",
])  # fmt: skip


@st.composite
def urls_with_passwords(draw: st.DrawFn) -> str:
    """A URL whose password is escaped as it should be, or not."""
    password = draw(passwords)
    written = draw(st.sampled_from([password, quote(password, safe=""), quote(password)]))
    scheme, user, place, query = draw(schemes), draw(users), draw(places), draw(options)
    if draw(st.booleans()):
        return f"{scheme}://{user}:{written}@{place}{query}"
    return f"{scheme}://{place}{query or '?db=1'}&password={written}"


def told(error: BaseException) -> str:
    """Everything of an error that may be printed, what it came from included."""
    return "".join(traceback.format_exception(error)) + "".join(repr(each) + str(each) for each in chain(error))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@given(st.text() | st.tuples(schemes, st.text()).map("://".join))
@example("redis://[")
@example("redis://h:99999999999999999999")
@example("redis://" + "x" * 100_000)
@example("x" * 100_000 + "://h")
@example("redis://℀/")
def test_any_text_is_a_url_that_a_client_takes_or_one_typed_error(text: str) -> None:
    try:
        url = check_url(text)
    except InvalidInputError as error:
        field, message = error.field, str(error)
    else:
        if not url.startswith("embedded:"):
            make_client(url, 1.0)
        return
    assert field == "redis_url"
    assert message.isprintable()
    assert len(message) < 500


@given(urls_with_passwords())
@example(f"redis://:12/{SECRET}@host/0")
@example(f"redis://:12?{SECRET}=x@host/0")
@example(f"redis://:12#{SECRET}@host/0")
@example(f"embedded://user:{SECRET}@host/data")
@example(f"user:{SECRET}@host")
@example(f"redis://u:{SECRET}@ho\u2100st")
def test_no_part_of_a_password_is_in_the_error_of_its_url(url: str) -> None:
    try:
        check_url(url)
    except InvalidInputError as error:
        assert SECRET not in told(error)  # noqa: PT017 - the error itself is what is judged


@given(urls_with_passwords(), st.sampled_from(["", "cannot reach {} now", "'{}'", "url={},", "{}\n{}", "a://b {} c@d"]))
@example(f"redis://us@er:{SECRET}@host", "{}")
@example(f"redis://host?password={SECRET},;{SECRET}", "{}")
@example(f"redis://host:6379?db=1&password=@{SECRET}", "cannot reach {} now")
def test_no_part_of_a_password_of_a_usable_url_survives_in_any_text_around_it(url: str, text: str) -> None:
    try:
        checked = check_url(url)
    except InvalidInputError:
        return
    assert SECRET not in redact(text.format(url, url))
    assert SECRET not in redact(text.format(checked, checked))


@given(passwords)
def test_no_part_of_a_password_survives_where_it_is_assigned_or_quoted(password: str) -> None:
    bare = quote(password, safe="")
    for text in (
        f"password={bare}", f"PASSWORD = {bare}, db = 0", f"redis_password={bare}&db=1", f"auth: {bare}",
        repr({"db": 0, "password": password, "host": "h"}), repr({"ssl_password": password}),
        f"unknown command 'AUTH', with args beginning with: 'default' {password!r} ",
    ):  # fmt: skip
        assert SECRET not in redact(text)


@given(st.text())
@example("a://" * 20_000)
@example("a://b:" * 20_000 + "@")
@example("password" * 20_000)
@example("password=" + "'" * 100_000)
@example("auth" + " " * 100_000)
def test_any_text_can_be_redacted_and_once_is_enough(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@given(
    passwords, st.sampled_from([ErrorReply, client.ResponseError, client.ConnectionError, client.AuthenticationError])
)
def test_what_an_error_came_from_does_not_tell_the_password_either(password: str, kind: type[Exception]) -> None:
    """A server without AUTH quotes what it was given, and tracebacks show causes."""
    quoting = f"ERR unknown command 'AUTH', with args beginning with: {password!r}"
    try:
        try:
            raise ErrorReply(quoting)
        except ErrorReply as reply:
            raise kind(f"cannot connect to redis://:{quote(password, safe='')}@host: {reply}") from reply
    except kind as error:
        converted = typed(error, "redis://host:6379/0")
        converted.__cause__ = error
    assert SECRET not in told(converted)


@pytest.mark.parametrize(
    "url",
    [
        "rediss://h?ssl_check_hostname=no", "rediss://h?ssl_check_hostname=False", "rediss://h?ssl_check_hostname=0",
        "rediss://h?ssl_check_hostname=", "rediss://h?ssl_cert_reqs=", "rediss://h?ssl_cert_reqs=0",
        "rediss://h?ssl_cert_reqs=required&ssl_cert_reqs=none", "valkeys://h?ssl_cert_reqs=CERT_NONE",
        "redis://h?ssl_cert_reqs=required", "unix:///tmp/s?ssl_ca_certs=/tmp/ca", "valkey://h?ssl_certfile=/tmp/c",
    ],
)  # fmt: skip
def test_certificates_are_checked_or_the_url_is_refused(url: str) -> None:
    """An `ssl_` option without TLS is refused too: it would be passed over."""
    with pytest.raises(InvalidInputError, match="ssl_"):
        check_url(url)


@pytest.mark.parametrize(
    "url", ["rediss://h?ssl_check_hostname=true", "valkeys://h?ssl_cert_reqs=Required&ssl_keyfile=k"]
)
def test_options_that_ask_for_the_checks_are_accepted(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "option",
    [
        "retry_on_timeout", "health_check_interval", "max_connections", "decode_responses", "encoding", "protocol",
        "host", "port", "path", "connection_class", "connection_pool", "parser_class", "credential_provider",
        "redis_connect_func", "ssl_password", "ssl_ciphers", "ssl_min_version", "ssl_validate_ocsp", "SSL_CERT_REQS",
        "unix_socket_path", "retry", "__class__",
    ],
)  # fmt: skip
def test_an_option_that_is_not_on_the_list_is_refused_by_name(option: str) -> None:
    with pytest.raises(InvalidInputError, match=f"expected no options but .*, got the option '{option}'"):
        check_url(f"rediss://h?{option}=1")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e999", "", "0.0", "2s"])
@pytest.mark.parametrize("option", ["socket_timeout", "socket_connect_timeout"])
def test_a_limit_of_time_that_no_socket_takes_is_refused(option: str, value: str) -> None:
    with pytest.raises(InvalidInputError, match=option):
        check_url(f"redis://h?{option}={value}")


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:p w@h", "redis://u:p\u00a0w@h", "redis://u:p\tw@h", "redis://u:p\nw@h", "redis://h?password=p w",
        "redis://u:p#w@h", "redis://h/0#f", "unix:///tmp/s\x00", "redis://h\x7f",
    ],
)  # fmt: skip
def test_what_must_be_escaped_is_refused_with_the_way_to_write_it(url: str) -> None:
    """Otherwise a client drops or cuts it, and goes to another place than was meant."""
    with pytest.raises(InvalidInputError, match="%2F"):
        check_url(url)


def test_what_is_printed_of_an_endpoint_holds_no_password() -> None:
    pool = redis.Redis(host="h", username="u", password=SECRET).connection_pool
    endpoint = Endpoint(pool, 1.0)
    assert SECRET not in f"{endpoint!r} {endpoint} {endpoint.address}"
