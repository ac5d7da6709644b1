"""The open turn's records: found by content, each claimed once, and summed into the turn's cost.

A step's identity is its branch, kind, name, the digest of its arguments, and how many such came before it in the branch. Its place in a
global order is no part of it, so branches may interleave in any way.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from holdfast.policies.budget import ZERO, Usage
from holdfast.runtime.turns.branches import Branch, enclosing, inside_of
from holdfast.runtime.turns.order import Order
from holdfast.runtime.turns.trailing import trailing
from holdfast.runtime.turns.unclaimed import Group, Unclaimed
from holdfast.stores.records import Step, StepRecord, StepState, in_doubt

OPEN, CLOSED, FAILED, DOUBT, WAITING = StepState
_ENDED = (CLOSED, FAILED)
_BY_PLACE = ("now", "spawn")
"""Kinds of steps whose arguments do not distinguish them: the line of code that asks is part of their identity."""


class Claim(msgspec.Struct, eq=False):
    """A step's place in the journal: its identity, and the record found for it, if any.

    Attributes:
        started: kind and name, once StepStarted was emitted for it.
    """

    branch: Branch
    digest: bytes
    nth: int
    key: bytes
    step: Step | None = None
    overlapped: bool = False
    strayed: bool = False
    started: tuple[str, str] | None = None


class Effects(NamedTuple):
    """The names of a turn's idempotent and once effects, by outcome."""

    done: tuple[str, ...]
    in_doubt: tuple[str, ...]
    failed: tuple[str, ...]


