"""What a session may use and has used: `Budget` holds limits, `Usage` holds amounts.

Money is integer micro-dollars everywhere except in the Budget that users write.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

import msgspec

from holdfast.given import brief, decimal_of
from holdfast.policies._faults import Faults

MICRO = Decimal("0.000001")


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Amounts: used, reserved, or the most that an attempt can cost.

    Attributes:
        steps: attempts of steps.
        tokens: tokens in and out.
        microusd: money, in millionths of a dollar.
        seconds: active time; waits are not counted.
        tool_calls: calls of tools.
    """

    steps: int = 0
    tokens: int = 0
    microusd: int = 0
    seconds: float = 0.0
    tool_calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.steps + other.steps,
            self.tokens + other.tokens,
            self.microusd + other.microusd,
            self.seconds + other.seconds,
            self.tool_calls + other.tool_calls,
        )

    def __sub__(self, other: Usage) -> Usage:
        """The exact difference: fields can be negative. See `clamp`."""
        return Usage(
            self.steps - other.steps,
            self.tokens - other.tokens,
            self.microusd - other.microusd,
            self.seconds - other.seconds,
            self.tool_calls - other.tool_calls,
        )

    def __bool__(self) -> bool:
        return bool(self.steps or self.tokens or self.microusd or self.seconds or self.tool_calls)

    def clamp(self) -> Usage:
        """The same amounts, with 0 in place of every negative one."""
        return Usage(max(self.steps, 0), max(self.tokens, 0), max(self.microusd, 0), max(self.seconds, 0.0), max(self.tool_calls, 0))


ZERO = Usage()

MOST = 10**15
"""The largest limit, also in micro-dollars: sums of amounts within it fit into a stored integer."""

_MOST = {"steps": MOST, "tokens": MOST, "usd": MOST // 1_000_000, "seconds": MOST, "tool_calls": MOST}


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The limits of a session. None, the default, is no limit.

    Attributes:
        steps: attempts of steps.
        tokens: tokens in and out.
        usd: dollars, as a Decimal, a number or a numeric string; kept as a Decimal rounded half up to a micro-dollar.
        seconds: active time; waits are not counted.
        tool_calls: calls of tools.

    Raises:
        ConfigError: a limit is negative, not a number, or over MOST (write None for no limit); the message names every such field.
    """

    steps: int | None = None
    tokens: int | None = None
    usd: Decimal | float | None = None
    seconds: float | None = None
    tool_calls: int | None = None

    def __post_init__(self) -> None:
        faults = Faults("Budget")
        faults.whole("steps", self.steps, 0, optional=True, most=None)
        faults.whole("tokens", self.tokens, 0, optional=True, most=None)
        faults.number("seconds", self.seconds, optional=True, most=None)
        faults.whole("tool_calls", self.tool_calls, 0, optional=True, most=None)
        for field in ("steps", "tokens", "seconds", "tool_calls"):
            if not faults.found and (getattr(self, field) or 0) > MOST:
                faults.add(f"{field} is over {MOST:,}: give less, or None for no limit")
        if self.usd is not None:
            usd = _dollars(self.usd)
            if usd is None or not 0 <= usd <= MOST // 1_000_000:
                faults.add(f"usd is {brief(self.usd)}: give an amount of dollars, from 0 to {MOST // 1_000_000:,}, or None")
            else:
                # One spelling for 0.5, "0.50" and Decimal("0.5"), so that equal limits are equal and encode alike.
                msgspec.structs.force_setattr(self, "usd", usd)
        faults.check()

    @property
    def microusd(self) -> int | None:
        """The limit in money in micro-dollars."""
        return None if self.usd is None else int(Decimal(self.usd) * 1_000_000)

    @property
    def caps_money(self) -> bool:
        """Whether money is limited: then a call of unknown price is refused."""
        return self.usd is not None

    def raised(self, by: Budget) -> Budget:
        """These limits plus those of `by`. An unlimited field stays unlimited; None in `by` adds nothing. Raises ConfigError over MOST."""
        fields = self.__struct_fields__
        added = unchecked(*(_more(getattr(self, field), getattr(by, field)) for field in fields))
        faults = Faults("Budget")
        for field in fields:
            if getattr(by, field) and (getattr(added, field) or 0) > _MOST[field]:
                faults.add(f"{field} is over {_MOST[field]:,}: give less, or None for no limit")
        faults.check()
        return added

    def filled(self, base: Budget) -> Budget:
        """These limits, field by field; where one is None, that of `base`."""
        names = self.__struct_fields__
        return Budget(**{name: getattr(base, name) if (own := getattr(self, name)) is None else own for name in names})


def unchecked(*limits: Any) -> Budget:
    """A Budget of these limits, in the order of its fields, without the checks of its constructor: they were checked before."""
    made = Budget()
    for field, limit in zip(Budget.__struct_fields__, limits, strict=True):
        if limit is not None:
            msgspec.structs.force_setattr(made, field, limit)
    return made


def share_of(limits: Budget) -> Usage:
    """The amounts that a child with these limits takes from its parent; nothing where it has no limit."""
    return Usage(limits.steps or 0, limits.tokens or 0, limits.microusd or 0, limits.seconds or 0.0, limits.tool_calls or 0)


class Left(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What can still be reserved; None is no limit. Reservations of steps and children in flight are already subtracted."""

    steps: int | None = None
    tokens: int | None = None
    usd: Decimal | None = None
    seconds: float | None = None
    tool_calls: int | None = None


def _dollars(value: object) -> Decimal | None:
    amount = decimal_of(value)
    try:
        return None if amount is None else plain(amount.quantize(MICRO, ROUND_HALF_UP))
    except InvalidOperation:  # it has too many digits
        return None


def plain(usd: Decimal) -> Decimal:
    """The one spelling of an amount."""
    return Decimal(f"{usd.normalize():f}")  # normalize alone would spell 100 as 1E+2


def usd_of(microusd: int) -> Decimal:
    """Dollars, exactly."""
    return plain(Decimal(microusd).scaleb(-6))


def _more(limit: Any, by: Any) -> Any:
    return None if limit is None else plain(limit + by) if isinstance(by, Decimal) else limit + (by or 0)
