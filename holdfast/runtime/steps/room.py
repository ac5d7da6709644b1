"""Room in the budget for a step: what it costs is reserved, waited for, or refused."""

from __future__ import annotations

from holdfast.calls.call import ONE_STEP, Call
from holdfast.errors import BudgetExhausted
from holdfast.policies.budget import ZERO, Usage
from holdfast.policies.ledger import Ledger
from holdfast.runtime.steps.refusal import exhausts, refuse
from holdfast.runtime.steps.step import Phase, Step
from holdfast.runtime.turns.branches import enclosing
from holdfast.runtime.turns.line import WAIT, Line, Waiter
from holdfast.runtime.turns.parking import SETTLE_S
from holdfast.runtime.turns.trailing import could_know
from holdfast.stores.listed import Listed
from holdfast.stores.records import ASKS_A_PERSON, Outcome, Park

_LOOK_S = 300.0
"""How often a step that waits for its session's children looks at them, in seconds; their end wakes it before."""

_AGAIN = Outcome()


def share_time(step: Step) -> None:
    """Charge the active time so far, also that of attempts under way, before another one asks what is left; concurrent steps share it."""
    flight, gates = step.turn.flight, step.turn.owner.gates
    now = step.turn.node.clock.monotonic()
    active_s, flight.mark = now - flight.mark, now
    gates.ledger.charge(used := Usage(seconds=active_s))
    step.used = step.used + used


def time_for(step: Step, call: Call) -> float:
    """How long the attempt may take, in seconds: its timeout, cut to the active time that the session has left.

    Nothing cuts a `once` effect, nor a step inside one: it began within the limit, and ends.
    """
    return call.timeout_s if call.effect == "once" or _inside_once(step) else step.turn.owner.gates.time_left(call.timeout_s)


def _inside_once(step: Step) -> bool:
    return any((outer := step.turn.insides.get(path)) is not None and outer.effect == "once" for path in enclosing(step.branch))


async def room(step: Step, most: Usage) -> None:
    """Wait until `most` fits into the budget: reserve it then, before the next await.

    What is only reserved, by concurrent steps or by running children, is waited for. What is spent is refused: the handler gets
    BudgetExhausted once (so does each branch or task that cannot know of that), after that the session parks until its budget is raised.

    Raises:
        BudgetExhausted: for the first refusal of the turn, or of a branch or task that cannot know of it.
    """
    turn, gates, hold_s = step.turn, step.turn.owner.gates, step.turn.owner.agent.park_after_s
    if gates.timed and _inside_once(step) and not gates.ledger.lacks(most):
        gates.overtime = True
        return
    line = gates.line
    if line is None:
        line = gates.line = Line(gates.ledger)
    waiter = Waiter(most, _around(step), lambda: turn.waits.answer(waiter, _AGAIN))
    line.join(waiter)
    try:
        while (why := line.verdict(waiter)) is not None:
            if why == WAIT:
                await _wait_for_others(step, waiter, "waits for budget that concurrent steps have reserved", 0.0)
                continue
            line.refused(waiter)
            raises = line.raises
            children = await _running_children(step, most)
            if line.raises != raises:
                pass  # raised during that read, or a child returned its rest: asks again
            elif children:
                await _wait_for_others(step, waiter, f"waits for budget that its children have reserved: {', '.join(children)}", hold_s)
            elif turn.refused and _can_know(step):
                await turn.wait(step.lane, waiter, Park("budget", f"budget exhausted: {why}; raise it, then it resumes"), SETTLE_S)
            else:
                turn.refused = True
                await refuse(step, why, BudgetExhausted)
            line.join(waiter)
    finally:
        line.leave(waiter)
        if not line:
            gates.line = None


async def _wait_for_others(step: Step, waiter: Waiter, text: str, hold_s: float) -> None:
    await step.turn.wait(step.lane, waiter, Park("reserved", text, step.turn.node.clock.time() + _LOOK_S), hold_s)


def _can_know(step: Step) -> bool:
    """Whether the code that asks for the step can know of a BudgetExhausted in this turn: not of one in a sibling branch, nor
    in another task that ran at once with it: the code that awaits them sees those when all have ended."""
    branch, seen, journal = step.claim.branch, step.seen, step.turn.journal
    refused = [each for each in journal.records.values() if exhausts(each.record.outcome)]
    return any(could_know(branch.path, branch.line, branch.since, seen, each.record, journal.order.place_of(each)) for each in refused)


def _around(step: Step) -> dict[object, Usage]:
    """The reservations of the attempts that the step is asked for in."""
    outer = [step.turn.insides.get(path) for path in enclosing(step.claim.branch.path)]
    return {each: each.asked.most for each in outer if each is not None and each.phase is Phase.RUNNING and isinstance(each.asked, Call)}


async def _running_children(step: Step, most: Usage) -> list[str]:
    """The running children whose shares, given back, would leave room for `most`; empty where they would not.

    A child that needs a person, has no message, or waits for this session, returns nothing for now.
    """
    turn, owner, found, held = step.turn, step.turn.owner, list[str](), ZERO
    for child in await turn.node.store.living_children(owner.id):
        if _works(child) and turn.node.peers.cycle(owner.id, child.id) is None:
            found.append(child.id)
            held = held + Ledger(child.budget, child.usage).balance().clamp()
    return found if held and owner.ledger.exhausted(most, ZERO - held) is None else []


def _works(child: Listed) -> bool:
    """Whether a child with a share of its parent's budget handles a message, and needs no person for that."""
    if not child.pending:
        return False
    if child.status == "parked":
        return child.park is not None and child.park.reason not in (*ASKS_A_PERSON, "paused")
    return child.status in ("idle", "unfinished")


async def spend_step(step: Step) -> None:
    """Charge one step for a step without an effect (a wait, a message, a spawn, a refusal), so that no loop is free.

    Raises:
        BudgetExhausted: none is left.
    """
    gates = step.turn.owner.gates
    while not gates.spend(ONE_STEP):
        await room(step, ONE_STEP)
    step.used = ONE_STEP if step.used is ZERO else step.used + ONE_STEP
