"""An agent: a handler with the types of its state, messages and replies, its version, its tools and its limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack, overload

import msgspec

from holdfast.calls.call import Call
from holdfast.calls.tools.tool import Tool
from holdfast.calls.tools.toolset import Toolset
from holdfast.codec import Codec, codec_for, decode, encode, lost
from holdfast.errors import ConfigError, NotJournalable, StateError
from holdfast.given import brief
from holdfast.policies._faults import Faults
from holdfast.policies.breaker import BreakerSpec
from holdfast.policies.budget import Budget
from holdfast.policies.repetition import RepetitionSpec
from holdfast.runtime.agents.handler import Handler, types_of
from holdfast.runtime.agents.ids import check_id
from holdfast.stores.records import StepRecord
from holdfast.supervisors.intensity import Backoff, Intensity, faults_of

Migration = Callable[[Any], Any]

_INTENSITY, _BACKOFF = Intensity(3, 60.0), Backoff(base_s=0.05, max_s=5.0)


class AgentOptions(TypedDict, total=False):
    """The options of `agent`; one that is missing or None has the default that `agent` documents."""

    name: str | None
    version: int
    tools: Sequence[Tool[..., Any]]
    budget: Budget | None
    breaker: BreakerSpec | None
    repetition: RepetitionSpec | None
    intensity: Intensity | None
    backoff: Backoff | None
    mailbox: int
    park_after_s: float
    crash_limit: int
    migrations: Mapping[int, Migration] | None


class Agent(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A definition, made by the decorator `agent`, which documents the fields."""

    handler: Handler
    name: str
    state: Codec
    message: Codec
    reply: Codec
    tools: Toolset
    version: int = 1
    budget: Budget = Budget()
    breaker: BreakerSpec = BreakerSpec()
    repetition: RepetitionSpec = RepetitionSpec()
    intensity: Intensity = _INTENSITY
    backoff: Backoff = _BACKOFF
    mailbox: int = 1000
    park_after_s: float = 5.0
    crash_limit: int = 5
    migrations: Mapping[int, Migration] = {}

    def __repr__(self) -> str:
        return f"<agent {self.name!r} version {self.version}>"

    def first_state(self) -> Any:
        """The state of a session that is spawned without a state. Raises ConfigError: its type cannot be made without arguments."""
        if self.state.plain or self.state.type is None:
            return None
        try:
            return self.state.type()
        except Exception as error:  # a user's own type can raise any error
            raise ConfigError(
                f"agent {self.name!r} needs a first state ({error}): give the fields of {self._type_name()} defaults, or spawn with a state"
            ) from error

    def load_state(self, session: str, data: bytes, version: int, fingerprint: int = 0) -> Any:
        """The stored state, migrated to this version.

        Args:
            fingerprint: that of the type whose state was stored; 0 where it is not known.

        Raises:
            StateError: it is newer than the agent, a migration is missing, it does not decode, or a part of it would be lost. The stored
                state is unchanged.
        """
        if version == self.version:
            try:
                value = self.state.decode(data)
                if fingerprint and fingerprint != self.state.fingerprint:
                    self._check_kept(session, data, value)
                return value
            except (msgspec.ValidationError, ValueError, TypeError) as error:
                raise StateError(
                    session, f"the state of {session!r} does not decode as {self._type_name()}: {error}; raise version= and add a migration"
                ) from error
        if version > self.version:
            raise StateError(
                session, f"the state of {session!r} is of version {version}, {self.name!r} knows {self.version}: deploy the newer agent"
            )
        value = self._migrated(session, decode(data), version)
        try:
            data = self.state.encode(value) if self.state.plain else encode(value)
            value = self.state.decode(data)
            self._check_kept(session, data, value)
            return value
        except (msgspec.ValidationError, ValueError, TypeError, NotJournalable) as error:
            raise StateError(session, f"the migrated state of {session!r} is no {self._type_name()}: {error}") from error

    def _check_kept(self, session: str, data: bytes, value: Any) -> None:
        if path := lost(decode(data), decode(self.state.encode_anyhow(value)), value):
            raise StateError(
                session,
                f"the state of {session!r} has {path}, which {self._type_name()} does not know as it was stored: deploy the type that "
                "does, or raise version= and add a migration",
            )

    def _migrated(self, session: str, value: Any, version: int) -> Any:
        for number in range(version, self.version):
            migrate = self.migrations.get(number)
            if migrate is None:
                raise StateError(session, f"the state of {session!r} is of version {number}: {self.name!r} has no migrations[{number}]")
            try:
                value = migrate(value)
            except Exception as error:
                raise StateError(session, f"migrations[{number}] of {self.name!r} failed on {session!r}: {error!r}") from error
        return value

    def recall(self, record: StepRecord) -> Call | None:
        """The call of a record, so that its `reconcile` can be asked; None where this agent has no such tool, or the tool takes other
        arguments by now."""
        try:
            return self.tools[record.name].recall(record.args)
        except (KeyError, NotJournalable, TypeError, ValueError):
            return None

    def _type_name(self) -> str:
        return getattr(self.state.type, "__qualname__", repr(self.state.type))


