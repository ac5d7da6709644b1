"""Messages: accepted once, answered once, and never lost."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from holdfast import MailboxFull, MessageConflict, ReplyTimeout, Runtime, Session, SessionEnded, SessionNotFound, agent
from holdfast.errors import SessionError
from tests.unit.runtime.support import World, idle


class Count(msgspec.Struct):
    n: int = 0


@agent(mailbox=3)
async def slow(session: Session[Count], seconds: float) -> int:
    """Counts its messages, each after a while."""
    await asyncio.sleep(seconds)
    session.state.n += 1
    return session.state.n


def test_the_same_message_twice_is_handled_once() -> None:
    """An id that was answered gets the same answer, at once."""

    async def main(runtime: Runtime) -> list[int]:
        handle = await runtime.spawn(slow, id="s")
        return [await handle.ask(0, id="m"), await handle.ask(0, id="m"), await handle.ask(0, id="n")]

    assert World().life(slow, main) == [1, 1, 2]


def test_two_who_ask_the_same_at_once_get_the_same_answer() -> None:
    """The second arrival waits for the first one's turn."""

    async def main(runtime: Runtime) -> list[int]:
        handle = await runtime.spawn(slow, id="s")
        return list(await asyncio.gather(handle.ask(1, id="m"), handle.ask(1, id="m")))

    assert World().life(slow, main) == [1, 1]


def test_an_answer_is_kept_over_a_crash() -> None:
    """Asked again with the same id in another process, it is the same answer without a turn."""
    world = World()

    async def first(runtime: Runtime) -> None:
        assert await (await runtime.spawn(slow, id="s")).ask(0, id="m") == 1
        await world.crash()

    async def second(runtime: Runtime) -> list[int]:
        return [await runtime.session("s").ask(0, id="m"), (await runtime.session("s").row()).turn]

    world.life(slow, first)
    assert world.life(slow, second) == [1, 1]


def test_an_id_with_another_body_is_refused() -> None:
    """Two different messages under one id are a bug of the sender, told while waiting and after it is done."""

    async def main(runtime: Runtime) -> None:
        handle = await runtime.spawn(slow, id="s")
        await handle.tell(1, id="m")
        with pytest.raises(MessageConflict):
            await handle.tell(2, id="m")
        await idle(handle)
        with pytest.raises(MessageConflict):
            await handle.ask(2, id="m")

    World().life(slow, main)


def test_a_full_mailbox_refuses_with_the_message() -> None:
    """What was accepted stays; the error carries what was not; there is room again later."""

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(slow, id="s")
        for number in range(3):
            await handle.tell(1, id=f"m{number}")
        with pytest.raises(MailboxFull) as caught:
            await handle.tell(7)
        await handle.tell(1, id="m0")  # a second arrival takes no room
        await idle(handle)
        return [caught.value.message, caught.value.limit, await handle.ask(0)]

    assert World().life(slow, main) == [7, 3, 4]


def test_a_timeout_carries_the_id_to_ask_again_with() -> None:
    """The message was accepted: its answer is there for whoever asks again."""

    async def main(runtime: Runtime) -> list[int]:
        handle = await runtime.spawn(slow, id="s")
        with pytest.raises(ReplyTimeout) as caught:
            await handle.ask(10, timeout_s=1)
        return [await handle.ask(10, id=caught.value.message_id), (await handle.row()).turn]

    assert World().life(slow, main) == [1, 1]


def test_messages_are_handled_in_order_of_arrival() -> None:
    """One at a time, first come first served, over a crash too."""
    world = World()

    @agent
    async def note(session: Session[Any], text: str) -> None:
        world.done.append(text)
        if text == "b" and world.lives == 1:
            await world.crash()

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(note, id="s")
        for text in "abc":
            await handle.tell(text, id=text)
        await idle(handle)

    async def second(runtime: Runtime) -> None:
        await idle(runtime.session("s"))

    world.life(note, first)
    world.life(note, second)
    assert world.done == ["a", "b", "b", "c"]


def test_an_unknown_session_is_an_error() -> None:
    """A message for nobody is refused, not kept."""

    async def main(runtime: Runtime) -> None:
        with pytest.raises(SessionNotFound):
            await runtime.session("nobody").tell(1)
        with pytest.raises(SessionNotFound):
            await runtime.session("nobody").ask(1)

    World().life(slow, main)


def test_an_ended_session_takes_no_message_but_keeps_its_answers() -> None:
    """A new message is refused; one that was answered before the end is answered again."""

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(slow, id="s")
        await handle.ask(0, id="m")
        await handle.cancel()
        with pytest.raises(SessionEnded):
            await handle.tell(1)
        return await handle.ask(0, id="m")

    assert World().life(slow, main) == 1


def test_a_message_that_the_agent_does_not_take_is_refused() -> None:
    """The sender hears of a wrong type at once; it does not become a dead letter."""

    async def main(runtime: Runtime) -> None:
        handle = await runtime.spawn(slow, id="s")
        with pytest.raises(SessionError, match="does not take"):
            await handle.tell("not a number")
        assert (await handle.row()).pending == 0

    World().life(slow, main)


def test_cancelling_a_session_answers_all_who_wait() -> None:
    """The one at work and those in the mailbox: each ask ends with SessionEnded."""

    async def main(runtime: Runtime) -> list[type]:
        handle = await runtime.spawn(slow, id="s")
        asks = [asyncio.ensure_future(handle.ask(100, id=f"m{number}")) for number in range(3)]
        await asyncio.sleep(1)
        assert await handle.cancel("enough")
        assert not await handle.cancel()
        return [type(error) for error in await asyncio.gather(*asks, return_exceptions=True)]

    assert World().life(slow, main) == [SessionEnded] * 3
