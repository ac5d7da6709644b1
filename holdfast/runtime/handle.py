"""A session from outside: one `Handle`, over any `Gateway` that reaches it."""

from __future__ import annotations

from typing import Any, Protocol

from holdfast.errors import ConfigError
from holdfast.given import brief, is_a
from holdfast.policies.budget import Budget
from holdfast.runtime.agents.ids import check_reason, check_timeout
from holdfast.runtime.live import Live
from holdfast.runtime.sessions.rewinding import Rewound
from holdfast.stores.records import Session

VERDICTS = ("done", "retry", "fail")


class Gateway(Protocol):
    """How a program reaches sessions. Every method is durable when it returns; Handle documents them and their errors."""

    async def tell(self, session: str, message: Any, id: str | None) -> str: ...
    async def ask(self, session: str, message: Any, id: str | None, timeout_s: float) -> Any: ...
    async def result(self, session: str, timeout_s: float | None) -> Any: ...
    async def end(self, session: str, status: str, reason: str) -> bool: ...
    async def row(self, session: str) -> Session: ...
    async def live(self, session: str) -> Live | None: ...
    async def pause(self, session: str, reason: str) -> None: ...
    async def resume(self, session: str) -> None: ...
    async def raise_budget(self, session: str, by: Budget) -> None: ...
    async def resolve(self, session: str, verdict: str, step: str | None, result: Any) -> int: ...
    async def retry(self, session: str) -> None: ...
    async def drop(self, session: str, reason: str, keep_letter: bool) -> None: ...
    async def interrupt(self, session: str, step: str | None) -> int: ...
    async def rewind(self, session: str, turn: int, reason: str, dry_run: bool) -> Rewound: ...


