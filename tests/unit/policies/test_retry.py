"""Waits between attempts."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.policies import NO_RETRY, Retry, delay


def _longest(low: float, high: float) -> float:
    assert low <= high
    return high


def _shortest(low: float, high: float) -> float:
    assert low <= high
    return low


retries = st.builds(
    Retry,
    attempts=st.integers(1, 8),
    base_s=st.floats(0, 10),
    max_s=st.floats(0, 60),
    total_s=st.floats(0, 300),
    retry_after_max_s=st.floats(0, 90),
)


def test_the_ceiling_doubles_with_each_attempt_up_to_the_maximum() -> None:
    """The longest waits of the defaults, were there attempts enough."""
    retry = Retry(attempts=10)
    waits = [delay(retry, retry.attempts, attempt, 0.0, None, _longest) for attempt in range(1, 9)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_the_jitter_is_full() -> None:
    """A wait may be as short as nothing."""
    assert delay(Retry(), 4, 3, 0.0, None, _shortest) == 0.0


def test_attempts_are_counted_in_total() -> None:
    """Four attempts are three waits, and one attempt is none."""
    assert [delay(Retry(), 4, attempt, 0.0, None, _longest) is None for attempt in (1, 2, 3, 4)] == [False, False, False, True]
    assert delay(NO_RETRY, 1, 1, 0.0, None, _longest) is None


def test_a_retry_after_is_waited_for_at_least() -> None:
    """The jitter comes on top, so that not everybody returns at the same moment."""
    assert delay(Retry(), 4, 1, 0.0, 20.0, _shortest) == 20.0
    assert delay(Retry(), 4, 1, 0.0, 20.0, _longest) == 20.5


@pytest.mark.parametrize(("retry_after_s", "elapsed_s"), [(60.1, 0.0), (50.0, 71.0)])
def test_a_retry_after_that_is_too_long_gives_up(retry_after_s: float, elapsed_s: float) -> None:
    """Longer than the policy allows, or than the time that is left: trying sooner would be no use."""
    assert delay(Retry(), 4, 1, elapsed_s, retry_after_s, _shortest) is None


def test_no_attempt_starts_past_the_total() -> None:
    """The last wait is cut to the time that is left, and without any there is none."""
    assert delay(Retry(base_s=10), 4, 1, 115.0, None, _longest) == 5.0
    assert delay(Retry(), 4, 1, 120.0, None, _shortest) is None


@given(retries, st.integers(1, 5_000), st.floats(0, 400), st.none() | st.floats(0, 200), st.integers())
def test_every_wait_is_within_its_bounds(retry: Retry, attempt: int, elapsed_s: float, after_s: float | None, seed: int) -> None:
    """At least the Retry-After, at most the ceiling on top of it, and never past the total."""
    wait = delay(retry, retry.attempts, attempt, elapsed_s, after_s, random.Random(seed).uniform)
    floor_s = after_s or 0.0
    possible = attempt < retry.attempts and elapsed_s < retry.total_s
    possible = possible and floor_s <= min(retry.retry_after_max_s, retry.total_s - elapsed_s)
    assert (wait is not None) == possible
    if wait is not None:
        assert floor_s <= wait <= floor_s + retry.max_s + 1e-9
        assert wait <= retry.total_s - elapsed_s


@given(retries, st.integers(1, 8), st.integers())
def test_the_same_dice_give_the_same_wait(retry: Retry, attempt: int, seed: int) -> None:
    """A replay with the same seed waits as long."""
    waits = {delay(retry, retry.attempts, attempt, 1.0, None, random.Random(seed).uniform) for _ in range(2)}
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("attempts", 0), ("base_s", -1), ("max_s", -1), ("total_s", float("nan")), ("retry_after_max_s", float("inf"))],
)
def test_a_field_that_makes_no_sense_is_named(field: str, value: Any) -> None:
    """Faults are found when the policy is written down, not at the first failure."""
    with pytest.raises(ConfigError, match=f"Retry: {field} is "):
        Retry(**{field: value})
