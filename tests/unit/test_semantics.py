"""docs/semantics.md and the code say the same: the tables are parsed, and each cell that can be acted out is acted out."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from holdfast import (
    Agent,
    Backoff,
    ConfigError,
    Intensity,
    MessageConflict,
    NotDone,
    ReplyTimeout,
    Retry,
    Runtime,
    Session,
    SessionEnded,
    StateError,
    StepContext,
    StepError,
    TurnFailed,
    Usage,
    agent,
    tool,
)
from holdfast.events import (
    DoubtRaised,
    DoubtSettled,
    Drifted,
    MaybePaid,
    SessionParked,
    StepReplayed,
    StepRetried,
    StoreFailed,
    Unclaimed,
)
from holdfast.policies.budget import ZERO
from holdfast.runtime.turns.journal import cost
from holdfast.stores.ops import Activate
from holdfast.stores.records import MessageState, Step, StepState
from holdfast.testing import FaultPlan, StoreFault
from tests.unit.runtime.support import World, rest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "semantics.md").read_text()

# ---------------------------------------------------------------- reading the page


def rows_of(mark: str) -> list[list[str]]:
    """The table after `<!-- mark -->`: its head, then its rows."""
    after = PAGE.split(f"<!-- {mark} -->\n", 1)[1]
    lines = re.match(r"(\|.*\|\n)+", after)
    assert lines is not None, mark
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()]
    return [rows[0], *rows[2:]]


def cells_of(table: str, keys: int) -> list[tuple[str, ...]]:
    """(state, [of,] event, word) of every cell."""
    head, *rows = rows_of(f"table: {table}")
    return [(*row[:keys], event, word) for row in rows for event, word in zip(head[keys:], row[keys:], strict=True)]


STEP_CELLS: list[Any] = cells_of("step", 2)
TURN_CELLS = cells_of("turn", 1)
MESSAGE_CELLS = cells_of("message", 1)


@pytest.mark.parametrize("table", ["step", "let go", "turn", "message"])
def test_every_cell_is_a_word_that_is_explained(table: str) -> None:
    """The outcomes are a closed set, and none is explained that does not occur."""
    words = {row[0] for row in rows_of(f"words: {table}")[1:]}
    assert {cell[-1] for cell in cells_of(table, 2 if table in ("step", "let go") else 1)} == words


def test_every_state_of_a_step_is_in_the_table() -> None:
    """A state that the code gains has to be explained first."""
    assert {cell[0] for cell in STEP_CELLS} == {"free", *(state.name.lower() for state in StepState)}


def test_every_state_of_a_message_is_in_the_table() -> None:
    """The same for messages."""
    assert {cell[0] for cell in MESSAGE_CELLS} == {state.name.lower() for state in MessageState}


def test_every_test_that_is_named_exists() -> None:
    """A promise that names a test that is gone holds nothing."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 20
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or (name and f"def {name}(" not in (ROOT / path).read_text())
    ]
    assert missing == []


# ---------------------------------------------------------------- acting a step out

MOST = Usage(steps=1, microusd=100)
LET_GO = ("let go", "again")
CRASHES = ("crash", "inside", "drift", "signature", "another", "unclaimed", "row unreadable")
FOREVER = 1e8
HOUR_S = 3600.0
JUMPS = [(by_s, crash) for by_s in (-HOUR_S, HOUR_S) for crash in (False, True)]
"""By how much the wall clock is set, and whether the process dies with it."""


