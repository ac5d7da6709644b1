"""What each kind of type comes back as: equal; or it is refused where it is declared, by the name of the field."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from holdfast import NotJournalable
from holdfast.codec import arguments, canonical, codec_for, encode
from tests.unit.codec import types_msgspec, types_pydantic, types_refused
from tests.unit.codec.types_msgspec import AT, ID
from tests.unit.codec.types_pydantic import Aliased, Hidden

KINDS = {**types_msgspec.KINDS, **types_pydantic.KINDS}


def test_there_are_a_hundred_kinds() -> None:
    assert len(KINDS) >= 100


@pytest.mark.parametrize("name", KINDS)
def test_a_value_comes_back_equal(name: str) -> None:
    """Of the same type, with its offset, and the same again."""
    type_, value = KINDS[name]
    codec = codec_for(type_)
    _, got = codec.round_trip(value)
    if name == "dataclass compared by identity":
        value, got = vars(value), vars(got)
    if isinstance(value, Hidden):
        value, got = value.kept, got.kept  # a lock is made anew
    assert (type(got), got) == (type(value), value)
    if isinstance(value, dt.datetime):
        assert got.utcoffset() == value.utcoffset()


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"long numbers in plain data"}))  # refused as an argument
def test_a_value_has_one_digest(name: str) -> None:
    """As an argument of a step: what came back is the same argument."""
    type_, value = KINDS[name]
    codec = codec_for(type_)
    assert canonical(codec.decode(codec.encode(value))) == canonical(value)


@pytest.mark.parametrize("name", types_refused.KINDS)
def test_a_type_that_cannot_come_back_is_refused_by_the_name_of_the_field(name: str) -> None:
    """Where it is declared: no effect has run."""
    type_, field = types_refused.KINDS[name]
    with pytest.raises(NotJournalable) as caught:
        codec_for(type_)
    assert str(caught.value).startswith(f"{field} cannot be journaled: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", types_refused.VALUES)
def test_a_value_that_would_come_back_as_another_is_refused_by_the_name_of_the_field(name: str) -> None:
    """Parts without a type of their own, and values of another class than the annotation's."""
    type_, value, part = types_refused.VALUES[name]
    with pytest.raises(NotJournalable) as caught:
        codec_for(type_).round_trip(value)
    assert part in str(caught.value)


def test_arguments_in_any_order_are_the_same_arguments() -> None:
    """Keys of any type, and sets of text, whose order changes from process to process."""
    first = {2: {"a", "b"}, 1: {"c": 1, "a": 2}}
    second = {1: {"a": 2, "c": 1}, 2: {"b", "a"}}
    assert arguments("f", (first,), {}) == arguments("f", (second,), {})
    assert arguments("f", (ID, [AT]), {}) != arguments("f", (ID, [AT.astimezone(dt.UTC)]), {})


def test_a_model_may_be_given_by_its_aliases_or_its_names() -> None:
    codec = codec_for(Aliased)
    by_alias, by_name = ({"userId": 1, "address": {"city": "x"}}, {"user_id": 1, "city": "x"})
    assert codec.decode(encode(by_alias)) == codec.decode(encode(by_name)) == Aliased(userId=1, address={"city": "x"})  # type: ignore[call-arg]


def test_what_was_written_before_is_read() -> None:
    """Datetimes as MessagePack's own timestamps, and models as pydantic's JSON data without the fields that were not set."""
    assert codec_for(dt.datetime).decode(b"\xd6\xff\x00\x00\x00\x01") == dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)
    old = msgspec.msgpack.encode(types_pydantic.Strictly(**types_pydantic.EVERYTHING | {"raw": b"x", "share": 1.0}).model_dump(mode="json"))
    assert codec_for(types_pydantic.Strictly).decode(old).at == AT
    assert codec_for(types_pydantic.Notes).decode(b"\x80").texts == []
