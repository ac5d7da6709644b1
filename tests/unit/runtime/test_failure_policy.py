"""What becomes of a turn after each kind of failure: as the table of failures says, or as users' rules do."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from holdfast import NO_RETRY, BreakerSpec, Budget, FailureRule, Retry, Runtime, Session, StepError, TurnFailed, Usage, agent, tool
from holdfast.calls import EmptyReply
from holdfast.events import SessionFailed, SessionParked, TurnCrashed
from holdfast.runtime.agents.limits import Limits
from tests.unit.runtime.support import World, rest


class HTTPError(Exception):
    """As the clients of many services raise it."""

    def __init__(self, status: int, retry_after: str | None = None) -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        self.headers = {} if retry_after is None else {"Retry-After": retry_after}


# ---------------------------------------------------------------- for a person, by dependency


def test_sessions_whose_credentials_are_refused_wait_for_one_person_and_one_command() -> None:
    """They are no dead letters; each has asked once; the park names the dependency, and another dependency's sessions stay parked."""
    world, key = World(), {"openai": "old", "shop": "old"}

    @tool(dependency="openai")
    async def model(text: str) -> str:
        world.done.append("openai")
        if key["openai"] == "old":
            raise HTTPError(401)
        return text

    @tool(dependency="shop")
    async def order(text: str) -> str:
        if key["shop"] == "old":
            raise HTTPError(403)
        return text

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(order if text == "order" else model, text)

    async def main(runtime: Runtime) -> Any:
        handles = [await runtime.spawn(worker, id=f"s{number}") for number in range(30)]
        other = await runtime.spawn(worker, id="other")
        for handle in handles:
            await handle.tell("hello", id="m")
        await other.tell("order")
        rows = [await rest(handle) for handle in (*handles, other)]
        assert {(row.park.reason, row.park.dependency, row.park.until) for row in rows[:30]} == {("repair", "openai", None)}
        assert rows[0].park.text == "model: HTTP 401 HTTPError: status 401"
        assert rows[30].park.dependency == "shop"
        assert len(world.done) == 30
        view = runtime.breakers()["openai"]
        assert (view.state, view.status, view.error) == ("closed", 401, "HTTPError: status 401")
        key["openai"] = "new"
        await asyncio.sleep(100_000)
        assert len(world.done) == 30
        for handle in handles:
            await handle.resume()
        answers = [await handle.ask("hello", id="m") for handle in handles]
        return answers, (await other.row()).status

    assert world.life(worker, main) == (["hello"] * 30, "parked")
    assert world.seen(TurnCrashed) == []
    assert world.seen(SessionFailed) == []


# ---------------------------------------------------------------- until a stated time


@pytest.mark.parametrize(("retry_after", "wait_s"), [("7200", 7_200), ("604800", 604_800)])
@pytest.mark.parametrize("dies", [False, True])
def test_a_retry_after_of_any_length_is_kept_over_a_restart(retry_after: str, wait_s: float, dies: bool) -> None:
    """The session parks until then, and asks again once."""
    world = World()

    @tool(dependency="openai")
    async def model() -> str:
        world.done.append(world.now_s())
        if len(world.done) == 1:
            raise HTTPError(429, retry_after)
        return "answer"

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(model)

    async def first(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        row = await rest(handle)
        assert (row.park.reason, row.park.dependency) == ("provider", "openai")
        assert "HTTP 429" in row.park.text
        if dies:
            await world.crash()
        return await handle.ask("go", id="m", timeout_s=10_000_000)

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("go", id="m", timeout_s=10_000_000)

    answer = world.life(worker, first)
    if dies:
        answer = world.life(worker, second)
    assert answer == "answer"
    assert len(world.done) == 2
    assert world.done[1] - world.done[0] >= wait_s


@pytest.mark.parametrize("where", ["step", "group", "cause"])
def test_a_failure_inside_another_step_or_a_task_group_is_still_that_failure(where: str) -> None:
    """A provider that is down behind a step of the user's own, in a task group, or as the cause of the user's own error, is no bug."""
    world = World()

    @tool(retry=NO_RETRY, dependency="openai")
    async def model() -> str:
        world.done.append(world.now_s())
        if world.now_s() < 600:
            raise HTTPError(503)
        return "answer"

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        async def plan() -> str:
            return await session.step(model)

        if where == "step":
            return await session.step(plan)
        if where == "cause":
            try:
                return await session.step(model)
            except StepError as error:
                raise LookupError("no plan") from error
        async with asyncio.TaskGroup() as group:
            task = group.create_task(session.step(model))
        return task.result()

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=10_000)

    assert world.life(worker, main) == "answer"
    assert world.seen(TurnCrashed) == []
    assert {event.reason for event in world.seen(SessionParked)} == {"provider"}
    assert len(world.done) < 15


