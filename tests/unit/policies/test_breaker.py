"""The breaker."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.errors import ConfigError
from holdfast.policies import GO, Breaker, BreakerSpec, Wait

SPEC = BreakerSpec(window=10, minimum=4, failure_ratio=0.5, open_s=60.0, open_max_s=200.0, half_open_calls=3)


def _call(breaker: Breaker, ok: bool | None, now: float = 0.0) -> None:
    assert breaker.before(now) is GO
    breaker.after(now, ok, breaker.generation)


def _opened(spec: BreakerSpec = SPEC, now: float = 0.0, name: str = "") -> Breaker:
    breaker = Breaker(spec, name)
    while breaker.state == "closed":
        _call(breaker, False, now)
    return breaker


def _let_through(breaker: Breaker, now: float) -> list[int]:
    """The generations of the calls that it lets through now."""
    calls = []
    while breaker.before(now) is GO:
        calls.append(breaker.generation)
    return calls


def _fail_half_open(breaker: Breaker, now: float) -> None:
    assert breaker.before(now) is GO
    while breaker.state == "half_open":
        breaker.after(now, False, breaker.generation)
        if breaker.state == "half_open":
            assert breaker.before(now) is GO


def test_it_opens_at_the_ratio_and_not_before_the_minimum() -> None:
    """Three failures of three are too few calls; the fourth call makes it enough."""
    breaker = Breaker(SPEC)
    for _ in range(3):
        _call(breaker, False)
        assert breaker.state == "closed"
    _call(breaker, True)
    assert (breaker.state, breaker.openings) == ("open", 1)


def test_calls_before_the_first_failure_count_towards_the_ratio() -> None:
    """Nothing is kept of good calls but their number, and the share is still right."""
    breaker = Breaker(SPEC)
    for _ in range(100):
        _call(breaker, True)
    for _ in range(4):
        _call(breaker, False)
    assert breaker.state == "closed"
    _call(breaker, False)
    assert breaker.state == "open"


def test_an_open_breaker_says_until_when_and_why() -> None:
    """The reason names what it guards and what went wrong."""
    breaker = _opened(now=10.0, name="openai")
    assert breaker.before(69.9) == Wait(70.0, "breaker 'openai' open: 4 of 4 calls failed")


def test_exactly_so_many_calls_pass_when_half_open() -> None:
    """Of twenty calls at once, `half_open_calls` pass, and the others wait."""
    breaker = _opened()
    verdicts = [breaker.before(60.0) for _ in range(20)]
    assert [verdict is GO for verdict in verdicts] == [True] * 3 + [False] * 17
    assert verdicts[3] == Wait(61.0, "breaker half open: waits for its 3 half-open calls")
    breaker.after(60.0, True, breaker.generation)
    assert isinstance(breaker.before(60.0), Wait), "a half-open call that has ended is still one of the three"


def test_half_open_calls_that_succeed_close_it_once_all_have_ended() -> None:
    """Not before the last one."""
    breaker = _opened()
    for at in range(3):
        assert breaker.before(60.0) is GO
        assert breaker.state == "half_open", at
        breaker.after(60.0, True, breaker.generation)
    assert breaker.state == "closed"


def test_it_opens_again_as_soon_as_the_half_open_calls_cannot_close_it() -> None:
    """Two of three failed: the third is not awaited, and says nothing when it ends."""
    breaker = _opened()
    calls = _let_through(breaker, 60.0)
    breaker.after(61.0, False, calls[0])
    assert breaker.state == "half_open"
    breaker.after(62.0, False, calls[1])
    assert (breaker.state, breaker.openings, breaker.until) == ("open", 2, 62.0 + 120.0)
    breaker.after(63.0, True, calls[2])
    assert breaker.state == "open"


def test_a_half_open_call_that_never_ends_is_replaced_after_a_time() -> None:
    """Calls that were lost (a thread that hangs, a process that is gone) do not keep it half-open for ever; no call is replaced twice."""
    breaker = _opened()
    lost = _let_through(breaker, 60.0)
    assert isinstance(breaker.before(60.0 + 59.9), Wait)
    others = _let_through(breaker, 60.0 + 60.0)
    assert len(lost) == len(others) == 3
    for call in others:
        breaker.after(121.0, True, call)
    assert breaker.state == "closed"


def test_a_half_open_call_that_is_slow_but_good_closes_it_all_the_same() -> None:
    """Calls that take longer than an opening no longer keep others back, and their outcomes count."""
    breaker = _opened()
    slow = _let_through(breaker, 60.0)
    _let_through(breaker, 120.0)
    breaker.after(121.0, None, slow[0])
    assert breaker.state == "half_open"
    for call in slow:
        breaker.after(190.0, True, call)
    assert breaker.state == "closed"


def test_slow_calls_that_succeed_never_open_it() -> None:
    """A call takes as long as it takes: only failures count."""
    breaker = Breaker(SPEC)
    for at in range(100):
        assert breaker.before(at * 600.0) is GO
        breaker.after((at + 1) * 600.0, True, breaker.generation)
    assert breaker.state == "closed"


@pytest.mark.parametrize(("retry_after_s", "opening_s"), [(120.0, 120.0), (86_400.0, 200.0), (1.0, 60.0), (None, 60.0)])
def test_an_opening_lasts_as_long_as_the_dependency_asked_to_wait(retry_after_s: float | None, opening_s: float) -> None:
    """Also over a restart, from `open_s` to `open_max_s`: one answer must not keep all calls back for a day."""
    breaker = Breaker(SPEC)
    for _ in range(4):
        breaker.blame("RateLimitError: slow down", 429, None if retry_after_s is None else 10.0 + retry_after_s)
        breaker.after(10.0, False, breaker.generation)
    assert breaker.until == 10.0 + opening_s
    assert Breaker.restore(SPEC, json.loads(json.dumps(breaker.snapshot())), now=10.0).until == 10.0 + opening_s
    assert breaker.before(11.0) == Wait(breaker.until, "breaker open: 4 of 4 calls failed; last error: HTTP 429 RateLimitError: slow down")


def test_a_clock_that_was_set_back_does_not_keep_lost_half_open_calls() -> None:
    """A call that seems to begin in the future is replaced."""
    breaker = _opened()
    _let_through(breaker, 60.0)
    assert len(_let_through(breaker, 10.0)) == 3


def test_people_see_the_last_failure_also_once_it_is_closed_and_restored() -> None:
    """Its text and HTTP status are part of the view and of the snapshot."""
    breaker = _opened()
    breaker.blame("APIStatusError: no", 503, None)
    for _ in range(3):
        _call(breaker, True, 60.0)
    view = Breaker.restore(SPEC, json.loads(json.dumps(breaker.snapshot()))).view()
    assert (view.state, view.cause, view.error, view.status) == ("closed", "", "APIStatusError: no", 503)


def test_a_snapshot_of_an_older_version_is_restored() -> None:
    """Without the last failure."""
    stored = {"state": "closed", "generation": 3, "openings": 1, "until": 0.0, "cause": "", "marks": "011"}
    assert Breaker.restore(SPEC, stored).view().error == ""


def test_it_has_something_to_remember_from_the_first_failure_on() -> None:
    """A window without a failure is not worth a write."""
    breaker = Breaker(SPEC)
    _call(breaker, True)
    assert not breaker.remembers
    _call(breaker, False)
    assert breaker.remembers


def test_a_cancelled_half_open_call_gives_its_permit_back() -> None:
    """Another call passes in its place, and still exactly three decide."""
    breaker = _opened()
    for _ in range(3):
        assert breaker.before(60.0) is GO
    breaker.after(60.0, None, breaker.generation)
    assert breaker.before(60.0) is GO
    assert isinstance(breaker.before(60.0), Wait)


def test_a_call_from_before_the_opening_is_no_half_open_call() -> None:
    """Its end, good, bad or cancelled, changes nothing of a half-open breaker."""
    breaker = Breaker(SPEC)
    assert breaker.before(0.0) is GO
    early = breaker.generation
    while breaker.state == "closed":
        _call(breaker, False)
    breaker.after(1.0, False, early)
    for _ in range(3):
        assert breaker.before(60.0) is GO
    for ok in (False, False, True, None):
        breaker.after(61.0, ok, early)
    assert breaker.state == "half_open"
    assert isinstance(breaker.before(61.0), Wait)


def test_openings_in_a_row_last_twice_as_long_up_to_the_maximum() -> None:
    """60, 120, then the maximum of 200 seconds."""
    breaker = _opened()
    lengths = [breaker.until]
    for _ in range(3):
        now = breaker.until
        _fail_half_open(breaker, now)
        lengths.append(breaker.until - now)
    assert lengths == [60.0, 120.0, 200.0, 200.0]


def test_openings_are_forgotten_after_a_whole_window_that_went_well() -> None:
    """Closing alone does not forget them, so a breaker that flaps waits longer each time."""
    breaker = _opened()
    for _ in range(3):
        _call(breaker, True, 60.0)
    assert (breaker.state, breaker.openings) == ("closed", 1)
    for _ in range(9):
        _call(breaker, True, 61.0)
    assert breaker.openings == 1
    _call(breaker, True, 61.0)
    assert breaker.openings == 0


def test_openings_are_forgotten_also_when_some_calls_of_the_window_failed() -> None:
    """Well enough not to open is well."""
    breaker = _opened()
    for _ in range(3):
        _call(breaker, True, 60.0)
    for at in range(10):
        _call(breaker, at % 3 != 1, 61.0)
    assert (breaker.state, breaker.openings) == ("closed", 0)


def test_it_is_spent_after_so_many_openings_in_a_row() -> None:
    """Without kill_after it never is."""
    spec = BreakerSpec(window=10, minimum=4, half_open_calls=3, kill_after=2)
    breaker = _opened(spec)
    assert not breaker.spent()
    _fail_half_open(breaker, 60.0)
    assert breaker.spent()
    forever = _opened()
    for _ in range(5):
        _fail_half_open(forever, forever.until)
    assert not forever.spent()


def test_the_minimum_is_never_more_than_the_window() -> None:
    """A small window alone is enough to configure a quick breaker."""
    breaker = Breaker(BreakerSpec(window=2))
    _call(breaker, False)
    _call(breaker, False)
    assert breaker.state == "open"


def test_a_thousand_openings_do_not_overflow() -> None:
    """The doubling stops at the maximum, also for a float."""
    breaker = _opened(BreakerSpec(window=1, half_open_calls=1, open_s=1e-9))
    for _ in range(1_100):
        _fail_half_open(breaker, breaker.until)
    assert breaker.openings == 1_101


@pytest.mark.parametrize(
    "field",
    ["window", "minimum", "failure_ratio", "open_s", "open_max_s", "half_open_calls", "kill_after"],
)
def test_a_field_that_makes_no_sense_is_named(field: str) -> None:
    """Zero is wrong everywhere."""
    wrong: dict[str, Any] = {field: 0}
    with pytest.raises(ConfigError, match=rf"BreakerSpec: {field} is 0"):
        BreakerSpec(**wrong)


def test_all_faults_of_a_spec_are_reported_at_once() -> None:
    """One run tells everything that has to be corrected."""
    with pytest.raises(ConfigError, match=r"window is -1.*failure_ratio is 1\.5.*open_s is inf"):
        BreakerSpec(window=-1, failure_ratio=1.5, open_s=float("inf"))


# ---------------------------------------------------------------- snapshots


@given(st.lists(st.booleans(), max_size=40), st.lists(st.booleans(), max_size=20))
def test_a_restored_breaker_goes_on_as_the_one_that_was_stored(first: list[bool], then: list[bool]) -> None:
    """The snapshot is plain data and holds the whole window."""
    breaker = Breaker(SPEC)
    for ok in first:
        if breaker.before(0.0) is GO:
            breaker.after(0.0, ok, breaker.generation)
    other = Breaker.restore(SPEC, json.loads(json.dumps(breaker.snapshot())))
    for ok in then:
        assert other.snapshot()["state"] == breaker.state
        for each in (breaker, other):
            if each.before(0.0) is GO:
                each.after(0.0, ok, each.generation)
        assert (other.state, other.until, other.openings) == (breaker.state, breaker.until, breaker.openings)


def test_a_restored_half_open_breaker_has_all_its_calls() -> None:
    """The half-open calls in flight died with the process; one that ends all the same does not count."""
    breaker = _opened()
    assert breaker.before(60.0) is GO
    other = Breaker.restore(SPEC, breaker.snapshot())
    assert other.generation != breaker.generation
    assert [other.before(60.0) is GO for _ in range(4)] == [True, True, True, False]


def test_a_stored_opening_far_ahead_is_cut_to_its_own_length() -> None:
    """A clock that was wrong cannot keep a session parked for a year."""
    stored = _opened(now=1e9).snapshot()
    assert Breaker.restore(SPEC, stored, now=100.0).until == 160.0
    assert Breaker.restore(SPEC, {**stored, "openings": 2}, now=100.0).until == 220.0
    assert Breaker.restore(SPEC, {**stored, "openings": 9}, now=100.0).until == 300.0


def test_an_opening_whose_length_has_passed_is_over_whatever_the_clock_reads() -> None:
    """The clock was set back meanwhile; an opening that lasts longer than its owner has waited stays."""
    breaker = _opened(now=1e9)
    breaker.has_waited(1e9 + 59.0, 100.0)
    assert isinstance(breaker.before(100.0), Wait)
    breaker.has_waited(1e9 + 60.0, 100.0)
    assert breaker.before(100.0) is GO


def test_a_smaller_window_takes_the_last_calls() -> None:
    """Limits can change under a breaker that lives on."""
    breaker = Breaker(BreakerSpec(window=10, minimum=10))
    for ok in (False, False, False, True, True, True, True, True, True):
        _call(breaker, ok)
    other = Breaker.restore(BreakerSpec(window=6, minimum=1, failure_ratio=0.3), breaker.snapshot())
    _call(other, False)
    assert other.state == "closed"
    _call(other, False)
    assert other.state == "open"


# ---------------------------------------------------------------- any order of events


class BreakerMachine(RuleBasedStateMachine):
    """Calls that start, end and are cancelled in any order, against a plain model of the window."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(SPEC)
        self.now = 0.0
        self.calls: list[tuple[int, str, float]] = []
        self.window: deque[bool] = deque(maxlen=SPEC.window)
        self.half_open_ended = 0
        self.half_open_since = 0
        self.replaced: set[int] = set()

    def _out(self) -> list[tuple[int, str, float]]:
        return [call for call in self.calls if call[0] > self.half_open_since and call[1] == "half_open" and call[0] not in self.replaced]

    @rule()
    def start(self) -> None:
        was, generation = self.breaker.state, self.breaker.generation
        verdict = self.breaker.before(self.now)
        if was == "open" and self.breaker.state == "half_open":
            assert self.now >= self.breaker.until
            self.half_open_ended, self.half_open_since = 0, generation
        if was == "closed":
            assert verdict is GO
        if verdict is GO:
            self.calls.append((self.breaker.generation, self.breaker.state, self.now))
            if self.breaker.state == "half_open" and len(self._out()) + self.half_open_ended > SPEC.half_open_calls:
                oldest = self._out()[0]  # too old: this one is in its place
                assert self.now - oldest[2] >= SPEC.open_s
                self.replaced.add(oldest[0])
        else:
            assert isinstance(verdict, Wait)
            assert verdict.until > self.now

    @rule(seconds=st.floats(0.1, 90))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), ok=st.sampled_from([True, True, False, False, None]))
    def end(self, data: st.DataObject, ok: bool | None) -> None:
        at = data.draw(st.integers(0, len(self.calls) - 1))
        before, half_open = self.breaker.snapshot(), self.breaker.state == "half_open" and self.calls[at][0] > self.half_open_since
        generation, state, _ = self.calls.pop(at)
        counts = (half_open or (state == "closed" and generation == self.breaker.generation)) and ok is not None
        self.breaker.after(self.now, ok, generation)
        if not counts or ok is None:
            assert self.breaker.snapshot() == before, "a stale or cancelled call changed something"
        elif state == "half_open":
            self.half_open_ended += 1
            assert self.half_open_ended <= SPEC.half_open_calls
            if self.breaker.state == "closed":
                assert self.half_open_ended == SPEC.half_open_calls
                self.window.clear()
        else:
            self.window.append(ok)
            failed = sum(not fine for fine in self.window)
            size = len(self.window)
            opens = size >= SPEC.minimum and failed >= size * SPEC.failure_ratio
            assert self.breaker.state == ("open" if opens else "closed")
            if opens:
                self.window.clear()

    @invariant()
    def never_more_half_open_calls_than_allowed(self) -> None:
        if self.breaker.state == "half_open":
            assert len(self._out()) <= SPEC.half_open_calls


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=settings().max_examples // 2)