class Case:
    """One step, brought into a state in the first life and met with an event there; what came of it.

    Attributes:
        jump: for a clock that jumps, one of JUMPS.
        new: for another effect, its class.
    """

    def __init__(self, state: str, of: str, event: str, variant: Any = None) -> None:
        self.state, self.of, self.event = state, of, event
        self.jump: tuple[float, bool] = variant if event == "clock jumps" else (0.0, False)
        self.new: Any = variant if event == "another" else "once"
        self.others: list[str] = []
        self.inside = event == "inside"
        self.world = World()
        self.runs: list[tuple[str, float]] = []
        self.ended_s: list[float] = []
        self.said: list[str] = []
        self.starts_s: list[float] = []
        self.row: Any = None
        self.records: list[Step] = []
        self.fenced = self.jumped = False
        self.due_s: float | None = None
        self.agents = self.make()
        self.later = self.make(changed=True) if event == "signature" else self.agents

    # What the event is, seen from the places where it can strike.

    @property
    def first(self) -> bool:
        return len(self.runs) == 1

    @property
    def reborn(self) -> bool:
        """Whether the code has changed: the second life of a drift, or of a step that is not asked for any more."""
        return self.event in ("drift", "signature", "another", "unclaimed") and self.world.lives > 1

    async def strike(self, session: Session[Any] | None = None) -> None:
        """Crash or fence, once."""
        if self.event in CRASHES and self.world.lives == 1:
            await self.world.crash()
        elif self.event == "clock jumps" and not self.jumped:
            self.jumped = True
            self.world.jump(self.jump[0])
            if self.jump[1]:
                await self.world.crash()
        elif self.event == "fence" and not self.fenced:
            self.fenced = True
            await self.world.store.apply([Activate("s", 1_800_000_000.0 + self.world.now_s())])
        elif self.event == "write unknown" and len(self.starts_s) == 1:
            self.next_write("unknown_lost")
        elif self.event == "park" and session is not None:
            await session.sleep(1000)

    def next_write(self, fault: StoreFault) -> None:
        """What becomes of the next batch."""
        self.world.store.faults = FaultPlan(store_at={self.world.store.batches + 1: fault}).store_hook()

    async def act(self, key: str) -> str:
        """The effect."""
        self.runs.append((key, self.world.now_s()))
        number = len(self.runs)
        if self.first and self.state == "open":
            await self.strike()
            if self.event in (*LET_GO, "timeout"):
                await asyncio.sleep(100)
            if self.event == "retry":
                raise ConnectionError("cut off")
            if self.event == "park":
                await asyncio.sleep(4)
        if self.first and (self.state in ("doubt", "waiting") or self.of == "by a person"):
            if self.of == "once, reconciled" and self.event in LET_GO:
                await asyncio.sleep(100)
            raise ConnectionError("cut off")
        if self.first and self.state == "failed":
            if self.of == "last" and self.event == "park":
                raise ConnectionError("the provider is down")
            raise NotDone("certainly not") if "once" in self.of else ValueError("a wrong argument")
        self.ended_s.append(self.world.now_s())
        if self.event in ("not written", "write unknown") and self.first:
            self.next_write("fail" if self.event == "not written" else "unknown_lost")
        return f"ok {number}"

    async def query(self, text: str) -> str:
        if self.state == "doubt":
            await self.strike()
        return "reconciled"

    # The agent.

    def make(self, *, changed: bool = False) -> list[Agent]:
        case, of = self, self.of

        async def reconciled(text: str) -> str:
            return await case.query(text)

        async def effect(text: str, step: StepContext) -> str:
            return await case.act(step.key)

        async def reconciled_in(text: str, currency: str) -> str:
            return await case.query(text)

        async def effect_in(text: str, currency: str, step: StepContext) -> str:
            return await case.act(step.key)

        options: dict[str, Any] = {"timeout_s": 5.0, "name": "effect"}
        if "once" in of or of == "by a person":
            options |= {"effect": "once", "reconcile": (reconciled_in if changed else reconciled) if "reconciled" in of else None}
        elif "idempotent" in of:
            options |= {"effect": "idempotent"}
        elif "paid" in of:
            options |= {"cost": Usage(microusd=MOST.microusd)}
        if self.state == "waiting":
            options["retry"] = Retry(attempts=2, base_s=500.0, max_s=500.0, total_s=1000.0)
        elif "effect" not in options or options["effect"] != "once":
            options["retry"] = Retry(attempts=1 if self.state == "failed" else 2)
        made = tool(**options)(effect_in if changed else effect)

        async def note(text: str) -> str:
            return text

        patience_s = FOREVER if self.event in LET_GO else 5.0

        @tool(effect=self.new, name="another", timeout_s=1.0)  # for so long its replay waits for what was asked for before it
        async def another() -> str:
            case.others.append("done")
            return "another"

        @agent(name="a", tools=[made, another], park_after_s=patience_s)
        async def handler(session: Session[Any], text: str) -> str:
            case.starts_s.append(case.world.now_s())
            if case.event == "unclaimed" and case.reborn:
                return "skipped"
            if not case.inside:
                return await body(session)

            async def outer() -> str:
                return await body(session)

            return await session.step(tool(timeout_s=FOREVER, name="outer")(outer))

        async def body(session: Session[Any]) -> str:
            if case.state == "free":
                await case.strike(session)
            if case.event == "another" and case.reborn:
                await session.step(another)
            said = await case.claim(session, made, ("EUR",) if changed else ())
            case.said.append(said)
            if case.of.startswith("followed"):
                await session.step(note, "followed")
            if case.state in ("closed", "failed"):
                await case.strike(session)
            await session.step(note, "last")
            return said

        async def hear(text: str) -> None:
            case.runs.append((text, case.world.now_s()))

        @agent(name="other")
        async def other(session: Session[Any], text: str) -> str:
            await session.step(hear, text)
            await session.sleep(FOREVER if case.event == "timeout" else 300)
            return "the reply"

        return [handler, other]

    async def claim(self, session: Session[Any], effect: Any, more: tuple[str, ...]) -> str:
        """The step itself, as the handler asks for it."""
        said = await self.ask(session, effect, more, 1.0 if self.event in LET_GO else math.inf)
        if self.event == "again":
            self.said.append(said)
            said = await self.ask(session, effect, more, math.inf)
        return said

    async def ask(self, session: Session[Any], effect: Any, more: tuple[str, ...], patience_s: float) -> str:
        argument = 301 if self.reborn and self.event == "drift" else 300
        try:
            with anyio.move_on_after(patience_s) as scope:
                if self.of == "sleep":
                    await session.sleep(argument)
                    said = "awake"
                elif self.of == "reply":
                    said = str(await session.ask("other", str(argument), timeout_s=50.0 if self.event == "timeout" else 5000.0))
                elif self.state == "open" and self.event == "park":
                    said = (await session.gather(session.step(effect, str(argument)), session.sleep(1000)))[0]
                else:
                    said = await session.step(effect, str(argument), *more)
                    if self.event == "let go":
                        await asyncio.sleep(10)
        except StepError as error:
            if self.of == "last" and self.event == "park":
                raise
            said = f"{type(error).__name__} {error.type}"
            if self.event == "let go":
                with anyio.move_on_after(patience_s):
                    await asyncio.sleep(10)
        return "cancelled" if scope.cancelled_caught and self.state != "closed" else said

    # The lives.

    def act_out(self) -> None:
        if self.of == "by a person":
            self.world.life(self.agents, self.becomes_doubtful)
            self.world.lives = 0
        for agents in (self.agents, self.later):
            self.world.life(agents, self.live)
            if self.row is not None:
                return
            if self.event == "row unreadable":
                self.restore = self.world.damage("record")
        raise AssertionError(f"it never came to rest: {self.runs} {self.said}")

    async def becomes_doubtful(self, runtime: Runtime) -> None:
        handle = await runtime.spawn(self.agents[0], id="s")
        await handle.tell("go", id="m")
        await rest(handle)

    async def live(self, runtime: Runtime) -> None:
        await runtime.spawn(runtime.agents["other"], id="other")
        handle = await runtime.spawn(runtime.agents["a"], id="s")
        await handle.tell("go", id="m")
        if self.of == "by a person" and self.world.lives == 1:
            assert await handle.resolve("fail") == 1
        if self.event == "row unreadable" and self.world.lives > 1 and (self.state, self.of) == ("doubt", "once"):
            await handle.resume()
        while True:
            await asyncio.sleep(0.5)
            row = await handle.row()
            self.records = await runtime.store.steps("s", 1)
            states = {step.state for step in self.records}
            if self.state == "waiting" and StepState.WAITING in states:
                self.due_s = self.due_s or next(step.record.until for step in self.records if step.state is StepState.WAITING)
                await self.strike()
            if self.state == "doubt" and StepState.DOUBT in states and self.of == "once":
                await self.strike()
            if not row.pending or (row.status == "parked" and row.park is not None and row.park.until is None):
                break
            if self.event == "row unreadable" and row.status == "parked" and row.park is not None and row.park.reason == "state":
                break
        await asyncio.sleep(1)
        self.row, self.records = await handle.row(), await runtime.store.steps("s", 1)

    def record(self) -> Step | None:
        """The step's own record."""
        return next((step for step in self.records if "note" not in step.record.name), None)

    def settle(self) -> str:
        """A person says done; the reply."""

        async def main(runtime: Runtime) -> str:
            assert await runtime.session("s").resolve("done", result="by hand") == 1
            return str(await runtime.session("s").ask("go", id="m"))

        self.event = "settled"
        return str(self.world.life(self.agents, main))


