"""The gates of one session (budget, breaker, repetition), and how one attempt passes them.

Each gate decides in `holdfast.policies`, synchronously. An attempt passes them in order, and returns all permits at once when it has ended.
An attempt that waits holds neither a reservation nor a half-open call of a breaker.
"""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.calls.call import Call
from holdfast.policies.breaker import Breaker, BreakerSpec
from holdfast.policies.budget import Budget, Ledger, Usage
from holdfast.policies.gate import Wait
from holdfast.policies.repetition import Repetition, RepetitionSpec
from holdfast.runtime.agents.definition import Agent

Permits = tuple[tuple[Breaker, int], ...]
"""The breakers that let an attempt through, each with its generation at that time."""


class Gates:
    """The budget, breaker and repetition watch of one session.

    Attributes:
        failures: how many turns in a row ended because a dependency was down.
        raised: the limits that people added: they did not come from a parent, and do not return to it.
    """

    __slots__ = ("breaker", "failures", "ledger", "raised", "repetition")

    def __init__(self, agent: Agent | None, id: str, ledger: Ledger, stored: dict[str, Any], now: float) -> None:
        self.ledger = ledger
        self.repetition = Repetition(RepetitionSpec() if agent is None else agent.repetition)
        self.failures: int = stored.get("failures", 0)
        self.raised = Usage(**stored.get("raised", {}))
        spec, before = BreakerSpec() if agent is None else agent.breaker, stored.get("breaker")
        self.breaker = Breaker(spec, id) if before is None else Breaker.restore(spec, before, id, now)

    def enter(self, call: Call, shared: Breaker | None, now: float) -> Permits | Wait | str:
        """Let one attempt through: reserve the most it can cost and pass the breakers, the session's and its dependency's.

        Returns:
            Permits to hand to `leave`; Wait, holding nothing; or the text of the limit that refuses it.
        """
        refused = self.ledger.reserve(call.most)
        if refused is not None:
            return refused
        verdict = self.breaker.before(now)
        if isinstance(verdict, Wait):
            self.ledger.release(call.most)
            return verdict
        own = (self.breaker, self.breaker.generation)
        if shared is None:
            return (own,)
        verdict = shared.before(now)
        if isinstance(verdict, Wait):
            self.breaker.after(now, None, 0.0, own[1])
            self.ledger.release(call.most)
            return verdict
        return own, (shared, shared.generation)

    def leave(self, call: Call, permits: Permits, cost: Usage, active_s: float, ok: bool | None, took_s: float, now: float) -> None:
        """The attempt has ended: settle its cost, and its active time in place of the seconds in `cost`. `ok` None counts neither for nor
        against a breaker."""
        if cost.seconds:
            cost = Usage(cost.steps, cost.tokens, cost.microusd, 0.0, cost.tool_calls)
        self.ledger.settle(call.most, cost, active_s)
        for breaker, generation in permits:
            breaker.after(now, ok, took_s, generation)

    def time_left(self, timeout_s: float) -> float:
        """`timeout_s`, cut to the active time that the budget leaves."""
        return timeout_s if self.ledger.limits.seconds is None else min(timeout_s, self.ledger.left().seconds or 0.0)

    def raise_(self, by: Budget) -> None:
        """Add to the limits."""
        self.ledger.raise_(by)
        self.raised = self.raised + Usage(by.steps or 0, by.tokens or 0, by.microusd or 0, by.seconds or 0.0, by.tool_calls or 0)

    def snapshot(self) -> dict[str, Any]:
        """The state to store over a passivation of the session; empty where the gates are in their first state."""
        stored: dict[str, Any] = {}
        if self.breaker.openings or self.breaker.state != "closed":
            stored["breaker"] = self.breaker.snapshot()
        if self.failures:
            stored["failures"] = self.failures
        if self.raised:
            stored["raised"] = msgspec.structs.asdict(self.raised)
        return stored


_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


def read_gates(stored: bytes) -> dict[str, Any]:
    """A `Gates.snapshot`, decoded from a session's row."""
    return _decode(stored) if stored else {}
