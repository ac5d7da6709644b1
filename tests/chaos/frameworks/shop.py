"""A shop whose clerk is another framework's tool loop: its tools, its model, the person who looks after it, and what must hold.

The model is scripted: a message is a list of rounds, each a list of tools to call at once, and the answer after the last round repeats all
that the tools said. So what a loop lets its model see is compared word for word between a run that was killed and one that was not.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec

from holdfast import Agent, Budget, Handle, NotDone, Runtime, Session, StepContext, Usage, agent, events, tool
from holdfast.calls.tools.tool import Tool
from holdfast.errors import SessionError
from holdfast.stores.listed import Listed
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.records import MessageState, Step, StepState, in_doubt
from holdfast.stores.records import Session as Row
from holdfast.testing import OutsideLedger, Simulation
from tests.chaos.world import at_once, label_of

Script = list[list[list[str]]]
"""Rounds of calls, each the name of a tool and the label that it gets."""

Line = list[str]
"""A line of a conversation: ["user", text], ["call", id, tool, arguments], ["tool", id, what came back] or ["answer", text]."""

Loop = Callable[[Session[Any], str], Coroutine[Any, Any, str]]
"""A framework's tool loop: the session for its steps, the user's text; what its model answered at the end."""

Handler = Callable[["Shop", Loop, Session[Any], str], Awaitable[str]]

MESSAGES = ("main", "after")
BESIDE: Script = [
    [["refund", "refund-beside"], ["look", "look-2"]],
    [["refund", "refund-aside"], ["note", "note-beside"]],
]
SAID = {"refund": "paid back", "charge": "charged"}
PRICE = Usage(tokens=100, microusd=1_000)
NEVER_S = 10_000.0
"""Longer than any clerk waits for its loop."""


class Ask(msgspec.Struct, frozen=True):
    """A call of a tool that the model asks for; `arguments` is JSON."""

    id: str
    tool: str
    arguments: str


class Reply(msgspec.Struct, frozen=True):
    """What the model says: an answer, or tools to be called at once."""

    text: str = ""
    calls: list[Ask] = []


class Book(msgspec.Struct):
    """The state of the clerk: the answers it gave, in order."""

    answers: list[str] = []


@dataclass
class Tally:
    """What the world came to: equal for a run that was killed and one that was not."""

    replies: dict[str, str] = field(default_factory=dict)
    effects: Counter[Hashable] = field(default_factory=Counter)


class Shop:
    """What outlives the processes: the disk, the ledger of what was done outside, and what was promised.

    Args:
        loop: makes the framework's loop over this shop's tools.
        handler: what the clerk does with a message.
        script: the conversation about the message "main"; that about "after" is short, and a handler may hold one about "beside".
        hang_s: how long a tool hangs whose label says that it is slow.
        dies_after: the label of a note after which the process is killed, once: before the note is recorded as made.

    Attributes:
        broken: every breach that was seen while it happened.
        seen: every event of every life.
        doubts: how many doubts the person resolved.
        let_go: the effects, by key, that were cancelled while they ran: nobody waits for what becomes of them.
    """

    def __init__(
        self, loop: Callable[[Shop], Loop], handler: Handler, script: Script, hang_s: float = NEVER_S, dies_after: str = ""
    ) -> None:
        self.store, self.ledger = MemoryStore(), OutsideLedger()
        self.hang_s, self.dies_after = hang_s, dies_after
        self.scripts = {"main": script, "after": [[["note", "note-after"]]], "beside": BESIDE}
        self.broken: list[str] = []
        self.seen: list[events.Event] = []
        self.replies: dict[str, str] = {}
        self.doubts = 0
        self._running: set[str] = set()
        self._simulation = Simulation()
        self.let_go: set[str] = set()
        self.ask_model, self.tools = self._make_model(), self._make_tools()
        self.clerk = self._make_clerk(loop(self), handler)

    def _make_clerk(self, loop: Loop, handler: Handler) -> Agent:
        @agent(version=1, tools=list(self.tools.values()), budget=Budget(steps=10_000, tokens=1_000_000, usd=10.0), crash_limit=1_000)
        async def clerk(session: Session[Book], text: str) -> str:
            answer = await handler(self, loop, session, text)
            session.state.answers.append(answer)
            return answer

        made: Agent = clerk
        return made

    # ------------------------------------------------------------ the world outside

    def _make_model(self) -> Tool[Any, Any]:
        @tool(cost=PRICE)
        async def ask_model(conversation: list[Line], context: StepContext) -> Reply:
            async with self._effect("ask_model", context, durable=True):
                await asyncio.sleep(0.5)
                self.ledger.run(("ask_model", context.key))
                return self._reply(conversation)

        return ask_model

    def _reply(self, conversation: list[Line]) -> Reply:
        done = {line[1].partition(".")[0] for line in conversation if line[0] == "call"}
        script = self.scripts[conversation[0][1]]
        if len(done) == len(script):
            return Reply(" | ".join(f"{line[1]}: {line[2]}" for line in conversation if line[0] == "tool"))
        nth = len(done)
        return Reply(calls=[Ask(f"{nth}.{i}", name, json.dumps({"label": label})) for i, (name, label) in enumerate(script[nth])])

    def _make_tools(self) -> dict[str, Tool[Any, Any]]:
        async def look(label: str, context: StepContext) -> str:
            async with self._effect(label, context, durable=False):
                await asyncio.sleep(self.hang_s if label.startswith("slow") else 0.3)
                if label.startswith("missing"):
                    raise ValueError(f"there is no {label}")
                return f"{label} seen"

        async def note(label: str, context: StepContext) -> str:
            async with self._effect(label, context):
                await asyncio.sleep(0.1)
                if not any(entry.facts.get("seen") == context.key for entry in self.ledger.entries):
                    # The service outside knows the key, and does nothing the second time.
                    self.ledger.run(("note", label), seen=context.key)
                await asyncio.sleep(0.1)
                if label == self.dies_after:
                    self.dies_after = ""
                    await self._simulation.crash()
                return f"{label} noted"

        async def refund(label: str, context: StepContext) -> str:
            async with self._effect(label, context):
                if label.startswith("declined"):
                    raise NotDone(f"the bank of {label} declined")
                await asyncio.sleep(0.05)
                self.ledger.run(("refund", label))
                await asyncio.sleep(self.hang_s if label.startswith("slow") else 0.1)
                return f"{label} {SAID['refund']}"

        async def was_refunded(label: str) -> str:
            await asyncio.sleep(0.2)
            if not self.ledger.count(("refund", label)):
                raise NotDone(f"{label} was not paid back")
            return f"{label} {SAID['refund']}"

        async def charge(label: str, context: StepContext) -> str:
            async with self._effect(label, context):
                if label.startswith("declined"):
                    raise NotDone(f"the card of {label} was declined")
                await asyncio.sleep(self.hang_s if label.startswith("slow") else 0.35)
                self.ledger.run(("charge", label))
                await asyncio.sleep(0.35)
                return f"{label} {SAID['charge']}"

        return {
            "look": tool(timeout_s=2 * NEVER_S)(look),
            "note": tool(effect="idempotent")(note),
            "refund": tool(effect="once", reconcile=was_refunded, timeout_s=2 * NEVER_S)(refund),
            "charge": tool(effect="once", timeout_s=2 * NEVER_S)(charge),
        }

    def _effect(self, label: str, context: StepContext, *, durable: bool = True) -> _Effect:
        return _Effect(self, label, context, durable)

    async def recorded(self, context: StepContext) -> Step | None:
        """The record of the step that an effect runs for."""
        row = await self.store.session(context.session)
        assert row is not None, context.session
        steps = await self.store.steps(row.id, row.turn + 1)
        return next((step for step in steps if context.key.endswith(step.key.hex())), None)

    # ------------------------------------------------------------ one life

    async def serve(self, simulation: Simulation) -> bool:
        """A process that is sent both messages (again), looked after until all is done; True."""
        self._running.clear()
        self._simulation = simulation
        runtime = Runtime(self.store, [self.clerk], clock=simulation.clock, random=simulation.random, idle_s=30.0)
        runtime.observe(self.seen.append)
        async with runtime:
            async with anyio.create_task_group() as people:
                people.start_soon(self._look_after, runtime)
                handle = await runtime.spawn(self.clerk, id="clerk")
                for message in MESSAGES:
                    reply = await handle.ask(message, id=message, timeout_s=1e6)
                    if self.replies.setdefault(message, reply) != reply:
                        self.broken.append(f"{message} was answered {self.replies[message]!r} and then {reply!r}")
                people.cancel_scope.cancel()
        return True

    async def _look_after(self, runtime: Runtime) -> None:
        while True:
            for row in await self.store.sessions():
                if row.park is not None and row.park.reason == "doubt":
                    await self._resolve(runtime.session(row.id), row)
                elif row.park is not None and row.park.until is None:
                    raise AssertionError(f"{row.id} parked for a person: {row.park}")
            await anyio.sleep(10.0)

    async def _resolve(self, handle: Handle, row: Listed) -> None:
        doubts = [step for step in await self.store.steps(row.id, row.turn + 1) if in_doubt(step)]
        try:
            if doubts:
                await self._say(handle, doubts[0])
            else:  # the person was cut off half-way, and says it again
                await handle.resolve("done")
        except SessionError:
            return  # it is at work: looked at again in the next round
        self.doubts += 1

    async def _say(self, handle: Handle, doubt: Step) -> None:
        """The ledger tells what happened. What did not is tried again, unless the clerk had let go of it."""
        # A verdict is on all doubts of a name: scripts ask for one charge at a time, so that the person can tell them apart.
        name, label = doubt.record.name, label_of(doubt.record)
        if self.ledger.count((name, label)):
            await handle.resolve("done", step=name, result=f"{label} {SAID[name]}")
            return
        let_go = doubt.state is StepState.DOUBT and any(key.endswith(doubt.key.hex()) for key in self.let_go)
        await handle.resolve("fail" if let_go else "retry", step=name)

    # ------------------------------------------------------------ what must hold

    def tally(self) -> Tally:
        """The process is gone: everything that must hold holds; what the world came to."""
        self.store.crash()
        return at_once(self._tally())

    async def _tally(self) -> Tally:
        await self.store.open()
        try:
            row = await self.store.session("clerk")
            assert row is not None
            await self._check(row)
        finally:
            await self.store.close()
        effects = Counter[Hashable](
            entry.key for entry in self.ledger.entries if isinstance(entry.key, tuple) and entry.key[0] != "ask_model"
        )
        assert max(effects.values()) == 1, f"an effect was done twice: {effects}"
        return Tally(self.replies, effects)

    async def _check(self, row: Row) -> None:
        assert self.broken == [], self.broken
        assert (row.status, row.pending, row.park) == ("idle", 0, None), f"it does not rest: {row}"
        messages = {m.id: m.state for m in await self.store.messages(row.id)}
        assert messages == dict.fromkeys(MESSAGES, MessageState.DONE), f"not handled: {messages}"
        assert await self.store.dead_letters() == [], "a message was given up"
        odd = [e for e in self.seen if isinstance(e, events.Drifted | events.Unclaimed | events.SessionStuck)]
        assert odd == [], f"the run and its replay took different ways: {odd}"
        checkpoints = await self.store.checkpoints(row.id)
        assert [c.turn for c in checkpoints] == list(range(row.turn + 1)), "a turn commits once"
        answers = msgspec.msgpack.decode(checkpoints[-1].state, type=Book).answers
        assert answers == list(self.replies.values()), f"the state has other answers: {answers}"
        for turn in range(1, row.turn + 1):
            for step in await self.store.steps(row.id, turn):
                assert step.state in (StepState.CLOSED, StepState.FAILED), f"left open: {step}"
                if step.record.name == "ask_model":
                    asked = self.ledger.count(("ask_model", f"{row.id}/{turn}/{step.key.hex()}"))
                    assert asked <= 1 + step.record.maybe_paid, "a recorded model answer was bought again"


class _Effect:
    """What must hold while an effect runs: its answer is not recorded, its intent is, and it does not run beside itself."""

    def __init__(self, shop: Shop, label: str, context: StepContext, durable: bool) -> None:
        self._shop, self._label, self._context, self._durable = shop, label, context, durable

    async def __aenter__(self) -> None:
        shop, key = self._shop, self._context.key
        step = await shop.recorded(self._context)
        if step is not None and step.state in (StepState.CLOSED, StepState.FAILED):
            shop.broken.append(f"{self._label} ran although its answer is recorded")
        if self._durable and (step is None or step.state is not StepState.OPEN):
            shop.broken.append(f"{self._label} ran without an open record: {step}")
        if key in shop._running:
            shop.broken.append(f"{self._label} ran beside itself")
        shop._running.add(key)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._shop._running.discard(self._context.key)
        if kind is asyncio.CancelledError:
            self._shop.let_go.add(self._context.key)
