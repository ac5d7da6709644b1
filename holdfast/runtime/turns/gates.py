"""The gates of one session (budget, breaker, repetition), and how one attempt passes them.

Each gate decides in `holdfast.policies`, synchronously. An attempt passes them in order, and returns all permits at once when it has ended.
An attempt that waits holds neither a reservation nor a half-open call of a breaker.
"""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.calls.call import Call
from holdfast.policies.breaker import Breaker, BreakerSpec
from holdfast.policies.budget import Budget, Usage
from holdfast.policies.classify import Fault
from holdfast.policies.failures import Answers
from holdfast.policies.gate import Wait
from holdfast.policies.ledger import Ledger
from holdfast.policies.repetition import Repetition, RepetitionSpec
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.turns.line import Line

_IN_LINE = "others wait for budget"

Permits = tuple[tuple[Breaker, int], ...]
"""The breakers that let an attempt through, each with its generation at that time."""


class Gates:
    """The budget, breaker and repetition watch of one session.

    Attributes:
        failures: how many runs of the turn in a row ended because a dependency was down.
        tries: how many in a row ended by another failure of a step.
        line: the steps that wait for budget; None where none does.
        timed: whether the active time is limited.
        overtime: the next reservation may be made although that time is used up.
        raised: the limits that people added: they did not come from a parent, and do not return to it.
    """

    __slots__ = ("breaker", "failures", "ledger", "line", "overtime", "raised", "repetition", "timed", "tries")

    def __init__(self, agent: Agent | None, id: str, ledger: Ledger, stored: dict[str, Any], now: float) -> None:
        self.ledger = ledger
        self.line: Line | None = None
        self.timed, self.overtime = ledger.limits.seconds is not None, False
        self.repetition = Repetition(RepetitionSpec() if agent is None else agent.repetition)
        self.failures: int = stored.get("failures", 0)
        self.tries: int = stored.get("tries", 0)
        self.raised = Usage(**stored.get("raised", {}))
        spec, before = BreakerSpec() if agent is None else agent.breaker, stored.get("breaker")
        self.breaker = Breaker(spec, id) if before is None else Breaker.restore(spec, before, id, now)

    def enter(self, call: Call, shared: Breaker | None, now: float) -> Permits | Wait | str:
        """Let one attempt through: reserve the most it can cost and pass the breakers, the session's and its dependency's.

        Returns:
            Permits to hand to `leave`; Wait, holding nothing; or the text of the limit that refuses it for now.
        """
        if self.line is not None and not self.line.may_pass(call.most):
            return _IN_LINE
        refused = self.ledger.reserve(call.most)
        if refused is not None and not self._late(call.most):
            return refused
        verdict = self.breaker.before(now)
        if isinstance(verdict, Wait):
            self._release(call.most)
            return verdict
        own = (self.breaker, self.breaker.generation)
        if shared is None:
            return (own,)
        verdict = shared.before(now)
        if isinstance(verdict, Wait):
            self.breaker.after(now, None, own[1])
            self._release(call.most)
            return verdict
        return own, (shared, shared.generation)

    def leave(self, call: Call, permits: Permits, cost: Usage, active_s: float, ok: bool | None, now: float) -> None:
        """The attempt has ended: settle its cost, and its active time in place of the seconds in `cost`. `ok` None counts neither for nor
        against a breaker."""
        if cost.seconds:
            cost = Usage(cost.steps, cost.tokens, cost.microusd, 0.0, cost.tool_calls)
        self.ledger.settle(call.most, cost, active_s)
        if self.line is not None:
            self.line.settled()
        for breaker, generation in permits:
            breaker.after(now, ok, generation)

    def spend(self, cost: Usage) -> bool:
        """Charge a cost that is known before; False, with nothing charged, where it does not fit for now."""
        if self.line is not None and not self.line.may_pass(cost):
            return False
        if self.ledger.reserve(cost) is not None and not self._late(cost):
            return False
        self.ledger.settle(cost, cost)
        return True

    def _release(self, reserved: Usage) -> None:
        self.ledger.release(reserved)
        if self.line is not None:
            self.line.settled()

    def more(self) -> None:
        """There is more to spend: a limit was raised, or a child returned its rest. All that wait for budget ask again."""
        if self.line is not None:
            self.line.raised()

    def _late(self, most: Usage) -> bool:
        overtime, self.overtime = self.overtime, False
        return overtime and self.ledger.reserve(most, overtime=True) is None

    def time_left(self, timeout_s: float) -> float:
        """`timeout_s`, cut to the active time that the budget leaves; 0 where it is used up."""
        return min(timeout_s, self.ledger.left().seconds or 0.0) if self.timed else timeout_s

    def blame(self, permits: Permits, fault: Fault, so: Answers, now: float) -> Permits:
        """The attempt failed: the permits of the breakers that count it; the others are returned. People see the failure with the breakers,
        also one that a person has to repair, and an opening lasts as long as the dependency asked to wait."""
        counting = {"none": 0, "session": 1, "dependency": 2}[so.health]
        for breaker, generation in permits[counting:]:
            breaker.after(now, None, generation)
            if so.then == "person":
                breaker.blame(f"{fault.type}: {fault.message}", fault.status, None)
        retry_at = None if fault.retry_after_s is None else now + fault.retry_after_s
        for breaker, _ in permits[:counting]:
            breaker.blame(f"{fault.type}: {fault.message}", fault.status, retry_at)
        return permits[:counting]

    def raise_(self, by: Budget) -> None:
        """Add to the limits."""
        self.ledger.raise_(by)
        self.more()
        self.raised = self.raised + Usage(by.steps or 0, by.tokens or 0, by.microusd or 0, by.seconds or 0.0, by.tool_calls or 0)

    def snapshot(self) -> dict[str, Any]:
        """The state to store over a passivation of the session; empty where the gates are in their first state."""
        stored: dict[str, Any] = {}
        if self.breaker.remembers:
            stored["breaker"] = self.breaker.snapshot()
        if self.failures:
            stored["failures"] = self.failures
        if self.tries:
            stored["tries"] = self.tries
        if self.raised:
            stored["raised"] = msgspec.structs.asdict(self.raised)
        return stored


_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


def read_gates(stored: bytes) -> dict[str, Any]:
    """A `Gates.snapshot`, decoded from a session's row."""
    return _decode(stored) if stored else {}
