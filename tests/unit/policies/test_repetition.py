"""Agents that go round in circles."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.policies import Repetition, RepetitionSpec

words = st.lists(st.sampled_from("abcde"), max_size=60)
specs = st.builds(RepetitionSpec, same=st.integers(1, 6), window=st.integers(6, 15), cycle_max=st.integers(0, 5), cycles=st.integers(2, 4))


def _play(calls: str | list[str], spec: RepetitionSpec | None = None) -> list[str | None]:
    repetition = Repetition(spec or RepetitionSpec())
    return [repetition.before(name, name.encode()) for name in calls]


def _expect(spec: RepetitionSpec, made: list[str], call: str) -> bool:
    """Whether the call is to be refused, straight from the definition."""
    recent = made[-(spec.window - 1) :] if spec.window > 1 else []
    if recent.count(call) >= spec.same:
        return True
    for period in range(2, spec.cycle_max + 1):
        length = period * spec.cycles
        tail = made[-length:]
        periodic = len(tail) == length and all(tail[at] == tail[at + period] for at in range(length - period))
        if periodic and tail[-period] == call and len(set(tail[-period:])) > 1:
            return True
    return False


def test_the_same_call_is_refused_when_it_was_made_too_often() -> None:
    """Eight go, the ninth does not, and the text says what to look at."""
    verdicts = _play("a" * 10)
    assert verdicts[:8] == [None] * 8
    assert verdicts[8] == verdicts[9] == "a was called 8 times with the same arguments within the last 40 calls"


def test_the_same_name_with_other_arguments_is_another_call() -> None:
    """Paging through results is no loop."""
    repetition = Repetition(RepetitionSpec())
    assert all(repetition.before("page", str(page).encode()) is None for page in range(200))


def test_the_same_arguments_to_another_tool_are_another_call() -> None:
    """The digest is of the arguments only."""
    repetition = Repetition(RepetitionSpec(same=1))
    assert repetition.before("a", b"x") is None
    assert repetition.before("b", b"x") is None
    assert repetition.before("a", b"x") is not None


def test_calls_that_left_the_window_are_forgotten() -> None:
    """An agent that lives for weeks may look something up each day."""
    spec = RepetitionSpec(same=2, window=5)
    assert _play("a12a3a45a", spec) == [None] * 9
    assert _play("aa1a", spec)[-1] is not None


def test_a_cycle_is_refused_when_it_begins_once_more() -> None:
    """Four rounds go, the first call of the fifth does not; the cycle is spelt out."""
    verdicts = _play("abc" * 4 + "a")
    assert verdicts[:12] == [None] * 12
    assert verdicts[12] == "the cycle a, b, c ran 4 times with the same arguments"


def test_a_cycle_is_found_after_any_beginning() -> None:
    """What came before does not hide it."""
    verdicts = _play("xyz" + "ab" * 4 + "a")
    assert verdicts[:-1] == [None] * 11
    assert verdicts[-1] == "the cycle a, b ran 4 times with the same arguments"


def test_another_call_breaks_the_cycle() -> None:
    """What would begin the fifth round is refused; something new goes, and the count starts over."""
    repetition = Repetition(RepetitionSpec(same=40))
    verdicts = [repetition.before(name, b"") for name in "ab" * 4 + "aac" + "ab" * 4 + "a"]
    assert [at for at, text in enumerate(verdicts) if text] == [8, 9, 19]


def test_a_cycle_that_is_longer_than_looked_for_goes() -> None:
    """Only short cycles are a sign of going round; the number of identical calls still counts."""
    assert _play("abcde" * 8) == [None] * 40


def test_one_call_over_and_over_is_no_cycle() -> None:
    """A higher `same` is not undone by the search for cycles."""
    assert _play("a" * 20, RepetitionSpec(same=20)) == [None] * 20


def test_refusals_in_a_row_are_counted() -> None:
    """So that an agent that goes on all the same can be stopped."""
    repetition = Repetition(RepetitionSpec(same=1))
    seen = []
    for name in "aaaba":
        repetition.before(name, b"")
        seen.append(repetition.refused)
    assert seen == [0, 1, 2, 0, 1]


def test_cleared_it_starts_anew() -> None:
    """Nothing is left of what was noted."""
    repetition = Repetition(RepetitionSpec(same=1))
    assert repetition.before("a", b"") is None
    repetition.clear()
    assert repetition.before("a", b"") is None


@given(specs, words)
def test_each_verdict_is_the_one_that_the_definition_gives(spec: RepetitionSpec, calls: list[str]) -> None:
    """The counters agree with a search through the whole history."""
    repetition, made = Repetition(spec), list[str]()
    for call in calls:
        refused = repetition.before(call, call.encode()) is not None
        assert refused == _expect(spec, made, call)
        if not refused:
            made.append(call)


@given(specs, words, st.integers(0, 60))
def test_a_resumed_turn_gets_the_verdicts_of_one_that_ran_through(spec: RepetitionSpec, calls: list[str], cut: int) -> None:
    """The records of what ran, noted again, lead to the same place."""
    through = Repetition(spec)
    verdicts = [through.before(call, call.encode()) for call in calls]
    resumed = Repetition(spec)
    for call, refusal in zip(calls[:cut], verdicts[:cut], strict=True):
        if refusal is None:
            resumed.note(call, call.encode())
    assert [resumed.before(call, call.encode()) for call in calls[cut:]] == verdicts[cut:]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"same": 0}, "same is 0"),
        ({"cycles": 1}, "cycles is 1"),
        ({"cycle_max": -1}, "cycle_max is -1"),
        ({"window": 0}, "window is 0"),
        ({"window": 5}, "window is 5: it has to be at least same"),
        ({"same": 0, "cycles": "x"}, "same is 0.*cycles is 'x'"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(fields: dict[str, Any], text: str) -> None:
    """Every field that is wrong is named."""
    with pytest.raises(ConfigError, match=text):
        RepetitionSpec(**fields)
