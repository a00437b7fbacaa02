"""A route: how long an answer is trusted, when it is asked again, and who is told of another server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import redis

from queue_system.broker.connection import Endpoint
from queue_system.broker.routes import Route, RouteChangedError, Switch
from queue_system.broker.wire import ErrorReply
from queue_system.errors import ServerUnreachableError
from tests.kit.clocks import ManualClock


def server(port: int) -> Endpoint:
    return Endpoint(redis.ConnectionPool(host="127.0.0.1", port=port), 1.0, service="main")


class Answers:
    """A follower that answers what it is told to, and counts how often it is asked."""

    def __init__(self, *answers: Endpoint | None) -> None:
        self.answers = list(answers)
        self.doubts: list[bool] = []

    def ask(self, known: Endpoint | None, *, doubted: bool) -> Endpoint:
        """Return the next answer, the last one again and again; None stands for nobody who knows."""
        self.doubts.append(doubted)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if found is None:
            raise ServerUnreachableError("no sentinel answers")
        return found

    def renew(self) -> None:
        """Do nothing."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def route_of(follower: Answers, clock: ManualClock) -> Route:
    return Route(lambda: follower, clock=clock)


def test_one_server_is_asked_for_once_and_never_doubted(clock: ManualClock) -> None:
    fixed = server(1)
    calls: list[bool] = []

    def choose() -> Endpoint:
        calls.append(True)
        return fixed

    route = Route(choose, clock=clock)
    assert route() is fixed
    assert route.failed(ConnectionError())
    clock.advance(100)
    assert route.check() is fixed
    assert (route.moves, route.epoch, calls) == (False, 0, [True])


def test_an_answer_is_trusted_for_a_second(clock: ManualClock) -> None:
    first, second = server(1), server(2)
    follower = Answers(first, second)
    route = route_of(follower, clock)
    assert route() is first
    clock.advance(0.9)
    assert route.check() is first
    clock.advance(0.2)
    assert not route.holds(first)
    assert route.check() is second
    assert route.holds(second)
    assert (route.epoch, follower.doubts) == (1, [False, False])


@pytest.mark.parametrize(
    "error", [ConnectionError(), TimeoutError(), ErrorReply("READONLY no"), ErrorReply("MASTERDOWN x")]
)
def test_after_an_error_of_a_server_that_may_be_replaced_it_is_asked_at_once(
    error: Exception, clock: ManualClock
) -> None:
    first, second = server(1), server(2)
    follower = Answers(first, second)
    route = route_of(follower, clock)
    assert route() is first
    clock.advance(0.3)
    assert route.failed(error)
    assert route.check() is second
    assert follower.doubts == [False, True]


def test_an_error_of_the_request_raises_no_doubt(clock: ManualClock) -> None:
    route = route_of(Answers(server(1)), clock)
    first = route()
    assert not route.failed(ErrorReply("WRONGTYPE x"))
    assert route.holds(first)


def test_questions_of_a_server_that_stays_the_same_are_a_fifth_of_a_second_apart_and_more(clock: ManualClock) -> None:
    follower = Answers(server(1))
    route = route_of(follower, clock)
    route()
    for _ in range(1000):  # ten seconds of a producer that tries a hundred times a second
        clock.advance(0.01)
        route.failed(ConnectionError())
        route.check()
    asked = len(follower.doubts) - 1
    assert 10 / 0.5 - 5 <= asked <= 10 / 0.2


def test_where_nobody_answers_the_old_server_stays_and_is_asked_for_more_and_more_rarely(clock: ManualClock) -> None:
    first = server(1)
    follower = Answers(first, None)
    route = route_of(follower, clock)
    route()
    for _ in range(3000):
        clock.advance(0.01)
        assert route.check() is first
    assert 30 / 2 - 5 <= len(follower.doubts) <= 30 / 2 + 10


def test_without_any_answer_there_is_no_server(clock: ManualClock) -> None:
    first = server(1)
    route = route_of(Answers(None, first), clock)
    with pytest.raises(ServerUnreachableError):
        route()
    assert route.moves
    assert route() is first
    assert route.epoch == 0


def test_who_listens_is_told_of_a_switch_and_how_long_the_server_had_failed(clock: ManualClock) -> None:
    first = server(1)
    route = route_of(Answers(first, first, server(2)), clock)
    told: list[Switch] = []
    route.switched.append(told.append)
    route()
    clock.advance(5.0)
    route.failed(ConnectionError())
    route.check()
    clock.advance(2.5)
    route.failed(ConnectionError())
    route.check()
    assert told == [Switch("main", "127.0.0.1:1", "127.0.0.1:2", 2.5)]


def test_who_heeds_learns_that_the_connection_leads_elsewhere(clock: ManualClock) -> None:
    first = server(1)
    route = route_of(Answers(first, first, server(2)), clock)
    route()
    clock.advance(0.5)
    route.heed(first)
    clock.advance(0.5)
    with pytest.raises(RouteChangedError, match=r"127\.0\.0\.1:1"):
        route.heed(first)


def test_only_one_thread_asks_and_the_others_need_not_wait(clock: ManualClock) -> None:
    first, second = server(1), server(2)
    asked, may_answer = threading.Event(), threading.Event()

    class Slow(Answers):
        def ask(self, known: Endpoint | None, *, doubted: bool) -> Endpoint:
            found = super().ask(known, doubted=doubted)
            if known is not None:
                asked.set()
                assert may_answer.wait(30)
            return found

    follower = Slow(first, second)
    route = route_of(follower, clock)
    route()
    clock.advance(2.0)
    asker = threading.Thread(target=route.check)
    asker.start()
    assert asked.wait(30)
    assert route.check() is first
    may_answer.set()
    asker.join()
    assert route.check() is second
    assert len(follower.doubts) == 2


async def test_who_waits_in_an_event_loop_is_called_there(clock: ManualClock) -> None:
    route = route_of(Answers(server(1), server(2)), clock)
    left = asyncio.Event()

    class Waiting:
        def leave(self) -> None:
            left.set()

    waiting = Waiting()
    route()
    route.accompany(waiting, asyncio.get_running_loop())
    clock.advance(2.0)
    await route.acheck()
    await asyncio.wait_for(left.wait(), 30)


def test_a_forked_child_asks_anew(clock: ManualClock) -> None:
    """A lock that another thread of its parent holds stays in the parent."""
    first = server(1)
    route = route_of(Answers(first), clock)
    route()
    held: Any = route
    held._asking.acquire()
    route.renew()
    clock.advance(2.0)
    assert route.check() is first
