"""An ask is made again with its id: it takes the answer to the first message, and the other session handles one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from holdfast import (
    AskCycle,
    AskTimeout,
    Intensity,
    MessageRefused,
    NotJournalable,
    Runtime,
    Session,
    StepError,
    TurnFailed,
    agent,
)
from holdfast.events import Resumed, Undelivered
from tests.unit.runtime.support import World, idle, rest


@agent
async def slow(session: Session[Any], seconds: Any) -> str:
    await session.sleep(seconds)
    return f"answer after {seconds}"


async def handled(runtime: Runtime, session: str = "slow") -> tuple[int, int]:
    """How many messages a session has, and how many turns it has committed."""
    return len(await runtime.store.messages(session)), (await idle(runtime.session(session))).turn


@pytest.mark.parametrize("crash", ["none", "while the first waits", "between", "while the second waits", "after"])
@pytest.mark.parametrize("park_after_s", [1.0, 1_000.0], ids=["parked", "in memory"])
def test_again_in_the_same_turn(crash: str, park_after_s: float) -> None:
    """The second ask waits for the first message, whose answer comes to it alone; over a crash at each point."""
    world = World()
    die_at = {"none": -1, "while the first waits": 10, "between": 20, "while the second waits": 50, "after": 100}[crash]

    async def note(text: str) -> str:
        return text

    @agent(park_after_s=park_after_s)
    async def asks(session: Session[Any], text: str) -> Any:
        try:
            return await session.ask("slow", 100, timeout_s=20)
        except AskTimeout as error:
            await session.step(note, error.message_id)
            if crash == "between" and world.lives == 1:
                await world.crash()
            answer = await session.ask("slow", 100, id=error.message_id, timeout_s=200)
        if crash == "after" and world.lives == 1:
            await world.crash()
        return [answer, await session.step(note, "done")]

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(slow, id="slow")
        handle = await runtime.spawn(asks, id="from")
        if world.lives == 1 and crash.startswith("while"):
            asyncio.get_running_loop().call_later(die_at, lambda: asyncio.ensure_future(world.crash()))
        answer = await handle.ask("go", id="m", timeout_s=1_000)
        return answer, await handled(runtime)

    if crash != "none":
        world.life([slow, asks], main)
    assert world.life([slow, asks], main) == (["answer after 100", "done"], (1, 1))
    assert 100 <= world.time_s < 250


@pytest.mark.parametrize("when_s", [50, 500])
@pytest.mark.parametrize("who", ["a later turn", "another session"])
def test_again_later_or_by_another_session(who: str, when_s: float) -> None:
    """Before the answer has come, and after it."""
    world = World()

    @agent
    async def asks(session: Session[Any], id: str) -> Any:
        try:
            return await session.ask("slow", 100, id=id or None, timeout_s=200 if id else 20)
        except AskTimeout as error:
            return error.message_id

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(slow, id="slow")
        first = await runtime.spawn(asks, id="from")
        id = await first.ask("", timeout_s=100)
        await asyncio.sleep(when_s - 20)
        again = first if who == "a later turn" else await runtime.spawn(asks, id="other")
        return await again.ask(id, timeout_s=1_000), await handled(runtime), round(world.now_s())

    assert world.life([slow, asks], main) == ("answer after 100", (1, 1), max(100, when_s))


@pytest.mark.parametrize("ends", ["answers", "fails", "is cancelled", "finishes in another turn"])
@pytest.mark.parametrize("crash", [False, True])
def test_all_that_wait_for_one_message_get_its_answer(ends: str, crash: bool) -> None:
    """Four that ask with the id of a message that was told: parked and in memory, and a caller outside; also where the process died
    meanwhile."""
    world = World()

    @agent(intensity=Intensity(0, 1.0))
    async def ending(session: Session[Any], text: str) -> str:
        await session.sleep(100)
        if ends == "fails":
            raise ValueError("a bug")
        if ends == "finishes in another turn":
            session.finish("over")
        return f"answer to {text}"

    def asker(park_after_s: float) -> Any:
        @agent(name=f"asks{park_after_s:.0f}", park_after_s=park_after_s)
        async def asks(session: Session[Any], text: str) -> Any:
            try:
                return await session.ask("to", "question", id="q", timeout_s=500)
            except StepError as error:
                return error.type

        return asks

    parks, stays = asker(1), asker(1_000)

    async def main(runtime: Runtime) -> Any:
        to = await runtime.spawn(ending, id="to")
        if ends == "finishes in another turn":
            await to.tell("first", id="first")
        await to.tell("question", id="q")
        handles = [await runtime.spawn(parks if number % 2 else stays, id=str(number)) for number in range(4)]
        for handle in handles:
            await handle.tell("go", id="m")
        await asyncio.sleep(20)
        if crash and world.lives == 1:
            await world.crash()
        async with asyncio.TaskGroup() as group:
            outside = group.create_task(from_outside(to))
            answers = [group.create_task(handle.ask("go", id="m", timeout_s=1_000)) for handle in handles]
            if ends == "is cancelled":
                group.create_task(cancelled(to))
        return {each.result() for each in answers}, outside.result(), round(world.now_s(), -1)

    async def from_outside(to: Any) -> Any:
        try:
            return await to.ask("question", id="q", timeout_s=500)
        except Exception as error:
            return type(error).__name__

    async def cancelled(to: Any) -> None:
        await asyncio.sleep(50)
        await to.cancel()

    agents = [ending, parks, stays]
    if crash:
        world.life(agents, main)
    inside, outside, at = world.life(agents, main)
    expected = {
        "answers": ({"answer to question"}, "answer to question"),
        "fails": ({"TurnFailed"}, "TurnFailed"),
        "is cancelled": ({"cancelled"}, "SessionEnded"),
        "finishes in another turn": ({"finished"}, "SessionEnded"),
    }[ends]
    assert (inside, outside) == expected
    assert at < 200, "no one waited for a deadline"


def test_the_same_id_with_another_body_is_refused() -> None:
    """Of an ask and of a tell, also where the first leaves only with the commit; live and on replay."""
    world = World()

    async def note(found: list[str]) -> list[str]:
        return found

    @agent
    async def sends(session: Session[Any], text: str) -> list[str]:
        found = [await session.tell("slow", 1, id="a"), await session.tell("slow", 1, id="a")]
        for work in (
            lambda: session.tell("slow", 2, id="a"),
            lambda: session.ask("slow", 2, id="b", timeout_s=10),
            lambda: session.ask("slow", 3, id="b", timeout_s=10),
            lambda: session.tell("slow", 3, id="b"),
        ):
            try:
                found.append(str(await work()))
            except StepError as error:
                found.append(error.type)
        found = await session.step(note, found)
        if world.lives == 1:
            await world.crash()
        return found

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(slow, id="slow")
        found = await (await runtime.spawn(sends, id="from")).ask("go", id="m")
        return found, await handled(runtime)

    world.life([slow, sends], main)
    found, messages = world.life([slow, sends], main)
    assert found == ["a", "a", "MessageConflict", "answer after 2", "MessageConflict", "MessageConflict"]
    assert messages == (2, 2)
    assert world.seen(Undelivered) == []


def test_a_tell_with_an_id_arrives_once() -> None:
    """Over turns, and where the mailbox is full or the session has ended by then: it has arrived."""
    world = World()

    @agent(mailbox=1)
    async def receives(session: Session[Any], text: str) -> None:
        await session.sleep(50)
        session.finish()

    @agent
    async def sends(session: Session[Any], text: str) -> str:
        return await session.tell("to", "news", id="n")

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(receives, id="to")
        handle = await runtime.spawn(sends, id="from")
        ids = [await handle.ask("go"), await handle.ask("go")]
        await asyncio.sleep(100)
        ids.append(await handle.ask("go"))
        return ids, len(await runtime.store.messages("to"))

    assert world.life([receives, sends], main) == (["n", "n", "n"], 1)


def test_a_tell_inside_a_step_keeps_its_id_on_replay() -> None:
    """Its function is not run again: the message is made from its record."""
    world = World()

    @agent
    async def receives(session: Session[Any], text: str) -> None: ...

    @agent
    async def sends(session: Session[Any], text: str) -> str:
        async def inside() -> str:
            return await session.tell("to", {1: "news"}, id="n")

        id = await session.step(inside)
        if world.lives == 1:
            await world.crash()
        return id

    @agent
    async def takes(session: Session[Any], text: Any) -> None: ...

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(takes, id="to")
        await (await runtime.spawn(sends, id="from")).ask("go", id="m")
        await idle(runtime.session("to"))
        return [message.id for message in await runtime.store.messages("to")]

    world.life([receives, sends, takes], main)
    assert world.life([receives, sends, takes], main) == ["n"]


def test_an_ask_again_is_part_of_a_ring_only_while_its_answer_is_due() -> None:
    """Once the answer is there, it needs no wait."""
    world = World()

    @agent
    async def right(session: Session[Any], text: str) -> str:
        if text == "question":
            await session.sleep(50)
            return "answer"
        try:
            return f"left says {await session.ask('left', 'back', timeout_s=100)}"
        except StepError as error:
            return error.type

    @agent
    async def left(session: Session[Any], text: str) -> Any:
        if text == "back":
            return "back"
        try:
            await session.ask("right", "question", id="q", timeout_s=20)
        except AskTimeout:
            await session.sleep(40)
        try:
            await session.ask("right", "something else", timeout_s=20)
        except AskCycle:
            return await session.ask("right", "question", id="q", timeout_s=20)

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(right, id="right")
        await runtime.spawn(left, id="left")
        await runtime.session("left").tell("go", id="go")
        await asyncio.sleep(10)
        await runtime.session("right").tell("ask left")
        return await runtime.session("left").ask("go", id="go", timeout_s=500)

    assert world.life([right, left], main) == "answer"


def test_the_answer_wakes_only_those_that_still_wait() -> None:
    """One that asked again and gave up again is parked for something else by then."""
    world = World()

    @agent(park_after_s=1.0)
    async def asks(session: Session[Any], text: str) -> str:
        for _ in range(3):
            try:
                await session.ask("slow", 200, id="q", timeout_s=20)
            except AskTimeout:
                pass
        await session.sleep(1_000)
        return "slept"

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(slow, id="slow")
        handle = await runtime.spawn(asks, id="from")
        await handle.tell("go", id="m")
        await asyncio.sleep(100)
        assert (await rest(handle)).park.text == "sleeps"
        stored = await runtime.store.message("slow", "q")
        assert stored is not None
        assert len(stored.also) <= 1, "those that wait no more are forgotten"
        before = len(world.seen(Resumed))
        await asyncio.sleep(200)
        resumed = {event.session for event in world.seen(Resumed)[before:]}
        return "from" in resumed, await handle.ask("go", id="m", timeout_s=2_000), await handled(runtime)

    assert world.life([slow, asks], main) == (False, "slept", (1, 1))


class Point(msgspec.Struct):
    x: int
    y: Decimal


@dataclass
class Line:
    points: list[Point] = field(default_factory=list)


class Model(pydantic.BaseModel):
    name: str
    line: int = 3


MESSAGES: list[tuple[Any, Any]] = [
    (Point, Point(1, Decimal("0.10"))),
    (Line, Line([Point(1, Decimal(2))])),
    (Model, Model(name="m", line=4)),
    (set[int], {3, 1, 2}),
    (Decimal, Decimal("1.50")),
    (dict[int, str], {2: "b", 1: "a"}),
    (Any, {"a": [1, None, b"x"]}),
]


@pytest.mark.parametrize(("type_", "value"), MESSAGES, ids=[str(getattr(type_, "__name__", type_)) for type_, _ in MESSAGES])
def test_a_session_can_send_what_a_handle_can(type_: Any, value: Any) -> None:
    """The receiver gets the same; live, on replay, and as the same message."""
    world = World()

    async def handler(session: Session[Any], message: Any) -> bool:
        return bool(message == value)

    handler.__annotations__["message"] = type_
    receives = agent(handler)

    @agent
    async def sends(session: Session[Any], text: str) -> Any:
        found = [await session.ask("to", value, id="q"), await session.ask("to", value), await session.tell("to", value, id="q")]
        if world.lives == 1:
            await world.crash()
        return found

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(receives, id="to")
        found = await (await runtime.spawn(sends, id="from")).ask("go", id="m")
        assert await runtime.session("to").ask(value, id="q")
        return found, len(await runtime.store.messages("to"))

    world.life([receives, sends], main)
    assert world.life([receives, sends], main) == ([True, True, "q"], 2)


@pytest.mark.parametrize(
    "value",
    [object(), 10**30, "\ud800", print, {1, 2}, [Decimal("1.20")], {"at": datetime(2026, 1, 1, tzinfo=UTC)}],
    ids=["object", "a large number", "half a character", "function", "set", "decimal", "datetime"],
)
def test_what_cannot_be_encoded_is_refused_by_both_alike(value: Any) -> None:
    """Before anything is recorded or sent; also what would arrive as something else, since the agent declares no type."""
    world = World()

    @agent
    async def receives(session: Session[Any], message: Any) -> None: ...

    @agent
    async def sends(session: Session[Any], text: str) -> list[str]:
        texts = []
        for work in (session.ask, session.tell):
            try:
                await work("to", value)
            except NotJournalable as error:
                texts.append(str(error))
        return texts

    async def main(runtime: Runtime) -> Any:
        to = await runtime.spawn(receives, id="to")
        with pytest.raises(NotJournalable) as caught:
            await to.ask(value)
        texts = await (await runtime.spawn(sends, id="from")).ask("go")
        return texts == [str(caught.value)] * 2, len(await runtime.store.messages("to"))

    assert world.life([receives, sends], main) == (True, 0)


def test_a_message_that_does_not_fit_is_refused_by_both() -> None:
    """A message that encodes, for an agent of another type."""
    world = World()

    @agent
    async def receives(session: Session[Any], message: Point) -> None: ...

    @agent
    async def sends(session: Session[Any], text: str) -> str:
        try:
            return str(await session.ask("to", Line()))
        except StepError as error:
            return error.category

    async def main(runtime: Runtime) -> Any:
        to = await runtime.spawn(receives, id="to")
        with pytest.raises(MessageRefused):
            await to.ask(Line())
        return await (await runtime.spawn(sends, id="from")).ask("go")

    assert world.life([receives, sends], main) == "semantic"


def test_an_ask_that_leaves_the_handler_twice_is_one_message() -> None:
    """A failed turn that a person retries asks for the same message."""
    world = World()

    @agent
    async def asks(session: Session[Any], text: str) -> Any:
        return await session.ask("slow", 500, timeout_s=10)

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(slow, id="slow")
        handle = await runtime.spawn(asks, id="from")
        with pytest.raises(TurnFailed):
            await handle.ask("go", id="m", timeout_s=1_000)
        await asyncio.sleep(500)
        await handle.retry()
        return await handle.ask("go", id="m", timeout_s=1_000), await handled(runtime)

    assert world.life([slow, asks], main) == ("answer after 500", (1, 1))
