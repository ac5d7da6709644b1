"""What gates answer."""

from __future__ import annotations

from holdfast.errors import StepError
from holdfast.policies import GO, Go, Refuse, Verdict, Wait


def _say(verdict: Verdict) -> str:
    match verdict:
        case Go():
            return "go"
        case Wait(until=until, reason=reason):
            return f"wait until {until:g}: {reason}"
        case Refuse(error=error):
            return f"refuse: {error.type}"


def test_each_verdict_can_be_matched_and_carries_its_data() -> None:
    """A verdict is one of three shapes, told apart by pattern matching."""
    assert _say(GO) == "go"
    assert _say(Wait(3.0, "open")) == "wait until 3: open"
    assert _say(Refuse(StepError("s", "T", "m"))) == "refuse: T"


def test_go_equals_the_one_go() -> None:
    """Comparing with another instance is no trap."""
    assert Go() == GO
