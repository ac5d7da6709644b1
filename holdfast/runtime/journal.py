"""The open turn's records: found by content, claimed once each, folded into what they cost.

A step's identity is its branch, kind, name, the digest of its arguments, and how many such came before it in the turn; not its place in
a global order, so that branches may interleave as they like.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from holdfast.errors import RuntimeStopped
from holdfast.policies.budget import ZERO, Usage
from holdfast.runtime.branches import follows
from holdfast.stores.records import Step, StepRecord, StepState, in_doubt

OPEN, CLOSED, FAILED, DOUBT, _ = StepState


class Claim:
    """A step's place in the journal: its identity, and the record that was found for it, if any."""

    __slots__ = ("beside", "branch", "digest", "key", "nth", "shown", "step")

    def __init__(self, branch: str, digest: bytes, nth: int) -> None:
        self.branch, self.digest, self.nth = branch, digest, nth
        self.key = digest + nth.to_bytes(3, "big")
        self.step: Step | None = None
        self.beside = False
        self.shown: tuple[str, str] | None = None  # kind and name, once the observers were told that it runs


class Journal:
    """The records of one session's open turn.

    `put` is called when a write is acknowledged, so memory holds what the store holds. `rewind` starts another run of the handler
    over the same records.
    """

    __slots__ = ("_nth", "_unclaimed", "over", "records")

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self.records: dict[bytes, Step] = {step.key: step for step in steps}
        self.rewind()

    def rewind(self) -> None:
        """Nothing is claimed any more; every record can be claimed again."""
        self.over = False
        self._nth: dict[bytes, int] = {}
        self._unclaimed: dict[bytes, Step] = dict(self.records)

    def claim(self, branch: str, kind: str, name: str, args: bytes) -> Claim:
        """The next step of this identity, with its record if it has one. Raises RuntimeStopped once the handler has ended."""
        if self.over:
            raise RuntimeStopped("this session object belongs to a turn that has ended: do not keep it")
        digest = blake2b(f"{branch}\0{kind}\0{name}\0".encode() + args, digest_size=14).digest()
        nth = self._nth.get(digest, 0)
        self._nth[digest] = nth + 1
        claim = Claim(branch, digest, nth)
        if self._unclaimed:
            claim.step = self._unclaimed.pop(claim.key, None)
        return claim

    @property
    def loose(self) -> bool:
        """Whether there are records that nobody has claimed yet."""
        return bool(self._unclaimed)

    def drift(self, claim: Claim, kind: str, name: str) -> Step | None:
        """The oldest unclaimed record of the same branch, kind and name: what the code asked for before the crash in this one's place.

        Records of steps that ran beside others of their branch are left out: their order says nothing. It is not claimed by this.
        """
        for step in self._unclaimed.values():
            record = step.record
            if record.branch == claim.branch and record.kind == kind and record.name == name and not record.beside:
                return step
        return None

    def take(self, claim: Claim, step: Step) -> None:
        """Let `claim` have a record of another identity (drift)."""
        del self._unclaimed[step.key]
        claim.step, claim.key = step, step.key

    def put(self, step: Step) -> None:
        """A record was written."""
        self.records[step.key] = step

    def drop(self, keys: Iterable[bytes]) -> None:
        """Records were dropped: their steps are free."""
        for key in keys:
            self.records.pop(key, None)
            self._unclaimed.pop(key, None)

    def unclaimed(self) -> list[Step]:
        """The records that the handler has not asked for in this run."""
        return list(self._unclaimed.values())

    def in_doubt(self) -> list[Step]:
        """Effects of which nobody knows whether they happened, while the handler does not run."""
        return [step for step in self.records.values() if in_doubt(step)]

    def trailing_failures(self) -> list[Step]:
        """The failures that nothing follows, but for a person's word: dropped when the turn starts again, so that what was down is
        asked again. What a sibling branch did does not follow."""
        trailing: list[Step] = []
        later: set[str] = set()
        for step in reversed(self.records.values()):
            branch = step.record.branch
            if step.state is FAILED and not step.record.note and not any(follows(other, branch) for other in later):
                trailing.append(step)
            else:
                later.add(branch)
        return trailing

    def spent(self) -> Usage:
        """What the turn has cost so far; an attempt that was never closed counts in full."""
        total = ZERO
        for step in self.records.values():
            total = total + cost(step)
        return total

    def effects(self) -> tuple[str, ...]:
        """The idempotent and once effects that were done, for a person to read."""
        return tuple(s.record.name for s in self.records.values() if s.record.effect != "read" and s.state in (CLOSED, OPEN, DOUBT))


def cost(step: Step) -> Usage:
    """What a step has cost, its open attempt counted in full."""
    record: StepRecord = step.record
    return record.used + record.reserved if record.reserved else record.used
