"""What grows with a turn, a tree or a chain grows in proportion: counted in calls of functions, which are the same on every machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast import AskTimeout, MessageConflict, Runtime, Session, SessionNotFound, agent, tool
from holdfast.events import Resumed
from holdfast.runtime.agents.ids import MAX_CHARS
from holdfast.runtime.sessions.waiters import Waiter, Waiters
from holdfast.runtime.turns.branches import Branch
from holdfast.runtime.turns.failures import trace, where
from holdfast.runtime.turns.journal import Journal
from holdfast.stores.records import Outcome, Step, StepRecord, StepState
from tests.unit.runtime.support import World, idle, rest


def calls_of(run: Callable[[], object]) -> int:
    """How many functions of Python and of C it calls."""
    count = 0

    def called(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def instructions_of(run: Callable[[], object]) -> int:
    """How many instructions of Python it executes: also those of loops that call no function."""
    count = 0

    def executed(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return executed

    before = sys.gettrace()
    sys.settrace(executed)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def is_linear(run: Callable[[int], object], few: int = 50, counted: Callable[[Callable[[], object]], int] = calls_of) -> None:
    """Four times as much takes four times as many calls (or instructions), and not sixteen times."""
    run(few)  # what is made once is there
    small, large = counted(lambda: run(few)), counted(lambda: run(4 * few))
    assert large < 6 * small, f"{small} for {few}, {large} for {4 * few}"


def failing(count: int) -> None:
    """Branches of one gather, each of which has a record and then a failure, in turn."""
    journal = Journal()
    for number in range(count):
        for last in (False, True):
            record = StepRecord(
                kind="step", name="look", branch=f"g0.{number}/", digest=b"", nth=0, effect="read",
                seen=1 + number + count * last, ended=2 + number + count * (1 + last), opened=1.0, closed=2.0,
            )  # fmt: skip
            journal.put(Step(f"{number:016}{last:d}".encode(), StepState.FAILED if last else StepState.CLOSED, record, 1))
    assert len(journal.trailing_failures()) == count


def diverging(count: int) -> None:
    asyncio.run(_diverging(count))


async def _diverging(count: int) -> None:
    """New steps of a line next to records of its own and of many others that the code does not ask for, or only in the end."""
    journal = Journal()
    for number in range(count):
        for line in ("", f"t{number}~"):
            record = StepRecord(
                kind="step", name=f"old {number % 3}", branch="", digest=f"{number:014}".encode(), nth=0, effect="read", line=line,
                seen=1 + number, ended=2 + number, opened=1.0, closed=2.0,
            )  # fmt: skip
            journal.put(Step(f"{number:016}{line}".encode(), StepState.CLOSED, record, 1))
    journal.rewind()
    turn = SimpleNamespace(counts={}, seen=0)
    branch = Branch(turn, "")
    for number in range(count):
        claim = journal.claim(branch, "step", "new", str(number).encode())
        assert journal.drift(claim, "step", "new") is None
        assert journal.astray(branch)
        assert journal.passed_over(branch) is None
        journal.take(claim, journal.left[f"{number:016}t{number}~".encode()])
        waits = asyncio.ensure_future(journal.order.others_asked(branch, 60.0))
        await asyncio.sleep(0)
        assert waits.cancel() is (number < count - 1), "it waits until the others have asked for their records"
    for number in range(count):
        old = journal.drift(journal.claim(branch, "step", "new", b""), "step", f"old {number % 3}")
        assert old is not None
        journal.take(journal.claim(branch, "step", "new", b""), old)
    assert not journal.left


def telling(count: int) -> None:
    """Tells to two sessions, with an ask after them."""
    world = World()

    @agent(mailbox=10_000)
    async def hears(session: Session[Any], number: int) -> int:
        return number

    @agent
    async def worker(session: Session[Any], text: str) -> Any:
        for number in range(count):
            await session.tell("a", number)
            await session.tell("b", number)
        return await session.ask("a", count)

    async def main(runtime: Runtime) -> Any:
        for id in ("a", "b"):
            await runtime.spawn(hears, id=id)
        reply = await (await runtime.spawn(worker, id="s")).ask("go", id="m", timeout_s=1_000)
        assert (await idle(runtime.session("b"))).turn == count
        assert (await runtime.session("a").row()).turn == count + 1, "the tells arrived before the ask"
        return reply

    assert world.life([hears, worker], main) == count


@pytest.mark.parametrize("run", [failing, telling], ids=lambda run: run.__name__)
def test_a_turn_is_linear_in_its_steps(run: Callable[[int], None]) -> None:
    """Failures among many records at a restart; tells."""
    is_linear(run)


def test_a_step_of_code_that_diverged_passes_no_records_again() -> None:
    """However many records the code does not ask for."""
    is_linear(diverging, counted=instructions_of)


def test_an_answer_passes_no_waits_of_other_sessions() -> None:
    """Waits are found by their session: however many callers wait for others."""

    def waits(count: int) -> int:
        async def main() -> int:
            waiters = Waiters(asyncio.get_running_loop())
            others = [waiters.add(f"other {number}", "m") for number in range(count)]

            def ours() -> None:
                ends: list[Callable[[Waiter], None]] = [
                    lambda waiter: waiters.answer("s", "m", Outcome()),
                    lambda waiter: waiters.refuse("s", SessionNotFound("s", "gone")),
                    lambda waiter: waiters.forget("s", "m", waiter),
                ]
                for end in ends:
                    waiter = waiters.add("s", "m")
                    assert waiters.of("s") == ["m"]
                    end(waiter)
                    assert waiters.of("s") == []

            took = instructions_of(ours)
            assert not any(waiter.done() for waiter in others)
            return took

        return asyncio.run(main())

    waits(1)
    assert waits(2_000) == waits(2)


DEEP = 400


@agent
async def parent(session: Session[Any], depth: int) -> str:
    if depth:
        child = await session.spawn(parent)
        await child.tell(depth - 1)
    return session.id


def test_the_end_of_a_deep_tree_is_not_recursive_and_its_ids_are_bounded() -> None:
    """A chain of children deeper than the stack would bear: all end, the ids stay short, and are the same after a crash."""
    ids: list[list[str]] = []

    async def first(runtime: Runtime) -> None:
        await (await runtime.spawn(parent, id="root" * 100)).tell(DEEP)
        async with asyncio.timeout(1_000):
            while len(runtime.live()) < DEEP + 1:  # noqa: ASYNC110 # in virtual time
                await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        ids.append(sorted(runtime.live()))
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(250)
        try:
            await runtime.session("root" * 100).cancel()
        finally:
            sys.setrecursionlimit(limit)
        for id in ids[0]:
            assert (await runtime.session(id).row()).status == "cancelled"

    World().life(parent, first)
    assert len(set(ids[0])) == DEEP + 1
    assert max(map(len, ids[0])) <= 400
    assert max(map(len, ids[0])) <= MAX_CHARS


def test_the_id_of_a_child_is_the_same_on_replay() -> None:
    """Also where it was shortened, and the process died after the child was made."""
    world = World()

    @tool
    async def last() -> None:
        if world.lives == 1:
            await world.crash()

    @agent
    async def mother(session: Session[Any], text: str) -> str:
        child = await session.spawn(leaf)
        await session.step(last)
        return child.id

    @agent
    async def leaf(session: Session[Any], text: str) -> str:
        return text

    async def main(runtime: Runtime) -> Any:
        child = await (await runtime.spawn(mother, id="m" * 500)).ask("go", id="m")
        return [child, (await runtime.session(child).row()).parent.session]  # type: ignore[union-attr]

    world.life([mother, leaf], main)
    child, above = world.life([mother, leaf], main)
    assert above == "m" * 500
    assert len(child) < 250


@pytest.mark.parametrize("depth", [300])
def test_a_chain_of_asks_is_linear(depth: int) -> None:
    """Each session asks the next one, and waits."""

    def chain(count: int) -> None:
        @agent
        async def link(session: Session[Any], number: int) -> int:
            return 0 if not number else 1 + int(await session.ask(str(number - 1), number - 1, timeout_s=1_000))

        async def main(runtime: Runtime) -> Any:
            for number in range(count + 1):
                await runtime.spawn(link, id=str(number))
            return await runtime.session(str(count)).ask(count, timeout_s=1_000)

        assert World().life(link, main) == count

    is_linear(chain, depth // 4)


def test_another_order_of_keys_is_the_same_message() -> None:
    """From outside, and of an ask that is made again by code whose keys come in another order."""
    world = World()

    @agent
    async def hears(session: Session[Any], message: Any) -> int:
        world.done.append(message)
        await session.sleep(10)
        return len(message)

    @tool
    async def last() -> None:
        if world.lives == 1:
            await world.crash()

    @agent
    async def asks(session: Session[Any], text: str) -> int:
        message = {"b": 1, "a": {"d": 1, "c": 2}} if world.lives == 1 else {"a": {"c": 2, "d": 1}, "b": 1}
        if world.lives == 1:
            asyncio.get_running_loop().call_later(5, lambda: asyncio.ensure_future(world.crash()))
        return int(await session.ask("to", message))

    async def outside(runtime: Runtime) -> None:
        handle = await runtime.spawn(hears, id="to")
        assert await handle.ask({"b": 1, "a": [{"d": 1, "c": 2}], 1: 2}, id="odd") == 3
        assert await handle.ask({"b": 1, "a": [{"d": 1, "c": 2}]}, id="m") == 2
        assert await handle.ask({"a": [{"c": 2, "d": 1}], "b": 1}, id="m") == 2
        with pytest.raises(MessageConflict):
            await handle.ask({"a": [{"c": 2, "d": 2}], "b": 1}, id="m")

    async def inside(runtime: Runtime) -> Any:
        await runtime.spawn(hears, id="to")
        return await (await runtime.spawn(asks, id="from")).ask("go", id="go")

    world.life([hears, asks], outside)
    assert len(world.store._tables.messages["to"]) == 2
    world = World()
    world.life([hears, asks], inside)
    assert world.life([hears, asks], inside) == 2
    assert world.done[0] == {"b": 1, "a": {"d": 1, "c": 2}}
    assert len(world.store._tables.messages["to"]) == 1


@pytest.mark.parametrize("ends", ["answers", "is cancelled"])
def test_a_late_answer_wakes_no_session(ends: str) -> None:
    """The one that asked waits for something else by then, parked: it is not loaded, and its later wait is as long as it was."""
    world = World()

    @agent
    async def slow(session: Session[Any], text: str) -> str:
        await session.sleep(100)
        return "late"

    @agent(park_after_s=1.0)
    async def asks(session: Session[Any], text: str) -> str:
        try:
            await session.ask("slow", "x", timeout_s=20)
        except AskTimeout:
            await session.sleep(1_000)
        return "slept"

    async def main(runtime: Runtime) -> Any:
        other = await runtime.spawn(slow, id="slow")
        handle = await runtime.spawn(asks, id="from")
        await handle.tell("go", id="m")
        await asyncio.sleep(50)
        assert (await rest(handle)).park.text == "sleeps"
        before = len(world.seen(Resumed))
        if ends == "is cancelled":
            await other.cancel()
        await asyncio.sleep(200)
        resumed = [event.session for event in world.seen(Resumed)[before:]]
        reply = await handle.ask("go", id="m", timeout_s=2_000)
        return "from" in resumed, reply, round(world.now_s(), -1)

    assert world.life([slow, asks], main) == (False, "slept", 1_020)
    assert len(world.seen(Resumed)) > 0


async def test_an_ask_from_outside_that_timed_out_is_asked_again_with_its_id() -> None:
    """It is handled once."""
    handled: list[str] = []

    @agent
    async def slow(session: Session[Any], text: str) -> str:
        handled.append(text)
        await session.sleep(0.05)
        return "answer"

    async with Runtime("memory:", [slow]) as runtime:
        handle = await runtime.spawn(slow, id="s")
        with pytest.raises(Exception, match="ask again with id='m'"):
            await handle.ask("go", id="m", timeout_s=0.001)
        assert await handle.ask("go", id="m", timeout_s=5) == "answer"
        assert handled == ["go"]
        assert [message.id for message in await runtime.store.messages("s")] == ["m"]


@pytest.mark.parametrize("id", ["from", "f" * MAX_CHARS])
def test_an_ask_of_a_session_that_timed_out_is_asked_again_with_its_id(id: str) -> None:
    """From outside, with the id that the error has; the other session handles it once."""
    world = World()

    @agent
    async def slow(session: Session[Any], message: Any) -> str:
        await session.sleep(100)
        return "answer"

    @agent
    async def asks(session: Session[Any], text: str) -> str:
        try:
            return str(await session.ask("slow", {"b": 1, "a": 2}, timeout_s=20))
        except AskTimeout as error:
            return str(error)

    async def main(runtime: Runtime) -> Any:
        other = await runtime.spawn(slow, id="slow")
        text = str(await (await runtime.spawn(asks, id=id)).ask("go", timeout_s=200))
        again = text.partition("ask again with id '")[2].partition("'")[0]
        answer = await other.ask({"a": 2, "b": 1}, id=again, timeout_s=200)
        return answer, (await other.row()).turn

    assert world.life([slow, asks], main) == ("answer", 1)


def test_what_a_deep_recursion_died_of_is_told_from_its_last_frames() -> None:
    """The loop writes the text: it takes no step for each frame but the one to the next."""

    def down(depth: int) -> int:
        return 1 // depth + down(depth - 1)

    def died(depth: int) -> ZeroDivisionError:
        try:
            raise AssertionError(down(depth))
        except ZeroDivisionError as error:
            return error

    shallow, deep = died(100), died(600)
    for tell in (trace, where):
        tell(shallow)  # the lines of the file are read
        assert instructions_of(lambda: tell(deep)) < instructions_of(lambda: tell(shallow)) + 500 * 20  # noqa: B023 — called at once
        assert "down" in tell(deep)
