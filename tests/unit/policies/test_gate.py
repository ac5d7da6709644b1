"""What gates answer."""

from __future__ import annotations

from holdfast.policies import GO, Go, Verdict, Wait


def _say(verdict: Verdict) -> str:
    match verdict:
        case Go():
            return "go"
        case Wait(until=until, reason=reason):
            return f"wait until {until:g}: {reason}"


def test_each_verdict_can_be_matched_and_carries_its_data() -> None:
    """A verdict is one of two shapes, told apart by pattern matching."""
    assert _say(GO) == "go"
    assert _say(Wait(3.0, "open")) == "wait until 3: open"


def test_go_equals_the_one_go() -> None:
    """Comparing with another instance is no trap."""
    assert Go() == GO
