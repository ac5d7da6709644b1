"""What a handler gets: its state, and every way to do something that survives a crash."""

from __future__ import annotations

import asyncio
import random as _random
import uuid as _uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from holdfast.calls.call import Call, StepContext
from holdfast.calls.results import ToolResult, failed, succeeded
from holdfast.calls.tools import spec_for
from holdfast.codec import canonical, codec_for
from holdfast.errors import BudgetExhausted, ConfigError, HoldfastError, StepError
from holdfast.policies.budget import Budget, Left
from holdfast.policies.retry import NO_RETRY
from holdfast.runtime import messaging
from holdfast.runtime.step import run_step

if TYPE_CHECKING:
    from holdfast.calls.toolset import Toolset
    from holdfast.runtime.agent import Agent
    from holdfast.runtime.turn import Turn

S = TypeVar("S")
T = TypeVar("T")
_plain = codec_for(Any)


class Session(Generic[S]):
    """The session as its handler sees it, for one run of one turn.

    `state` is yours: change it or assign it; it is stored when the turn commits. Everything that is awaited here is a step: journaled,
    budgeted, guarded, and after a crash answered from its record.
    """

    __slots__ = ("_turn", "state")

    state: S

    def __init__(self, turn: Turn, state: S) -> None:
        self._turn = turn
        self.state = state

    # ------------------------------------------------------------ who and where

    @property
    def id(self) -> str:
        return self._turn.actor.id

    @property
    def tenant(self) -> str:
        return self._turn.actor.tenant

    @property
    def user(self) -> str:
        return self._turn.actor.row.user

    @property
    def message_id(self) -> str:
        """Id of the message that this turn handles."""
        return self._turn.message.id

    @property
    def tools(self) -> Toolset:
        """The agent's tools; `tools.openai()`, `tools.openai_responses()` or `tools.anthropic()` is their schemas for a model call."""
        return self._turn.actor.agent.tools

    @property
    def clients(self) -> Clients:
        """The Runtime's model clients by name; each call through one is a durable, metered step."""
        return Clients(self._turn)

    @property
    def budget(self) -> BudgetView:
        return BudgetView(self._turn)

    @property
    def dropped_effects(self) -> tuple[str, ...]:
        """What had been done by the turn before this one, if its message was given up (its dead letter dropped); else empty."""
        return self._turn.actor.notes

    # ------------------------------------------------------------ steps

    @overload
    def step(self, function: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, T]: ...
    def step(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Run any function as a step: an async one, or a plain one in a thread.

        Its effect class, timeout and retries are those of its `@tool`; a function without one is taken as `read`: it may be run again.

        Raises:
            StepError: it failed for good (with its category).
            BudgetExhausted: it could cost more than is left; once in a turn.
            NotJournalable: its arguments cannot be recorded; it did not run.
        If cancelled, a `once` function that was under way is in doubt, and the session parks at the end of the turn.
        """
        return run_step(self._turn, spec_for(function).call(args, kwargs))

    async def call_tool(self, name: str, arguments: str | bytes | dict[str, Any]) -> ToolResult:
        """Run a tool as a model asked for it. Every failure is data for the model; only BudgetExhausted is raised."""
        try:
            tool = self.tools[name]
        except KeyError:
            return failed("UnknownTool", f"there is no tool {name!r}; use one of: {', '.join(t.name for t in self.tools) or 'none'}")
        try:
            call = tool.call((), tool.parse(arguments), kind="tool")
        except HoldfastError as error:
            return failed(type(error).__name__, str(error))
        try:
            return succeeded(await run_step(self._turn, call))
        except BudgetExhausted:
            raise
        except StepError as error:
            return failed(error.type, error.message)

    async def gather(self, *work: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run coroutines at once, each as a numbered branch; their results in order.

        All of them run to their end before the first failure (by position) is raised: a sibling's effect is never cut off half-way. If
        cancelled, all branches are cancelled.
        """
        for each in work:
            if not asyncio.iscoroutine(each):
                raise TypeError(f"gather takes coroutines, not {each!r}: call the async functions, and do not await them")
        turn = self._turn
        name = turn.branches.number("g")
        running = [turn.branches.start(coroutine, f"{name}.{position}") for position, coroutine in enumerate(work)]
        if running:
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError:
                for task in running:
                    task.cancel()
                # What the branches do last is in the journal before the handler goes on: the order is the same on every run.
                await asyncio.wait(running, timeout=turn.node.settings.quarantine_s)
                raise
        if turn.interruption is not None:
            await turn.never()  # the branches were ended with the turn: there is nothing for the handler to see
        for position, task in enumerate(running):
            if task.cancelled():
                raise StepError("gather", "CancelledError", f"its branch {position} was cancelled from within")
        errors = [error for task in running if (error := task.exception()) is not None]
        if errors:
            raise errors[0]
        return [task.result() for task in running]

    async def sleep(self, seconds: float) -> None:
        """Wait. A long wait parks the session and takes no memory; it goes on after a restart."""
        await messaging.sleep(self._turn, seconds)

    async def decide(self, options: Sequence[str], chosen: str, why: str = "") -> str:
        """Record a decision, for whoever reads the journal; returns what was chosen, on replay too.

        Raises:
            ValueError: `chosen` is not one of `options`.
        """
        if chosen not in options:
            raise ValueError(f"{chosen!r} is not one of {list(options)!r}")
        return str(await self._note("decide", [list(options), chosen, why], chosen))

    async def now(self) -> float:
        """Seconds since the epoch, the same on replay."""
        return float(await self._note("now", None, self._turn.node.clock.time()))

    def random(self) -> _random.Random:
        """A random generator, seeded by the session, the turn and how many were made before: the same on replay."""
        return _random.Random(self._seed("random"))

    def uuid(self) -> _uuid.UUID:
        """A version 4 UUID, the same on replay. Not a secret: it derives from the session's seed."""
        return _uuid.UUID(bytes=self._seed("uuid"), version=4)

    def _seed(self, what: str) -> bytes:
        number = self._turn.branches.number(what)
        actor = self._turn.actor
        return blake2b(f"{actor.id}\0{self._turn.number}\0{number}".encode(), key=actor.row.seed, digest_size=16).digest()

    async def _note(self, kind: str, args: Any, value: Any) -> Any:
        async def noted(_: StepContext) -> Any:
            return value

        call = Call(kind=kind, name=kind, effect="read", args=canonical(args), run=noted, codec=_plain, retry=NO_RETRY)
        return await run_step(self._turn, call)

    # ------------------------------------------------------------ other sessions

    async def tell(self, session: str, message: Any) -> None:
        """Send a message to another session; it leaves when this turn commits.

        Raises:
            StepError: there is no such session, it has ended, or its mailbox is full (`type` says which).
        """
        await messaging.tell(self._turn, session, message)

    async def ask(self, session: str, message: Any, *, timeout_s: float = 60.0) -> Any:
        """Send a message to another session and wait for its reply, as plain data. A long wait parks this one.

        Raises:
            AskTimeout: no reply within `timeout_s`.
            AskCycle: the other waits, directly or not, for this one.
            StepError: it was refused, or the other failed; `type` says why.
        """
        return await messaging.ask(self._turn, session, message, timeout_s)

    async def spawn(
        self, agent: Agent, *, state: Any = None, budget: Budget | None = None, id: str | None = None, detached: bool = False
    ) -> Child:
        """Make a child session; its id derives from this step unless given.

        Args:
            state: what it starts with; default the agent's own.
            budget: the part of this session's budget that it gets, default its agent's budget; at most what is left here, and half of that
                where it names no limit. What it does not spend comes back when it ends.
            detached: it lives on when this session ends, on its agent's own budget.
        """
        first = agent.first_state() if state is None else state
        return Child(self._turn, await messaging.spawn(self._turn, agent, agent.state.round_trip(first)[0], budget, id, detached))

    def finish(self, result: Any = None) -> None:
        """End the session when this turn commits; `result`, plain data by then, is what `Handle.result` and a parent's
        `Child.result` get."""
        self._turn.finishing, self._turn.result = True, result


class Child:
    """A child session, as its parent sees it."""

    __slots__ = ("_turn", "id")

    def __init__(self, turn: Turn, id: str) -> None:
        self._turn, self.id = turn, id

    async def ask(self, message: Any, *, timeout_s: float = 60.0) -> Any:
        """As Session.ask."""
        return await messaging.ask(self._turn, self.id, message, timeout_s)

    async def tell(self, message: Any) -> None:
        """As Session.tell."""
        await messaging.tell(self._turn, self.id, message)

    async def result(self) -> Any:
        """Wait until the child has ended; what it finished with, as plain data. StepError if it was cancelled or killed."""
        return await messaging.watch(self._turn, self.id)


class BudgetView:
    """What the session has left."""

    __slots__ = ("_turn",)

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    @property
    def left(self) -> Left:
        """None in a field is no limit. It differs between a run and its replay: do not decide by it without `session.decide`."""
        return self._turn.actor.ledger.left()


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
            raise ConfigError(f"there is no client {name!r}: Runtime(clients={{{name!r}: ...}}); there is: {known}")
        limits = turn.actor.ledger.limits
        return client.proxy(_Steps(turn), cap_tokens=limits.tokens is not None, cap_money=limits.caps_money)


class _Steps:
    """The pipeline of one turn, as calls see it."""

    __slots__ = ("_turn",)

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    async def run(self, call: Call) -> Any:
        return await run_step(self._turn, call)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self._turn.branches.start(work, self._turn.branches.number("s"))