# ---------------------------------------------------------------- what each word means


def runs(case: Case) -> None:
    assert len(case.runs) == 1
    assert case.said == ["ok 1"]


def runs_again(case: Case) -> None:
    assert len(case.runs) == 2
    assert case.said[-1] == "ok 2"
    assert case.said[:-1] in ([], ["ok 1"])  # a free read says so too before its record is refused
    assert case.world.seen(MaybePaid) == []
    assert case.world.seen(StepRetried) == []


def same_key(case: Case) -> None:
    runs_again(case)
    assert case.runs[0][0] == case.runs[1][0]
    assert case.record() is not None


def paid_again(case: Case) -> None:
    assert len(case.runs) == 2
    assert case.said[-1] == "ok 2"
    assert len(case.world.seen(MaybePaid)) == 1
    assert case.row.usage.microusd == 2 * MOST.microusd


def retried(case: Case) -> None:
    assert len(case.runs) == 2
    assert case.said == ["ok 2"]
    assert case.runs[0][0] == case.runs[1][0]
    assert case.world.lives == 1
    assert case.runs[1][1] < 100
    assert len(case.world.seen(StepRetried)) == 1


def replayed(case: Case) -> None:
    assert len(case.runs) == 1
    assert case.said == ["ok 1", "ok 1"]
    assert case.world.seen(Drifted) == []
    assert case.world.seen(StepReplayed)


