"""Budgets, usage and the ledger."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from holdfast.errors import ConfigError
from holdfast.policies import ZERO, Budget, Ledger, Left, Usage

amounts = st.builds(
    Usage,
    steps=st.integers(0, 6),
    tokens=st.integers(0, 500),
    microusd=st.integers(0, 5_000),
    seconds=st.floats(0, 20),
    tool_calls=st.integers(0, 4),
)
budgets = st.builds(
    Budget,
    steps=st.none() | st.integers(0, 20),
    tokens=st.none() | st.integers(0, 2_000),
    usd=st.none() | st.decimals(0, 1, places=6),
    seconds=st.none() | st.floats(0, 60),
    tool_calls=st.none() | st.integers(0, 10),
)


def _part_of(usage: Usage, share: float) -> Usage:
    return Usage(
        int(usage.steps * share),
        int(usage.tokens * share),
        int(usage.microusd * share),
        usage.seconds * share,
        int(usage.tool_calls * share),
    )


def _over(ledger: Ledger) -> list[str]:
    limits, total = ledger.limits, ledger.used + ledger.reserved
    rows = (
        ("steps", limits.steps, total.steps),
        ("tokens", limits.tokens, total.tokens),
        ("usd", limits.microusd, total.microusd),
        ("seconds", limits.seconds, round(total.seconds - 1e-6, 6)),
        ("tool_calls", limits.tool_calls, total.tool_calls),
    )
    return [name for name, limit, amount in rows if limit is not None and amount > limit]


# ---------------------------------------------------------------- usage


def test_usage_adds_and_subtracts_field_by_field() -> None:
    """The difference is exact and only clamp removes what is negative."""
    a, b = Usage(1, 10, 100, 1.5, 2), Usage(2, 5, 50, 0.5, 1)
    assert a + b == Usage(3, 15, 150, 2.0, 3)
    assert a - b == Usage(-1, 5, 50, 1.0, 1)
    assert (a - b).clamp() == Usage(0, 5, 50, 1.0, 1)


@pytest.mark.parametrize("field", ["steps", "tokens", "microusd", "seconds", "tool_calls"])
def test_usage_is_true_when_any_field_is(field: str) -> None:
    """No field is forgotten, and nothing at all is false."""
    one: dict[str, Any] = {field: 1}
    assert Usage(**one)
    assert not ZERO


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("usd", [0.5, "0.50", Decimal("0.5"), Decimal("0.5000004")])
def test_the_same_money_in_any_spelling_is_the_same_budget(usd: Any) -> None:
    """A number, a string and a Decimal are equal and come to the same micro-dollars."""
    assert Budget(usd=usd) == Budget(usd=0.5)
    assert Budget(usd=usd).microusd == 500_000


@pytest.mark.parametrize(("usd", "microusd"), [("0.0000005", 1), ("0.0000004", 0), (0.1, 100_000), (100, 100_000_000), (0, 0)])
def test_money_is_rounded_half_up_to_micro_dollars(usd: Any, microusd: int) -> None:
    """Binary fractions leave no trace, and half a micro-dollar is one."""
    assert Budget(usd=usd).microusd == microusd


@given(budgets)
def test_a_budget_survives_encoding(budget: Budget) -> None:
    """It is plain data in both formats, and comes back equal."""
    assert msgspec.json.decode(msgspec.json.encode(budget), type=Budget) == budget
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(budget), type=Budget) == budget


def test_a_budget_can_be_read_from_a_configuration_file() -> None:
    """What a TOML table holds is accepted: a whole number of seconds, dollars as a number or as a string."""
    read = msgspec.convert({"steps": 40, "usd": 0.5, "seconds": 900}, Budget)
    assert read == msgspec.convert({"steps": 40, "usd": "0.50", "seconds": 900.0}, Budget) == Budget(steps=40, usd=0.5, seconds=900)


@pytest.mark.parametrize("field", ["steps", "tokens", "usd", "seconds", "tool_calls"])
@pytest.mark.parametrize("value", [-1, True, "many", float("nan")])
def test_a_limit_that_makes_no_sense_is_named(field: str, value: Any) -> None:
    """A negative limit, or one that is no number, is a ConfigError that says which one."""
    with pytest.raises(ConfigError, match=rf"\b{field} is "):
        Budget(**{field: value})


def test_all_faults_of_a_budget_are_reported_at_once() -> None:
    """One run tells everything that has to be corrected."""
    with pytest.raises(ConfigError, match=r"steps is -1.*seconds is -2.*usd is Decimal\('Infinity'\)"):
        Budget(steps=-1, seconds=-2, usd=Decimal("Infinity"))


def test_raising_adds_and_leaves_unlimited_alone() -> None:
    """None stays no limit, and None in the raise adds nothing."""
    raised = Budget(steps=1, usd="0.1").raised(Budget(steps=2, tokens=5, usd=0.2))  # type: ignore[arg-type]
    assert raised == Budget(steps=3, usd=0.3)
    assert Budget(seconds=1.5, tool_calls=1).raised(Budget(seconds=1)) == Budget(seconds=2.5, tool_calls=1)


def test_a_budget_knows_whether_money_is_capped() -> None:
    """A limit of nothing is a limit too."""
    assert Budget(usd=0).caps_money
    assert not Budget(steps=1).caps_money


# ---------------------------------------------------------------- the ledger


def test_concurrent_reservations_cannot_overshoot_together() -> None:
    """Of siblings that would each fit alone, only as many as fit together are let through."""
    ledger = Ledger(Budget(tokens=1_000))
    assert [ledger.reserve(Usage(tokens=400)) is None for _ in range(4)] == [True, True, False, False]
    ledger.settle(Usage(tokens=400), Usage(tokens=100))
    assert ledger.reserve(Usage(tokens=400)) is None
    assert (ledger.used, ledger.reserved) == (Usage(tokens=100), Usage(tokens=800))


def test_what_fits_exactly_is_reserved() -> None:
    """A limit of n is n, not n - 1."""
    ledger = Ledger(Budget(steps=2))
    assert [ledger.reserve(Usage(steps=1)) is None for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("limits", "used", "held", "most", "text"),
    [
        (Budget(steps=40), Usage(steps=40), ZERO, Usage(steps=1), "steps: 40 of 40 used"),
        (Budget(tokens=200), Usage(tokens=150), ZERO, Usage(tokens=60), "tokens: 150 of 200 used, up to 60 needed"),
        (
            Budget(tokens=200),
            Usage(tokens=100),
            Usage(tokens=90),
            Usage(tokens=20),
            "tokens: 100 of 200 used, 90 reserved, up to 20 needed",
        ),
        (Budget(usd="0.50"), Usage(microusd=480_000), ZERO, Usage(microusd=50_000), "usd: 0.48 of 0.5 used, up to 0.05 needed"),  # type: ignore[arg-type]
        (Budget(seconds=900), Usage(seconds=900.5), ZERO, Usage(steps=1), "seconds: 900.5 of 900 used"),
        (Budget(seconds=100), ZERO, ZERO, Usage(seconds=200), "seconds: 0 of 100 used, up to 200 needed"),
        (Budget(tool_calls=0), ZERO, ZERO, Usage(tool_calls=1), "tool_calls: 0 of 0 used"),
    ],
)
def test_a_refusal_says_which_limit_is_in_the_way(limits: Budget, used: Usage, held: Usage, most: Usage, text: str) -> None:
    """The line names the limit, what is used, what is reserved, and what was asked for."""
    ledger = Ledger(limits, used)
    if held:
        assert ledger.reserve(held) is None
    assert ledger.reserve(most) == text


def test_a_refused_reservation_reserves_nothing() -> None:
    """A reservation that fits in one limit but not in another leaves both as they were."""
    ledger = Ledger(Budget(steps=10, tokens=10))
    assert ledger.reserve(Usage(steps=1, tokens=11)) is not None
    assert not ledger.reserved


def test_a_limit_that_is_passed_refuses_only_what_asks_for_it() -> None:
    """A tool call that needs no tokens still goes when a model call overshot its estimate."""
    ledger = Ledger(Budget(tokens=100, tool_calls=5), Usage(tokens=120))
    assert ledger.reserve(Usage(tokens=1)) is not None
    assert ledger.reserve(Usage(tool_calls=1)) is None


def test_nothing_is_reserved_once_the_time_is_used_up() -> None:
    """Every step takes time, also one that does not say how much."""
    ledger = Ledger(Budget(seconds=10))
    ledger.charge(Usage(seconds=10))
    assert ledger.reserve(Usage(steps=1)) == "seconds: 10 of 10 used"


def test_an_attempt_that_cost_more_than_its_most_is_charged_in_full() -> None:
    """The account shows what was spent, even past the limit."""
    ledger = Ledger(Budget(tokens=100))
    assert ledger.reserve(Usage(tokens=50)) is None
    ledger.settle(Usage(tokens=50), Usage(tokens=130))
    assert ledger.used == Usage(tokens=130)
    assert ledger.left() == Left(tokens=0)


def test_left_counts_reservations_and_has_none_for_no_limit() -> None:
    """What siblings hold is not left."""
    ledger = Ledger(Budget(steps=10, usd=1, seconds=60, tool_calls=3), Usage(1, 5, 250_000, 1.5, 1))
    assert ledger.reserve(Usage(2, 5, 250_000, 30.0, 1)) is None
    assert ledger.left() == Left(steps=7, usd=Decimal("0.5"), seconds=28.5, tool_calls=1)


def test_raising_the_budget_lets_a_refused_reservation_through() -> None:
    """A parked session goes on once it may."""
    ledger = Ledger(Budget(steps=1), Usage(steps=1))
    assert ledger.reserve(Usage(steps=1)) is not None
    ledger.raise_(Budget(steps=1))
    assert ledger.limits == Budget(steps=2)
    assert ledger.reserve(Usage(steps=1)) is None


def test_giving_back_more_than_is_reserved_is_an_error_and_changes_nothing() -> None:
    """The same reservation settled twice would hand out the same budget twice."""
    ledger = Ledger(Budget(steps=1))
    assert ledger.reserve(Usage(steps=1)) is None
    ledger.release(Usage(steps=1))
    with pytest.raises(ValueError, match="more given back than reserved"):
        ledger.settle(Usage(steps=1), Usage(steps=1))
    with pytest.raises(ValueError, match="more given back than reserved"):
        ledger.release(Usage(seconds=0.5))
    assert (ledger.used, ledger.reserved) == (ZERO, ZERO)


def test_credit_takes_back_and_never_more_than_was_used() -> None:
    """A credit that comes twice gives no more than the limits."""
    ledger = Ledger(Budget(steps=5), Usage(5, 100, 100, 2.0, 3))
    ledger.credit(Usage(3, 40, 60, 0.5, 1))
    assert ledger.used == Usage(2, 60, 40, 1.5, 2)
    ledger.credit(Usage(9, 99, 99, 9.0, 9))
    assert ledger.used == ledger.reserved == ZERO


def test_a_child_gets_its_part_or_all_that_is_left() -> None:
    """None in the part is what is left of a limit of the parent; what neither limits stays unlimited."""
    ledger = Ledger(Budget(steps=10, usd=1, seconds=90), Usage(steps=4, microusd=100_000))
    wanted = Budget(steps=3, tokens=500)
    assert ledger.carve(wanted) == Budget(steps=3, tokens=500, usd=0.9, seconds=90)
    assert ledger.part(wanted) == Usage(steps=3, tokens=500, microusd=900_000, seconds=90.0)


@given(budgets, amounts, budgets)
def test_a_part_that_is_reserved_keeps_the_parent_within_its_limits(limits: Budget, used: Usage, wanted: Budget) -> None:
    """A child that spends its whole part, or nothing, leaves the parent with what is due."""
    ledger = Ledger(limits, used)
    before, part = ledger.left(), ledger.part(wanted)
    if ledger.reserve(part) is not None:
        assert ledger.left() == before
        return
    held = ledger.left()
    ledger.settle(part, part)
    assert ledger.left() == held
    ledger.credit(part)
    assert ledger.left() == before


@given(budgets, st.lists(amounts, max_size=8))
def test_reservations_that_are_released_leave_no_trace(limits: Budget, wanted: list[Usage]) -> None:
    """Also in seconds, where float sums would drift."""
    ledger = Ledger(limits)
    granted = [most for most in wanted if ledger.reserve(most) is None]
    for most in reversed(granted):
        ledger.release(most)
    assert (ledger.used, ledger.reserved) == (ZERO, ZERO)


class LedgerMachine(RuleBasedStateMachine):
    """Any interleaving of steps that reserve, settle within what they reserved, and release."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(Budget(steps=12, tokens=900, usd=Decimal("0.009"), seconds=40, tool_calls=6))
        self.granted = 0

    @rule(target=held, most=amounts)
    def reserve(self, most: Usage) -> Usage:
        before = (self.ledger.used, self.ledger.reserved)
        refused = self.ledger.reserve(most)
        if refused is None:
            self.granted += 1
            return most
        assert refused.split(":")[0] in {"steps", "tokens", "usd", "seconds", "tool_calls"}
        assert (self.ledger.used, self.ledger.reserved) == before
        return ZERO

    @rule(most=consumes(held), share=st.floats(0, 1))
    def settle(self, most: Usage, share: float) -> None:
        self.ledger.settle(most, _part_of(most, share))

    @rule(most=consumes(held))
    def release(self, most: Usage) -> None:
        self.ledger.release(most)

    @rule(by=budgets)
    def raise_limits(self, by: Budget) -> None:
        self.ledger.raise_(by)

    @invariant()
    def nothing_is_over_its_limit(self) -> None:
        assert _over(self.ledger) == []
        reserved = self.ledger.reserved
        assert reserved == reserved.clamp()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=settings().max_examples // 2)
