"""The `Session` that a handler gets: its state, and the methods whose results survive a crash."""

from __future__ import annotations

import asyncio
import random as _random
import uuid as _uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeVar, overload

from holdfast.calls.call import Call, StepContext
from holdfast.calls.tools.functions import spec_for
from holdfast.calls.tools.results import ToolResult, done_without_result, failed, succeeded
from holdfast.calls.tools.toolset import Toolset
from holdfast.codec import canonical
from holdfast.errors import BudgetExhausted, ConfigError, HoldfastError, NotJournalable, StepError
from holdfast.given import brief, is_a
from holdfast.policies.budget import Budget, Left
from holdfast.policies.retry import NO_RETRY
from holdfast.runtime.agents.definition import Agent, check_agent
from holdfast.runtime.agents.handler import SessionOf
from holdfast.runtime.agents.ids import MAX_CHARS
from holdfast.runtime.steps import send, wait
from holdfast.runtime.steps.asked import plain
from holdfast.runtime.steps.effect import run_effect
from holdfast.runtime.steps.gather import gather
from holdfast.runtime.steps.spawn import spawn
from holdfast.runtime.turns.branches import enclosing, here
from holdfast.runtime.turns.failures import NOT_KEPT
from holdfast.runtime.turns.turn import Turn

S = TypeVar("S")
T = TypeVar("T")
Work = Coroutine[Any, Any, T]


