"""What ran at once comes to its end in the same order on replay, whoever is faster by then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdfast import Agent, Retry, Runtime, Session, agent, tool
from tests.unit.runtime.support import World, rest

Race = Callable[[Session[Any], Any], Awaitable[str]]


async def first_completed(session: Session[Any], look: Any) -> str:
    """asyncio.wait for the first of two tasks."""
    tasks = [asyncio.create_task(session.step(look, name), name=name) for name in ("tortoise", "hare")]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    winner = min(task.get_name() for task in done)
    await asyncio.wait(tasks)
    return winner


async def timeout_around_tasks(session: Session[Any], look: Any) -> str:
    """A timeout around a wait for a task that is not cancelled by it, as in asyncio.as_completed."""
    task = asyncio.create_task(session.step(look, "tortoise"))
    done, _ = await asyncio.wait([task], timeout=1)
    late = "hare" if not done else "tortoise"
    await session.step(look, late)
    await task
    return late


def racing(world: World, race: Race) -> Agent:
    @tool
    async def look(name: str) -> str:
        world.done.append(name)
        await asyncio.sleep({"tortoise": 5.0, "hare": 2.0}[name])
        return name

    @tool(effect="once")
    async def pay(winner: str) -> str:
        world.done.append(("paid", winner))
        return winner

    @tool
    async def crash_once(n: int) -> int:
        if world.lives == 1:
            await world.crash()
        return n

    @agent(tools=[look, pay])
    async def judge(session: Session[Any], text: str) -> str:
        winner = await race(session, look)
        paid = await session.step(pay, winner)
        await session.step(crash_once, 1)
        return paid

    return judge


@pytest.mark.parametrize("race", [first_completed, timeout_around_tasks])
def test_a_race_has_the_same_winner_on_replay(race: Race) -> None:
    """Both answers are on record, and come at once: the one that came first comes first again, and the winner is paid once."""
    world = World()
    judge = racing(world, race)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(judge, id="s")).ask("go", id="m", timeout_s=1000)

    world.life(judge, main)
    assert world.life(judge, main) == "hare"
    assert [entry for entry in world.done if isinstance(entry, tuple)] == [("paid", "hare")]


def test_code_that_does_not_ask_any_more_is_waited_for_no_longer_than_the_step_may_take() -> None:
    """The new code asks for one of the two alone: it gets its answer after the time limit of that step."""
    world = World()

    @tool(timeout_s=30)
    async def look(name: str) -> str:
        world.done.append(name)
        await asyncio.sleep({"tortoise": 5.0, "hare": 2.0}[name])
        return name

    @agent
    async def judge(session: Session[Any], text: str) -> str:
        tasks = [asyncio.create_task(session.step(look, "tortoise"))]
        if world.lives == 1:
            tasks.append(asyncio.create_task(session.step(look, "hare")))
        await asyncio.wait(tasks)
        if world.lives == 1:
            await world.crash()
        return tasks[0].result()

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(judge, id="s")).ask("go", id="m", timeout_s=1000)

    world.life(judge, main)
    began = world.time_s
    assert world.life(judge, main) == "tortoise"
    assert world.time_s - began == pytest.approx(30, abs=1)
    assert world.done == ["tortoise", "hare"]


def test_tasks_count_for_themselves_in_the_order_they_are_made() -> None:
    """Gathers, uuids and children of two tasks are the same after a crash, whichever task comes first then."""
    world = World()

    @tool(effect="idempotent")
    async def note(text: str) -> str:
        world.done.append(text)
        return text

    @agent
    async def kid(session: Session[Any], text: str) -> str:
        return f"{session.id} {text}"

    @agent(tools=[note])
    async def boss(session: Session[Any], text: str) -> list[list[str]]:
        async def line(name: str, pause_s: float) -> list[str]:
            await asyncio.sleep(pause_s)
            drawn = str(session.uuid())
            child = await session.spawn(kid)
            said = await child.ask(name)
            await session.gather(session.step(note, f"{name} {drawn}"))
            return [drawn, child.id, said]

        early, late = (0.1, 1.0) if world.lives == 1 else (1.0, 0.1)
        lines = await asyncio.gather(line("a", early), line("b", late))
        if world.lives == 1:
            world.events.append(lines)  # type: ignore[arg-type] # kept beside the events, for the second life to compare with
            await world.crash()
        return list(lines)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(boss, id="s")).ask("go", id="m", timeout_s=1000)

    world.life([boss, kid], main)
    (before,) = [event for event in world.events if isinstance(event, list)]
    assert world.life([boss, kid], main) == [list(line) for line in before]
    assert len(world.done) == 2


def test_gathers_of_two_tasks_count_for_themselves() -> None:
    """What is drawn inside a gather of one task is not what another task draws in its own."""
    world = World()

    @agent
    async def boss(session: Session[Any], text: str) -> list[str]:
        async def drawn() -> str:
            return f"{session.uuid()} {session.random().random()}"

        async def line() -> list[Any]:
            return await session.gather(drawn(), drawn())

        return [one for each in await asyncio.gather(line(), line()) for one in each]

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(boss, id="s")).ask("go", id="m")

    drawn = world.life(boss, main)
    assert len(set(drawn)) == 4


def test_a_timeout_in_a_gather_of_a_task_is_followed_by_what_the_task_does_next() -> None:
    """After a crash the step that was cut stays cut, and the task takes the way that it took."""
    world = World()

    @tool(effect="idempotent")
    async def slow(text: str) -> str:
        await asyncio.sleep(5)
        return text

    @tool(effect="once")
    async def note(text: str) -> str:
        world.done.append(text)
        return text

    @tool
    async def last() -> None:
        if world.lives == 1:
            await world.crash()

    @agent(tools=[slow, note])
    async def boss(session: Session[Any], text: str) -> str:
        async def line() -> str:
            try:
                async with asyncio.timeout(1.0 if world.lives == 1 else 10.0):
                    await session.gather(session.step(slow, "a"))
            except TimeoutError:
                return await session.step(note, "late")
            return await session.step(note, "in time")

        (came,) = await asyncio.gather(line())
        await session.step(last)
        return came

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(boss, id="s")).ask("go", id="m", timeout_s=1000)

    world.life(boss, main)
    assert world.life(boss, main) == "late"
    assert world.done == ["late"]


# ---------------------------------------------------------------- the first that came decides

Decide = Callable[[dict[str, "asyncio.Task[str]"]], Awaitable[str]]


async def by_as_completed(tasks: dict[str, asyncio.Task[str]]) -> str:
    return await next(iter(asyncio.as_completed(tasks.values())))


async def by_a_queue(tasks: dict[str, asyncio.Task[str]]) -> str:
    queue: asyncio.Queue[str] = asyncio.Queue()
    for task in tasks.values():
        task.add_done_callback(lambda done: queue.put_nowait(done.result()))
    return await queue.get()


async def by_a_list(tasks: dict[str, asyncio.Task[str]]) -> str:
    came: list[str] = []
    for task in tasks.values():
        task.add_done_callback(lambda done: came.append(done.result()))
    await asyncio.gather(*tasks.values())
    return came[0]


async def by_a_look_at_the_losers(tasks: dict[str, asyncio.Task[str]]) -> str:
    done, _ = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
    return " ".join(sorted(task.result() for task in done))


@pytest.mark.parametrize("leave", ["crash", "park"])
@pytest.mark.parametrize("own_task", [False, True], ids=["handler", "task"])
@pytest.mark.parametrize("decide", [by_as_completed, by_a_queue, by_a_list, by_a_look_at_the_losers], ids=lambda way: way.__name__)
def test_what_came_first_comes_first_again(decide: Decide, own_task: bool, leave: str) -> None:
    """Three answers after 2, 1 and 3 s, asked for in another order than they came in: the same one decides after a crash or a park."""
    world = World()

    @tool
    async def look(name: str, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return name

    @tool(effect="once")
    async def buy(name: str) -> str:
        world.done.append(name)
        return name

    @tool
    async def last() -> None:
        if leave == "crash" and world.lives == 1:
            await world.crash()

    @agent(tools=[look, buy])
    async def boss(session: Session[Any], text: str) -> str:
        async def line() -> str:
            asked = {"b": 2.0, "a": 1.0, "c": 3.0}
            tasks = {name: asyncio.create_task(session.step(look, name, seconds)) for name, seconds in asked.items()}
            first = await decide(tasks)
            await asyncio.gather(*tasks.values())
            return str(await session.step(buy, first))

        bought = await (asyncio.create_task(line()) if own_task else line())
        await session.step(last)
        await session.sleep(1_000)
        return bought

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(boss, id="s")).ask("go", id="m", timeout_s=10_000)

    bought = world.life(boss, main)
    if leave == "crash":
        bought = world.life(boss, main)
    assert bought == "a"
    assert world.done == ["a"]


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_two_outcomes_of_one_write_come_one_after_the_other(names: str) -> None:
    """A loser that was recorded in the same batch as the winner is still a loser to code that looks, live and on replay."""
    world = World()
    looks: list[int] = []

    @tool
    async def look(name: str) -> str:
        await asyncio.sleep(1.0)
        return name

    @tool
    async def last() -> None:
        if world.lives == 1:
            await world.crash()

    @agent(tools=[look])
    async def boss(session: Session[Any], text: str) -> int:
        tasks = [asyncio.create_task(session.step(look, name)) for name in names]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        looks.append(len(done))
        await asyncio.gather(*tasks)
        await session.step(last)
        return len(done)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(boss, id="s")).ask("go", id="m")

    world.life(boss, main)
    assert world.life(boss, main) == 1
    assert looks == [1, 1]


@pytest.mark.parametrize("what", ["a child's result", "a read with retries", "a reply"])
def test_an_outcome_that_came_late_comes_late_again(what: str) -> None:
    """It came later than its step's own timeout, after the code had decided without it."""
    world = World()
    failures = [ConnectionError("cut off")] * 3

    @tool(timeout_s=1.0, retry=Retry(attempts=9, base_s=2.0, max_s=2.0))
    async def flaky() -> str:
        if failures:
            raise failures.pop()
        return "late"

    @tool(effect="once")
    async def buy(name: str) -> str:
        world.done.append(name)
        return name

    @tool
    async def last() -> None:
        if world.lives == 1:
            await world.crash()

    @agent
    async def slow(session: Session[Any], text: str) -> str:
        await asyncio.sleep(200)
        session.finish("late")
        return "late"

    @agent
    async def other(session: Session[Any], text: str) -> str:
        await asyncio.sleep(200)
        return "late"

    @agent(tools=[buy, flaky])
    async def boss(session: Session[Any], text: str) -> str:
        async def wait_for_it() -> str:
            if what == "a read with retries":
                return str(await session.step(flaky))
            if what == "a reply":
                return str(await session.ask("other", "go", timeout_s=1_000))
            child = await session.spawn(slow)
            await child.tell("go")
            return str(await child.result())

        task = asyncio.create_task(wait_for_it())
        done, _ = await asyncio.wait({task}, timeout=0.5 if what == "a read with retries" else 100)
        bought = await session.step(buy, "card" if done else "voucher")
        await task
        await session.step(last)
        return str(bought)

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(other, id="other")
        return await (await runtime.spawn(boss, id="s")).ask("go", id="m", timeout_s=10_000)

    world.life([boss, slow, other], main)
    assert world.life([boss, slow, other], main) == "voucher"
    assert world.done == ["voucher"]


