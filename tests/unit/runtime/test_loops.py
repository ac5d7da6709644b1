"""An agent that goes round in circles is told, as data for the model."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast import Budget, BudgetExhausted, RepetitionSpec, Runtime, Session, StepError, agent, tool
from tests.unit.runtime.support import World


def test_the_same_call_too_often_is_refused() -> None:
    """The model reads why; other calls go on; the refused one did not run."""
    world = World()

    @tool
    async def look(number: int) -> int:
        world.done.append(number)
        return number

    @agent(tools=[look], repetition=RepetitionSpec(same=2, window=10))
    async def worker(session: Session[Any], text: str) -> list[bool]:
        return [(await session.call_tool("look", {"number": number})).error for number in (1, 1, 1, 2, 1)]

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == [False, False, True, False, True]
    assert world.done == [1, 1, 2]


def test_the_refusal_names_what_repeats() -> None:
    """`{"error", "message"}`, as with every failure of a tool."""

    @tool
    async def look(number: int) -> int:
        return number

    @agent(tools=[look], repetition=RepetitionSpec(same=1, window=10))
    async def worker(session: Session[Any], text: str) -> str:
        await session.call_tool("look", {"number": 1})
        return (await session.call_tool("look", {"number": 1})).content

    async def main(runtime: Runtime) -> Any:
        return msgspec.json.decode(await (await runtime.spawn(worker, id="s")).ask("go"))

    found = World().life(worker, main)
    assert found["error"] == "RepetitionDetected"
    assert "look" in found["message"]


def test_a_replay_is_no_repetition() -> None:
    """A turn that is resumed at every step has made each call once."""
    world = World()

    @tool
    async def look(number: int) -> int:
        world.done.append(number)
        return number

    @agent(tools=[look], repetition=RepetitionSpec(same=1, window=10))
    async def worker(session: Session[Any], text: str) -> list[bool]:
        errors = []
        for number in range(4):
            errors.append((await session.call_tool("look", {"number": number})).error)
            if world.lives == number + 1:
                await world.crash()
        return errors

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m")

    for _ in range(4):
        world.life(worker, main)
    assert world.life(worker, main) == [False] * 4
    assert world.done == [0, 1, 2, 3]


def test_a_restart_does_not_make_a_call_a_repetition() -> None:
    """Recorded calls that a run after a bug asks for again count once, however often the turn restarts."""
    world = World()

    @tool
    async def look(number: int) -> int:
        world.done.append(number)
        return number

    @agent(tools=[look], repetition=RepetitionSpec(same=2, window=10))
    async def worker(session: Session[Any], text: str) -> bool:
        await session.call_tool("look", {"number": 1})
        world.done.append("run")
        if world.done.count("run") < 4:
            raise ValueError("a bug")
        return (await session.call_tool("look", {"number": 1})).error

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=1000)

    assert world.life(worker, main) is False
    assert world.done == [1, "run", "run", "run", "run", 1]


def test_a_loop_of_waits_ends_at_the_budget() -> None:
    """A wait performs nothing and costs a step all the same."""

    @agent(budget=Budget(steps=5))
    async def worker(session: Session[Any], text: str) -> int:
        slept = 0
        try:
            while slept < 100:
                await session.sleep(0)
                slept += 1
        except BudgetExhausted:
            pass
        return slept

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        return [await handle.ask("go"), (await handle.row()).usage.steps]

    assert World().life(worker, main) == [5, 5]


def test_a_loop_of_refused_calls_ends_at_the_budget() -> None:
    """A call that is refused as a repetition does not run and costs a step all the same."""
    world = World()

    @tool
    async def look(number: int) -> int:
        world.done.append(number)
        return number

    @agent(tools=[look], budget=Budget(steps=20), repetition=RepetitionSpec(same=2, window=10))
    async def worker(session: Session[Any], text: str) -> int:
        called = 0
        try:
            while called < 100:
                await session.call_tool("look", {"number": 1})
                called += 1
        except BudgetExhausted:
            pass
        return called

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        return [await handle.ask("go"), (await handle.row()).usage.steps]

    assert world.life(worker, main) == [20, 20]
    assert world.done == [1, 1]


@pytest.mark.parametrize("verb", ["ask", "tell"])
@pytest.mark.parametrize("target", ["s", "other", "nobody"])
def test_a_loop_of_refused_messages_ends_at_the_budget(verb: str, target: str) -> None:
    """To itself, of a kind that the other does not take, or to nobody: each refusal costs a step."""

    @agent(name="other")
    async def other(session: Session[Any], number: int) -> None: ...

    @agent(name="worker", budget=Budget(steps=5), mailbox=1)
    async def worker(session: Session[Any], text: str) -> int:
        refused = 0
        try:
            while refused < 100:
                try:
                    await getattr(session, verb)(target, "no number")
                except BudgetExhausted:
                    raise
                except StepError:
                    refused += 1
        except BudgetExhausted:
            pass
        return refused

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(other, id="other")
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert World().life([worker, other], main) == 5
