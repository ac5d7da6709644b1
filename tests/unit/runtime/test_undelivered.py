"""Messages between sessions that cannot be delivered: who is told, and who is not harmed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Intensity, Runtime, Session, StepError, StoreError, agent
from holdfast.events import SessionParked, TurnCrashed, Undelivered
from tests.unit.runtime.support import World, idle


@pytest.mark.parametrize("verb", ["ask", "tell"])
def test_a_message_that_the_other_does_not_take_is_the_senders_error(verb: str) -> None:
    """It never arrives: the other is not put out of service by it."""

    @agent(name="counter")
    async def counter(session: Session[Any], number: int) -> int:
        return number

    @agent(name="sender")
    async def sender(session: Session[Any], text: str) -> str:
        try:
            await getattr(session, verb)("to", "no number")
        except StepError as error:
            return error.type
        return "taken"

    async def main(runtime: Runtime) -> list[Any]:
        other = await runtime.spawn(counter, id="to")
        reply = await (await runtime.spawn(sender, id="from")).ask("go")
        return [reply, await other.ask(5), len(await runtime.store.messages("to"))]

    assert World().life([sender, counter], main) == ["ValidationError", 5, 1]


def test_a_mailbox_is_bounded_also_where_its_session_is_not_in_memory() -> None:
    """What was told in this turn and not sent yet counts, too."""

    @agent(name="busy", mailbox=2)
    async def busy(session: Session[Any], text: str) -> None:
        await asyncio.sleep(5)

    @agent(name="sender")
    async def sender(session: Session[Any], text: str) -> int:
        for number in range(10):
            try:
                await session.tell("to", str(number))
            except StepError:
                return number
        return 10

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(busy, id="to")
        return await (await runtime.spawn(sender, id="from")).ask("go")

    assert World().life([sender, busy], main) == 2


def test_a_message_whose_target_ends_before_the_commit_is_said_to_be_undelivered(caplog: pytest.LogCaptureFixture) -> None:
    """The turn that told it commits all the same; an event and a line of the log name the message."""
    world = World()

    @agent(name="last")
    async def last(session: Session[Any], text: str) -> None:
        world.done.append(text)
        session.finish()

    @agent(name="sender")
    async def sender(session: Session[Any], text: str) -> str:
        await session.tell("to", "late")
        await session.sleep(2)
        return "sent"

    async def main(runtime: Runtime) -> Any:
        handle, target = await runtime.spawn(sender, id="from"), await runtime.spawn(last, id="to")
        waiting = asyncio.ensure_future(handle.ask("go"))
        await asyncio.sleep(1)
        await target.ask("end")
        return await waiting

    assert world.life([sender, last], main) == "sent"
    assert world.done == ["end"]
    (lost,) = world.seen(Undelivered)
    assert (lost.session, lost.why) == ("to", "the session has ended")
    assert lost.message.startswith("from/1/")
    assert lost.message in caplog.text


def test_a_store_that_cannot_be_read_when_something_is_told_is_no_bug() -> None:
    """The session parks until it can be read; nothing is restarted, and the message is handled."""
    world = World()

    @agent(name="listener")
    async def listener(session: Session[Any], text: str) -> None:
        world.done.append(text)

    @agent(name="sender", intensity=Intensity(0, 60.0))
    async def sender(session: Session[Any], text: str) -> str:
        await session.tell("to", text)
        return "told"

    async def main(runtime: Runtime) -> Any:
        target, handle = await runtime.spawn(listener, id="to"), await runtime.spawn(sender, id="from")
        read = runtime.store.session

        async def broken(id: str) -> Any:
            if world.now_s() < 50:
                raise StoreError("disk I/O error")
            return await read(id)

        asking = asyncio.ensure_future(handle.ask("news", timeout_s=500))
        await asyncio.sleep(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runtime.store, "session", broken)
            reply = await asking
        await idle(target)
        return reply

    assert world.life([sender, listener], main) == "told"
    assert world.done == ["news"]
    assert {event.reason for event in world.seen(SessionParked)} == {"store"}
    assert world.seen(TurnCrashed) == []