# ---------------------------------------------------------------- nothing is bought without end


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (EmptyReply("nothing"), 3),
        (HTTPError(400), 1),
        (HTTPError(404), 1),
        (HTTPError(413), 1),
        (HTTPError(422), 1),
    ],
    ids=["empty", "400", "404", "413", "422"],
)
@pytest.mark.parametrize("catches", [False, True])
def test_it_reaches_the_handler_after_its_attempts(error: Exception, attempts: int, catches: bool) -> None:
    """And is a dead letter at once where the handler lets it out: another run of the turn would buy the same again."""
    world = World()

    @tool(dependency="openai")
    async def model() -> str:
        world.done.append(world.now_s())
        raise error

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        try:
            return await session.step(model)
        except StepError as failed:
            if catches:
                return f"sorry: {failed.kind}"
            raise

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        if not catches:
            with pytest.raises(TurnFailed, match=type(error).__name__):
                await handle.ask("go", timeout_s=30)
        else:
            assert (await handle.ask("go", timeout_s=30)).startswith("sorry: ")
        return runtime.breakers()["openai"].error

    assert world.life(worker, main) == ""
    assert len(world.done) == attempts


@pytest.mark.parametrize("slow_s", [0.1, 30.0, 3_000.0])
def test_a_bug_of_a_step_is_not_bought_without_end_however_slow_it_is(slow_s: float) -> None:
    """An intensity counts restarts within seconds: a turn whose runs take longer would never spend it."""
    world = World()

    @tool(timeout_s=10_000, cost=Usage(tokens=100))
    async def model() -> str:
        world.done.append(world.now_s())
        await asyncio.sleep(slow_s)
        raise RuntimeError("an odd answer")

    @agent(budget=Budget(tokens=100_000))
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(model)

    async def main(runtime: Runtime) -> Any:
        with pytest.raises(TurnFailed, match="an odd answer"):
            await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=1_000_000)

    world.life(worker, main)
    assert len(world.done) <= 5


def test_an_empty_answer_is_not_bought_without_end_by_a_handler_with_a_bug() -> None:
    """Its own error, and slow runs, so that the intensity is never spent."""
    world = World()

    @tool(cost=Usage(tokens=100), retry=NO_RETRY)
    async def model() -> str:
        world.done.append(world.now_s())
        await asyncio.sleep(20.0)
        raise EmptyReply("nothing")

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        try:
            return await session.step(model)
        except StepError:
            return dict[str, str]()["missing"]

    async def main(runtime: Runtime) -> Any:
        with pytest.raises(TurnFailed, match="KeyError"):
            await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=1_000_000)

    world.life(worker, main)
    assert len(world.done) == 5


def test_six_sessions_with_bad_prompts_do_not_hold_fifty_others_back() -> None:
    """Their prompts always get an empty answer: each pays three calls, and no healthy call waits for them."""
    world, paid, waits = World(), Counter[str](), list[float]()

    @tool(dependency="openai", cost=Usage(tokens=10))
    async def model(session: str, text: str) -> str:
        paid[session] += 1
        await asyncio.sleep(1.0)
        if text == "poison":
            raise EmptyReply("the model answered without text")
        return "hello"

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(model, session.id, text)

    async def main(runtime: Runtime) -> Any:
        good = [await runtime.spawn(worker, id=f"good{number}") for number in range(50)]
        bad = [await runtime.spawn(worker, id=f"bad{number}") for number in range(6)]
        for handle in bad:
            await handle.tell("poison")

        async def talk(handle: Any) -> None:
            for turn in range(10):
                began = world.now_s()
                assert await handle.ask(f"hello {turn}", timeout_s=60) == "hello"
                waits.append(world.now_s() - began)

        await asyncio.gather(*map(talk, good))
        rows = [await rest(handle) for handle in bad]
        return [row.status for row in rows], runtime.breakers()["openai"]

    statuses, view = world.life(worker, main, breaker=BreakerSpec(minimum=5, window=10))
    assert max(waits) < 1.2
    assert {paid[f"bad{number}"] for number in range(6)} == {3}
    assert statuses == ["failed"] * 6
    assert (view.state, view.openings, view.error) == ("closed", 0, "")


