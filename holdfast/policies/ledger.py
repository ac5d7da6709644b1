"""The running account of one session. Its concurrent steps and children cannot overshoot the limits together.

Seconds are integer microseconds here, so that a reservation and its release cancel out exactly.
"""

from __future__ import annotations

from holdfast.policies.budget import ZERO, Budget, Left, Usage, share_of, unchecked, usd_of

LIMITS = ("steps", "tokens", "usd", "seconds", "tool_calls")
"""The limits of a budget, by name."""

_UNLIMITED = 1 << 62


class Ledger:
    """The running account of one session.

    Reserve the most that an attempt can cost before it runs, and settle its actual cost afterwards. A reservation counts as used until it
    is settled, so concurrent steps and children cannot overshoot together. Pass no negative amounts.
    """

    __slots__ = (
        "_calls_held",
        "_calls_limit",
        "_calls_used",
        "_money_held",
        "_money_limit",
        "_money_used",
        "_steps_held",
        "_steps_limit",
        "_steps_used",
        "_time_held",
        "_time_limit",
        "_time_used",
        "_tokens_held",
        "_tokens_limit",
        "_tokens_used",
        "limits",
    )
    # `_x_held` is used plus reserved. `reserve` compares this figure, so the ledger keeps it rather than computes it.

    limits: Budget

    def __init__(self, limits: Budget, used: Usage = ZERO) -> None:
        self._set_limits(limits)
        self._steps_used = self._steps_held = used.steps
        self._tokens_used = self._tokens_held = used.tokens
        self._money_used = self._money_held = used.microusd
        self._time_used = self._time_held = _micros(used.seconds)
        self._calls_used = self._calls_held = used.tool_calls

    def reserve(self, most: Usage, *, overtime: bool = False) -> str | None:
        """Reserve the most that an attempt can cost: all of it or nothing.

        Only the limits on amounts in `most` can refuse it. The limit on seconds is the exception: once it is used up, it refuses every
        reservation, since every step takes time; not one that is `overtime`.

        Returns:
            None if it is reserved, otherwise one line that names the limit ("steps: 40 of 40 used").
        """
        steps = self._steps_held + most.steps
        if (self._time_used >= self._time_limit and not overtime) or (steps > self._steps_limit and most.steps):
            return self.why_not(most)
        if most.tokens or most.microusd or most.tool_calls or most.seconds:
            tokens, money = self._tokens_held + most.tokens, self._money_held + most.microusd
            calls, time = self._calls_held + most.tool_calls, self._time_held + _micros(most.seconds)
            if (
                (tokens > self._tokens_limit and most.tokens)
                or (money > self._money_limit and most.microusd)
                or (calls > self._calls_limit and most.tool_calls)
                or (time > self._time_limit and most.seconds)
            ):
                return self.why_not(most)
            self._tokens_held, self._money_held, self._calls_held, self._time_held = tokens, money, calls, time
        self._steps_held = steps
        return None

    def exhausted(self, most: Usage, kept: Usage = ZERO) -> str | None:
        """Why `most` does not fit even once all reservations but `kept` are given back; None if it can fit then.

        Returns:
            One line that names the limit, as of `reserve`.
        """
        kept_of = (kept.steps, kept.tokens, kept.microusd, _micros(kept.seconds), kept.tool_calls)
        for row, held in zip(self._rows(most), kept_of, strict=True):
            name, asked, _, used, limit = row
            if (asked and used + held + asked > limit) or (name == "seconds" and used + held >= limit):
                return _line(*row)
        return None

    def why_not(self, most: Usage) -> str:
        """The limit within which `most` does not fit now, as one line; only where `reserve` refuses it."""
        lines = (
            _line(*row) for row in self._rows(most) if (row[1] and row[1] + row[2] > row[4]) or (row[0] == "seconds" and row[3] >= row[4])
        )
        return next(lines)

    @staticmethod
    def by_name(amounts: Usage) -> dict[str, int]:
        """The amounts by the names of their limits; money and time in millionths."""
        figures = (amounts.steps, amounts.tokens, amounts.microusd, _micros(amounts.seconds), amounts.tool_calls)
        return dict(zip(LIMITS, figures, strict=True))

    def lacks(self, most: Usage) -> tuple[str, ...]:
        """The limits within which `most` does not fit for now, by name."""
        return tuple(name for name, asked, held, _, limit in self._rows(most) if asked and held + asked > limit)

    def settle(self, reserved: Usage, actual: Usage, active_s: float = 0.0) -> None:
        """Replace a reservation by the actual cost and active time, which are charged even if they are more.

        Raises:
            ValueError: `reserved` is more than the reservations; nothing has changed.
        """
        steps = self._steps_used + reserved.steps
        if actual is not reserved or reserved.seconds or steps > self._steps_held:
            self._give_back(reserved)
            self.charge(actual)
        else:  # most steps cost exactly their reservation: a short way
            if reserved.tokens or reserved.microusd or reserved.tool_calls:
                tokens, money = self._tokens_used + reserved.tokens, self._money_used + reserved.microusd
                calls = self._calls_used + reserved.tool_calls
                if tokens > self._tokens_held or money > self._money_held or calls > self._calls_held:
                    raise ValueError(f"more given back than reserved: {reserved!r} of {self.reserved!r}")
                self._tokens_used, self._money_used, self._calls_used = tokens, money, calls
            self._steps_used = steps
        if active_s:
            time = int(active_s * 1e6 + 0.5)
            self._time_used += time
            self._time_held += time

    def release(self, reserved: Usage) -> None:
        """Give back a reservation that cost nothing.

        Raises:
            ValueError: `reserved` is more than the reservations; nothing has changed.
        """
        self._give_back(reserved)

    def charge(self, usage: Usage) -> None:
        """Count usage that was not reserved, also past the limits."""
        self._steps_used += usage.steps
        self._steps_held += usage.steps
        if usage.tokens or usage.microusd or usage.tool_calls:
            self._tokens_used += usage.tokens
            self._tokens_held += usage.tokens
            self._money_used += usage.microusd
            self._money_held += usage.microusd
            self._calls_used += usage.tool_calls
            self._calls_held += usage.tool_calls
        if usage.seconds:
            time = _micros(usage.seconds)
            self._time_used += time
            self._time_held += time

    def credit(self, usage: Usage) -> None:
        """Give back an amount that was charged and not spent, such as the rest of a child's part. Usage never falls below 0."""
        time = min(_micros(usage.seconds), self._time_used)
        steps, tokens = min(usage.steps, self._steps_used), min(usage.tokens, self._tokens_used)
        money, calls = min(usage.microusd, self._money_used), min(usage.tool_calls, self._calls_used)
        self.charge(Usage(-steps, -tokens, -money, 0.0, -calls))
        self._time_used -= time
        self._time_held -= time

    @property
    def used(self) -> Usage:
        """The usage, without reservations."""
        return Usage(self._steps_used, self._tokens_used, self._money_used, self._time_used / 1e6, self._calls_used)

    @property
    def reserved(self) -> Usage:
        """The reservations of steps and children in flight."""
        return Usage(
            self._steps_held - self._steps_used,
            self._tokens_held - self._tokens_used,
            self._money_held - self._money_used,
            (self._time_held - self._time_used) / 1e6,
            self._calls_held - self._calls_used,
        )

    def left(self) -> Left:
        """What can still be reserved."""
        limits = self.limits
        return Left(
            steps=None if limits.steps is None else max(self._steps_limit - self._steps_held, 0),
            tokens=None if limits.tokens is None else max(self._tokens_limit - self._tokens_held, 0),
            usd=None if limits.usd is None else usd_of(max(self._money_limit - self._money_held, 0)),
            seconds=None if limits.seconds is None else max(self._time_limit - self._time_held, 0) / 1e6,
            tool_calls=None if limits.tool_calls is None else max(self._calls_limit - self._calls_held, 0),
        )

    def balance(self) -> Usage:
        """What is left; negative where more is used and reserved than the limit, hugely so where there is no limit (none is left of it)."""
        return Usage(
            self._steps_limit - self._steps_held if self.limits.steps is not None else -_UNLIMITED,
            self._tokens_limit - self._tokens_held if self.limits.tokens is not None else -_UNLIMITED,
            self._money_limit - self._money_held if self.limits.usd is not None else -_UNLIMITED,
            (self._time_limit - self._time_held) / 1e6 if self.limits.seconds is not None else -float(_UNLIMITED),
            self._calls_limit - self._calls_held if self.limits.tool_calls is not None else -_UNLIMITED,
        )

    def raise_(self, by: Budget) -> None:
        """Adds `by` to the limits."""
        self._set_limits(self.limits.raised(by))

    def carve(self, part: Budget) -> Budget:
        """The limits of a child that gets `part`. Where `part` is None, the limit is all that is left here (None for no limit).

        Call it and `part` before you reserve: the reservation changes what is left.
        """
        left = self.left()
        given = ((getattr(part, field), getattr(left, field)) for field in part.__struct_fields__)
        return unchecked(*(mine if own is None else own for own, mine in given))

    def part(self, part: Budget) -> Usage:
        """What `carve(part)` takes from here: reserve it now, and settle it when the child has ended."""
        return share_of(self.carve(part))

    def _set_limits(self, limits: Budget) -> None:
        self.limits = limits
        self._steps_limit = _UNLIMITED if limits.steps is None else limits.steps
        self._tokens_limit = _UNLIMITED if limits.tokens is None else limits.tokens
        money = limits.microusd
        self._money_limit = _UNLIMITED if money is None else money
        self._time_limit = _UNLIMITED if limits.seconds is None else _micros(limits.seconds)
        self._calls_limit = _UNLIMITED if limits.tool_calls is None else limits.tool_calls

    def _give_back(self, reserved: Usage) -> None:
        steps = self._steps_held - reserved.steps
        tokens, money, calls, time = self._tokens_held, self._money_held, self._calls_held, self._time_held
        if reserved.tokens or reserved.microusd or reserved.tool_calls or reserved.seconds:
            tokens, money = tokens - reserved.tokens, money - reserved.microusd
            calls, time = calls - reserved.tool_calls, time - _micros(reserved.seconds)
            if tokens < self._tokens_used or money < self._money_used or calls < self._calls_used or time < self._time_used:
                # To continue would hand out the same budget twice.
                raise ValueError(f"more given back than reserved: {reserved!r} of {self.reserved!r}")
        if steps < self._steps_used:
            raise ValueError(f"more given back than reserved: {reserved!r} of {self.reserved!r}")
        self._steps_held = steps
        self._tokens_held, self._money_held, self._calls_held, self._time_held = tokens, money, calls, time

    def _rows(self, most: Usage) -> tuple[_Row, ...]:
        asked = (most.steps, most.tokens, most.microusd, _micros(most.seconds), most.tool_calls)
        held = (self._steps_held, self._tokens_held, self._money_held, self._time_held, self._calls_held)
        used = (self._steps_used, self._tokens_used, self._money_used, self._time_used, self._calls_used)
        limits = (self._steps_limit, self._tokens_limit, self._money_limit, self._time_limit, self._calls_limit)
        return tuple(zip(LIMITS, asked, held, used, limits, strict=True))


_Row = tuple[str, int, int, int, int]
"""A limit by name: what is asked of it, used and reserved, used, and the limit."""


def _line(name: str, asked: int, held: int, used: int, limit: int) -> str:
    micro = name in ("usd", "seconds")

    def show(amount: int) -> str:
        return f"{usd_of(amount).normalize():f}" if micro else str(amount)

    text = f"{name}: {show(used)} of {show(limit)} used"
    if held > used:
        text += f", {show(held - used)} reserved"
    return text if used >= limit else f"{text}, up to {show(asked)} needed"


def _micros(seconds: float) -> int:
    return int(seconds * 1e6 + 0.5)