class Handle:
    """One session. Cheap: it holds only an id.

    It works inside the process that runs the session and outside of it (`holdfast.connect`). Outside, every method can also raise
    NodeUnreachable where no process answers: its `sent` is whether the request may have taken effect. Inside, every method raises
    ConfigError on another event loop than that of the Runtime.
    """

    __slots__ = ("_gateway", "id")

    def __init__(self, gateway: Gateway, id: str) -> None:
        self._gateway, self.id = gateway, id

    def __repr__(self) -> str:
        return f"<session {self.id!r}>"

    async def tell(self, message: Any, *, id: str | None = None) -> str:
        """Send a message; returns its id. When this returns, the message is durable: it will be handled, or become a dead letter.

        Args:
            id: makes a second send safe: another arrival of the same id and body changes nothing.

        Raises:
            MailboxFull: the mailbox is full; the error carries the message.
            MessageConflict: the id came before with another body.
            SessionNotFound, SessionEnded: no session can accept it.
            StoreError: not written, or unknown (the class says which).
        If cancelled, the message may have been accepted; send it again with the same id.
        """
        return await self._gateway.tell(self.id, message, id)

    async def ask(self, message: Any, *, id: str | None = None, timeout_s: float = 60.0) -> Any:
        """Send a message and wait for its reply: of the agent's type inside the process, plain data outside of it. An id that was answered
        before gets the same answer again.

        Raises:
            ReplyTimeout: no answer within `timeout_s` seconds; the error carries the id to ask again with.
            TurnFailed: the message became a dead letter; the error has the cause, and the effects that were done, in doubt and failed.
            StateError: the session's state cannot be loaded.
            And as `tell`.
        If cancelled, the message may have been accepted; ask again with the same id.
        """
        check_timeout(timeout_s)
        return await self._gateway.ask(self.id, message, id, timeout_s)

    async def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait until the session has ended; returns its result, as plain data.

        Args:
            timeout_s: seconds to wait; None for no limit.

        Raises:
            SessionEnded: it was cancelled or killed; the text has the reason.
            ReplyTimeout: it has not ended within `timeout_s` seconds.
            SessionNotFound: there is no such session.
        If cancelled, only the wait ends.
        """
        check_timeout(timeout_s)
        return await self._gateway.result(self.id, timeout_s)

    async def row(self) -> Session:
        """Its row in the store, as of now.

        Raises:
            SessionNotFound: there is no such session.
            StoreError: it could not be read.
        If cancelled, nothing was changed.
        """
        return await self._gateway.row(self.id)

    async def cancel(self, reason: str = "cancelled") -> bool:
        """End the session, and its children in reverse order: a running turn is cancelled, and callers that wait get SessionEnded.

        Effects under way are cut. Where the outcome of one is unknown, the ended session needs a person until it is resolved.

        Args:
            reason: at most 2,000 characters; the callers that wait for the session get it.

        Returns:
            False if it had ended before.

        Raises:
            SessionNotFound: there is no such session.
            StoreError: not written, or unknown (the class tells which).
        If cancelled, it may have ended; cancel it again.
        """
        return await self._gateway.end(self.id, "cancelled", check_reason(reason))

    async def kill(self, reason: str = "killed") -> bool:
        """As Handle.cancel, for a session that misbehaves: its status is "killed", and the call does not wait for its running code."""
        return await self._gateway.end(self.id, "killed", check_reason(reason))

    async def live(self) -> Live | None:
        """Its steps and waits right now; None if it is not in memory: it is parked or passivated, or no process runs it.

        Raises:
            SessionNotFound: there is no such session.
        If cancelled, nothing was changed.
        """
        return await self._gateway.live(self.id)

    async def pause(self, reason: str = "paused") -> None:
        """Stop handling messages, once no step is in flight, until `resume`. Messages that arrive meanwhile wait in the mailbox.

        Raises:
            SessionError: it has failed or ended, or did before the pause took effect.
        If cancelled, the pause request stays.
        """
        await self._gateway.pause(self.id, check_reason(reason))

    async def resume(self) -> None:
        """Run a parked session again. It may park again at once, where the reason for the park still holds.

        Raises:
            SessionError: it is not parked.
            SessionNotFound: there is no such session.
            StoreError: not written, or unknown (the class tells which).
        If cancelled, it may have been resumed; look at `row`.
        """
        await self._gateway.resume(self.id)

    async def raise_budget(self, by: Budget) -> None:
        """Add to its limits; a session parked on its budget resumes.

        Raises:
            ConfigError: `by` adds nothing.
            SessionEnded: it has ended.
        If cancelled, it may have been raised: look at `row` before you do it again.
        """
        if not is_a(by, Budget) or by == Budget():
            raise ConfigError(f"by is {brief(by)}: give a Budget with what is to be added")
        await self._gateway.raise_budget(self.id, by)

    async def resolve(self, verdict: str, *, step: str | None = None, result: Any = None) -> int:
        """Resolve effects in doubt by a person's verdict; returns how many were resolved.

        Args:
            verdict: "done" (it happened, with `result`), "retry" (it did not: run it), or "fail" (it did not: the handler gets
                StepError).
            step: only the doubts of this name, or the one with this key in hexadecimal; None for all.
            result: the result of the effect, plain data of its type.

        Raises:
            ConfigError: there is no such verdict.
            MessageRefused: `result` is not of the effect's type.
            SessionError: it is running.
            SessionNotFound: there is no such session.
        If cancelled, they may have been resolved; resolve again: a resolved effect stays as it is.
        """
        if not is_a(verdict, str) or verdict not in VERDICTS:
            raise ConfigError(f"verdict is {brief(verdict)}: a doubt is resolved as done, retry or fail")
        return await self._gateway.resolve(self.id, verdict, step, result)

    async def retry(self) -> None:
        """Handle the dead letter again, over the same journal: no effect that was done is done again.

        Raises:
            SessionError: it is running, or has no dead letter.
            SessionNotFound: there is no such session.
            StoreError: not written, or unknown (the class tells which).
        If cancelled, it may be handled again already; look at `row`.
        """
        await self._gateway.retry(self.id)

    async def drop(self, reason: str = "dropped", *, keep_letter: bool = False) -> None:
        """Give up the open turn, whether failed, parked or running. The session's state is that of the last commit; the next turn can read
        which effects were done (`session.dropped_effects`).

        Args:
            keep_letter: make the message a dead letter, which can be retried, instead of dropping it for good.

        Raises:
            SessionError: there is no open turn; or the outcome of an effect is unknown: then the message is a dead letter, and can be
                dropped once that is resolved.
            SessionEnded: it has ended.
        If cancelled, the turn may have been given up; drop it again.
        """
        await self._gateway.drop(self.id, check_reason(reason), keep_letter)

    async def interrupt(self, step: str | None = None) -> int:
        """End the attempts that are under way now, as their timeouts would: a read is retried or fails, the outcome of a `once` effect is
        unknown. Returns how many there were.

        Args:
            step: only those of this name.

        Raises:
            SessionNotFound: there is no such session.
        If cancelled, they may have ended.
        """
        return await self._gateway.interrupt(self.id, step)

    async def rewind(self, turn: int, reason: str = "rewound", *, dry_run: bool = False) -> Rewound:
        """Bring the state after an earlier turn back, as a turn of its own that handled no message; returns the effects since.

        Messages handled since then stay done, their effects stay done (the next turn reads their names: `session.dropped_effects`), and
        children, timers and the spent budget stay as they are. Messages that wait are handled next, from the state that came back.

        Args:
            turn: the turn, from 0, the state that the session was spawned with.
            reason: at most 2,000 characters; observers get it, and the log of the process.
            dry_run: only return what it would do.

        Raises:
            ConfigError: `turn` is no whole number.
            SessionError: there is no such turn, it is running or has an open turn (drop it first), or the outcome of an effect is unknown.
            SessionEnded: it has ended.
            SessionNotFound: there is no such session.
            StoreError: not written, or unknown (the class tells which).
        If cancelled, it may have been rewound: look at `row`.
        """
        if isinstance(turn, bool) or not is_a(turn, int):
            raise ConfigError(f"turn is {brief(turn)}: give the number of a turn, from 0")
        return await self._gateway.rewind(self.id, turn, check_reason(reason), dry_run)