def old_answer(case: Case) -> None:
    assert len(case.runs) == 1
    assert len(case.said) == 2
    assert case.said[0] == case.said[1]
    assert len(case.world.seen(Drifted)) == 1


def same_error(case: Case) -> None:
    assert len(case.runs) == 1
    assert len(case.said) >= 2
    assert case.world.seen(Drifted) == []
    assert case.said[0].startswith("StepError ")
    assert set(case.said) == {case.said[0]}


def asked_again(case: Case) -> None:
    assert len(case.runs) == 2
    assert case.said[-1] == "ok 2"
    # Before, it had failed for good: its caller was told, or the session parked for it.
    failed = case.said[0].startswith("StepError ")
    assert failed or "provider" in [event.reason for event in case.world.seen(SessionParked)]


def doubt(case: Case) -> None:
    assert len(case.runs) == 1
    assert (case.row.status, case.row.park.reason) == ("parked", "doubt")
    assert case.settle() == "by hand"
    assert len(case.runs) == 1


def settled(case: Case) -> None:
    assert len(case.runs) == 1
    assert (case.row.status, case.row.park) == ("idle", None)
    assert {event.by for event in case.world.seen(DoubtSettled)} == {"reconcile"}
    assert case.said[-1] == ("cancelled" if case.event in LET_GO else "reconciled")


def parks(case: Case) -> None:
    assert len(case.runs) == 1
    assert case.row.status == "parked"
    assert case.row.park.reason == {"signature": "drift", "another": "drift"}.get(case.event, case.event)
    assert case.others == []


def ends_first(case: Case) -> None:
    assert len(case.runs) == 1
    assert case.ended_s == [4.0]
    assert case.said == ["ok 1"]


def cut(case: Case) -> None:
    assert len(case.runs) == (0 if case.of == "sleep" else 1)
    step = case.record()
    assert step is not None
    assert step.state is StepState.FAILED
    assert step.record.cut
    assert step.record.outcome is not None
    assert step.record.outcome.failure is not None
    assert step.record.outcome.failure.type == "CancelledError"
    if case.state == "open":
        assert cost(step).microusd == (MOST.microusd if case.of == "paid" else 0)
    assert cost(step) != ZERO


def anew(case: Case) -> None:
    assert len(case.runs) == 2
    assert case.said[-1] == "ok 2"
    assert case.runs[0][0] != case.runs[1][0]
    assert (case.row.status, case.row.turn) == ("idle", 1)


def answers(case: Case) -> None:
    assert len(case.runs) == 1
    assert case.said == ["cancelled", "reconciled"]
    assert (case.row.status, case.row.turn) == ("idle", 1)


def written_again(case: Case) -> None:
    assert len(case.runs) == 1
    assert case.said == ["ok 1"]
    assert case.world.seen(StoreFailed) == []
    assert (case.row.status, case.row.turn, case.row.epoch) == ("idle", 1, 1)


def kept(case: Case) -> None:
    assert len(case.runs) == 1
    assert case.said[-1] == "ok 1"
    assert case.world.seen(DoubtRaised) == []
    assert (case.row.status, case.row.turn) == ("idle", 1)


def stays(case: Case) -> None:
    step = case.record()
    assert step is not None
    assert case.world.lives == 1
    assert step.state.name.lower() == case.state
    assert len(case.runs) == (0 if case.of == "sleep" else 1)
    assert case.row.turn == 1


def resumes(case: Case) -> None:
    began_s, ended_s = case.starts_s[0], case.world.time_s
    if case.of.startswith("retry"):
        assert len(case.runs) == 2
        assert case.said[-1] == "ok 2"
        assert case.runs[0][0] == case.runs[1][0]
        assert case.due_s is not None
        assert case.runs[1][1] == pytest.approx(case.due_s - 1_800_000_000.0, abs=1)
    else:
        assert case.said[-1] == ("awake" if case.of == "sleep" else "the reply")
        assert len(case.runs) == (0 if case.of == "sleep" else 1)
        assert ended_s - began_s == pytest.approx(302, abs=2)


def new_wait(case: Case) -> None:
    assert case.said[-1] == ("awake" if case.of == "sleep" else "the reply")
    assert len(case.runs) == (0 if case.of == "sleep" else 2)
    assert case.world.time_s - case.starts_s[0] > 305
    assert len(case.world.seen(Unclaimed)) == 1


def fails(case: Case) -> None:
    step = case.record()
    assert step is not None
    assert step.state is StepState.FAILED
    assert case.said[-1] == "AskTimeout AskTimeout"


