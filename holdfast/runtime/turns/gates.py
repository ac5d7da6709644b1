"""The gates of one session: budget, breaker, repetition; and the way through them for one attempt.

Each gate decides in `holdfast.policies`, synchronously; here they are passed in order, and given back in one go when the attempt has
ended. What waits holds nothing: neither a reservation nor a half-open call of a breaker.
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
"""The breakers that let an attempt through, each with the generation that it did so in."""


class Gates:
    """The budget, breaker and repetition watch of one session.

    Attributes:
        failures: how often in a row a turn ended because what it depends on was down.
        raised: what people added to the limits: a parent never gave it, and does not get it back.
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

    def leave(self, call: Call, permits: Permits, cost: Usage, ok: bool | None, took_s: float, now: float) -> None:
        """The attempt has ended: settle what it cost; `ok` None counts for or against no breaker."""
        self.ledger.settle(call.most, cost)
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
        """What has to survive the session's memory; empty where all is well."""
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
    """What `Gates.snapshot` gave, decoded from a session's row."""
    return _decode(stored) if stored else {}
