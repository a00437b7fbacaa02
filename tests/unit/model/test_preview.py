"""What is shown of a JSON value costs what is shown, however deep and large the value is."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_system.model.preview import INDENTED_LEVELS, SHOWN_LEVELS, document, preview

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(levels: int, leaf: Any) -> Any:
    for _ in range(levels):
        leaf = [leaf]
    return leaf


@settings(max_examples=40)
@given(ANY_JSON)
def test_what_is_small_is_written_whole_as_json_dumps_does(value: Any) -> None:
    assert preview(value, 1 << 20) == (json.dumps(value, indent=2, ensure_ascii=False), False)
    assert "".join(document(value)) == json.dumps(value, indent=2)


@settings(max_examples=40)
@given(ANY_JSON, st.integers(0, 40))
def test_what_is_cut_is_the_beginning(value: Any, most: int) -> None:
    whole = json.dumps(value, indent=2, ensure_ascii=False)
    assert preview(value, most) == (whole[:most], len(whole) > most)


@pytest.mark.parametrize("shape", [list, lambda many: {"key": list(many)}])
def test_no_more_is_written_than_is_shown(shape: Any) -> None:
    """A million numbers, 450 levels deep, are 900 MB when each has a line of its own."""
    text, cut = preview(nested(450, shape(range(500_000))), 10_000)
    assert (len(text) < 10_000, cut) == (True, True)
    text, cut = preview(nested(20, shape(range(500_000))), 10_000)
    assert (len(text), cut) == (10_000, True)


def test_what_lies_too_deep_stays_closed() -> None:
    text, cut = preview(nested(SHOWN_LEVELS + 1, "secret"), 1 << 20)
    assert cut
    assert "[…]" in text
    assert "secret" not in text
    assert not preview(nested(SHOWN_LEVELS, "shown"), 1 << 20)[1]


@pytest.mark.parametrize("levels", [INDENTED_LEVELS + 1, 450, 5000])
def test_a_document_is_whole_and_its_size_follows_its_content(levels: int) -> None:
    many = list(range(10_000))
    written = "".join(document({"item": nested(levels, many)}))
    assert len(written) < 100_000 + 10 * levels
    if levels < 500:
        assert json.loads(written) == {"item": nested(levels, many)}


def test_a_long_text_and_a_long_number_cost_no_more() -> None:
    text, cut = preview({"a": "é" * 5_000_000, "b": 1}, 1000)
    assert (len(text), cut) == (1000, True)
    assert "too many digits" in preview([10**5000], 1000)[0]
    assert list(itertools.islice(document([1] * 10**6), 3)) == ["", "[", "\n  "]