def event(case: Case) -> None:
    assert len(case.world.seen(Unclaimed)) >= 1
    assert len(case.said) <= 1
    assert (case.row.status, case.row.turn) == ("idle", 1)


def set_aside(case: Case) -> None:
    before = list(case.runs), list(case.said), len(case.starts_s)
    assert (case.row.status, case.row.park.reason) == ("parked", "state")
    step = next(step for step in case.records if step.unreadable)
    assert step.key.hex() in case.row.park.text
    assert len(case.starts_s) == (2 if case.of == "by a person" else 1)
    case.restore()
    case.event = "crash"
    case.world.life(case.agents, case.live)
    assert (case.row.turn, case.row.status) == ((0, "parked") if WORD_OF[case.state, case.of, "crash"] == "doubt" else (1, "idle"))
    assert (case.runs, case.said, len(case.starts_s)) != before or case.row.park is not None


def no_matter(case: Case) -> None:
    word = WORD_OF[case.state, case.of, "crash"]
    if case.jump[1] or case.state == "doubt":
        EXPECT[word](case)
    else:
        assert (len(case.runs), len(case.said)) == (1, 1)
        assert (case.row.status, case.row.turn) == ("idle", 1)
    assert case.world.time_s < 120


def own_length(case: Case) -> None:
    length_s = 500 if case.of.startswith("retry") else 300
    by_s, crash = case.jump
    longest_s = length_s if not crash else 61 if by_s > 0 else 2 * length_s
    assert crash or case.world.time_s - case.starts_s[0] > 295, "a wait does not end early"
    assert case.world.time_s - case.starts_s[0] < longest_s + 5
    assert case.said[-1] == {"sleep": "awake", "reply": "the reply"}.get(case.of, "ok 2")
    assert (case.row.status, case.row.turn) == ("idle", 1)


EXPECT: dict[str, Callable[[Case], None]] = {
    "set aside": set_aside,
    "no matter": no_matter,
    "own length": own_length,
    "runs": runs,
    "runs again": runs_again,
    "same key": same_key,
    "paid again": paid_again,
    "retried": retried,
    "replayed": replayed,
    "old answer": old_answer,
    "same error": same_error,
    "asked again": asked_again,
    "doubt": doubt,
    "settled": settled,
    "parks": parks,
    "ends first": ends_first,
    "cut": cut,
    "anew": anew,
    "answers": answers,
    "written again": written_again,
    "kept": kept,
    "stays": stays,
    "resumes": resumes,
    "new wait": new_wait,
    "fails": fails,
    "event": event,
}

WORD_OF = {(state, of, event): word for state, of, event, word in STEP_CELLS}
VARIANTS: dict[str, Any] = {"clock jumps": JUMPS, "another": ["once", "idempotent"]}
ACTED: list[Any] = [(*cell, variant) for cell in STEP_CELLS if cell[3] != "-" for variant in VARIANTS.get(cell[2], [None])]


def shown(variant: Any) -> str:
    match variant:
        case (by_s, crash):
            return f" {'ahead' if by_s > 0 else 'back'}{', crash' if crash else ''}"
        case None:
            return ""
        case _:
            return f" {variant}"


@pytest.mark.parametrize(
    ("state", "of", "happens", "word", "variant"),
    ACTED,
    ids=[f"{state}-{of}-{happens}{shown(variant)}-{word}" for state, of, happens, word, variant in ACTED],
)
def test_a_cell_of_the_step_table(state: str, of: str, happens: str, word: str, variant: Any) -> None:
    """A step of that class, brought into that state, meets that event: what comes of it is what the page says."""
    case = Case(state, of, happens, variant)
    case.act_out()
    EXPECT[word](case)
    if happens == "another":
        assert case.others == ([] if word in ("parks", "doubt") else ["done"])


# ---------------------------------------------------------------- acting out how a step is let go of


