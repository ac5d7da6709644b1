"""Values that are too large for a person's page are left out: their size stands for them, and what describes them stays."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.stores.records import Outcome, Step

_CODE = 76
_Ext = msgspec.msgpack.Ext
_encode = msgspec.msgpack.Encoder().encode
_replace = msgspec.structs.replace


def left_out(size: int) -> bytes:
    """MessagePack that stands for a value of `size` bytes."""
    return _encode(_Ext(_CODE, size.to_bytes(8, "big")))


def size_left_out(value: Any) -> int | None:
    """The size of the value that a decoded value stands for, in bytes; None where it is a value itself."""
    return int.from_bytes(value.data, "big") if isinstance(value, _Ext) and value.code == _CODE else None


def brief(value: bytes, most: int | None) -> bytes:
    """A MessagePack value of `most` bytes at most, else what stands for it; None is no limit."""
    return value if most is None or len(value) <= most else left_out(len(value))


def brief_outcome(outcome: bytes | None, most: int | None) -> bytes | None:
    """The same of an encoded Outcome."""
    return outcome if outcome is None or most is None or len(outcome) <= most else outcome_left_out(len(outcome))


def outcome_left_out(size: int) -> bytes:
    """An encoded Outcome that stands for one of `size` bytes."""
    return _encode(Outcome(left_out(size)))


def brief_step(step: Step, most: int | None) -> Step:
    """A step whose arguments and result have `most` bytes at most each; a failure stays."""
    record, outcome = step.record, step.record.outcome
    if most is None or (len(record.args) <= most and (outcome is None or len(outcome.value) <= most)):
        return step
    if outcome is not None:
        outcome = _replace(outcome, value=brief(outcome.value, most))
    return _replace(step, record=_replace(record, args=brief(record.args, most), outcome=outcome))
