"""The pure parts of supervision: strategy, intensity, backoff, and the checks of definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.supervisors import (
    Backoff,
    ChildSpec,
    DynamicSupervisor,
    Intensity,
    Strategy,
    Supervisor,
)
from holdfast.supervisors.intensity import RestartWindow, delay
from holdfast.supervisors.strategy import Plan, plan
from tests.unit.supervisors.support import forever


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("one_for_one", Plan(stop=(), start=("b",))),
        ("rest_for_one", Plan(stop=("d", "c"), start=("b", "c", "d"))),
        ("one_for_all", Plan(stop=("d", "c", "a"), start=("a", "b", "c", "d"))),
    ],
)
def test_a_plan_stops_in_reverse_and_starts_in_order(strategy: Strategy, expected: Plan) -> None:
    """The failed child is down already, so it is started and not stopped."""
    assert plan(strategy, ["a", "b", "c", "d"], "b") == expected


def test_a_plan_for_an_unknown_child_or_strategy_is_refused() -> None:
    """A mistake of the caller is not taken for "nothing to do"."""
    unknown: Any = "all_for_one"
    with pytest.raises(ValueError, match="not one of the children"):
        plan("one_for_all", ["a"], "b")
    with pytest.raises(ValueError, match="unknown strategy"):
        plan(unknown, ["a"], "a")


def test_one_restart_more_than_allowed_within_the_period_is_too_many() -> None:
    """As in OTP: `restarts` are allowed, the next one is not."""
    window = RestartWindow(Intensity(restarts=2, within_s=5.0))
    assert [window.allow(now) for now in (0.0, 1.0, 2.0)] == [True, True, False]


def test_the_period_slides_and_its_end_still_counts() -> None:
    """A restart exactly one period ago counts, one a moment older does not."""
    window = RestartWindow(Intensity(restarts=1, within_s=5.0))
    assert window.allow(0.0)
    assert window.count(5.0) == 1
    assert not window.allow(5.0)
    window = RestartWindow(Intensity(restarts=1, within_s=5.0))
    assert window.allow(0.0)
    assert window.allow(5.1)
    assert window.count(99.0) == 0


def test_an_intensity_of_zero_allows_no_restart() -> None:
    """Then the first crash is the end."""
    assert not RestartWindow(Intensity(restarts=0)).allow(0.0)


@given(
    st.integers(0, 5),
    st.lists(st.floats(0, 10, allow_subnormal=False), max_size=40),
)
def test_a_window_agrees_with_counting_all_restarts(restarts: int, gaps: list[float]) -> None:
    """That it forgets all but the last few restarts changes no answer."""
    window, times, now = RestartWindow(Intensity(restarts, 5.0)), [], 0.0
    for gap in gaps:
        now += gap
        times.append(now)
        assert window.allow(now) == (sum(now <= at + 5.0 for at in times) <= restarts)


def test_a_backoff_grows_up_to_its_bound_with_full_jitter() -> None:
    """The wait is drawn between 0 and a bound that doubles, however many restarts there were."""

    def upper(low: float, high: float) -> float:
        assert low == 0.0
        return high

    backoff = Backoff(base_s=1.0, max_s=10.0)
    assert [delay(backoff, nth, upper) for nth in (1, 2, 3, 4, 5, 100_000)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert delay(Backoff(), 7, upper) == 0.0


def test_a_wrong_definition_names_all_its_faults_at_once() -> None:
    """One error, whatever is wrong with the supervisor and its children."""
    wrong: Any = "whenever"
    text: Any = "often"
    children = [
        ChildSpec("a", forever, restart=wrong, stop_s=-1),
        ChildSpec("a", forever, significant=True, start_s=math.nan),
        ChildSpec("", partial(pow, 2)),  # type: ignore[arg-type]
    ]
    with pytest.raises(ConfigError) as caught:
        Supervisor("s", children, strategy=wrong, intensity=Intensity(-1, 0), backoff=Backoff(-1, factor=text), auto_shutdown=wrong)
    message = str(caught.value)
    for fault in (
        "supervisor 's'",
        "strategy is 'whenever'",
        "auto_shutdown is 'whenever'",
        "intensity.restarts is -1",
        "intensity.within_s is 0",
        "backoff.base_s is -1",
        "backoff.factor is 'often'",
        "child 'a': restart is 'whenever'",
        "child 'a': stop_s is -1",
        "child 'a': start_s is nan",
        "a permanent child cannot be significant",
        "child '': id is ''",
        "child '': start needs arguments (exp)",
        "child id 'a' is used more than once",
    ):
        assert fault in message


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Supervisor("", []), "name is ''"),
        (lambda: Supervisor("s", [None]), "None is not a ChildSpec"),  # type: ignore[list-item]
        (lambda: Supervisor("s", [ChildSpec("a", 3)]), "start is 3"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", [ChildSpec("a", forever, "transient", True)]), "needs a supervisor with auto_shutdown"),
        (lambda: DynamicSupervisor("d", max_children=0), "max_children is 0"),
    ],
)
def test_each_definition_is_checked_when_it_is_made(make: Callable[[], object], fault: str) -> None:
    """Not when it runs."""
    with pytest.raises(ConfigError, match=fault):
        make()


def test_a_supervisor_child_may_take_as_long_as_it_needs() -> None:
    """As in OTP: 5 seconds for a worker, no limit for a supervisor, unless the spec says otherwise."""
    assert ChildSpec("a", forever).stop_limit_s == 5.0
    assert ChildSpec("a", Supervisor("s", [])).stop_limit_s == math.inf
    assert ChildSpec("a", DynamicSupervisor("d"), stop_s=3.0).stop_limit_s == 3.0
