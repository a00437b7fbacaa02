"""The buffer: callbacks first, then by priority, and first in, first out within each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from queue_system.execution.delivery import Buffer, Delivery
from tests.unit.execution.support import make_delivery

LANES = [b"high:p", b"normal:p", b"low:p"]


def tokens(deliveries: list[Delivery]) -> list[int]:
    return [delivery.token for delivery in deliveries]


@given(st.lists(st.tuples(st.sampled_from(LANES), st.booleans())))
def test_deliveries_leave_by_lane_and_in_the_order_of_their_arrival(arrivals: list[tuple[bytes, bool]]) -> None:
    buffer = Buffer()
    for token, (queue, is_callback) in enumerate(arrivals):
        buffer.put(make_delivery(token, queue, phase="on_success" if is_callback else ""))
    assert len(buffer) == len(arrivals)
    expected = sorted(range(len(arrivals)), key=lambda i: 0 if arrivals[i][1] else 1 + LANES.index(arrivals[i][0]))
    assert len(list(buffer)) == len(arrivals)
    taken = []
    while (delivery := buffer.take()) is not None:
        taken.append(delivery.token)
    assert taken == expected
    assert len(buffer) == 0
    assert not buffer


def test_draining_gives_the_order_of_taking_and_leaves_nothing() -> None:
    buffer = Buffer()
    for token, queue in enumerate([b"low:p", b"high:p", b"normal:p", b"high:q", b"?:x"]):
        buffer.put(make_delivery(token, queue))
    assert tokens(buffer.drain()) == [1, 3, 2, 0, 4]
    assert buffer.drain() == []
    assert buffer.take() is None
    assert buffer.oldest_claimed() is None


def test_the_oldest_arrival_is_found_in_any_lane() -> None:
    buffer = Buffer()
    assert buffer.oldest_claimed() is None
    for token, (queue, claimed) in enumerate([(b"high:p", 5.0), (b"low:p", 3.0), (b"low:p", 9.0)]):
        buffer.put(make_delivery(token, queue, claimed=claimed))
    assert buffer.oldest_claimed() == 3.0


def test_an_item_without_an_id_is_named_after_its_token() -> None:
    assert make_delivery(7).operation_id == "id7"
    assert make_delivery(7, operation_id="").operation_id == "token-7"
