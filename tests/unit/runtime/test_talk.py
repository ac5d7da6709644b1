"""Sessions that talk: what is told leaves with the commit, what is asked is a step, and nobody waits for himself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import AskCycle, AskTimeout, Intensity, Runtime, Session, StepError, TurnFailed, agent
from tests.unit.runtime.support import World, idle, rest


def test_a_tell_leaves_when_the_turn_commits_and_arrives_once() -> None:
    """Not before, not at all if the turn fails, and once however often the turn ran."""
    world = World()

    @agent(intensity=Intensity(2, 60.0))
    async def sender(session: Session[Any], text: str) -> str:
        await session.tell("to", f"{text} 1")
        await session.tell("to", f"{text} 1")
        await asyncio.sleep(1)
        assert "good 1" not in world.done
        if text == "bad":
            raise ValueError("a bug")
        if world.lives == 1:
            await world.crash()
        return "sent"

    @agent
    async def receiver(session: Session[Any], text: str) -> None:
        world.done.append(text)

    async def first(runtime: Runtime) -> None:
        await runtime.spawn(receiver, id="to")
        handle = await runtime.spawn(sender, id="from")
        with pytest.raises(TurnFailed):
            await handle.ask("bad")
        await handle.drop()
        await handle.ask("good", id="m")

    async def second(runtime: Runtime) -> None:
        await runtime.session("from").ask("good", id="m")
        await idle(runtime.session("to"))

    world.life([sender, receiver], first)
    world.life([sender, receiver], second)
    assert world.done == ["good 1", "good 1"]


def test_a_tell_to_nobody_fails_where_it_is_said() -> None:
    """Not at the commit, where nothing could be done about it any more."""

    @agent
    async def sender(session: Session[Any], text: str) -> str:
        try:
            await session.tell("nobody", 1)
        except StepError as error:
            return error.type
        return "sent"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(sender)).ask("go")

    assert World().life(sender, main) == "SessionNotFound"


def test_a_tell_to_a_full_mailbox_fails_where_it_is_said() -> None:
    """The bound counts what this turn has told already."""

    @agent(mailbox=2)
    async def sender(session: Session[Any], text: str) -> list[str]:
        said = []
        for number in range(3):
            try:
                await session.tell("to", str(number))
                said.append("sent")
            except StepError as error:
                said.append(error.type)
        return said

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(sender, id="to")
        return await (await runtime.spawn(sender, id="from")).ask("go")

    assert World().life(sender, main) == ["sent", "sent", "MailboxFull"]


def test_an_answer_is_asked_for_once_over_crashes() -> None:
    """The other session handles one message, and its reply is replayed."""
    world = World()

    @agent
    async def asker(session: Session[Any], text: str) -> str:
        reply = await session.ask("to", "question")
        if world.lives == 1:
            await world.crash()
        return f"got {reply}"

    @agent
    async def answerer(session: Session[Any], text: str) -> str:
        world.done.append(text)
        return f"answer {len(world.done)}"

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(answerer, id="to")
        return await (await runtime.spawn(asker, id="from")).ask("go", id="m")

    world.life([asker, answerer], main)
    assert world.life([asker, answerer], main) == "got answer 1"
    assert world.done == ["question"]


def test_a_long_wait_for_a_reply_parks_and_goes_on() -> None:
    """The asker takes no memory meanwhile; a crash in between changes nothing."""
    world = World()

    @agent
    async def asker(session: Session[Any], text: str) -> str:
        return f"got {await session.ask('to', 'question', timeout_s=5000)}"

    @agent
    async def answerer(session: Session[Any], text: str) -> str:
        await session.sleep(1000)
        return "answer"

    async def first(runtime: Runtime) -> None:
        await runtime.spawn(answerer, id="to")
        handle = await runtime.spawn(asker, id="from")
        await handle.tell("go", id="m")
        row = await rest(handle)
        assert (row.park.reason, row.park.waits_on) == ("wait", ("to",))
        assert runtime.statistics()["live"] == 0
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("from").ask("go", id="m", timeout_s=5000)

    world.life([asker, answerer], first)
    assert world.life([asker, answerer], second) == "got answer"
    assert 1000 <= world.time_s < 1100


def test_every_ask_has_a_deadline() -> None:
    """AskTimeout carries the id to ask again with, and is the same on replay."""
    world = World()

    @agent
    async def asker(session: Session[Any], text: str) -> str:
        try:
            await session.ask("to", "question", timeout_s=30)
        except AskTimeout as error:
            await session.step(note, str(error))
            if world.lives == 1:
                await world.crash()
            return str(error)
        return "answered"

    async def note(text: str) -> None:
        world.done.append(text)

    @agent
    async def answerer(session: Session[Any], text: str) -> str:
        await session.sleep(100_000)
        return "answer"

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(answerer, id="to")
        return await (await runtime.spawn(asker, id="from")).ask("go", id="m")

    world.life([asker, answerer], main)
    assert [world.life([asker, answerer], main)] == world.done
    assert "ask again with id" in world.done[0]


@pytest.mark.parametrize("ring", [1, 2, 3])
def test_a_ring_of_asks_is_refused(ring: int) -> None:
    """Found when it is closed, at once, whatever its length; the one that would close it is told."""

    @agent
    async def asker(session: Session[Any], text: str) -> str:
        target = str((int(session.id) + 1) % ring)
        try:
            return str(await session.ask(target, text, timeout_s=50))
        except AskCycle as error:
            return f"refused at {session.id}: {error.message}"

    async def main(runtime: Runtime) -> list[Any]:
        for number in range(ring):
            await runtime.spawn(asker, id=str(number))
        return [await runtime.session("0").ask("go"), asyncio.get_running_loop().time()]

    reply, took_s = World().life(asker, main)
    assert reply.startswith(f"refused at {ring - 1}: ")
    assert took_s < 1


def test_a_failure_of_the_one_asked_is_an_error_of_the_step() -> None:
    """A dead letter answers its ask at once, and the asker's turn goes on."""

    @agent
    async def asker(session: Session[Any], text: str) -> str:
        try:
            return str(await session.ask("to", "question", timeout_s=5000))
        except StepError as error:
            return f"{error.type}: {error.message}"

    @agent(intensity=Intensity(0, 60.0))
    async def answerer(session: Session[Any], text: str) -> str:
        raise ValueError("a bug")

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(answerer, id="to")
        return await (await runtime.spawn(asker, id="from")).ask("go", timeout_s=10)

    assert "a bug" in World().life([asker, answerer], main)