@overload
def agent(handler: Handler, /) -> Agent: ...


@overload
def agent(**options: Unpack[AgentOptions]) -> Callable[[Handler], Agent]: ...


def agent(handler: Handler | None = None, /, **options: Unpack[AgentOptions]) -> Any:
    """Make an agent of `async def handler(session: Session[State], message: Message) -> Reply`.

    The annotations are the stored types: state (its class is called without arguments for a new session), message and reply. Each of them
    may be plain data, a dataclass, a msgspec.Struct or a pydantic model.

    Args:
        name: the name that sessions store; default the function's name. Do not change it while sessions live.
        version: version of the state's type, default 1; raise it together with a migration.
        tools: the tools that `session.call_tool` may call; after a crash, the `reconcile` of a `once` tool is found among them.
        budget: limits of each session, over all its turns; default none.
        breaker: when a session that keeps failing has to wait; default BreakerSpec().
        repetition: when the same tool call counts as a loop; default RepetitionSpec().
        intensity: how often a crashing turn is restarted before its message becomes a dead letter; default 3 in 60 s.
        backoff: the pause before each restart; default 0.05 s doubling to 5 s, jittered.
        mailbox: most messages that may wait, default 1000; one more is refused with MailboxFull.
        park_after_s: how long, in seconds, a wait for a reply or timer is held in memory; default 5.
        crash_limit: the turn parks after this many unclean ends of the process in it without a new record, where only it can be at fault;
            default 5.
        migrations: `{n: function}` migrates plain state data of version n to n + 1.

    Raises:
        ConfigError: the definition has faults; the error lists all of them.
    """
    unknown = sorted(options.keys() - AgentOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"agent() has no option {', '.join(unknown)}: it takes {', '.join(AgentOptions.__annotations__)}")
    return _make(options) if handler is None else _make(options)(handler)


def _make(options: AgentOptions) -> Callable[[Handler], Agent]:
    def make(function: Handler) -> Agent:
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        name = given.pop("name", None) or getattr(function, "__name__", "")
        faults: list[str] = []
        types = types_of(function, faults)
        faults += _faults(given)
        try:
            check_id("name", name)
        except ConfigError as error:
            faults.append(str(error))
        tools = _toolset(given.pop("tools", ()), faults)
        codecs: dict[str, Any] = {label: _codec(label, type_, faults) for label, type_ in zip(types._fields, types, strict=True)}
        if faults:
            raise ConfigError(f"agent {brief(name)}: " + "; ".join(faults))
        return Agent(handler=function, name=name, tools=tools, **{**codecs, **given})

    return make


def _faults(given: Mapping[str, Any]) -> list[str]:
    """The faults of the options, without those of the handler, the types and the tools."""
    checks = Faults("")
    for label in ("version", "mailbox", "crash_limit"):
        checks.whole(label, given.get(label, 1), 1)
    checks.number("park_after_s", given.get("park_after_s", 0.0))
    specs = {"budget": Budget, "breaker": BreakerSpec, "repetition": RepetitionSpec, "intensity": Intensity, "backoff": Backoff}
    for label, wanted in specs.items():
        if not isinstance(given.get(label, wanted()), wanted):
            checks.add(f"{label} is {brief(given[label])}: give a {wanted.__name__}")
    intensity, backoff = given.get("intensity", _INTENSITY), given.get("backoff", _BACKOFF)
    if isinstance(intensity, Intensity) and isinstance(backoff, Backoff):
        for fault in faults_of(intensity, backoff):
            checks.add(fault)
    migrations = given.get("migrations", {})
    if not isinstance(migrations, Mapping) or not all(callable(step) for step in migrations.values()):
        checks.add("migrations maps a version to a function: {1: function}")
    return checks.found


def _toolset(tools: Sequence[Tool[..., Any]], faults: list[str]) -> Toolset:
    try:
        return Toolset(tools)
    except ConfigError as error:
        faults.append(str(error))
        return Toolset(())


def _codec(label: str, type_: Any, faults: list[str]) -> Codec:
    try:
        return codec_for(type_)
    except NotJournalable as error:
        faults.append(f"{label}: {error}")
        return codec_for(Any)


def check_agent(agent: object, known: Mapping[str, Agent], *, same: bool = False) -> None:
    """Raises ConfigError if `agent` is none of those that the Runtime has: by name, or if `same` this very one."""
    if not isinstance(agent, Agent):
        raise ConfigError(f"{brief(agent)} is no agent: give what @agent made of the handler, not its name or a plain function")
    if agent.name not in known or (same and known[agent.name] is not agent):
        raise ConfigError(f"this Runtime does not have the agent {agent.name!r}: add it to agents=")