class LetGo:
    """One step, let go of at one moment in one way; what came of it."""

    def __init__(self, moment: str, of: str, how: str) -> None:
        self.moment, self.of, self.how = moment, of, how
        self.world = World()
        self.runs = 0
        self.ways: list[str] = []
        self.row: Any = None
        self.records: list[Step] = []

    def make(self) -> Agent:
        case = self

        async def reconcile(text: str) -> str:
            await asyncio.sleep(5)
            return "reconciled"

        async def effect(text: str) -> str:
            case.runs += 1
            if case.runs == 1:
                await case.first_run()
            return f"ok {case.runs}"

        options: dict[str, Any] = {"name": "effect", "timeout_s": 200.0, "retry": Retry(attempts=2, base_s=50.0, max_s=50.0, total_s=500.0)}
        if "once" in self.of:
            options |= {"effect": "once", "reconcile": reconcile if "reconciled" in self.of else None}
        elif self.of == "idempotent":
            options |= {"effect": "idempotent"}
        elif self.of == "paid":
            options |= {"cost": Usage(microusd=MOST.microusd)}
        made = tool(**options)(effect)

        async def note(text: str) -> str:
            return text

        @agent(name="a", tools=[made], park_after_s=FOREVER, intensity=Intensity(1, 60.0), backoff=Backoff(base_s=0.1))
        async def handler(session: Session[Any], text: str) -> str:
            if case.before_it_opens and not case.ways:
                case.next_write_is_late()
            work: Any = session.sleep(100) if case.of == "sleep" else session.step(made, "x")
            if case.how == "own scope":
                try:
                    async with asyncio.timeout(1):
                        case.ways.append(str(await work))
                except TimeoutError:
                    case.ways.append("timed out")
                await session.step(note, case.ways[-1])
                if case.world.lives == 1:
                    await case.world.crash()
                return case.ways[-1]
            if case.how == "raises" and case.ways:
                return f"then {await work}"
            case.ways.append("begun")
            task = asyncio.create_task(work)
            await asyncio.sleep(1)
            if case.how == "ended":
                await task
            if case.how == "raises":
                raise ValueError("a bug")
            return "left"

        return handler

    async def first_run(self) -> None:
        if self.moment == "before an attempt" and not self.before_it_opens:
            raise ConnectionError("cut off")
        if self.moment == "in reconcile":
            raise ConnectionError("cut off")
        if self.moment == "in the attempt":
            await asyncio.sleep(100)
        if self.moment == "while its outcome is written":
            self.next_write_is_late()

    @property
    def before_it_opens(self) -> bool:
        """A read waits for its second attempt; an effect that is not retried waits for the record that says that it begins."""
        return self.moment == "before an attempt" and self.of == "once"

    def next_write_is_late(self) -> None:
        late = FaultPlan(store_at={self.world.store.batches + 1: "delay"}, delay_s=(3.0, 3.0))
        self.world.store.faults = late.store_hook()

    def act_out(self) -> None:
        handler = self.make()

        async def live(runtime: Runtime) -> None:
            handle = await runtime.spawn(handler, id="s")
            await handle.tell("go", id="m")
            if self.how == "ended":
                await asyncio.sleep(1.5)
                await handle.cancel()
            await asyncio.sleep(1000)
            self.row, self.records = await handle.row(), await runtime.store.steps("s", 1)

        self.world.life(handler, live)
        if self.how == "own scope" and self.row is None:
            self.world.life(handler, live)

    def record(self) -> Step | None:
        return next((step for step in self.records if step.record.name in ("effect", "sleep")), None)


def expect_let_go(case: LetGo, word: str) -> None:
    step, begun = case.record(), 0 if case.of == "sleep" or case.before_it_opens else 1
    failure = None if step is None or step.record.outcome is None else step.record.outcome.failure
    match word:
        case "cut":
            assert step is not None
            assert (step.state, step.record.cut, case.runs) == (StepState.FAILED, True, begun)
            assert case.ways == ["timed out", "timed out"]
        case "kept, cut":
            assert step is not None
            assert (step.state, step.record.cut, case.runs) == (StepState.CLOSED, True, begun)
            assert case.ways == ["timed out", "timed out"]
        case "kept":
            assert step is not None
            assert (step.state, step.record.cut, case.runs) == (StepState.CLOSED, False, begun)
        case "closed":
            assert step is not None
            assert failure is not None
            assert (step.state, failure.type, step.record.cut, case.runs) == (StepState.FAILED, "CancelledError", False, begun)
        case "nothing":
            assert step is None
        case "runs anew":
            assert step is not None
            assert (step.state, case.runs, case.row.turn) == (StepState.CLOSED, 0 if case.of == "sleep" else begun + 1, 1)
        case "asks":
            assert (case.row.status, case.row.park.reason, case.runs) == ("parked", "doubt", 1)
        case "settled":
            assert step is not None
            assert (case.row.status, case.row.turn, step.state, case.runs) == ("idle", 1, StepState.CLOSED, 1)
            assert {event.by for event in case.world.seen(DoubtSettled)} == {"reconcile"}
        case "unresolved":
            assert step is not None
            assert (case.row.status, case.row.park, step.state, case.runs) == ("cancelled", None, StepState.DOUBT, 1)
            assert case.row.unresolved.reason == "doubt"
            assert case.world.seen(DoubtRaised)


@pytest.mark.parametrize(("moment", "of", "how", "word"), cells_of("let go", 2))
def test_a_cell_of_the_let_go_table(moment: str, of: str, how: str, word: str) -> None:
    """A step of that class is let go of at that moment, in that way: what comes of it is what the page says."""
    case = LetGo(moment, of, how)
    case.act_out()
    expect_let_go(case, word)


