"""What a provider answers is kept as it came: fields that no SDK knows, numbers of any length, texts that are no Unicode."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict

from holdfast import NotJournalable
from holdfast.codec.answers import AnswerCodec, Halves, answer_decoder, encode_answer, joined, request_bytes

FIRST, SECOND = "\ud83d", "\ude00"


class Reply(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: str
    tokens: int = 0


def fields_of(reply: Any) -> dict[str, Any]:
    return reply if isinstance(reply, dict) else reply.model_dump(exclude_unset=True, warnings=False)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"id": "a"}, {"id": "a"}),
        ({"id": None, "tokens": "many"}, {"id": None, "tokens": "many"}),
        ({"id": "a", "unknown": {"deep": [1]}}, {"id": "a", "unknown": {"deep": [1]}}),
        ({"id": f"{FIRST}{SECOND}!"}, {"id": "😀!"}),
        ({"id": f"a{FIRST}", f"k{SECOND}": "\0"}, {"id": "a\ufffd", "k\ufffd": "\0"}),
        ({"id": "a", "n": 1 << 64}, {"id": "a", "n": 1 << 64}),
        ({"id": "a", "n": [-(10**4000), (1 << 64) - 1, -(1 << 63) - 1]}, {"id": "a", "n": [-(10**4000), (1 << 64) - 1, -(1 << 63) - 1]}),
    ],
)
def test_an_answer_is_kept_as_it_came(sent: dict[str, Any], kept: dict[str, Any]) -> None:
    """Built without validation, and only with the fields that the provider sent."""
    codec = AnswerCodec(Reply, fields_of)
    got = codec.decode(codec.encode(sent))
    assert got.model_dump(exclude_unset=True, warnings=False) == kept
    assert codec.decode(codec.encode(got)) == got


def test_an_answer_that_json_cannot_have_is_refused() -> None:
    with pytest.raises(NotJournalable, match="object"):
        AnswerCodec(Reply, fields_of).encode({"id": object()})


def test_a_struct_with_parts_of_an_answer_keeps_them() -> None:
    class Part(msgspec.Struct):
        each: list[Any]
        count: int = 0

    assert answer_decoder(Part)(encode_answer(Part([10**30, joined(FIRST)], 3))) == Part([10**30, "\ufffd"], 3)


def chunk(text: str, choice: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": choice, "delta": {"content": text}}]}


def texts(chunks: list[dict[str, Any]]) -> list[str]:
    halves = Halves()
    return [choice["delta"]["content"] for each in chunks for choice in halves.take(each)["choices"]]


def test_halves_in_two_chunks_are_joined() -> None:
    """Also over a chunk without text, and beside another answer of the same request."""
    assert texts([chunk(f"ok {FIRST}"), chunk(f"{SECOND} fine")]) == ["ok ", "😀 fine"]
    assert texts([chunk(FIRST), chunk(""), chunk("b", choice=1), chunk(SECOND)]) == ["", "", "b", "😀"]
    assert texts([chunk("a"), chunk(f"{FIRST}{SECOND}"), chunk("b")]) == ["a", "😀", "b"]


@pytest.mark.parametrize("index", [[0], {"a": 1}, None, 1.5])
def test_an_index_that_is_none_is_not_taken_for_one(index: object) -> None:
    """A server can send anything; the place in the list counts then."""
    halves = Halves()
    assert halves.take({"choices": [{"index": index, "text": "a\ud83d"}]}) == {"choices": [{"index": index, "text": "a"}]}
    assert halves.take({"choices": [{"index": index, "text": "\ude00b"}]}) == {"choices": [{"index": index, "text": "\U0001f600b"}]}


def test_a_half_without_the_other_is_replaced() -> None:
    assert texts([chunk(f"a{FIRST}"), chunk("b")]) == ["a", "\ufffdb"]
    assert texts([chunk(f"{SECOND}b")]) == ["\ufffdb"]


def test_a_request_has_the_fields_that_an_sdk_sends() -> None:
    """A message that an answer gave has no more fields in the next request than the provider had sent."""
    message = Reply.model_construct(id="a")
    assert request_bytes({"messages": [message], "b": 1}) == msgspec.msgpack.encode({"b": 1, "messages": [{"id": "a"}]})
