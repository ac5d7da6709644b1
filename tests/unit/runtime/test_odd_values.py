"""Texts and numbers that some store or codec refuses, wherever a user's or a model's value can go; and a session whose write is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast import ConfigError, NotJournalable, Retry, Runtime, Session, StepError, Usage, WriteRefused, agent, tool
from holdfast.events import StoreFailed
from holdfast.stores.ops import Op, WriteStep, concerns
from tests.unit.runtime.support import World, rest

HALF = "\ud83d"
ODD = [HALF, "\0", f"a{HALF}b\0c"]


@pytest.mark.parametrize("text", ODD)
def test_an_odd_text_of_an_error_reaches_the_handler(text: str) -> None:
    """The step fails as with any other text, live and in the record; no write fails."""
    world = World()

    @tool
    async def look() -> str:
        raise ValueError(f"no such order: {text}")

    @agent(tools=[look])
    async def worker(session: Session[Any], order: str) -> str:
        try:
            return str(await session.step(look))
        except StepError as error:
            return f"{error.type}: {error.message}"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("o")

    answer = world.life(worker, main)
    assert answer.startswith("ValueError: no such order: ")
    assert "\ufffd" in answer
    assert world.seen(StoreFailed) == []


@pytest.mark.parametrize("text", ODD)
def test_an_odd_text_parks_a_retry_and_fails_a_turn_as_any_other(text: str) -> None:
    """The text of a park, of a dead letter, and of a person's reason."""
    world = World()

    @tool(retry=Retry(attempts=50, base_s=600, max_s=600, total_s=100_000))
    async def fetch() -> str:
        raise ConnectionError(f"the bank says {text}")

    @agent(name="waits", tools=[fetch])
    async def waits(session: Session[Any], order: str) -> str:
        return str(await session.step(fetch))

    @agent(name="fails")
    async def fails(session: Session[Any], order: str) -> str:
        raise ValueError(text)

    async def main(runtime: Runtime) -> Any:
        waiting, failing = await runtime.spawn(waits, id="w"), await runtime.spawn(fails, id="f")
        await waiting.tell("o")
        await failing.tell("o")
        parked, failed = await rest(waiting), await rest(failing)
        letter = (await runtime.store.dead_letters("f"))[0]
        await waiting.pause(text)
        return parked, failed, letter, await waiting.row()

    parked, failed, letter, paused = world.life([waits, fails], main)
    assert (parked.park.reason, failed.status, paused.park.reason) == ("retry", "failed", "paused")
    for shown in (parked.park.text, letter.cause, paused.park.text):
        shown.encode()
        assert "\0" not in shown
    assert world.seen(StoreFailed) == []


@pytest.mark.parametrize("message", [HALF, 10**30, {"a": [HALF]}])
def test_a_message_that_cannot_be_encoded_is_refused_to_its_sender(message: Any) -> None:
    """Before it is queued."""
    world = World()

    @agent
    async def worker(session: Session[Any], order: Any) -> None: ...

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        with pytest.raises(NotJournalable):
            await handle.tell(message)
        return await runtime.store.messages("s")

    assert world.life(worker, main) == []


@pytest.mark.parametrize("cost", [Usage(tokens=-1), Usage(microusd=10**30), Usage(tokens=0.5)])  # type: ignore[arg-type]
def test_a_cost_that_cannot_be_summed_is_refused_where_it_is_given(cost: Usage) -> None:
    """Not in the transaction that charges it."""
    with pytest.raises(ConfigError, match="whole amounts"):

        @tool(cost=cost)
        async def look() -> None: ...


def test_a_session_whose_write_is_refused_parks_and_the_others_resume() -> None:
    """It is tried again later, and not at once for ever; nobody waits for it. Once the store takes the write, it resumes."""
    world = World()

    class Refuses:
        """A store that refuses every batch with a record of the session "s"."""

        calls = 0
        refusing = True

        async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
            if self.refusing and any(isinstance(op, WriteStep) and "s" in concerns(op) for op in ops):
                self.calls += 1
                raise WriteRefused("odd")

        async def after_apply(self, n: int, ops: Sequence[Op]) -> None: ...

    async def work(number: int) -> int:
        return number

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        for number in range(20):
            await session.step(work, number)
        return text

    async def main(runtime: Runtime) -> Any:
        faults = world.store.faults = Refuses()
        handles = [await runtime.spawn(worker, id=id) for id in ("s", "a", "b", "c")]
        await handles[0].tell("go", id="m")
        answers = await asyncio.gather(*(handle.ask("go") for handle in handles[1:]))
        row = await rest(handles[0])
        await asyncio.sleep(600)
        calls, faults.refusing = faults.calls, False
        return answers, row, calls, await handles[0].ask("go", id="m", timeout_s=100)

    answers, row, calls, answer = world.life(worker, main)
    assert answers == ["go"] * 3
    assert (row.status, row.park.reason) == ("parked", "state")
    assert "refused" in row.park.text
    assert calls < 100
    assert answer == "go"
    assert {event.session for event in world.seen(StoreFailed)} == {"s"}