# ---------------------------------------------------------------- acting a turn out


def turn_of(world: World, *, deployed: bool = False, effect: Any = "read") -> Agent:
    """A turn of two steps: the second takes a while, parks, or strikes a bug, as the message says. `deployed`: a new effect comes first."""

    @tool(effect="once")
    async def new() -> None:
        world.done.append("new")

    @tool(effect=effect)
    async def work(number: int) -> int:
        world.done.append(number)
        await asyncio.sleep(1.0)
        return number

    @agent(name="a", intensity=Intensity(1, 60.0), backoff=Backoff(base_s=0.1))
    async def handler(session: Session[Any], text: str) -> str:
        world.done.append("starts")
        if deployed:
            await session.step(new)
        await session.step(work, 1)
        if text == "parked":
            await session.sleep(100)
        if text == "given up" or (text == "bug" and world.done.count("starts") == 1):
            raise ValueError("a bug")
        await session.step(work, 2)
        return "done"

    return handler


async def fence(world: World) -> None:
    await world.store.apply([Activate("s", 1_800_000_000.0 + world.now_s())])


TURN_VARIANTS = {"row unreadable": ("record", "message", "state"), "clock jumps": (-HOUR_S, HOUR_S)}


@pytest.mark.parametrize(
    ("state", "happens", "word", "variant"),
    [(*cell, variant) for cell in TURN_CELLS if cell[2] != "-" for variant in TURN_VARIANTS.get(cell[1], (None,))],
)
def test_a_cell_of_the_turn_table(state: str, happens: str, word: str, variant: Any) -> None:
    """A turn in that state meets that event: what comes of it is what the page says."""
    world = World()
    effect = "idempotent" if happens == "new effect" else "read"
    handler = turn_of(world, effect=effect)
    text = "bug" if happens == "bug" else state
    before: list[Any] = []

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(handler, id="s")
        await handle.tell(text, id="m")
        await asyncio.sleep(20.0 if happens == "bug" else {"running": 1.5, "parked": 50.0}.get(state, 20.0))
        before.append(await handle.row())
        if happens in ("crash", "agent gone", "row unreadable", "new effect"):
            await world.crash()
        elif happens == "clock jumps":
            world.jump(variant)
            await asyncio.sleep(61)
        elif happens == "cancel":
            await handle.cancel()
        elif happens == "drop":
            await handle.drop("not wanted")
        elif happens == "pause":
            await handle.pause()
        elif happens == "fence":
            await fence(world)
            await asyncio.sleep(20)

    async def second(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        if state == "parked" and word == "stays":
            # It still is, and goes on at its time.
            assert (await handle.row()).park == before[0].park
            await asyncio.sleep(200)
        if word == "held":
            done = list(world.done)
            await asyncio.sleep(200)
            held = await handle.row()
            assert (held.park.reason if held.park else held.status, world.done) == ("paused", done)
            await handle.resume()
            await asyncio.sleep(100)
        await asyncio.sleep(300 if word == "set aside" else 20)
        return await handle.row(), await runtime.store.message("s", "m")

    async def without(runtime: Runtime) -> Any:
        """The agent is not in the code: the session waits, and can be looked at."""
        handle = runtime.session("s")
        await asyncio.sleep(200)
        row = await handle.row()
        assert (row.turn, row.pending) == (before[0].turn, before[0].pending)

    async def unread(runtime: Runtime) -> Any:
        """A row of it does not decode: nothing of it runs."""
        done = list(world.done)
        row = await rest(runtime.session("s")) if state == "running" else None
        if row is None:
            await asyncio.sleep(200)
            row = await runtime.session("s").row()
        assert row.park is not None
        assert (row.status, row.park.reason, world.done) == ("parked", "state", done)

    async def deploys(runtime: Runtime) -> Any:
        """The code has a new effect before those on record: neither it nor what follows runs."""
        done = list(world.done)
        handle = runtime.session("s")
        if state == "given up":
            await handle.retry()
        elif state == "parked":
            await asyncio.sleep(200)
        row = await rest(handle)
        assert row.park is not None
        assert (row.status, row.park.reason) == ("parked", "drift")
        assert [each for each in world.done[len(done) :] if each != "starts"] == []

    async def as_before(runtime: Runtime) -> None:
        """The old code is back: a person resumes the session."""
        world.done.append("fixed")
        await runtime.session("s").resume()
        await asyncio.sleep(300)

    @agent
    async def another(session: Session[Any], text: str) -> None: ...

    world.life(handler, first)
    if state == "parked" and happens != "cancel":
        assert before[0].status == "parked"
    if happens == "agent gone":
        world.life(another, without)
    if word == "drifts":
        world.life(turn_of(world, deployed=True, effect=effect), deploys)
        world.life(handler, as_before)
    elif happens == "new effect":
        handler = turn_of(world, deployed=True, effect=effect)
    if word == "set aside":
        restore = world.damage(variant)
        world.life(handler, unread)
        restore()
    elif happens == "row unreadable":
        world.damage("state")
    row, message = world.life(handler, second)
    if word == "ends":
        assert (row.status, row.turn, message.state) == ("cancelled", 0, MessageState.DEAD)
        return
    if word == "dropped":
        assert (row.status, row.turn, message.state) == ("idle", 1, MessageState.DEAD)
        return
    if state == "given up":
        assert (row.status, row.turn, message.state) == ("failed", 0, MessageState.DEAD)
        assert world.done == ["starts", 1, "starts"]
        if happens == "new effect":
            world.life(handler, deploys)
        return
    assert (row.turn, message.state) == (1, MessageState.DONE)
    assert world.done.count(1) == 1
    starts = 1 if word == "stays" and state != "parked" else 3 if word == "drifts" else 2
    if state == "running" and happens in ("drain", "pause"):
        assert world.done == ["starts", 1, 2, "starts"] or world.done == ["starts", 1, 2]
        return
    assert world.done.count("starts") == starts


# ---------------------------------------------------------------- acting a message out


def message_of(world: World, state: str) -> Agent:
    @agent(name="a", intensity=Intensity(0, 60.0))
    async def handler(session: Session[Any], text: str) -> str:
        world.done.append(text)
        if text == "queued":
            await asyncio.sleep(10)
        if text == "dead" and "fixed" not in world.done:
            raise ValueError("a bug")
        return f"handled {text}"

    return handler


@pytest.mark.parametrize(
    ("state", "happens", "word", "by_s"),
    [(*c, by_s) for c in MESSAGE_CELLS if c[2] != "-" for by_s in ((-HOUR_S, HOUR_S) if c[1] == "clock jumps" else (0.0,))],
)
def test_a_cell_of_the_message_table(state: str, happens: str, word: str, by_s: float) -> None:
    """A message in that state meets that event: what comes of it is what the page says."""
    world = World()
    handler = message_of(world, state)

    async def answer(handle: Any) -> str:
        try:
            return str(await handle.ask(state, id="m", timeout_s=100))
        except (TurnFailed, SessionEnded, StateError) as error:
            return type(error).__name__

    came_to = {"queued": "handled queued", "done": "handled done", "dead": "TurnFailed"}[state]

    async def first(runtime: Runtime) -> list[str]:
        handle = await runtime.spawn(handler, id="s")
        await handle.tell(state, id="m")
        await asyncio.sleep(1)
        answers: list[str] = []
        match happens:
            case "crash" | "row unreadable" | "agent gone":
                await world.crash()
            case "clock jumps":
                world.jump(by_s)
            case "same again":
                assert await handle.tell(state, id="m") == "m"
            case "other body":
                with pytest.raises(MessageConflict):
                    await handle.tell("another", id="m")
            case "deadline":
                with pytest.raises(ReplyTimeout) as caught:
                    await handle.ask(state, id="m", timeout_s=1)
                assert caught.value.message_id == "m"
            case "end":
                waiting = asyncio.ensure_future(answer(handle)) if state == "queued" else None
                await asyncio.sleep(0.1)
                await handle.cancel()
                answers += [await waiting] if waiting is not None else []
            case "retry":
                world.done.append("fixed")
                await handle.retry()
            case "drop":
                await handle.drop()
                assert await handle.ask("next") == "handled next"
        return [*answers, await answer(handle)]

    async def second(runtime: Runtime) -> list[str]:
        return [await answer(runtime.session("s"))]

    async def without(runtime: Runtime) -> None:
        """The agent is not in the code: nothing is handled, and nothing is answered."""
        handle = runtime.session("s")
        for id, text in (("m", state), ("n", "another")):
            with pytest.raises(ConfigError, match="runs agent 'a', which this Runtime does not have"):
                await handle.ask(text, id=id, timeout_s=100)

    @agent
    async def other(session: Session[Any], text: str) -> None: ...

    answers = world.life(handler, first)
    if happens == "row unreadable":
        restore = world.damage("message" if state == "queued" else "reply")
        assert world.life(handler, second) == ["StateError"]
        assert world.done.count(state) == 1
        restore()
    if happens == "agent gone":
        world.life(other, without)
    if happens in ("crash", "row unreadable", "agent gone"):
        answers = world.life(handler, second)
    expected = {
        "answered": {"SessionEnded"},
        "handled": {f"handled {state}"},
        "set aside": {f"handled {state}"},
        "waits": {f"handled {state}"},
    }.get(word, {came_to})
    assert set(answers) == expected
    runs = world.done.count(state)
    assert runs == (2 if word in ("handled", "set aside", "waits") else 1)
