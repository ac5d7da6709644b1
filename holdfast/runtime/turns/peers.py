"""The other sessions of a node, as a turn sees them: it asks them, and has the ops of its writes delivered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from holdfast.runtime.agents.definition import Agent
from holdfast.stores.ops import Op, Result


class Peers(Protocol):
    """Implemented by the registry of sessions; every method is synchronous and reads only memory."""

    def agent_of(self, session: str) -> Agent | None:
        """The agent of a session that is in memory."""
        ...

    def cycle(self, asker: str, target: str) -> list[str] | None:
        """The sessions through which `target` already waits for `asker`, if it does."""
        ...

    def dispatch(self, ops: Sequence[Op], results: Iterable[Result]) -> None:
        """The ops that left with a write are durable: deliver them."""
        ...

    def recovered(self, session: str) -> None:
        """A session has replayed its records."""
        ...

    def condemn(self, session: str, reason: str) -> None:
        """Kill a session from within one of its own steps."""
        ...