@pytest.mark.parametrize("how", ["gather", "wait_for", "shield", "task group"])
def test_another_amount_in_a_task_parks_before_it_is_paid(how: str) -> None:
    """What a task pays was on record with another amount: the session parks, and does not pay both."""
    world = World()

    @tool(effect="once")
    async def pay(cents: int) -> int:
        world.done.append(cents)
        return cents

    @agent(tools=[pay])
    async def boss(session: Session[Any], text: str) -> int:
        paying = session.step(pay, 9 + world.lives)
        if how == "gather":
            (paid,) = await asyncio.gather(paying)
        elif how == "wait_for":
            paid = await asyncio.wait_for(paying, 30)
        elif how == "shield":
            paid = await asyncio.shield(paying)
        else:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(paying)
            paid = task.result()
        if world.lives == 1:
            await world.crash()
        return int(paid)

    async def first(runtime: Runtime) -> None:
        await (await runtime.spawn(boss, id="s")).ask("go", id="m")

    async def again(runtime: Runtime) -> Any:
        return (await rest(runtime.session("s"))).park.reason

    world.life(boss, first)
    assert world.life(boss, again) == "drift"
    assert world.done == [10]


# ---------------------------------------------------------------- replies among other outcomes


def over_a_crash(world: World, agents: list[Agent], boss: Agent) -> tuple[Any, float]:
    """What the boss comes to in the life after the crash, and how many seconds that life takes."""

    async def main(runtime: Runtime) -> Any:
        for each in agents:
            if each is not boss:
                await runtime.spawn(each, id=each.name)
        began_s = world.now_s()
        answer = await (await runtime.spawn(boss, id="s")).ask("go", id="m", timeout_s=10_000)
        return answer, world.now_s() - began_s

    world.life(agents, main)
    answer, took_s = world.life(agents, main)
    return answer, took_s


