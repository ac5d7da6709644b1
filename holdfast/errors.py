"""The one error tree of holdfast.

Every error that a user can meet is here, on one page. The data is in attributes, the message names the next action, and each class can be
pickled. Catch `HoldfastError` to catch every error of holdfast; no class here derives directly from BaseException.
"""

from __future__ import annotations

from typing import Any


class HoldfastError(Exception):
    """The base of all errors of holdfast."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[HoldfastError], args: tuple[Any, ...], attributes: dict[str, Any]) -> HoldfastError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ConfigError(HoldfastError):
    """A definition or setting is wrong. Raised when it is loaded, never when it is used; the message names all faults of one definition."""


class NotJournalable(ConfigError):
    """A value or type that the journal cannot hold. Raised before the effect runs if the type is known by then."""


# ---------------------------------------------------------------- steps


class StepError(HoldfastError):
    """A step failed for good. The same error, with the same fields, is raised live and on every replay.

    Attributes:
        step: name of the step.
        type: name of the exception class that caused it.
        message: its text, redacted.
        category: "transient" (the attempts are used up), "semantic" (the caller's input was wrong) or "permanent".
        dependency: whether it says that a dependency is down.
        kind: which failure it is, a row of docs/failures.md such as "rate_limit"; "" where a session failed it and not an attempt.
        status: the HTTP status of the answer; None if there was none.
        of: the name of the dependency that failed, or else of the step; "" where it was no call to the outside.
        then: what follows if the handler lets it out: "handler" (a crash of the turn), "dead letter", "park" (its session runs the turn
            again later) or "person" (its session waits for a person); default "park" if it is transient, else "handler".
        until: the time to which the dependency asked to wait, in seconds since the epoch; None if it did not say.
    """

    def __init__(
        self,
        step: str,
        type: str,
        message: str,
        category: str = "permanent",
        *,
        dependency: bool = False,
        kind: str = "",
        status: int | None = None,
        of: str = "",
        then: str = "",
        until: float | None = None,
    ) -> None:
        super().__init__(f"step {step!r} failed: {type}: {message}")
        self.step, self.type, self.message, self.category = step, type, message, category
        self.dependency, self.kind, self.status, self.of, self.until = dependency, kind, status, of, until
        self.then = then or ("park" if category == "transient" else "handler")


class BudgetExhausted(StepError):
    """The next attempt could cost more than the session has left. Raised once, so that the handler can end the turn with the results so
    far."""


class RepetitionDetected(StepError):
    """The session made the same call with the same arguments, or a short cycle of calls, too often. Make another call."""


class AskTimeout(StepError):
    """The other session did not answer within the deadline. The message was sent: ask again with its id, from any session or through a
    `Handle`, and it is not handled twice.

    Attributes:
        message_id: the id of the message; "" in errors that an older version recorded.
    """

    def __init__(self, step: str, type: str, message: str, category: str = "permanent", *, message_id: str = "", **about: Any) -> None:
        super().__init__(step, type, message, category, **about)
        self.message_id = message_id


class AskCycle(StepError):
    """The ask would wait for a session that (directly or not) waits for this one."""


class NotAwaited(HoldfastError):
    """The handler created steps and did not await them: they did not run. `steps` are their names."""

    def __init__(self, steps: list[str]) -> None:
        super().__init__(f"never awaited: {', '.join(f'session.{step}' for step in steps)}: put an await before each")
        self.steps = steps


class NotDone(HoldfastError):
    """Raise this from a `once` tool if the effect certainly did not happen. After any other exception its outcome is unknown."""


# ---------------------------------------------------------------- sessions


class SessionError(HoldfastError):
    """The base of errors of one session; `session` is its id."""

    def __init__(self, session: str, text: str) -> None:
        super().__init__(text)
        self.session = session


class SessionNotFound(SessionError):
    """No session has this id."""


class SessionEnded(SessionError):
    """The session is finished, cancelled or killed: it takes no more messages."""


class SessionConflict(SessionError):
    """The id belongs to a session of another agent or tenant."""


class StateError(SessionError):
    """The stored state does not decode as the agent's state type, or is newer than the agent; or another row of the session does not
    decode. What is stored was left untouched."""


class MessageRefused(SessionError):
    """A message, or the `result=` for an effect of unknown outcome, is not of the type that the agent declares. It was not written; the
    cause has the details."""


class MailboxFull(SessionError):
    """The mailbox is full. The message was not accepted; `message` holds it, so that you can send it again later."""

    def __init__(self, session: str, message: Any, limit: int) -> None:
        super().__init__(session, f"mailbox of {session!r} is full ({limit} messages): send again later, or raise mailbox=")
        self.message, self.limit = message, limit


class MessageConflict(SessionError):
    """The id of the message belongs to an earlier message with another body."""


class ReplyTimeout(SessionError):
    """No answer within the deadline; `why` is the reason for which the session waits. The message was accepted: ask again with its
    `message_id`.

    If the caller waited for the session's end, there is no message, and `message_id` is "": ask for its result again.
    """

    def __init__(self, session: str, message_id: str, timeout_s: float, why: str = "") -> None:
        if message_id:
            text, again = f"{session!r} did not answer {message_id!r} within {timeout_s:g} s", f"ask again with id={message_id!r}"
        else:
            text, again = f"session {session!r} has not ended within {timeout_s:g} s", "ask for its result again"
        super().__init__(session, f"{text}: {why}" if why else f"{text}; {again}")
        self.message_id, self.timeout_s, self.why = message_id, timeout_s, why


class TurnFailed(SessionError):
    """The message became a dead letter: its turn failed for good. `cause` is the reason.

    Attributes:
        effects: the effects that were done before it failed.
        in_doubt: the effects whose outcome is unknown.
        failed: the effects that were tried and failed.
    """

    def __init__(
        self,
        session: str,
        message_id: str,
        cause: str,
        effects: tuple[str, ...] = (),
        in_doubt: tuple[str, ...] = (),
        failed: tuple[str, ...] = (),
    ) -> None:
        lists = (("done before it failed", effects), ("outcome unknown", in_doubt), ("failed", failed))
        parts = "".join(f"; {label}: {', '.join(names)}" for label, names in lists if names)
        super().__init__(session, f"{session!r} could not handle message {message_id!r}: {cause}{parts}")
        self.message_id, self.cause = message_id, cause
        self.effects, self.in_doubt, self.failed = effects, in_doubt, failed


# ---------------------------------------------------------------- stores


class StoreError(HoldfastError):
    """The base of the errors of stores."""


class NotWritten(StoreError):
    """The write certainly did not happen: it can be sent again.

    `passing`: the fault is the store's own (a full disk, a server that restarts) and can pass; False if the same write would fail again.
    """

    def __init__(self, text: str = "", passing: bool = True) -> None:
        super().__init__(text)
        self.passing = passing
        if not passing:
            self.args = (text, passing)  # an error is copied by its args

    def __str__(self) -> str:
        return str(self.args[0])


class WriteRefused(NotWritten):
    """The write itself is at fault, and it alone was refused: it has a value that no store can hold, or needs a row that does not decode.
    The same write would be refused again."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text, passing=False)
        self.args = (text,)


class StoreLost(NotWritten):
    """This process has lost the ownership of the store: it is fenced and cannot write. Restart it to acquire the store again."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text, passing=False)
        self.args = (text,)


class OutcomeUnknown(StoreError):
    """The write may or may not have happened. Read the rows again by key before any other write."""


class StoreLocked(StoreError):
    """Another process has the database open for writing."""


class SchemaTooNew(StoreError):
    """The database was written by a newer version of holdfast. It was left untouched."""


# ---------------------------------------------------------------- supervision


class SupervisorGaveUp(HoldfastError):
    """More restarts than the intensity allows, or a child that failed in the first start. Its error is the cause (`__cause__`).

    Attributes:
        supervisor: the name of the supervisor.
        child: the last child that failed.
        why: what happened to that child, with its last failure.
    """

    def __init__(self, supervisor: str, child: str, why: str = "was restarted too often") -> None:
        super().__init__(f"supervisor {supervisor!r} gave up: child {child!r} {why}")
        self.supervisor, self.child, self.why = supervisor, child, why


class Ignore(HoldfastError):
    """Raise this from a child of a supervisor, before it is ready, if it has nothing to do: it is not started, and that is no crash."""


class RuntimeStopped(HoldfastError):
    """The runtime is not running, or is draining: it accepts no work. Start it with `async with runtime:`."""


class NodeUnreachable(HoldfastError):
    """No process listens on the control socket `address`. If `sent`, the request was sent and may have taken effect."""

    def __init__(self, address: str, text: str, sent: bool = False) -> None:
        super().__init__(text)
        self.address, self.sent = address, sent