def test_what_was_told_before_an_ask_arrives_before_it() -> None:
    """Messages to one target keep their order, though one leaves at the commit and the other at once."""
    world = World()

    @agent
    async def sender(session: Session[Any], text: str) -> str:
        await session.tell("to", "first")
        await session.ask("to", "second")
        await session.tell("to", "third")
        return "sent"

    @agent
    async def receiver(session: Session[Any], text: str) -> None:
        world.done.append(text)

    async def main(runtime: Runtime) -> None:
        await runtime.spawn(receiver, id="to")
        await (await runtime.spawn(sender, id="from")).ask("go")
        await idle(runtime.session("to"))

    world.life([sender, receiver], main)
    assert world.done == ["first", "second", "third"]


def test_an_ask_that_timed_out_is_no_part_of_a_ring() -> None:
    """Whoever once asked, in vain, can be asked by the other later."""

    @agent(name="late")
    async def late(session: Session[Any], text: str) -> str:
        if text == "question":
            await session.sleep(30)
            return "too late"
        return str(await session.ask("from", "hello"))

    @agent(name="asker")
    async def asker(session: Session[Any], text: str) -> str:
        if text == "hello":
            return "hello, too"
        try:
            return str(await session.ask("to", "question", timeout_s=10))
        except AskTimeout:
            return "timed out"

    async def main(runtime: Runtime) -> list[Any]:
        first, second = await runtime.spawn(asker, id="from"), await runtime.spawn(late, id="to")
        before = await first.ask("go")
        await asyncio.sleep(50)
        return [before, await second.ask("ask it")]

    assert World().life([asker, late], main) == ["timed out", "hello, too"]


def test_two_who_ask_each_other_at_once_do_not_wait_for_each_other() -> None:
    """The ring is seen before either question is written: one is refused at once, and so the other gets its answer."""

    @agent
    async def asker(session: Session[Any], target: str) -> str:
        if target == "nobody":
            return "hello"
        try:
            return str(await session.ask(target, "nobody"))
        except AskCycle:
            return "refused"

    async def main(runtime: Runtime) -> list[Any]:
        one, two = await runtime.spawn(asker, id="1"), await runtime.spawn(asker, id="2")
        return [sorted(await asyncio.gather(one.ask("2"), two.ask("1"))), asyncio.get_running_loop().time()]

    replies, took_s = World().life(asker, main)
    assert replies == ["hello", "refused"]
    assert took_s < 5
