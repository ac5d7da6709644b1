"""Chunks as columns: nothing is lost, whatever a provider sends, and a text of the answer is kept once."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.calls.models.columns import Columns, pack, unpack

encode = msgspec.msgpack.encode
TEXTS = st.sampled_from(["", "a", "delta", "word " * 10, "é", "🙂", "null"])
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3), st.sampled_from([2**53, -(2**53), 2**53 - 1]))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(allow_nan=False), TEXTS)
VALUES = st.recursive(LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)), max_leaves=6)


def stored(chunks: list[Any]) -> list[Any]:
    return unpack(msgspec.msgpack.decode(encode(pack(chunks)), type=Columns))


@given(chunks=st.lists(VALUES, max_size=8))
def test_any_chunks_come_back_as_they_were(chunks: list[Any]) -> None:
    """The same values of the same types, in the same order, and fields in the same order."""
    assert json.dumps(stored(chunks)) == json.dumps(chunks)


@given(parts=st.lists(st.tuples(st.integers(0, 2), TEXTS, st.integers(0, 5)), max_size=20))
def test_chunks_of_several_parts_at_once_come_back_in_their_order(parts: list[tuple[int, str, int]]) -> None:
    """Deltas of several calls that take turns, with numbers of their own."""
    chunks = [{"index": index, "delta": {"arguments": text}, "number": number} for index, text, number in parts]
    assert stored(chunks) == chunks


def test_a_text_that_is_repeated_at_the_end_is_kept_once() -> None:
    """The last events of a response repeat all of it."""
    words = [f"word{number} " for number in range(500)]
    whole = "".join(words)
    deltas = [{"type": "delta", "delta": word, "sequence_number": number} for number, word in enumerate(words)]
    ends = [{"type": f"done {number}", "text": whole} for number in range(4)]
    data = encode(pack(deltas + ends))
    assert len(data) < len(whole) + 2 * len(words) + 300
    assert data.count(whole.encode()) == 1
    assert stored(deltas + ends) == deltas + ends


@pytest.mark.parametrize("order", [[0, 3], [1, 1], [0]])
def test_columns_that_do_not_fit_together_are_a_value_error(order: list[int]) -> None:
    """As of any stored value that does not decode."""
    good = pack([{"a": "b"}, {"a": "c"}])
    with pytest.raises(ValueError, match=r"fit together|argument"):
        unpack(msgspec.structs.replace(good, order=order))
