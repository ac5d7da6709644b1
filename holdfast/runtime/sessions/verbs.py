"""The verbs of people on a session: each checks the session's status, then changes it through its actor, under its epoch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from holdfast import codec, errors, events, redact
from holdfast.policies.budget import ZERO, Budget
from holdfast.runtime.agents.ids import check_id
from holdfast.runtime.sessions import rewinding
from holdfast.runtime.sessions.actor import Actor
from holdfast.runtime.sessions.conclusion import stored_gates
from holdfast.runtime.sessions.life import Signal
from holdfast.runtime.sessions.registry import Sessions
from holdfast.runtime.sessions.rewinding import Rewound
from holdfast.runtime.turns.doubt import write_what_is_known
from holdfast.runtime.turns.journal import cost
from holdfast.runtime.turns.node import Node
from holdfast.stores.ops import DropLetter, DropSteps, FailTurn, Op, Result, RetryLetter, Status, UpdateSession, WriteStep
from holdfast.stores.records import ENDED, Failure, Outcome, Park, Session, Step, StepState
from holdfast.stores.unreadable import cannot_load

_plain = codec.codec_for(Any)
_BY_PERSON = "resolved by a person"
_ENDS_WITHIN_S = 1.0
"""How long a verb waits for a task that is about to end, in seconds: the caller of a turn has its answer just before that."""


class Verbs:
    """The verbs of one registry of sessions."""

    def __init__(self, node: Node, sessions: Sessions) -> None:
        self._node, self._sessions = node, sessions

    # ------------------------------------------------------------ pause and resume

    async def pause(self, session: str, reason: str) -> None:
        actor = await self._sessions.actor(check_id("session", session))
        if actor.status == "failed" or actor.status in ENDED:
            raise errors.SessionError(session, f"session {session!r} is {actor.status}, so it cannot be paused")
        self._check_accepting()
        actor.hold(Park("paused", redact.text(reason)))
        if actor.task is not None:
            await asyncio.wait((actor.task,))
        row = await self.row(session)
        if row.park is None or row.park.reason != "paused":
            raise errors.SessionError(session, f"session {session!r} is {row.status} before it could be paused: look at it again")

    async def resume(self, session: str) -> None:
        actor = await self._idle_actor(session)
        if actor.status != "parked":
            raise errors.SessionError(session, f"session {session!r} is {actor.status}, not parked, so it cannot be resumed")
        op = UpdateSession(session, actor.owner.epoch, self._now(), status="idle", settled=True)
        await self._write(actor, op, lambda: self._again(actor))

    async def interrupt(self, session: str, step: str | None) -> int:
        """End the attempts that a session has under way, as the timeouts of its steps would; returns how many there were."""
        await self.row(session)
        return self._node.deadlines.expire(session, step)

    # ------------------------------------------------------------ budgets

    async def raise_budget(self, session: str, by: Budget) -> None:
        actor = await self._sessions.actor(check_id("session", session))
        if actor.status in ENDED:
            raise errors.SessionEnded(session, f"session {session!r} is {actor.status}: its budget cannot be raised")
        owner = actor.owner
        if owner.unreadable:  # its row stays as it is
            raise cannot_load(session, owner.unreadable)
        self._check_accepting()
        # In memory before the write: two concurrent calls add up, and a turn that is about to park for the old limit runs again instead.
        owner.gates.raise_(by)
        gates, limits = self._node.encode(owner.gates.snapshot()), owner.ledger.limits
        waits, running = _waits_for_budget(actor), actor.task is not None
        if running:
            actor.signal(Signal.ANSWER)
        status = "idle" if waits else None
        op = UpdateSession(session, owner.epoch, self._now(), status=status, budget=limits, gates=gates)  # type: ignore[arg-type]
        try:
            await self._write(actor, op, lambda: self._again(actor) if waits and not running else None)
        except errors.StoreError:
            actor.signal(Signal.UNSURE)
            raise

    # ------------------------------------------------------------ effects in doubt

    async def resolve(self, session: str, verdict: str, step: str | None, result: Any) -> int:
        actor = await self._idle_actor(session, known=False)
        await write_what_is_known(actor.open_turn())  # no person decides what this process knows by now
        doubts = [s for s in actor.journal.in_doubt() if step in (None, s.record.name, s.key.hex())]
        if verdict == "done":
            _check_results(actor, doubts, result)
        ops = [self._resolution(actor, doubt, verdict, result) for doubt in doubts]
        ops += await self._after_resolution(actor, {doubt.key: verdict for doubt in doubts})
        for op in ops[:-1]:
            # Fenced if the last one is fenced. Where the last is not written, the next call finds the resolved doubts and does the rest.
            self._node.group.submit(op)
        for op in ops[-1:]:
            await self._write(actor, op, lambda: self._again(actor))
        for doubt in doubts:
            self._node.emit(events.DoubtSettled(session, doubt.turn, doubt.record.name, verdict, "person"))
        return len(doubts)

    def _resolution(self, actor: Actor, doubt: Step, verdict: str, result: Any) -> Op:
        epoch = actor.owner.epoch
        if verdict == "retry" and not doubt.record.cut:
            return DropSteps(actor.id, epoch, doubt.turn, (doubt.key,), cost(doubt))
        failure = Failure("StepError", doubt.record.name, "NotDone", "a person resolved it as not done")
        outcome = Outcome(_plain.encode(result)) if verdict == "done" else Outcome(failure=failure)
        # A step that its caller cancelled stays cancelled: where the code asks for it again, that is a new step.
        note = "" if verdict == "retry" else _BY_PERSON
        record = msgspec.structs.replace(
            doubt.record, outcome=outcome, used=cost(doubt), reserved=ZERO, closed=self._now(), deadline=0.0, note=note,
            ended=doubt.record.ended or actor.journal.order.place(),
        )  # fmt: skip
        state = StepState.CLOSED if verdict == "done" else StepState.FAILED
        return WriteStep(actor.id, epoch, doubt.turn, doubt.key, state, self._node.encode(record))

    async def _after_resolution(self, actor: Actor, resolved: Mapping[bytes, str]) -> list[Op]:
        """The consequences of a verdict: a session that waited for it runs, a dead letter lists it, an ended session needs no person."""
        left = [step for step in actor.journal.in_doubt() if step.key not in resolved]
        reason = None if actor.park is None else actor.park.reason
        if actor.status == "failed":
            return await self._letter_again(actor, resolved)
        if actor.status in ENDED:
            return [] if left or reason is None else [UpdateSession(actor.id, actor.owner.epoch, self._now(), status=actor.status)]
        if actor.status == "parked" and reason != "paused" and (resolved or (not left and reason in ("doubt", "reconcile"))):
            # No doubt is left: an earlier call resolved its doubts and stopped there.
            return [UpdateSession(actor.id, actor.owner.epoch, self._now(), status="idle", settled=True)]
        return []

    async def _letter_again(self, actor: Actor, resolved: Mapping[bytes, str]) -> list[Op]:
        """The dead letter, with the current outcomes of its effects."""
        turn = actor.owner.turn + 1
        letter = (await self._node.store.blocking_letters([actor.id])).get(actor.id)
        done, in_doubt, failed = actor.journal.effects(resolved)
        if letter is None or (done, in_doubt, failed) == (letter.effects, letter.in_doubt, letter.failed):
            return []
        return [
            FailTurn(
                actor.id, actor.owner.epoch, turn, letter.message, letter.cause, done, b"", self._now(), in_doubt=in_doubt, failed=failed
            )
        ]

    # ------------------------------------------------------------ dead letters and open turns

    async def retry(self, session: str) -> None:
        actor = await self._idle_actor(session)
        owner, now = actor.owner, self._now()
        # The failed runs are no longer counted, also after a crash.
        fresh = None if owner.unreadable else UpdateSession(session, owner.epoch, now, gates=stored_gates(owner, self._node))
        result = await self._write(actor, RetryLetter(session, owner.epoch, now), lambda: self._again(actor), fresh)
        if result.status is Status.REFUSED:
            raise errors.SessionError(session, f"session {session!r} has no dead letter")

    async def drop(self, session: str, reason: str, keep_letter: bool) -> None:
        actor = await self._sessions.actor(check_id("session", session), known=False)
        if actor.status in ENDED:
            raise errors.SessionEnded(session, f"session {session!r} is {actor.status}: it has no open turn")
        self._check_accepting()
        paused = actor.park if actor.park is not None and actor.park.reason == "paused" else None
        if actor.status != "failed":
            actor = await self._given_up(actor, redact.text(reason))
        elif keep_letter:
            raise errors.SessionError(session, f"session {session!r} has failed: its message is a dead letter already")
        if keep_letter:
            return
        doubts = sorted({step.record.name for step in actor.journal.in_doubt()})
        if doubts:
            raise errors.SessionError(
                session,
                f"the outcome of {', '.join(doubts)} is unknown, so the dead letter of {session!r} is kept: "
                "resolve it (done, retry or fail), then drop again",
            )
        op = DropLetter(session, actor.owner.epoch, actor.journal.spent(), self._now())
        still = None if paused is None else UpdateSession(session, actor.owner.epoch, self._now(), status="parked", park=paused)
        result = await self._write(actor, op, lambda: self._dropped(actor), still)
        if result.status is Status.REFUSED:
            raise errors.SessionError(session, f"session {session!r} has no dead letter")

    async def _given_up(self, actor: Actor, reason: str) -> Actor:
        """The actor once its open turn has failed for this reason."""
        if not actor.mailbox:
            raise errors.SessionError(actor.id, f"session {actor.id!r} has no dead letter and no open turn, so it has none to drop")
        actor.give_up(f"given up by a person: {reason}")
        if actor.task is not None:
            await asyncio.wait((actor.task,))
        if actor.status != "failed":
            raise errors.SessionError(actor.id, f"session {actor.id!r} is {actor.status}: its turn ended before it could be dropped")
        return actor

    def _dropped(self, actor: Actor) -> None:
        self._sessions.endings.dropped(actor.id, actor.owner.turn + 1)
        self._again(actor)

    async def rewind(self, session: str, turn: int, reason: str, dry_run: bool) -> Rewound:
        """Bring the state after an earlier turn back."""
        actor = await self._sessions.actor(check_id("session", session), known=False)
        if actor.task is not None:  # one that is parked for its state is tried again whenever it is read
            await asyncio.wait((actor.task,), timeout=_ENDS_WITHIN_S)
        if actor.task is not None:
            raise errors.SessionError(session, f"session {session!r} is running: pause it or wait until it is idle")
        op, outcome = await rewinding.plan(self._node, actor, turn)
        if dry_run:
            return msgspec.structs.replace(outcome, changed=False)
        await self._write(actor, op, lambda: self._again(actor))
        rewinding.emitted(self._node, outcome, redact.text(reason))
        return outcome

    # ------------------------------------------------------------ shared by the verbs

    async def row(self, session: str) -> Session:
        """Its row in the store. Raises SessionNotFound."""
        row = await self._node.store.session(check_id("session", session))
        if row is None:
            raise errors.SessionNotFound(session, f"no session {session!r}: check the id, or spawn it")
        return row

    async def _idle_actor(self, session: str, *, known: bool = True) -> Actor:
        actor = await self._sessions.actor(check_id("session", session), known=known)
        if actor.task is not None and actor.between_turns:
            await asyncio.wait((actor.task,), timeout=_ENDS_WITHIN_S)
            actor = await self._sessions.actor(session, known=known)  # it may have been read again meanwhile
        if actor.task is not None:
            raise errors.SessionError(session, f"session {session!r} is running: pause it or wait until it is idle")
        return actor

    def _again(self, actor: Actor) -> None:
        """Its rows changed: read the session again, and run it if it has work."""
        self._sessions.reread(actor)
        self._sessions.wake(actor.id)

    def _now(self) -> float:
        return self._node.clock.time()

    def _check_accepting(self) -> None:
        if self._sessions.draining:
            raise errors.RuntimeStopped("the runtime is draining and not accepting work: send it again when it runs")

    async def _write(self, actor: Actor, op: Op, applied: Callable[[], None], then: Op | None = None) -> Result:
        """Write `op`, and `then` right behind it. `applied` is called once `op` is written, also where the caller no longer waits."""
        self._check_accepting()
        write = self._node.group.submit(op, lambda done: applied() if done.status is Status.DONE else None)
        if then is not None:
            self._node.group.submit(then)
        result = await write
        if result.status is Status.FENCED:
            raise errors.SessionError(actor.id, f"session {actor.id!r} was activated again meanwhile: try again")
        return result


def _waits_for_budget(actor: Actor) -> bool:
    """Whether it is parked for budget, or the write of such a park is under way."""
    park = actor.parking or (actor.park if actor.status == "parked" else None)
    return park is not None and park.reason in ("budget", "reserved")


def _check_results(actor: Actor, doubts: Sequence[Step], result: Any) -> None:
    """Raises MessageRefused where `result` is not of the effect's type: once recorded, it could not be undone."""
    for doubt in doubts:
        call = actor.agent.recall(doubt.record) if actor.owner.known else None
        try:
            if call is not None:
                call.codec.decode(_plain.encode(result))
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            name = doubt.record.name
            text = f"give what {name} returned" if result is None else f"that is not what {name} returns"
            raise errors.MessageRefused(actor.id, f"{text}, as --result JSON (in Python result=): {error}") from error
