"""Ids of spans, derived from the session, the turn and the step: a turn that resumes after a crash or a park, in any process, is in the
same trace."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from holdfast.telemetry.context import Carried

_RATIO_BITS = 64


class TurnIds(NamedTuple):
    """The ids of a turn's span; `parent` is 0 for the root of its trace."""

    trace_id: int
    span_id: int
    parent: int


def turn_ids(session: str, turn: int, message: str, carried: Carried | None) -> TurnIds:
    """The ids of a turn: in the trace of the message's sender, or in a trace of its own if there is none or only a link."""
    digest = blake2b(f"{session}\0{turn}\0{message}".encode("utf-8", "replace"), digest_size=24, person=b"holdfast turn").digest()
    span_id = int.from_bytes(digest[16:], "big") or 1
    if carried is not None and not carried.link:
        return TurnIds(carried.trace_id, span_id, carried.span_id)
    return TurnIds(int.from_bytes(digest[:16], "big") or 1, span_id, 0)


def step_id(turn: TurnIds, key: bytes) -> int:
    """The span id of a step of that turn; `key` is its identity within the session."""
    return int.from_bytes(step_bytes(turn.trace_id.to_bytes(16, "big") + turn.span_id.to_bytes(8, "big"), key), "big")


def step_bytes(seed: bytes, key: bytes) -> bytes:
    """The same as bytes; `seed` is the trace id and the span id of the turn."""
    return blake2b(seed + key, digest_size=8).digest()


def within(trace_id: int, ratio: float) -> bool:
    """Whether a trace is among the share `ratio` that is recorded. Every process decides alike (as OpenTelemetry's TraceIdRatioBased)."""
    return (trace_id & ((1 << _RATIO_BITS) - 1)) < round(ratio * (1 << _RATIO_BITS))
