"""The order in which sessions start after unclean ends finds the one that ends the process, and no other is parked for it."""

from __future__ import annotations

import random

import pytest

from holdfast.policies.culprit import FIRST_S, LONGEST_S, SUSPECT_FROM, Charged, Trial, culprits, together, trials

LIMIT = 5


class Node:
    """Lives of a process on one disk, as the policy sees them. Time passes only while sessions run.

    Args:
        names: all sessions, each in one long call.
        kills_s: the sessions that end the process, and how many seconds after they start.
        takes_s: how long the call of the others takes.
    """

    def __init__(self, names: list[str], kills_s: dict[str, float], takes_s: float) -> None:
        self.kills_s, self.takes_s = kills_s, takes_s
        self.disk = {name: Charged(name) for name in names}
        self.parked: list[str] = []
        self.lives = 0

    def live(self) -> bool:
        """One life after an unclean end; whether the process survives it."""
        self.lives += 1
        charged, begun, dies_at, now = list(self.disk.values()), dict[str, float](), float("inf"), 0.0
        guilty, plan, clean = culprits(charged), trials(charged), True
        assert sorted(id for trial in plan for id in trial.sessions) == sorted(self.disk)
        while plan:
            trial = plan.pop(0)
            for id in trial.sessions:
                known = self.disk[id] = Charged(id, self.disk[id].crashes + 1, self.disk[id].passes, trial.alone and clean)
                if known.crashes >= LIMIT and id in guilty:
                    self.parked.append(id)
                    del self.disk[id]
                    plan = together(plan)
                    continue
                begun[id] = now
                dies_at = min(dies_at, now + self.kills_s.get(id, float("inf")))
            ends = [0.0 if id not in begun else begun[id] + self.takes_s for id in trial.sessions]
            late = now + trial.seconds
            slow = any(id in self.kills_s for id in trial.sessions)
            now = max(now, min(late, late if slow and trial.sessions[0] in begun else max(ends)))
            if now >= dies_at:
                now = dies_at
            self._finish(begun, now)
            if now == dies_at:
                return False
            for id in trial.sessions:
                if id in self.disk and trial.suspects:
                    self.disk[id] = Charged(id, self.disk[id].crashes, self.disk[id].passes + 1)
                    clean = False
        if dies_at < float("inf"):
            self._finish(begun, dies_at)
            return False
        return True

    def _finish(self, begun: dict[str, float], now: float) -> None:
        for id, at in begun.items():
            if id in self.disk and id not in self.kills_s and now - at >= self.takes_s:
                del self.disk[id]


@pytest.mark.parametrize("seed", range(60))
def test_every_killer_is_found_and_only_killers_are_parked(seed: int) -> None:
    """One to three of up to 300 sessions, early or late killers, long or short calls: about as many ends as halves, and the limit."""
    chance = random.Random(seed)
    names = [f"s{n}" for n in range(chance.choice([1, 2, 3, 7, 21, 300]))]
    killers = chance.sample(names, min(chance.choice([1, 1, 2, 3]), len(names)))
    kills_s = {name: chance.choice([0.0, 0.5, 20.0, 50.0]) for name in killers}
    node = Node(names, kills_s, chance.choice([1.0, 30.0, 3600.0]))
    while not node.live():
        assert node.lives < 60, f"{node.parked} of {kills_s} found"
    assert sorted(node.parked) == sorted(killers)


def test_a_killer_that_takes_longer_than_a_trial_is_found_by_longer_trials() -> None:
    """A leak that ends the process after minutes: an end that tells nothing makes the next trials longer."""
    node = Node([f"s{n}" for n in range(10)], {"s7": 200.0}, 3600.0)
    while not node.live():
        assert node.lives < 60
    assert node.parked == ["s7"]


def test_the_first_ends_hold_no_session_back() -> None:
    """A power failure, or a `kill -9`, has no culprit: all start at once."""
    charged = [Charged(f"s{n}", n % SUSPECT_FROM) for n in range(10_000)]
    assert trials(charged) == [Trial(tuple(one.id for one in charged), FIRST_S)]
    assert trials([]) == []


def test_those_that_got_on_start_first_and_the_most_suspect_are_tried_in_halves() -> None:
    """Two groups for each number of charges, the highest first."""
    charged = [Charged("free"), Charged("a", 2), Charged("x", 3), Charged("y", 3), Charged("z", 3), Charged("b", 2), Charged("new", 1)]
    assert [trial.sessions for trial in trials(charged)] == [("free", "new"), ("x", "y"), ("z",), ("a",), ("b",)]
    assert [trial.alone for trial in trials(charged)] == [False, False, True, True, True]


def test_a_trial_lasts_twice_as_long_after_each_end_up_to_a_bound() -> None:
    """With a number of charges past any float, too."""
    assert [trials([Charged("s", n)])[0].seconds for n in (2, 3, 4, 90, 10_000)] == [
        FIRST_S,
        2 * FIRST_S,
        4 * FIRST_S,
        LONGEST_S,
        LONGEST_S,
    ]


def test_a_session_is_a_culprit_where_it_was_tried_alone_or_alone_had_work() -> None:
    """Charges that it shares with others prove nothing."""
    shared = [Charged("a", 9), Charged("b", 9)]
    assert culprits(shared) == frozenset()
    assert culprits([*shared, Charged("c", 9, 4, alone=True)]) == {"c"}
    assert culprits([Charged("a")]) == {"a"}