# ---------------------------------------------------------------- users' rules


def _runs(failures: Any, error: Exception, **limits: Any) -> tuple[int, Any]:
    """How many attempts a failing tool makes under these rules, and the row of its session after it."""
    world = World()

    @tool(name="fetch", dependency="shop", failures=failures, retry=Retry(attempts=2, base_s=0.0))
    async def fetch() -> str:
        world.done.append(1)
        raise error

    @agent(tools=[fetch])
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(fetch)

    async def main(runtime: Runtime) -> Any:
        runtime.reconfigure(Limits(failures=limits))
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go")
        return await rest(handle)

    row = world.life(worker, main)
    return len(world.done), row


@pytest.mark.parametrize(
    ("failures", "limits", "attempts", "status", "reason"),
    [
        (None, {}, 2, "parked", "provider"),
        ({503: FailureRule(attempts=5)}, {}, 5, "parked", "provider"),
        ({"unavailable": FailureRule(then="person")}, {}, 2, "parked", "repair"),
        ({HTTPError: FailureRule(attempts=1, then="dead letter")}, {}, 1, "failed", None),
        ({"HTTPError": FailureRule(attempts=3), "503": FailureRule(attempts=4, then="person")}, {}, 3, "parked", "repair"),
        (None, {"all": {"503": {"attempts": 3}}}, 3, "parked", "provider"),
        (None, {"shop": {"503": {"attempts": 3}}, "all": {"503": {"attempts": 4}}}, 3, "parked", "provider"),
        ({503: FailureRule(attempts=5)}, {"fetch": {"503": {"attempts": 1}}}, 1, "parked", "provider"),
        ({503: FailureRule(attempts=5)}, {"all": {"503": {"attempts": 1, "then": "dead letter"}}}, 5, "failed", None),
        ({429: FailureRule(attempts=5)}, {"openai": {"503": {"attempts": 9}}}, 2, "parked", "provider"),
    ],
)
def test_rules_of_users_replace_single_answers(failures: Any, limits: Any, attempts: int, status: str, reason: str | None) -> None:
    """Those of holdfast.toml for a tool or a dependency come before those of the code, and those for all after them."""
    if "openai" in limits:
        with pytest.raises(Exception, match=r"failures\.openai names no client, dependency or tool of this Runtime"):
            _runs(failures, HTTPError(503), **limits)
        return
    made, row = _runs(failures, HTTPError(503), **limits)
    assert (made, row.status, None if row.park is None or row.status != "parked" else row.park.reason) == (attempts, status, reason)


def test_a_rule_decides_whose_health_it_is_and_what_it_costs() -> None:
    """Here 404 of a shop means that it is down, and what it answered costs nothing."""
    world = World()

    @tool(
        dependency="shop",
        cost=Usage(tokens=50),
        failures={404: FailureRule(health="dependency", charge="nothing"), 500: FailureRule(health="none")},
    )
    async def fetch(status: int) -> str:
        raise HTTPError(status)

    @agent(tools=[fetch])
    async def worker(session: Session[Any], status: int) -> str:
        return (await session.call_tool("fetch", {"status": status})).content

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.ask(500)
        quiet = runtime.breakers()["shop"].error
        await handle.ask(404)
        return quiet, runtime.breakers()["shop"].status, (await handle.row()).usage.tokens

    assert world.life(worker, main) == ("", 404, 0)
