"""The session that a turn belongs to, as far as the turn may see it."""

from __future__ import annotations

from holdfast.policies.budget import Usage
from holdfast.policies.ledger import Ledger
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.turns.gates import Gates, read_gates
from holdfast.stores.ops import Op, ReturnBudget
from holdfast.stores.records import Loaded


class Owner:
    """One activation of a session.

    Attributes:
        epoch: the fencing token of its writes; it grows once more when the session ends, so that outcomes of its steps are still written.
        turn: the number of the last committed turn.
        agent: its definition, with the current limits; None where this Runtime does not have it.
        notes: the effects of the turn before, where that was dropped.
        unreadable: why the stored state of its gates does not decode; "" where it does.
        parent: the session that gets the unspent budget; None for none.
        back: the sum that its children returned so far.
        waited_until: the store time to which its last park lasted, where that is over before the clock reads that: it was set back.
    """

    __slots__ = (
        "_agent", "back", "epoch", "gates", "id", "ledger", "notes", "parent", "seed", "tenant", "turn", "unreadable", "user",
        "waited_until",
    )  # fmt: skip

    def __init__(self, loaded: Loaded, agent: Agent | None, spent: Usage, now: float) -> None:
        row = loaded.session
        self.id, self.tenant, self.user, self.seed = row.id, row.tenant, row.user, row.seed
        self.epoch, self.turn, self.notes = row.epoch, row.turn, row.notes
        self.parent = None if row.parent is None or row.detached else row.parent.session
        self.back = row.returns.back
        self.waited_until: float | None = None
        self.ledger = Ledger(row.budget, row.usage + spent)
        self._agent = agent
        self.unreadable = ""
        try:
            self.gates = Gates(agent, row.id, self.ledger, read_gates(row.gates), now)
        except Exception as error:  # data of another program can raise any error
            self.gates = Gates(agent, row.id, self.ledger, {}, now)
            self.unreadable = f"the column 'gates' of its row does not decode ({type(error).__name__}: {error})"
        if row.status == "failed":
            self.gates.tries = 0  # where its dead letter is retried, the turn has all its tries again

    @property
    def agent(self) -> Agent:
        """Its definition. Only for code that runs turns: a session without a definition runs none."""
        assert self._agent is not None, f"session {self.id!r} has no agent here"
        return self._agent

    @property
    def known(self) -> bool:
        """Whether this Runtime has its agent."""
        return self._agent is not None

    def has_waited(self, until: float, now: float) -> None:
        """Its park is over: it lasted for its own length, or to its time `until`. The waits on record that end then are over, too."""
        if until > now:
            self.waited_until = until
            self.gates.breaker.has_waited(until, now)

    def redefine(self, agent: Agent) -> None:
        """Use the same agent under other limits."""
        self._agent = agent

    def credit(self, unspent: Usage) -> None:
        """Take in the budget that a child returned."""
        self.ledger.credit(unspent)
        self.back = self.back + unspent
        self.gates.more()

    def unspent(self) -> tuple[Op, ...]:
        """The op that returns budget to the parent when this session ends: what is left, without what people added. The store adds what
        this session's children return, whether that is written before this op, after it or with it."""
        if self.parent is None:
            return ()
        return (ReturnBudget(self.parent, self.id, self.ledger.balance() - self.gates.raised - self.back),)
