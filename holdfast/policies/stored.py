"""Amounts from outside: limits as they were stored, by any version, and costs as they were reported. Neither is refused."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec

from holdfast.given import is_number
from holdfast.policies.budget import MICRO, MOST, Budget, Usage, plain, unchecked

_HUGE = Decimal(10) ** 12


class _Stored(msgspec.Struct, frozen=True, gc=False):
    """The stored form of a Budget, of any version."""

    steps: int | float | None = None
    tokens: int | float | None = None
    usd: Decimal | float | None = None
    seconds: float | None = None
    tool_calls: int | float | None = None


_decode_stored = msgspec.msgpack.Decoder(_Stored).decode


def decode_budget(data: bytes) -> Budget:
    """A stored Budget, also one with limits that the constructor refuses today: an infinite limit is none, and no number is 0.

    Raises:
        msgspec.MsgspecError: it is no Budget.
        TypeError: it is no bytes.
    """
    stored = _decode_stored(data)
    usd = _kept(stored.usd)
    if usd is not None:
        # Decimals of many digits would make every sum slow; a limit that high is as good as none.
        usd = plain(Decimal(str(usd)).min(_HUGE).max(-_HUGE).quantize(MICRO, ROUND_HALF_UP))
    return unchecked(_whole(stored.steps), _whole(stored.tokens), usd, _kept(stored.seconds), _whole(stored.tool_calls))


def _kept(limit: Any) -> Any:
    """A stored limit as a finite number."""
    if limit is None or math.isfinite(limit):
        return limit
    return None if not math.isnan(limit) and limit > 0 else 0


def _whole(limit: float | None) -> int | None:
    kept = _kept(limit)
    return None if kept is None else int(kept)


def bounded(usage: Usage) -> Usage:
    """An amount that was reported from outside as one that can be summed and stored: whole numbers from 0 to MOST."""
    whole = (_amount(usage.steps), _amount(usage.tokens), _amount(usage.microusd))
    seconds = min(max(float(usage.seconds), 0.0), float(MOST)) if is_number(usage.seconds) else float(MOST)
    return Usage(*whole, seconds, _amount(usage.tool_calls))


def _amount(value: float) -> int:
    return min(max(math.ceil(value), 0), MOST) if is_number(value) else MOST
