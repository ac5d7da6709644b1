"""The world around the processes that the chaos tests kill: tools that leave a mark outside, people who look after it, and what must hold.

A message is a script: a list of operations that the one agent, `worker`, plays; some of them are the shapes that strangers give their
handlers (`shapes`). So a test is data, and what a script may come to is a pure function of it (`demands`). Each label stands for one thing
in the world and is used once.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
import msgspec

from holdfast import (
    Agent,
    Budget,
    Handle,
    Intensity,
    NotDone,
    Runtime,
    Session,
    StepContext,
    StepError,
    StoreError,
    TurnFailed,
    Usage,
    agent,
    events,
    tool,
)
from holdfast.calls.tools.tool import Tool
from holdfast.errors import SessionError
from holdfast.stores.listed import Filter, Listed
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.protocol import Store
from holdfast.stores.records import MessageState, Outcome, Step, StepRecord, StepState
from holdfast.testing import FaultPlan, OutsideLedger, Simulation
from tests.chaos.demands import ONCE, SLOW_S, Demands, base, counted
from tests.chaos.shapes import SHAPES, Op, Script, shaped

P = ParamSpec("P")
R = TypeVar("R")

ANSWER = Usage(tokens=100, microusd=1_000)
"""What one call of `answer` costs."""

LIMITS = Budget(steps=10_000, tokens=1_000_000, usd=10.0)


class Book(msgspec.Struct):
    """The state of a worker: the messages it handled, in order."""

    handled: list[str] = []


@dataclass(frozen=True)
class Delivery:
    """A message from outside: `id` makes it the same one in every life."""

    session: str
    id: str
    script: Script


def at_once(coroutine: Coroutine[Any, Any, R]) -> R:
    """The result of a coroutine that never suspends, as reads of a MemoryStore are."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    coroutine.close()
    raise AssertionError("it suspended")


