"""An agent: a handler with the types of its state, messages and replies, its version, its tools and its limits."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, overload

import msgspec

from holdfast.calls.call import Call
from holdfast.calls.tools import Tool
from holdfast.calls.toolset import Toolset
from holdfast.codec import Codec, codec_for
from holdfast.errors import ConfigError, NotJournalable, StateError
from holdfast.policies._faults import Faults
from holdfast.policies.breaker import BreakerSpec
from holdfast.policies.budget import Budget
from holdfast.policies.repetition import RepetitionSpec
from holdfast.runtime.ids import check_id
from holdfast.runtime.session import Session
from holdfast.stores.records import StepRecord
from holdfast.supervisors.intensity import Backoff, Intensity

Handler = Callable[[Session[Any], Any], Coroutine[Any, Any, Any]]
Migration = Callable[[Any], Any]

_any_decode = msgspec.msgpack.Decoder().decode


class Agent:
    """A definition. Made by the decorator `agent`; see there for what the fields mean."""

    def __init__(
        self,
        handler: Handler,
        *,
        name: str,
        version: int,
        tools: Toolset,
        budget: Budget,
        breaker: BreakerSpec,
        repetition: RepetitionSpec,
        intensity: Intensity,
        backoff: Backoff,
        mailbox: int,
        park_after_s: float,
        crash_limit: int,
        migrations: Mapping[int, Migration],
        state: Any,
        message: Codec,
        reply: Codec,
    ) -> None:
        self.handler, self.name, self.version, self.tools = handler, name, version, tools
        self.budget, self.breaker, self.repetition = budget, breaker, repetition
        self.intensity, self.backoff, self.mailbox = intensity, backoff, mailbox
        self.park_after_s, self.crash_limit, self.migrations = park_after_s, crash_limit, migrations
        self.state_type, self.message, self.reply = state, message, reply
        self.state = codec_for(state)

    def __repr__(self) -> str:
        return f"<agent {self.name!r} version {self.version}>"

    def first_state(self) -> Any:
        """The state of a session that is spawned without one."""
        if self.state.plain or self.state.type is None:
            return None
        return self.state_type()

    def load_state(self, session: str, data: bytes, version: int) -> Any:
        """The state that was stored, brought forward to this version.

        Raises:
            StateError: it is newer than the agent, a migration is missing, or it does not decode. Nothing was changed.
        """
        if version == self.version:
            try:
                return self.state.decode(data)
            except (msgspec.ValidationError, ValueError, TypeError) as error:
                raise StateError(
                    session, f"the state of {session!r} does not decode as {self._type_name()}: {error}; raise version= and add a migration"
                ) from error
        if version > self.version:
            raise StateError(
                session, f"the state of {session!r} is of version {version}, {self.name!r} knows {self.version}: deploy the newer agent"
            )
        value = _any_decode(data)
        for number in range(version, self.version):
            migrate = self.migrations.get(number)
            if migrate is None:
                raise StateError(session, f"the state of {session!r} is of version {number}: {self.name!r} has no migrations[{number}]")
            try:
                value = migrate(value)
            except Exception as error:
                raise StateError(session, f"migrations[{number}] of {self.name!r} failed on {session!r}: {error!r}") from error
        try:
            return self.state.decode(self.state.encode(value) if self.state.plain else msgspec.msgpack.encode(value))
        except (msgspec.ValidationError, ValueError, TypeError, NotJournalable) as error:
            raise StateError(session, f"the migrated state of {session!r} is no {self._type_name()}: {error}") from error

    def recall(self, record: StepRecord) -> Call | None:
        """The call that a record was written for, so that its `reconcile` can be asked; None where its tool is not known here."""
        try:
            tool = self.tools[record.name]
            return tool.recall(record.args)
        except (KeyError, NotJournalable, msgspec.ValidationError):
            return None

    def _type_name(self) -> str:
        return getattr(self.state_type, "__qualname__", repr(self.state_type))


@overload
def agent(handler: Handler, /) -> Agent: ...


@overload
def agent(
    *,
    name: str | None = None,
    version: int = 1,
    tools: Sequence[Tool[..., Any]] = (),
    budget: Budget | None = None,
    breaker: BreakerSpec | None = None,
    repetition: RepetitionSpec | None = None,
    intensity: Intensity | None = None,
    backoff: Backoff | None = None,
    mailbox: int = 1000,
    park_after_s: float = 5.0,
    crash_limit: int = 5,
    migrations: Mapping[int, Migration] | None = None,
) -> Callable[[Handler], Agent]: ...


def agent(
    handler: Handler | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    tools: Sequence[Tool[..., Any]] = (),
    budget: Budget | None = None,
    breaker: BreakerSpec | None = None,
    repetition: RepetitionSpec | None = None,
    intensity: Intensity | None = None,
    backoff: Backoff | None = None,
    mailbox: int = 1000,
    park_after_s: float = 5.0,
    crash_limit: int = 5,
    migrations: Mapping[int, Migration] | None = None,
) -> Any:
    """Make an agent of `async def handler(session: Session[State], message: Message) -> Reply`.

    The annotations are the types that are stored: state (its class is called without arguments for a new session), message and reply; any
    of them may be plain data, a dataclass, a msgspec.Struct or a pydantic model.

    Args:
        name: what sessions store; default the function's name. Do not change it while sessions live.
        version: of the state's type; raise it together with a migration.
        tools: what `session.call_tool` may call; also where the `reconcile` of a `once` tool is found after a crash.
        budget: limits of each session, over all its turns; default none.
        breaker: when a session that keeps failing is made to wait; default BreakerSpec().
        repetition: when the same tool call counts as a loop; default RepetitionSpec().
        intensity: how often a crashing turn is restarted before its message is a dead letter; default 3 in 60 s.
        backoff: how long before each restart; default 0.05 s doubling to 5 s, jittered.
        mailbox: messages that may wait; one more is refused with MailboxFull.
        park_after_s: how long a wait for a reply or timer is held in memory.
        crash_limit: after so many unclean ends of the process in one turn without a new record, the turn parks.
        migrations: `{n: function}` brings plain state data of version n to n + 1.

    Raises:
        ConfigError: all that is wrong with the definition, at once.
    """

    def make(function: Handler) -> Agent:
        faults: list[str] = []
        state, message, reply = _types(function, faults)
        checks = Faults("")
        for label, value in (("version", version), ("mailbox", mailbox), ("crash_limit", crash_limit)):
            checks.whole(label, value, 1)
        checks.number("park_after_s", park_after_s)
        for label, given, wanted in (
            ("budget", budget, Budget),
            ("breaker", breaker, BreakerSpec),
            ("repetition", repetition, RepetitionSpec),
            ("intensity", intensity, Intensity),
            ("backoff", backoff, Backoff),
        ):
            if given is not None and not isinstance(given, wanted):
                checks.add(f"{label} is {given!r}: give a {wanted.__name__}")
        if not all(callable(step) for step in (migrations or {}).values()):
            checks.add("migrations maps a version to a function: {1: function}")
        faults.extend(checks.found)
        try:
            check_id("name", name or function.__name__)
        except ConfigError as error:
            faults.append(str(error))
        toolset = Toolset(())
        try:
            toolset = Toolset(tools)
        except ConfigError as error:
            faults.append(str(error))
        codecs = []
        for label, type_ in (("state", state), ("message", message), ("reply", reply)):
            try:
                codecs.append(codec_for(type_))
            except NotJournalable as error:
                faults.append(f"{label}: {error}")
        if faults:
            raise ConfigError(f"agent {name or function.__name__!r}: " + "; ".join(faults))
        return Agent(
            function,
            name=name or function.__name__,
            version=version,
            tools=toolset,
            budget=budget or Budget(),
            breaker=breaker or BreakerSpec(),
            repetition=repetition or RepetitionSpec(),
            intensity=intensity or Intensity(3, 60.0),
            backoff=backoff or Backoff(base_s=0.05, max_s=5.0),
            mailbox=mailbox,
            park_after_s=park_after_s,
            crash_limit=crash_limit,
            migrations=dict(migrations or {}),
            state=state,
            message=codecs[1],
            reply=codecs[2],
        )

    return make if handler is None else make(handler)


def _types(function: Handler, faults: list[str]) -> tuple[Any, Any, Any]:
    """The handler's state, message and reply types; what is wrong with its signature goes to `faults`."""
    if not inspect.iscoroutinefunction(function):
        faults.append("the handler has to be an `async def`")
        return Any, Any, Any
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2:
        faults.append("the handler takes (session, message), nothing more")
        return Any, Any, Any
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        faults.append(f"an annotation does not resolve: {error}")
        return Any, Any, Any
    session = hints.get(parameters[0].name, Session)
    state: Any = Any
    if typing.get_origin(session) is Session:
        (state,) = typing.get_args(session)
    elif session is not Session:
        faults.append(f"the first parameter is annotated {session!r}: use Session or Session[State]")
    return state, hints.get(parameters[1].name, Any), hints.get("return", Any)
