"""The step that makes a child session: its id derives from the step, and it leaves with the step's record."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TypeVar

import msgspec

from holdfast.calls.call import ONE_STEP
from holdfast.policies.budget import Budget, Usage
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.agents.ids import check_id, child_id
from holdfast.runtime.steps import pipeline
from holdfast.runtime.steps.asked import Ask, plain
from holdfast.runtime.steps.refusal import refuse
from holdfast.runtime.steps.room import spend_step
from holdfast.runtime.steps.step import Step
from holdfast.runtime.turns.failures import error_of
from holdfast.runtime.turns.journal import Claim
from holdfast.runtime.turns.turn import Turn
from holdfast.stores.ops import CreateSession, Status
from holdfast.stores.records import Address, Failure, Outcome, StepState

Amount = TypeVar("Amount", int, float, Decimal)


async def spawn(turn: Turn, agent: Agent, state: bytes, part: Budget | None, id: str | None, detached: bool) -> str:
    """Make a child; its id.

    Raises:
        StepError: the given id belongs to another session.
    """
    if id is not None:
        check_id("id", id)
    own = turn.node.settings.agents.get(agent.name, agent)
    args = msgspec.msgpack.encode([agent.name, id, detached, msgspec.Raw(state)])
    asked = Ask(kind="spawn", name=agent.name, args=args, effect="idempotent")
    perform = partial(_spawn, agent=own, state=state, part=part, id=id, detached=detached)
    return str(await pipeline.run(turn, asked, perform, None if id is None else partial(_look_again, id=id)))


async def _spawn(step: Step, *, agent: Agent, state: bytes, part: Budget | None, id: str | None, detached: bool) -> Outcome:
    turn, owner, now = step.turn, step.turn.owner, step.turn.node.clock.time()
    child = id or child_id(owner.id, f"{turn.number}.{step.claim.digest.hex()[:12]}.{step.claim.nth}")
    step.begins()
    await spend_step(step)
    parent = Address(owner.id, turn.number, step.claim.key)
    if id is not None and await _belongs_to_another(turn, id, parent):
        await refuse(step, _taken(id), cause="SessionConflict")
    limits, share = agent.budget if part is None else part.filled(agent.budget), Usage()
    if not detached:
        # The child's own limits, capped by what is left here: all of it is charged now, and the unspent rest returns at its end.
        limits = _share(owner.ledger.carve(Budget()), limits)
        share = owner.ledger.part(limits)
        owner.ledger.charge(share)
        step.used = step.used + share
    seed = turn.node.random.randbytes(8)
    create = CreateSession(
        child, agent.name, owner.tenant, owner.user, agent.version, state, limits, seed, now, parent=parent, detached=detached,
        fingerprint=agent.state.fingerprint,
    )  # fmt: skip
    step.target = child
    outcome, made = await step.close_with(Outcome(plain.encode(child)), create)
    if made.status is Status.DUPLICATE and made.value.parent != parent:  # another caller made it meanwhile
        owner.ledger.credit(share)
        step.used = step.used - share
        await refuse(step, _taken(child), cause="SessionConflict")
    return outcome


async def _look_again(turn: Turn, claim: Claim, *, id: str) -> None:
    """Correct the record of a spawn whose id belongs to another session, and return what it charged for the child: the process may have
    died between the record and the check of the id."""
    step = claim.step
    if step is None or step.state is not StepState.CLOSED:
        return
    if await _belongs_to_another(turn, id, Address(turn.owner.id, turn.number, claim.key)):
        failure = Failure("StepError", step.record.name, "SessionConflict", _taken(id))
        turn.owner.ledger.credit(step.record.used - ONE_STEP)
        record = msgspec.structs.replace(step.record, outcome=Outcome(failure=failure), used=ONE_STEP)
        await turn.acknowledged(turn.submit(step.key, StepState.FAILED, record))
        raise error_of(failure)


async def _belongs_to_another(turn: Turn, id: str, parent: Address) -> bool:
    row = await turn.node.store.session(id)
    return row is not None and row.parent != parent


def _taken(child: str) -> str:
    return f"session {child!r} exists and is not a child of this step: use another id"


def _share(left: Budget, part: Budget) -> Budget:
    """A child's limits: `part`, capped by what the parent has left; where `part` has no limit, half of it, so the parent keeps the rest."""
    return Budget(
        steps=_least(left.steps, part.steps, (left.steps or 0) // 2),
        tokens=_least(left.tokens, part.tokens, (left.tokens or 0) // 2),
        usd=_least(_usd(left), _usd(part), (_usd(left) or Decimal(0)) / 2),
        seconds=_least(left.seconds, part.seconds, (left.seconds or 0.0) / 2),
        tool_calls=_least(left.tool_calls, part.tool_calls, (left.tool_calls or 0) // 2),
    )


def _usd(budget: Budget) -> Decimal | None:
    return None if budget.usd is None else Decimal(budget.usd)


def _least(rest: Amount | None, wanted: Amount | None, half: Amount) -> Amount | None:
    return wanted if rest is None else half if wanted is None else min(rest, wanted)
