"""The end of a session: finish, its result, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast import OutcomeUnknown, ReplyTimeout, Runtime, Session, SessionEnded, SessionNotFound, agent
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.ops import CommitTurn, EndSession, Op, Result
from tests.unit.runtime.support import World


@agent
async def worker(session: Session[Any], text: str) -> str:
    await asyncio.sleep(1)
    if text == "last":
        session.finish("the result")
    return f"reply to {text}"


def test_finish_ends_the_session_when_the_turn_commits() -> None:
    """The turn's own reply is given, the result is kept, and a new message is refused."""

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        reply = await handle.ask("last")
        with pytest.raises(SessionEnded):
            await handle.ask("more")
        return [reply, await handle.result(), (await handle.row()).status]

    assert World().life(worker, main) == ["reply to last", "the result", "finished"]


def test_result_waits_for_the_end() -> None:
    """Whoever asked for the result before gets it when the session finishes."""

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        waiting = asyncio.ensure_future(handle.result())
        await handle.ask("first")
        with pytest.raises(ReplyTimeout):
            await handle.result(timeout_s=1)
        await handle.ask("last")
        return [await waiting]

    assert World().life(worker, main) == ["the result"]


def test_a_result_is_kept_over_a_crash() -> None:
    """It is read from the store by another process."""
    world = World()

    async def first(runtime: Runtime) -> None:
        await (await runtime.spawn(worker, id="s")).ask("last")
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("s").result()

    world.life(worker, first)
    assert world.life(worker, second) == "the result"


def test_messages_behind_the_last_one_are_answered() -> None:
    """They are not lost in silence: their askers are told that the session has ended."""

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        asks = [asyncio.ensure_future(handle.ask(text, id=text)) for text in ("last", "late", "later")]
        answers = await asyncio.gather(*asks, return_exceptions=True)
        return [answers[0], type(answers[1]), type(answers[2])]

    assert World().life(worker, main) == ["reply to last", SessionEnded, SessionEnded]


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_the_result_of_a_session_that_was_ended_is_an_error(verb: str) -> None:
    """The text says how it ended, and why."""

    async def main(runtime: Runtime) -> list[str]:
        handle = await runtime.spawn(worker, id="s")
        waiting = asyncio.ensure_future(handle.result())
        await asyncio.sleep(0.1)
        assert await getattr(handle, verb)("out of hand")
        texts = []
        for result in (waiting, handle.result()):
            with pytest.raises(SessionEnded) as caught:
                await result
            texts.append(str(caught.value))
        return texts

    for text in World().life(worker, main):
        assert {"cancel": "cancelled", "kill": "killed"}[verb] in text
        assert "out of hand" in text


def test_the_result_of_an_unknown_session_is_an_error() -> None:
    """Nobody waits for the end of what is not there."""

    async def main(runtime: Runtime) -> None:
        with pytest.raises(SessionNotFound):
            await runtime.session("nobody").result(timeout_s=5)

    World().life(worker, main)


def test_a_caller_that_looks_for_the_result_again_and_again_leaves_nothing_behind() -> None:
    """A wait of a caller outside is in memory: no row is written for it, and it is gone when the caller stops waiting."""

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        for _ in range(20):
            with pytest.raises(ReplyTimeout):
                await handle.result(timeout_s=1)
        waiting = [asyncio.ensure_future(handle.result(timeout_s=100)) for _ in range(3)]
        await handle.ask("last", id="m")
        rows = await runtime.store.messages("s")
        return [[row.id for row in rows], await asyncio.gather(*waiting)]

    assert World().life(worker, main) == [["m"], ["the result"] * 3]


@pytest.mark.parametrize("way", ["finished", "cancelled"])
def test_a_result_is_given_also_where_it_is_unknown_whether_the_end_was_written(way: str) -> None:
    """The session is read again, and those that wait for its end get what is there."""

    class Forgetful(MemoryStore):
        forgets = False

        async def apply(self, ops: Sequence[Op]) -> list[Result]:
            results = await super().apply(ops)
            if self.forgets and any(isinstance(op, (CommitTurn, EndSession)) for op in ops):
                self.forgets = False
                raise OutcomeUnknown("the answer was lost")
            return results

    world = World()
    store = world.store = Forgetful()

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        waiting = asyncio.ensure_future(handle.result(timeout_s=60))
        await asyncio.sleep(1)
        store.forgets = True
        if way == "finished":
            await handle.tell("last")
        else:
            with pytest.raises(OutcomeUnknown):
                await handle.cancel("no more")
        try:
            return await waiting
        except SessionEnded as error:
            return str(error)

    assert world.life(worker, main) == ("the result" if way == "finished" else "session 's' is cancelled: no more")