def crash_once(world: World) -> Any:
    @tool
    async def crash() -> None:
        if world.lives == 1:
            await world.crash()

    return crash


@agent
async def replier(session: Session[Any], text: str) -> str:
    return "the reply"


@pytest.mark.parametrize("rounds", range(0, 40, 3))
def test_a_reply_that_comes_while_another_outcome_is_written_comes_when_it_did(rounds: int) -> None:
    """A read and an ask at once, whose outcomes come so many rounds of the loop apart: the same one is first again."""
    world = World()
    crash = crash_once(world)

    @tool
    async def look() -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)

    @tool(effect="once")
    async def buy(name: str) -> str:
        world.done.append(name)
        return name

    @agent(tools=[buy])
    async def boss(session: Session[Any], text: str) -> str:
        came: list[str] = []

        async def looks() -> None:
            await session.step(look)
            came.append("read")

        async def asks() -> None:
            await session.ask("replier", "go", timeout_s=3_000)
            came.append("reply")

        await asyncio.gather(looks(), asks())
        bought = await session.step(buy, came[0])
        await session.step(crash)
        return str(bought)

    bought, took_s = over_a_crash(world, [boss, replier], boss)
    assert world.done == [bought]
    assert took_s < 5.0


def test_a_reply_before_a_failure_that_is_asked_again_costs_no_time_on_replay() -> None:
    """The record that told when the reply came is dropped with the failure: the next one tells it."""
    world = World()
    crash = crash_once(world)
    failures = [ConnectionError("the provider is down")]

    @tool(retry=Retry(attempts=1))
    async def flaky() -> None:
        if failures:
            raise failures.pop()

    @tool(effect="once")
    async def buy() -> None:
        world.done.append("bought")

    @agent(tools=[buy])
    async def boss(session: Session[Any], text: str) -> str:
        reply = await session.ask("replier", "go", timeout_s=3_000)
        await session.step(flaky)
        await session.step(buy)
        await session.step(crash)
        return str(reply)

    reply, took_s = over_a_crash(world, [boss, replier], boss)
    assert (reply, world.done) == ("the reply", ["bought"])
    assert took_s < 5.0


@pytest.mark.parametrize("depth", [1, 4])
def test_an_outcome_through_several_tasks_comes_first_again(depth: int) -> None:
    """It came seconds before the other: on replay the code has time to hand it on before the other comes."""
    world = World()
    crash = crash_once(world)

    @tool
    async def look(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @tool(effect="once")
    async def buy(name: str) -> str:
        world.done.append(name)
        return name

    @agent(tools=[buy])
    async def boss(session: Session[Any], text: str) -> str:
        came: list[str] = []

        async def deep(levels: int) -> None:
            if levels:
                await asyncio.gather(deep(levels - 1))
            else:
                await session.step(look, 1.0)

        async def hand_on() -> None:
            await deep(depth)
            came.append("deep")

        async def plain() -> None:
            await session.step(look, 5.0)
            came.append("plain")

        await asyncio.gather(hand_on(), plain())
        bought = await session.step(buy, came[0])
        await session.step(crash)
        return str(bought)

    assert over_a_crash(world, [boss], boss)[0] == "deep"
    assert world.done == ["deep"]
