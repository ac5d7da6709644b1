"""A session from outside: one `Handle`, over whatever `Gateway` reaches it."""

from __future__ import annotations

from typing import Any, Protocol

from holdfast.errors import ConfigError
from holdfast.policies.budget import Budget
from holdfast.runtime.agents.ids import check_reason, check_timeout
from holdfast.runtime.live import Live
from holdfast.stores.records import Session

VERDICTS = ("done", "retry", "fail")


class Gateway(Protocol):
    """How a program reaches sessions. Every method is durable when it returns; see Handle for what they mean and raise."""

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


class Handle:
    """One session. Cheap: it holds an id, no memory of the session.

    It is the same inside the process that runs the session and outside of it (`holdfast.connect`), where every method can also raise
    NodeUnreachable: no process answers; its `sent` tells whether the request may have taken effect.
    """

    __slots__ = ("_gateway", "id")

    def __init__(self, gateway: Gateway, id: str) -> None:
        self._gateway, self.id = gateway, id

    def __repr__(self) -> str:
        return f"<session {self.id!r}>"

    async def tell(self, message: Any, *, id: str | None = None) -> str:
        """Send a message; its id. When this returns, it is durable: it will be handled, or be a dead letter.

        Args:
            id: makes sending it again safe: a second arrival of the same id and body changes nothing.

        Raises:
            MailboxFull: the mailbox is full; the error carries the message.
            MessageConflict: the id came before with another body.
            SessionNotFound, SessionEnded: no session can take it.
            StoreError: not written, or unknown (the class says which).
        If cancelled, the message may have been accepted; send it again with the same id.
        """
        return await self._gateway.tell(self.id, message, id)

    async def ask(self, message: Any, *, id: str | None = None, timeout_s: float = 60.0) -> Any:
        """Send a message and wait for its reply: of the agent's type inside the process, plain data outside of it. An id that was answered
        before gets the same answer again.

        Raises:
            ReplyTimeout: no answer within `timeout_s` seconds; it carries the id to ask again with.
            TurnFailed: the message became a dead letter; it names the cause, and the effects that were done, in doubt and failed.
            StateError: the session's state cannot be loaded.
            And as `tell`.
        If cancelled, the message may have been accepted; ask again with the same id.
        """
        check_timeout(timeout_s)
        return await self._gateway.ask(self.id, message, id, timeout_s)

    async def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait until the session has ended; the result that it finished with, as plain data.

        Args:
            timeout_s: seconds to wait; None for as long as it takes.

        Raises:
            SessionEnded: it was cancelled or killed; the text gives the reason.
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
        """End it, and its children in reverse order: what runs is cancelled, and what waits for a reply gets SessionEnded.

        Effects under way are cut; where the outcome of one is unknown, the ended session needs a person until it is resolved.

        Args:
            reason: at most 2,000 characters; what waits for the session reads it.

        Returns:
            False if it had ended before.

        Raises:
            SessionNotFound: there is no such session.
            StoreError: not written, or unknown (the class tells which).
        If cancelled, it may have ended; cancel it again.
        """
        return await self._gateway.end(self.id, "cancelled", check_reason(reason))

    async def kill(self, reason: str = "killed") -> bool:
        """As Handle.cancel, for one that misbehaves: its status is "killed", and the call waits for nothing that the session runs."""
        return await self._gateway.end(self.id, "killed", check_reason(reason))

    async def live(self) -> Live | None:
        """What it is doing right now; None if it is not in memory: it is parked or passivated, or no process runs it.

        Raises:
            SessionNotFound: there is no such session.
        If cancelled, nothing was changed.
        """
        return await self._gateway.live(self.id)

    async def pause(self, reason: str = "paused") -> None:
        """Stop handling messages, once no step is in flight, until `resume`. What arrives meanwhile waits in the mailbox.

        Raises:
            SessionError: it has failed or ended, or did before it could be paused.
        If cancelled, it is paused all the same.
        """
        await self._gateway.pause(self.id, check_reason(reason))

    async def resume(self) -> None:
        """Run a parked session again. It may park at once again, where the reason that it parked for still holds.

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
        if by == Budget():
            raise ConfigError(f"by is {by!r}: give a Budget with what is to be added")
        await self._gateway.raise_budget(self.id, by)

    async def resolve(self, verdict: str, *, step: str | None = None, result: Any = None) -> int:
        """Resolve effects in doubt, by a person's word; how many were.

        Args:
            verdict: "done" (it happened, with `result`), "retry" (it did not: run it), or "fail" (it did not: the handler gets
                StepError).
            step: only the doubts of this name, or the one with this key in hexadecimal; None for all.
            result: what the effect returned, plain data of its type.

        Raises:
            ConfigError: there is no such verdict.
            MessageRefused: `result` is not what the effect returns.
            SessionError: it is running.
            SessionNotFound: there is no such session.
        If cancelled, they may have been resolved; resolve again: a resolved effect stays as it is.
        """
        if verdict not in VERDICTS:
            raise ConfigError(f"verdict is {verdict!r}: a doubt is resolved as done, retry or fail")
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
        """Give the open turn up, whatever its state: failed, parked or running. The state is that of the last commit; the next turn can
        read which effects were done (`session.dropped_effects`).

        Args:
            keep_letter: let the message be a dead letter, which can be retried, instead of dropping it for good.

        Raises:
            SessionError: there is no open turn; or the outcome of an effect is unknown: then the message is a dead letter, and can be
                dropped once that is resolved.
            SessionEnded: it has ended.
        If cancelled, the turn may have been given up; drop it again.
        """
        await self._gateway.drop(self.id, check_reason(reason), keep_letter)

    async def interrupt(self, step: str | None = None) -> int:
        """End the attempts that are under way now, as their timeouts would: a read is retried or fails, the outcome of a `once` effect is
        unknown. How many there were.

        Args:
            step: only those of this name.

        Raises:
            SessionNotFound: there is no such session.
        If cancelled, they may have been ended.
        """
        return await self._gateway.interrupt(self.id, step)