class World:
    """What outlives the processes: the ledger of what was done outside, the store, and what was promised to whom.

    Args:
        plan: what goes wrong; nothing by default. See `calm`.
        store: the disk; default a MemoryStore.
        ledger: the world outside; default in memory.
        pace: how long a second of the scripts takes; less than 1 where time is real.

    Attributes:
        broken: every breach that was seen while it happened.
        replies: the answers that reached whoever asked, by message id.
        seen: every event of every life.
        lives: how many processes there were.
        begun: every effect that began, as (session, tool and label).
    """

    def __init__(
        self,
        plan: FaultPlan | None = None,
        store: Store | None = None,
        ledger: OutsideLedger | None = None,
        pace: float = 1.0,
    ) -> None:
        self.ledger = ledger or OutsideLedger()
        self.store: Store = store or MemoryStore()
        self.pace = pace
        self.plan, self._still = plan or FaultPlan(), FaultPlan()
        self.faulty = self.stormy = plan is not None
        if plan is not None:
            self.disk.faults = plan.store_hook()
        self.broken: list[str] = []
        self.replies: dict[str, Any] = {}
        self.seen: list[events.Event] = []
        self.lives = 0
        self.begun: list[tuple[str, str]] = []
        self._answered: set[str] = set()
        self._running: dict[str, tuple[str, str]] = {}
        self._stumbles: dict[str, int] = {}
        self.worker = self._worker()

    @property
    def disk(self) -> MemoryStore:
        """The store, where it is one in memory."""
        assert isinstance(self.store, MemoryStore)
        return self.store

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.stormy, self.disk.faults = False, None

    # ------------------------------------------------------------ tools

    def _effects(self) -> dict[str, Callable[[str, StepContext], Awaitable[str]]]:
        async def look(label: str, context: StepContext) -> str:
            return label

        async def answer(label: str, context: StepContext) -> str:
            self.ledger.run(("answer", label))
            return label

        async def note(label: str, context: StepContext) -> str:
            if not any(entry.facts.get("seen") == context.key for entry in self.ledger.entries):
                # The service outside knows the key, and does nothing the second time.
                self.ledger.run(("note", label), seen=context.key)
            return label

        async def refund(label: str, context: StepContext) -> str:
            self.ledger.run(("refund", label))
            return label

        async def charge(label: str, context: StepContext) -> str:
            self.ledger.run(("charge", label))
            return label

        return {"look": look, "answer": answer, "note": note, "refund": refund, "charge": charge}

    def _tools(self) -> dict[str, Tool[Any, Any]]:
        """Each effect, and a slow one of each: it has happened, and the answer to it takes its time."""

        async def was_refunded(label: str) -> str:
            if ("refund", label) in self._running.values():
                self.broken.append(f"refund {label} was reconciled while it ran")
            if not self.ledger.count(("refund", label)):
                raise NotDone(f"{label} was not refunded")
            return label

        def slow(effect: Callable[[str, StepContext], Awaitable[str]]) -> Callable[[str, StepContext], Awaitable[str]]:
            async def slowly(label: str, context: StepContext) -> str:
                result = await effect(label, context)
                await asyncio.sleep(SLOW_S * self.pace)
                return result

            slowly.__name__ = f"slow_{effect.__name__}"
            return slowly

        options: dict[str, dict[str, Any]] = {
            "look": {},
            "answer": {"cost": ANSWER},
            "note": {"effect": "idempotent"},
            "refund": {"effect": "once", "reconcile": self._outside(was_refunded)},
            "charge": {"effect": "once"},
        }
        # Where time is real, a refund that a crash cut is not to wait a minute until it can be asked about.
        timeout_s = 60.0 if self.pace == 1.0 else 0.3
        tools: dict[str, Tool[Any, Any]] = {}
        for name, effect in self._effects().items():
            for each in (effect, slow(effect)):
                tools[each.__name__] = tool(timeout_s=timeout_s, **options[name])(self._watched(self._outside(each)))
        return tools

    def _worker(self) -> Agent:
        tools = self._tools()

        async def play(session: Session[Book], op: Op) -> Any:
            match op:
                case ["refund" | "slow_refund" as name, label]:
                    for _ in range(5):
                        try:
                            return await session.step(tools[name], label)
                        except StepError:
                            pass  # it was certainly not done: another attempt is another step
                    raise RuntimeError(f"{label} failed five times")
                case [name, label] if name in tools:
                    return await session.step(tools[name], label)
                case [name, *_] if name in SHAPES:
                    return await shaped(session, functools.partial(play, session), op, self.pace)
                case ["stumble", label, times]:
                    self._stumbles[label] = self._stumbles.get(label, 0) + 1
                    if self._stumbles[label] <= times:
                        raise RuntimeError(f"{label}: a bug, for the {self._stumbles[label]}. time")
                    return label
                case ["call", label, name]:
                    called = await session.call_tool(name, {"label": label})
                    if called.error:
                        raise RuntimeError(called.content)
                    return called.value
                case ["sleep", label, seconds]:
                    await session.sleep(seconds * self.pace)
                    return label
                case ["ask", _, target, script]:
                    return await session.ask(target, script, timeout_s=100_000.0)
                case ["tell", label, target, script]:
                    await session.tell(target, script)
                    return label
                case ["gather", _, script]:
                    return await session.gather(*(play(session, inner) for inner in script))
                case ["then", _, script]:
                    return [await play(session, inner) for inner in script]
                case ["child", label, script]:
                    child = await session.spawn(worker, budget=Budget(steps=500, tokens=10_000, usd=1.0))
                    return [await child.ask([*script, ["finish", label]], timeout_s=100_000.0), await child.result()]
                case ["finish", label]:
                    session.finish(label)
                    return label
                case ["chance", label]:
                    # What differs between a run and its replay drifts.
                    drawn = [label, session.random().random(), str(session.uuid()), await session.now()]
                    await session.step(tools["look"], repr(drawn))
                    return await session.decide([label, "other"], label)
            raise AssertionError(f"unknown operation {op!r}")

        @agent(
            version=1,
            tools=list(tools.values()),
            budget=LIMITS,
            crash_limit=10_000,
            intensity=Intensity(2, 60.0),
            park_after_s=5.0 * self.pace,
        )
        async def worker(session: Session[Book], script: list[Any]) -> Any:
            results = [await play(session, op) for op in script]
            session.state.handled.append(session.message_id)
            return results

        made: Agent = worker
        return made

    def _outside(self, effect: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        stormy, still = self.plan.effect(effect), self._still.effect(effect)

        @functools.wraps(effect)
        async def run(*args: P.args, **kwargs: P.kwargs) -> R:
            return await (stormy if self.stormy else still)(*args, **kwargs)

        return run

    def _watched(self, effect: Callable[[str, StepContext], Coroutine[Any, Any, str]]) -> Callable[[str, StepContext], Awaitable[str]]:
        """The effect, with what must hold at its begin and at its end."""

        @functools.wraps(effect)
        async def run(label: str, context: StepContext) -> str:
            async with self._under_way(effect.__name__, label, context):
                return await effect(label, context)

        return run

    @asynccontextmanager
    async def _under_way(self, tool: str, label: str, context: StepContext) -> AsyncIterator[None]:
        name, life = base(tool), self.lives
        await self._begins(name, label, context)
        if context.key in self._running or (name in ONCE and (name, label) in self._running.values()):
            self.broken.append(f"{tool} {label} ran beside itself")
        self._running[context.key] = name, label
        self.begun.append((context.session, f"{name} {label}"))
        try:
            yield
        finally:
            if life == self.lives:
                self._running.pop(context.key, None)

    async def _begins(self, name: str, label: str, context: StepContext) -> None:
        """What must hold at the moment of an effect: its turn is open, its answer is not recorded, its intent is, and of no `once` effect
        like it the outcome is unknown."""
        row = await self.store.session(context.session)
        assert row is not None, context.session
        if context.key.split("/")[-2] != str(row.turn + 1):
            self.broken.append(f"{name} {label} began for a turn that is over: {context.key}, turn {row.turn + 1} is open")
            return
        if row.status in ("cancelled", "killed", "finished"):
            self.broken.append(f"{name} {label} began in a session that has ended: {row.status}")
        steps = await self.store.steps(row.id, row.turn + 1)
        step = next((step for step in steps if context.key.endswith(step.key.hex())), None)
        let_go = step is not None and step.record.cut and step.state is StepState.FAILED and step.record.effect == "read"
        if step is not None and step.state in (StepState.CLOSED, StepState.FAILED) and not let_go:
            self.broken.append(f"{name} {label} ran although its answer is recorded")
        if name != "look" and (step is None or step.state is not StepState.OPEN):
            self.broken.append(f"{name} {label} ran without an open record: {step}")
        others = [other.record for other in steps if other is not step and in_doubt(other)]
        if any(base(record.name) == name and label_of(record) == label for record in others):
            self.broken.append(f"{name} {label} began while one before it is in doubt")

    @property
    def under_way(self) -> list[str]:
        """The effects that run now."""
        return [f"{name} {label}" for name, label in self._running.values()]

    def at_rest(self, session: str) -> None:
        """Nothing of this session runs."""
        running = [f"{name} {label}" for key, (name, label) in self._running.items() if key.rsplit("/", 2)[0] == session]
        assert running == [], running

    # ------------------------------------------------------------ people

    def begin(self) -> None:
        """A process begins: what ran in the one before it is gone."""
        self._running.clear()
        self._answered.clear()
        self.lives += 1

    async def serve(self, simulation: Simulation | None, deliveries: Sequence[Delivery], *, drain_at_s: float | None = None) -> bool:
        """One life of a process: everything is sent (again) and looked after until it is done or something broke, or it drains.

        Returns whether it did not drain.
        """
        self.begin()
        clock, draw = (None, None) if simulation is None else (simulation.clock, simulation.random)
        runtime = Runtime(self.store, [self.worker], clock=clock, random=draw, idle_s=30.0 * self.pace, drain_s=5.0)
        runtime.observe(self._observe)
        done = False
        async with runtime:
            with anyio.move_on_after(drain_at_s if drain_at_s is not None else 1e9):
                async with anyio.create_task_group() as people:
                    people.start_soon(self._look_after, runtime)
                    for delivery in deliveries:
                        people.start_soon(self._deliver, runtime, delivery)
                    while not self.broken and not (len(self._answered) == len(deliveries) and await self._rests()):
                        await self._while(10.0)
                    people.cancel_scope.cancel()
                done = True
        return done

    def _observe(self, event: events.Event) -> None:
        self.seen.append(event)
        if isinstance(event, events.TurnCommitted):
            turn = f"{event.session}/{event.turn}/"
            beyond = [f"{name} {label}" for key, (name, label) in self._running.items() if key.startswith(turn)]
            if beyond:
                self.broken.append(f"turn {turn} was committed while {', '.join(beyond)} ran")

    async def _while(self, seconds: float) -> None:
        await anyio.sleep(seconds * self.pace)

    async def _deliver(self, runtime: Runtime, delivery: Delivery) -> None:
        while True:
            try:
                handle = await runtime.spawn(self.worker, id=delivery.session)
                reply = await handle.ask(delivery.script, id=delivery.id, timeout_s=1e6)
            except StoreError:
                await self._while(1.0)
            except TurnFailed:
                await self._while(20.0)  # a dead letter; whoever looks after the sessions has it tried again
            else:
                self._answered.add(delivery.id)
                if self.replies.setdefault(delivery.id, reply) != reply:
                    self.broken.append(f"{delivery.id} was answered {self.replies[delivery.id]!r} and then {reply!r}")
                return

    async def _look_after(self, runtime: Runtime) -> None:
        while True:
            for row in await self.store.sessions():
                try:
                    await self._attend(runtime.session(row.id), row)
                except (StoreError, SessionError):
                    pass  # it is at work, or the store is down: looked at again in the next round
            await self._while(10.0)

    async def _attend(self, handle: Handle, row: Listed) -> None:
        if row.status == "failed":
            return await handle.retry()
        if row.park is None:
            return
        if row.park.reason == "doubt":
            await self._resolve(handle, row)
        elif row.park.until is None and row.park.reason != "wait":
            self.broken.append(f"{row.id} parked for a person: {row.park}")
            await handle.resume()

    async def _resolve(self, handle: Handle, row: Listed) -> None:
        doubts = [step for step in await self.store.steps(row.id, row.turn + 1) if in_doubt(step)]
        if not doubts:  # whoever resolved it was cut off half-way, and says it again
            await handle.resolve("done")
            return
        label = label_of(doubts[0].record)
        happened = self.ledger.count((base(doubts[0].record.name), label)) > 0
        await handle.resolve("done" if happened else "retry", step=doubts[0].key.hex(), result=label if happened else None)

    async def _rests(self) -> bool:
        rows = await self.store.sessions()
        return all(row.pending == 0 and row.status in ("idle", "finished") for row in rows)

    # ------------------------------------------------------------ what must hold

    def dies(self) -> list[str]:
        """The process is gone; the names of the `once` effects that the store does not know the outcome of."""
        self.disk.crash()
        at_once(self.store.open())
        found = [
            step.record.name
            for row in at_once(self.store.sessions())
            for step in at_once(self.store.steps(row.id, row.turn + 1))
            if in_doubt(step)
        ]
        self.disk.crash()
        return found

    def parked(self, reason: str) -> int:
        """The process is gone; how many sessions are parked for this reason."""
        at_once(self.store.open())
        rows = at_once(self.store.sessions(Filter(status="parked")))
        self.disk.crash()
        return sum(row.park is not None and row.park.reason == reason for row in rows)

    async def check(self, deliveries: Sequence[Delivery]) -> None:
        """Everything was done, and nothing twice. For a store that nobody has open, once all lives are over."""
        await self.store.open()
        try:
            await self._check(deliveries)
        finally:
            await self.store.close()

    async def _check(self, deliveries: Sequence[Delivery]) -> None:
        assert self.broken == [], self.broken
        unanswered = [delivery.id for delivery in deliveries if delivery.id not in self.replies]
        assert unanswered == [], unanswered
        demands = Demands(faulty=self.faulty or self.pace != 1.0, lives=self.lives)
        for delivery in deliveries:
            demands.script(delivery.script, self.replies[delivery.id])
        breaches = demands.breaches(counted([entry.key for entry in self.ledger.entries]))
        assert breaches == [], breaches
        rows = await self.store.sessions()
        for row in rows:
            await self._check_session(row)
        arrived, (least, most) = sum([len(await self.store.messages(row.id)) for row in rows]), demands.messages
        assert len(deliveries) + least <= arrived <= len(deliveries) + most, f"{arrived} messages arrived"
        assert await self.store.dead_letters() == []
        odd = [event for event in self.seen if isinstance(event, events.Drifted | events.Unclaimed | events.SessionStuck)]
        assert odd == [], odd

    async def _check_session(self, row: Listed) -> None:
        """Its state has each message once; what it paid for is what happened outside; no step is left between."""
        assert row.status in ("idle", "finished"), row
        messages = await self.store.messages(row.id)
        undone = [m for m in messages if m.state is not MessageState.DONE]
        assert undone == [], undone
        checkpoints = await self.store.checkpoints(row.id)
        book = msgspec.msgpack.decode(checkpoints[-1].state, type=Book)
        assert sorted(book.handled) == sorted(m.id for m in messages if m.kind == "message"), book
        assert [c.turn for c in checkpoints] == list(range(row.turn + 1)), "a turn commits once"
        steps = [step for turn in range(1, row.turn + 1) for step in await self.store.steps(row.id, turn)]
        left = [step for step in steps if step.state not in (StepState.CLOSED, StepState.FAILED)]
        assert left == [], left
        answers = [step.record for step in steps if base(step.record.name) == "answer"]
        bought = {label_of(record): self.ledger.count(("answer", label_of(record))) for record in answers}
        paid = sum(bought.values())
        charged, children = row.usage, await self.store.children(row.id)
        for child in children:
            charged = charged - child.usage
        assert charged.microusd >= paid * ANSWER.microusd, f"{row.id} paid for less than {paid} answers: {row.usage}"
        assert charged.tokens >= paid * ANSWER.tokens
        # What the handler let go of before it began costs nothing.
        begun = [step for step in steps if step.record.attempts and (step.state is StepState.CLOSED or not was_cut(step.record.outcome))]
        assert charged.steps >= len(begun), f"{row.id} paid for less than {len(begun)} steps: {row.usage}"
        if not self.faulty:
            for label, times in bought.items():
                asked = sum(1 + record.maybe_paid for record in answers if label_of(record) == label)
                assert times <= asked, f"{label} was bought {times} times, and asked for {asked} times"
            crashed = any(isinstance(event, events.TurnCrashed) and event.session == row.id for event in self.seen)
            if not crashed and not any(was_cut(step.record.outcome) for step in steps):
                assert charged.microusd == sum(record.attempts for record in answers) * ANSWER.microusd, f"{row.id}: {charged}"


class FileLedger(OutsideLedger):
    """A world outside that real processes share, one after the other: a line for each effect, on the disk before it is said to be done."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        for line in path.read_text().splitlines():
            *key, facts = json.loads(line)
            super().run(tuple(key), **facts)

    def run(self, key: Hashable, **facts: Any) -> None:
        """Do it; synced."""
        assert isinstance(key, tuple)
        os.write(self._file, (json.dumps([*key, facts]) + "\n").encode())
        os.fsync(self._file)
        super().run(key, **facts)


def in_doubt(step: Step) -> bool:
    """Whether nobody knows if the effect of a step happened (its process being gone)."""
    return step.state is StepState.DOUBT or (step.state is StepState.OPEN and step.record.effect == "once")


def was_cut(outcome: Outcome | None) -> bool:
    """Whether a handler let go of a step."""
    return outcome is not None and outcome.failure is not None and outcome.failure.type == "CancelledError"


def label_of(record: StepRecord) -> str:
    """The label that a step's tool was called with."""
    args = msgspec.msgpack.decode(record.args)
    return str(args["label"] if isinstance(args, dict) else args[0])