class Journal:
    """The records of one session's open turn.

    `put` is called when a write is acknowledged, so memory holds what the store holds. `rewind` starts another run of the handler
    over the same records.

    Attributes:
        order: the order of the outcomes.
        left: the records that the code has not asked for in this run.
    """

    __slots__ = ("_answered", "_below", "_groups", "_once", "_open", "left", "order", "records")

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self.records: dict[bytes, Step] = {}
        self.order = Order()
        self._once: dict[tuple[str, bytes], list[bytes]] = {}
        self._below: dict[str, set[bytes]] = {}
        self._open: dict[bytes, None] = {}  # the keys of records without an outcome, in order
        for step in steps:
            self.put(step)
            self.order.known(step.record)
        self.rewind()

    def rewind(self) -> None:
        """Clear all claims: every record can be claimed again."""
        self.left: dict[bytes, Step] = dict(self.records)
        self._answered: dict[bytes, None] = {}
        self.order.rewind(self.left)
        self._groups: dict[Group, Unclaimed] | None = None

    def _first(self, group: Group, value: Hashable) -> Step | None:
        """The oldest unclaimed record of a group: most turns never look for one."""
        if self._groups is None:
            self._groups = {}
        unclaimed = self._groups.get(group)
        if unclaimed is None:
            unclaimed = self._groups[group] = Unclaimed(self.left, group)
        return unclaimed.first(value)

    # ------------------------------------------------------------ claiming

    def claim(self, branch: Branch, kind: str, name: str, args: bytes) -> Claim:
        """The next step of this identity, with its record if it has one."""
        branch.asked = True
        place = branch.path + branch.line if kind in _BY_PLACE else branch.path
        digest = blake2b(f"{place}\0{kind}\0{name}\0".encode() + args, digest_size=14).digest()
        nth = branch.nth.get(digest, 0)
        branch.nth[digest] = nth + 1
        key = digest + nth.to_bytes(3, "big")
        return Claim(branch, digest, nth, key, self._claimed(key) if self.left else None)

    def _claimed(self, key: bytes) -> Step | None:
        """Take a record out of those that can be claimed, and wake those that wait for the claim."""
        step = self.left.pop(key, None)
        if self.order.claim_waiters:
            self.order.claimed()
        return step

    def claim_below(self, step: Step) -> list[Step]:
        """Claim the records of the steps inside an ended step, too; returns them."""
        keys = self._below.get(inside_of(step.record.branch, step.key), ())
        return [each for key in keys if (each := self._claimed(key)) is not None]

    def reopen(self, path: str) -> list[Step]:
        """The function of a step runs again: the records inside it can be claimed again. Returns their failures that no record follows."""
        steps = [step for step in self.records.values() if step.record.branch.startswith(path)]
        self.left.update((step.key, step) for step in steps)
        self.order.reopened()
        self._groups = None
        for step in steps:
            self._answered.pop(step.key, None)
        return trailing(steps, self.order.place_of)

    def drift(self, claim: Claim, kind: str, name: str) -> Step | None:
        """The oldest unclaimed record of the same branch, kind and name: the code asked for it before the crash in place of this step.

        Records of steps that ran at once with others of their branch are left out: their order has no meaning. A record with the same
        digest comes first: a record before it was lost. This does not claim it.
        """
        path = claim.branch.path
        return self._first(_digest_of, (path, claim.digest)) or self._first(_name_of, (path, kind, name))

    def astray(self, branch: Branch) -> bool:
        """Whether a line of code diverged from its records: some unclaimed ones come before the step that it asks for now."""
        return self._first(_line_of, (branch.path, branch.line)) is not None

    def passed_over(self, branch: Branch) -> Step | None:
        """An unclaimed effect, done or in doubt, that comes before the step that the same line of code asks for now; in the handler's own
        tasks, a `once` effect."""
        return self._first(_effects_of, (branch.path, branch.line))

    def take(self, claim: Claim, step: Step) -> None:
        """Let `claim` have a record of another identity (drift)."""
        self._claimed(step.key)
        claim.step, claim.key = step, step.key

    def twins(self, name: str, args: bytes, key: bytes, path: str) -> list[Step]:
        """The `once` steps of this turn that are the same effect as the step `key` in the branch `path`; not those that it runs inside."""
        keys = self._once.get((name, args), ())
        return [self.records[each] for each in keys if each != key and each.hex() not in path]

    def answer_again(self, step: Step) -> bool:
        """Let the record of an effect that its caller cancelled answer for a later one of the same; False where it did already."""
        if step.key in self._answered:
            return False
        self._answered[step.key] = None
        return True

    # ------------------------------------------------------------ writes

    def put(self, step: Step) -> None:
        """A record was written."""
        key, record = step.key, step.record
        if key not in self.records:
            if record.effect == "once":
                self._once.setdefault((record.name, record.args), []).append(key)
            if record.branch:
                for path in enclosing(record.branch):
                    self._below.setdefault(path, set()).add(key)
        self.records[key] = step
        if step.state not in _ENDED:
            self._open[key] = None
        elif self._open:
            self._open.pop(key, None)

    def drop(self, keys: Iterable[bytes]) -> None:
        """Records were dropped: their steps have no record any more."""
        for key in keys:
            step = self.records.pop(key, None)
            self._open.pop(key, None)
            self._claimed(key)
            if step is None:
                continue
            self.order.unwritten.extend(step.record.heard)  # the next record has them again
            if step.record.effect == "once":
                self._once[step.record.name, step.record.args].remove(key)
            for path in enclosing(step.record.branch):
                self._below[path].discard(key)

    # ------------------------------------------------------------ views

    @property
    def clean(self) -> bool:
        """Whether no record is in doubt, and none is a failure."""
        return not self.in_doubt() and all(step.state is not FAILED for step in self.records.values())

    @property
    def nested(self) -> bool:
        """Whether it has records of steps inside other steps."""
        return bool(self._below)

    def in_doubt(self) -> list[Step]:
        """Effects whose outcome is unknown, while the handler does not run."""
        return [step for key in self._open if in_doubt(step := self.records[key])]

    def unended(self) -> list[Step]:
        """Records of steps that are under way or wait, without effects in doubt."""
        return [step for key in self._open if not in_doubt(step := self.records[key])]

    def strayed(self) -> list[Step]:
        """The reads recorded after the code had diverged from its records."""
        return [step for step in self.records.values() if step.record.strayed and step.record.effect == "read"]

    def trailing_failures(self) -> list[Step]:
        """The failures that no record follows, without those that a person decided. They are dropped when the turn restarts, so that a
        dependency that was down is called again. Records of sibling branches, and of the steps inside the failed one, do not follow it."""
        return trailing(self.records.values(), self.order.place_of)

    def spent(self) -> Usage:
        """The cost of the turn so far; an attempt that was never closed counts in full."""
        steps = tokens = microusd = tool_calls = 0
        seconds = 0.0
        for step in self.records.values():
            used = step.record.used
            steps += used.steps
            tokens += used.tokens
            microusd += used.microusd
            seconds += used.seconds
            tool_calls += used.tool_calls
        total = Usage(steps, tokens, microusd, seconds, tool_calls)
        for key in self._open:
            total = total + self.records[key].record.reserved
        return total

    def effects(self, resolved: Mapping[bytes, str] | None = None) -> Effects:
        """The idempotent and once effects, for people; `resolved` has verdicts on doubts that are about to be written."""
        found: tuple[list[str], list[str], list[str]] = ([], [], [])
        for step in self.records.values():
            if step.record.effect != "read":
                verdict = (resolved or {}).get(step.key)
                done, failed = step.state is CLOSED or verdict == "done", step.state is FAILED or verdict in ("fail", "retry")
                found[0 if done else 2 if failed else 1].append(step.record.name)
        return Effects(*map(tuple, found))


def _line_of(step: Step) -> tuple[str, str] | None:
    """The line that asked for a record; None where the record has no place in its line's order. A line asks for one step at a time."""
    record: StepRecord = step.record
    return None if record.overlapped and not record.line else (record.branch, record.line)


def _effects_of(step: Step) -> tuple[str, str] | None:
    effects = ("once",) if step.record.line else ("once", "idempotent")
    return _line_of(step) if step.record.effect in effects and step.state is not FAILED else None


def _name_of(step: Step) -> tuple[str, str, str] | None:
    record: StepRecord = step.record
    return None if record.overlapped else (record.branch, record.kind, record.name)


def _digest_of(step: Step) -> tuple[str, bytes] | None:
    return None if step.record.overlapped else (step.record.branch, step.record.digest)


def cost(step: Step) -> Usage:
    """The cost of a step, its open attempt counted in full."""
    record: StepRecord = step.record
    return record.used if record.reserved is ZERO or not record.reserved else record.used + record.reserved