class Session(SessionOf[S]):
    """The session as its handler sees it, for one run of one turn.

    `state` is yours: change it or assign it; it is stored when the turn commits. Each awaited method is a step: journaled, budgeted,
    guarded, and after a crash answered from its record.
    """

    __slots__ = ("_turn", "state")

    journal_instead = "pass what the function needs of it, such as session.id or a part of session.state"
    """The hint of holdfast.codec where a session is given as an argument or kept in the state."""

    state: S

    def __init__(self, turn: Turn, state: S) -> None:
        self._turn = turn
        self.state = state

    # ------------------------------------------------------------ facts

    @property
    def id(self) -> str:
        """The id of the session."""
        return self._turn.owner.id

    @property
    def tenant(self) -> str:
        """The tenant that it was spawned for; "default" where none was given."""
        return self._turn.owner.tenant

    @property
    def user(self) -> str:
        """The user that it was spawned for; "" where none was given."""
        return self._turn.owner.user

    @property
    def message_id(self) -> str:
        """Id of the message that this turn handles."""
        return self._turn.message.id

    @property
    def tools(self) -> Toolset:
        """The agent's tools; `tools.openai()`, `tools.openai_responses()` or `tools.anthropic()` is their schemas for a model call."""
        return self._turn.owner.agent.tools

    @property
    def clients(self) -> Clients:
        """The Runtime's model clients by name; each call through one is a durable, metered step."""
        return Clients(self._turn)

    @property
    def budget(self) -> BudgetView:
        """The session's budget; `budget.left` has the rest of each limit."""
        return BudgetView(self._turn)

    @property
    def dropped_effects(self) -> tuple[str, ...]:
        """The names of the effects that the turn before this one had done, if that turn was dropped; else empty."""
        return self._turn.owner.notes

    # ------------------------------------------------------------ steps

    @overload
    def step(self, function: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, T]: ...
    def step(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Run any function as a step: an async one, or a plain one in a thread.

        Its effect class, timeout and retries are those of its `@tool`. A function without one counts as `read`: it may run again.

        Raises:
            StepError: it failed for good (with its category).
            BudgetExhausted: it could cost more than is left; once in a turn.
            NotJournalable: its arguments cannot be recorded; it did not run.
        If cancelled, a `once` function that was under way is in doubt, and the session parks at the end of the turn.
        """
        call, turn = spec_for(function).call(args, kwargs), self._turn
        return turn.unstarted.made(call.name, run_effect(turn, call))

    def call_tool(self, name: str | None, arguments: str | bytes | Mapping[str, Any] | None) -> Work[ToolResult]:
        """Run a tool as a model asked for it. Every failure is data for the model; only BudgetExhausted is raised.

        Args:
            name: of one of the agent's tools; any other is an error for the model.
            arguments: JSON text or a dict, as the model gave them, right or wrong; None and null are no arguments.

        If cancelled, as `step`.
        """
        return self._made(_named("call_tool", name), self._call_tool(name, arguments))

    async def _call_tool(self, name: object, arguments: object) -> ToolResult:
        name = str.__str__(name) if isinstance(name, str) else name  # a subclass can have any `__eq__`
        if not isinstance(name, str) or name not in self.tools:
            return failed("UnknownTool", f"there is no tool {brief(name)}; use one of: {', '.join(t.name for t in self.tools) or 'none'}")
        tool = self.tools[name]
        try:
            call = tool.call((), tool.parse(arguments), kind="tool")
        except HoldfastError as error:
            return failed(type(error).__name__, str(error))
        try:
            value = await run_effect(self._turn, call)
        except BudgetExhausted:
            raise
        except StepError as error:
            return done_without_result(error.message) if error.type == NOT_KEPT else failed(error.type, error.message)
        try:
            return succeeded(value)
        except NotJournalable as error:
            return done_without_result(str(error))

    def gather(self, *work: Coroutine[Any, Any, Any]) -> Work[list[Any]]:
        """Run coroutines concurrently, each as a numbered branch; their results in order.

        All of them run to their end before the first failure (by position) is raised: a sibling's effect is never cut half-way. If
        cancelled, all branches are cancelled.
        """
        return self._made("gather", gather(self._turn, work), work)

    def sleep(self, seconds: float) -> Work[None]:
        """Wait so many seconds. A long wait parks the session and takes no memory; it survives a restart.

        Raises:
            ValueError: `seconds` is not a number, or more than ten years.
        If cancelled, the wait is over, on replay too.
        """
        return self._made("sleep", wait.sleep(self._turn, seconds))

    def decide(self, options: Sequence[str], chosen: str, why: str = "") -> Work[str]:
        """Record a decision, for people who read the journal; returns the recorded `chosen`, on replay too.

        Raises:
            ValueError: `chosen` is not one of `options`.
        If cancelled, the decision may have been recorded.
        """
        if chosen not in options:
            raise ValueError(f"{brief(chosen)} is not one of {brief(options)}")
        return self._made("decide", self._note("decide", [list(options), chosen, why], chosen))

    def now(self) -> Work[float]:
        """Seconds since the epoch, the same on replay. If cancelled, the time may have been recorded."""
        return self._made("now", self._note("now", None, self._turn.node.clock.wall()))

    def random(self) -> _random.Random:
        """A random generator, the same on replay: seeded by the session, the turn and how many generators the code made before."""
        return _random.Random(self._seed("random"))

    def uuid(self) -> _uuid.UUID:
        """A version 4 UUID, the same on replay. Not a secret: it derives from the session's seed."""
        return _uuid.UUID(bytes=self._seed("uuid"), version=4)

    def _seed(self, what: str) -> bytes:
        number = (here(self._turn.flight) or self._turn.root).number(what)
        owner = self._turn.owner
        return blake2b(f"{owner.id}\0{self._turn.number}\0{number}".encode(), key=owner.seed, digest_size=16).digest()

    async def _note(self, kind: str, args: Any, value: Any) -> Any:
        async def noted(_: StepContext) -> Any:
            return value

        call = Call(kind=kind, name=kind, effect="read", args=canonical(args), run=noted, codec=plain, retry=NO_RETRY)
        return await run_effect(self._turn, call)

    def _made(self, what: str, work: Coroutine[Any, Any, T], within: Sequence[Any] = ()) -> Work[T]:
        """The coroutine of a step. One that is never awaited fails the turn, since its work is not done."""
        return self._turn.unstarted.made(what, work, within)

    # ------------------------------------------------------------ other sessions

    def tell(self, session: str, message: Any, *, id: str | None = None) -> Work[str]:
        """Send a message to another session; it leaves when this turn commits. Returns its id.

        Args:
            message: as Handle.tell: plain data, a dataclass, a msgspec.Struct or a pydantic model, of the type of the agent.
            id: makes a second send safe: another arrival of the same id and body changes nothing.

        Raises:
            StepError: there is no such session, it has ended, its mailbox is full, or it has another message of this id (`type` says
                which).
            NotJournalable: the message cannot be encoded.
        If cancelled, the message is not sent, nor on replay.
        """
        return self._made(_named("tell", session), send.tell(self._turn, session, message, id))

    def ask(self, session: str, message: Any, *, id: str | None = None, timeout_s: float = 60.0) -> Work[Any]:
        """Send a message to another session and wait for its reply, as plain data. A long wait parks this one.

        Args:
            message: as Handle.ask: plain data, a dataclass, a msgspec.Struct or a pydantic model, of the type of the agent.
            id: the id of a message that was sent before, such as `AskTimeout.message_id`: then no other is sent, and its reply is waited
                for, or returned where it has come.
            timeout_s: seconds until AskTimeout.

        Raises:
            AskTimeout: no reply within `timeout_s`; ask again with its `message_id`, in this turn, a later one or another session.
            AskCycle: the other session waits for this one, directly or through others.
            StepError: the message was refused, the id came before with another body (`type` is "MessageConflict"), or the other session
                failed; `type` has the reason.
            NotJournalable: the message cannot be encoded.
        If cancelled, the message may have been sent: the other session handles it, and its reply is ignored here.
        """
        return self._made(_named("ask", session), send.ask(self._turn, session, message, id, timeout_s))

    def spawn(
        self, agent: Agent, *, state: Any = None, budget: Budget | None = None, id: str | None = None, detached: bool = False
    ) -> Work[Child]:
        """Make a child session; its id derives from this step unless given.

        Args:
            state: its first state; default the agent's own.
            budget: its limits; each that is not given is that of its agent. They are its share of this session's budget, capped by what
                is left here; where neither names a limit, half of that. The unspent rest returns when it ends.
            detached: it stays alive when this session ends, and takes no share of its budget.

        Raises:
            ConfigError: this Runtime does not have the agent.
            StepError: the id belongs to another session.
            NotJournalable: `state` cannot be stored.
        If cancelled, the child may have been made; the same step on replay is the same child.
        """
        check_agent(agent, self._turn.node.settings.agents)
        if budget is not None and not is_a(budget, Budget):
            raise ConfigError(f"budget is {brief(budget)}: give a Budget")
        first = agent.first_state() if state is None else state
        data = agent.state.round_trip(first)[0]
        return self._made(f"spawn({agent.name})", self._spawn(agent, data, budget, id, detached))

    async def _spawn(self, agent: Agent, state: bytes, budget: Budget | None, id: str | None, detached: bool) -> Child:
        return Child(self, await spawn(self._turn, agent, state, budget, id, detached))

    def watch(self, session: str) -> Work[Any]:
        """Wait until another session has ended; its result, as plain data.

        Raises:
            StepError: it was cancelled or killed, or there is no such session.
        If cancelled, its end is ignored here.
        """
        return self._made(_named("watch", session), send.watch(self._turn, session))

    def finish(self, result: Any = None) -> None:
        """End the session when this turn commits. `Handle.result` and a parent's `Child.result` return `result`, as plain data.

        Raises:
            ConfigError: called inside a step: a replay does not run the step's function again, so it would miss the call.
        """
        branch = here(self._turn.flight)
        if branch is not None and enclosing(branch.path):
            raise ConfigError("finish() was called inside a step, which is not run again on replay: call it after the step")
        self._turn.finishing, self._turn.result = True, result


def _named(what: str, target: object) -> str:
    """A call on a session or a tool, for people; without the name where it is none."""
    return f"{what}({target})" if isinstance(target, str) and len(target) <= MAX_CHARS else f"{what}()"


class Child:
    """A child session, as its parent sees it."""

    __slots__ = ("_session", "id")

    def __init__(self, session: Session[Any], id: str) -> None:
        self._session, self.id = session, id

    def ask(self, message: Any, *, id: str | None = None, timeout_s: float = 60.0) -> Work[Any]:
        """As Session.ask."""
        return self._session.ask(self.id, message, id=id, timeout_s=timeout_s)

    def tell(self, message: Any, *, id: str | None = None) -> Work[str]:
        """As Session.tell."""
        return self._session.tell(self.id, message, id=id)

    def result(self) -> Work[Any]:
        """As Session.watch."""
        return self._session.watch(self.id)


class BudgetView:
    """The rest of the session's budget."""

    __slots__ = ("_turn",)

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    @property
    def left(self) -> Left:
        """None in a field is no limit. It differs between a run and its replay: do not decide by it without `session.decide`."""
        return self._turn.owner.ledger.left()


class Clients:
    """The model clients by name."""

    __slots__ = ("_turn",)

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        turn = self._turn
        client = turn.node.clients.get(name)
        if client is None:
            known = ", ".join(sorted(turn.node.clients)) or "none"
            raise ConfigError(f"there is no client {brief(name)}: Runtime(clients={{{brief(name)}: ...}}); there is: {known}")
        limits = turn.owner.ledger.limits
        return client.proxy(_Steps(turn), cap_tokens=limits.tokens is not None, cap_money=limits.caps_money)


class _Steps:
    """The pipeline of one turn, as calls see it."""

    __slots__ = ("_turn",)

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    async def run(self, call: Call) -> Any:
        return await run_effect(self._turn, call)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        turn = self._turn
        within = here(turn.flight) or turn.root
        return turn.flight.start(work, within.beneath(f"{within.below('s')}/"))
