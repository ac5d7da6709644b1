"""How long to wait before the next attempt, and when to stop."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast.policies._faults import Faults


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long an attempt is made again; docs/failures.md has the failures after which it is.

    Attributes:
        attempts: attempts in total, the first one included.
        base_s: the longest first wait, in seconds; it doubles with each attempt.
        max_s: the longest wait that the backoff asks for, in seconds.
        total_s: no attempt starts later than this after the first one, in seconds.
        retry_after_max_s: the longest Retry-After that a step waits for, in seconds; with a longer one it fails at once, and its
            session parks until then unless the handler catches the error.

    Raises:
        ConfigError: a field is out of range; the message names every such field.
    """

    attempts: int = 4
    base_s: float = 0.5
    max_s: float = 30.0
    total_s: float = 120.0
    retry_after_max_s: float = 60.0

    def __post_init__(self) -> None:
        faults = Faults("Retry")
        faults.whole("attempts", self.attempts, 1)
        for field in ("base_s", "max_s", "total_s", "retry_after_max_s"):
            faults.number(field, getattr(self, field))
        faults.check()


NO_RETRY = Retry(attempts=1)


def delay(
    retry: Retry, attempts: int, made: int, elapsed_s: float, retry_after_s: float | None, uniform: Callable[[float, float], float]
) -> float | None:
    """How long to wait before the next attempt, or None to give up.

    The backoff is "full jitter": anywhere from 0 to the exponential ceiling, which spreads the clients best with the least load
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). It comes on top of a Retry-After, since all clients with
    the same Retry-After would otherwise return at the same moment.

    Args:
        retry: the policy.
        attempts: attempts in total that the failure allows (`holdfast.policies.failures.answers`).
        made: how many attempts were made so far, 1 or more.
        elapsed_s: seconds since the first attempt began, waits included.
        retry_after_s: how long the dependency asked to wait, in seconds; None if it did not say.
        uniform: draws from a range, such as `random.Random(seed).uniform`.

    Returns:
        Seconds, with `elapsed_s` never past `total_s`; None when the attempts or the time are used up, or the Retry-After is longer than
        the policy or the time that is left.
    """
    room_s = retry.total_s - elapsed_s
    floor_s = retry_after_s or 0.0
    if made >= attempts or room_s <= 0:
        return None
    if floor_s > retry.retry_after_max_s or floor_s > room_s:
        return None
    # The exponent has a limit, since a float overflows at 1024 attempts.
    ceiling_s = min(retry.max_s, retry.base_s * 2.0 ** min(made - 1, 60))
    return min(floor_s + uniform(0.0, min(ceiling_s, room_s - floor_s)), room_s)
