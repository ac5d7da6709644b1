"""Plain functions that hang: what they take from others, and what people see of them."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast import NO_RETRY, Runtime, Session, StepError, agent, tool
from holdfast.calls.tools import places
from holdfast.calls.tools.workers import Workers
from holdfast.console.api import doctor
from holdfast.events import Event, ThreadAbandoned
from holdfast.policies.budget import Usage

ENDED = threading.Event()  # lets all hung threads end


@tool(timeout_s=0.2, retry=NO_RETRY)
def hang() -> None:
    ENDED.wait(20)


@tool(timeout_s=20, retry=NO_RETRY)
def hold() -> str:
    ENDED.wait(20)
    return "held"


@tool(timeout_s=5, retry=NO_RETRY)
def fine() -> str:
    return "fine"


@tool(timeout_s=0.2, retry=NO_RETRY, threads=1)
def narrow(hangs: bool) -> str:
    if hangs:
        ENDED.wait(20)
    return "through"


@tool(timeout_s=20, threads=2)
def wide() -> str:
    ENDED.wait(20)
    return "wide"


@tool(effect="once", timeout_s=0.2, cost=Usage(tokens=1_000))
def pay() -> str:
    return "paid"


@agent(tools=[hang, hold, fine, pay, narrow, wide])
async def worker(session: Session[Any], names: list[str]) -> str:
    calls: dict[str, Any] = {"hang": hang, "hold": hold, "fine": fine, "pay": pay, "wide": wide}
    calls |= {"narrow": functools.partial(narrow, False), "stuck": functools.partial(narrow, True)}
    try:
        return ", ".join(map(str, await session.gather(*(session.step(calls[name]) for name in names))))
    except StepError as error:
        return error.type


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four places, two for a session; three threads may hang beside them."""
    monkeypatch.setattr(places, "THREADS", 4)
    monkeypatch.setattr(places, "OWN", 2)
    monkeypatch.setattr(places, "ABANDONED", 3)
    ENDED.clear()
    yield
    ENDED.set()


async def ask(runtime: Runtime, id: str, *names: str) -> str:
    return str(await (await runtime.spawn(worker, id=id)).ask(list(names), timeout_s=20))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 # it polls counts
            await asyncio.sleep(0.005)


async def test_an_abandoned_thread_gives_its_place_back_up_to_a_bound() -> None:
    """Seven hung functions of seven sessions: three hang beside the four places, the others keep theirs, until one of them ends."""
    async with Runtime("memory:", [worker]) as runtime:
        for number in range(6):
            assert await ask(runtime, f"hung{number}", "hang") == "TimeoutError"
        assert await ask(runtime, "good", "fine") == "fine"
        assert await ask(runtime, "hung6", "hang") == "TimeoutError"
        counts = runtime.statistics()
        assert (counts["threads_abandoned"], counts["threads_lost"], counts["threads_running"]) == (7, 4, 0)
        waits = asyncio.ensure_future(ask(runtime, "good", "fine"))
        await until(lambda: runtime.statistics()["threads_waiting"] == 1)
        ENDED.set()
        assert await waits == "fine"
        await until(lambda: not runtime.statistics()["threads_abandoned"])
        assert runtime.statistics()["threads_lost"] == 0


async def test_one_session_cannot_hold_all_places() -> None:
    """Its calls over its own bound wait, while a place is free for another session; they run once the first have ended."""
    async with Runtime("memory:", [worker]) as runtime:
        greedy = asyncio.ensure_future(ask(runtime, "greedy", *["hold"] * 6))
        await until(lambda: runtime.statistics()["threads_waiting"] == 4)
        assert runtime.statistics()["threads_running"] == 2
        assert await ask(runtime, "good", "fine") == "fine"
        ENDED.set()
        assert await greedy == ", ".join(["held"] * 6)


async def test_threads_that_a_session_left_count_towards_its_own_bound() -> None:
    """A session whose functions hang again and again takes no more threads than its bound."""
    async with Runtime("memory:", [worker]) as runtime:
        said = [await ask(runtime, "bad", "hang") for _ in range(4)]
        assert said == ["TimeoutError", "TimeoutError", "ThreadsBusy", "ThreadsBusy"]
        assert runtime.statistics()["threads_abandoned"] == 2
        assert runtime.statistics()["threads_waiting"] == 0


async def test_a_call_that_waits_for_a_place_has_not_begun() -> None:
    """It is not in doubt when its time is over, its session is interrupted or ended; it costs a step, and not what the effect costs."""
    async with Runtime("memory:", [worker]) as runtime:
        holders = [asyncio.ensure_future(ask(runtime, f"h{number}", "hold", "hold")) for number in range(2)]
        await until(lambda: runtime.statistics()["threads_running"] == 4)
        assert await ask(runtime, "late", "pay") == "ThreadsBusy"
        assert (await runtime.session("late").row()).usage.tokens == 0
        ended = await runtime.spawn(worker, id="ended")
        await ended.tell(["pay"])
        await until(lambda: runtime.statistics()["threads_waiting"] == 1)
        await ended.kill("enough")
        row = await ended.row()
        assert (row.status, row.park) == ("killed", None)
        await until(lambda: runtime.statistics()["threads_waiting"] == 0)
        ENDED.set()
        assert await asyncio.gather(*holders) == ["held, held"] * 2


async def test_a_tool_has_no_more_threads_than_its_own_limit() -> None:
    """A call over it waits without a place, so other functions run; one that hangs keeps the limit until it ends, and it is nobody's
    fault."""
    async with Runtime("memory:", [worker]) as runtime:
        holders = [asyncio.ensure_future(ask(runtime, f"h{number}", "wide")) for number in range(5)]
        await until(lambda: runtime.statistics()["threads_waiting"] == 3)
        assert runtime.statistics()["threads_running"] == 2
        assert await ask(runtime, "good", "fine") == "fine"
        assert await ask(runtime, "good", "narrow") == "through"
        assert await ask(runtime, "bad", "stuck") == "TimeoutError"
        for _ in range(3):
            assert await ask(runtime, "good", "narrow") == "ThreadsBusy"
        assert await ask(runtime, "good", "fine") == "fine"
        assert runtime.statistics()["threads_waiting"] == 3
        ENDED.set()
        assert await asyncio.gather(*holders) == ["wide"] * 5
        await until(lambda: not runtime.statistics()["threads_abandoned"])
        assert await ask(runtime, "good", "narrow") == "through"


async def test_a_call_that_gives_up_between_its_limits_holds_neither() -> None:
    """It had its tool's own limit, and waited for a place."""
    async with Runtime("memory:", [worker]) as runtime:
        holders = [asyncio.ensure_future(ask(runtime, f"h{number}", "hold", "hold")) for number in range(2)]
        await until(lambda: runtime.statistics()["threads_running"] == 4)
        assert await ask(runtime, "late", "narrow") == "ThreadsBusy"
        ENDED.set()
        assert await asyncio.gather(*holders) == ["held, held"] * 2
        assert await ask(runtime, "late", "narrow") == "through"


async def test_an_abandoned_thread_is_an_event_and_the_doctor_names_its_function() -> None:
    """So that an engineer on call knows which function to look at."""
    seen: list[Event] = []
    async with Runtime("memory:", [worker]) as runtime:
        runtime.observe(seen.append)
        assert await ask(runtime, "bad", "hang") == "TimeoutError"
        assert await ask(runtime, "bad", "stuck") == "TimeoutError"
        found = [event for event in seen if isinstance(event, ThreadAbandoned)]
        assert [(event.session, event.name) for event in found] == [("bad", "hang"), ("bad", "narrow")]
        check = doctor.threads_of(runtime)
        assert (check.level, check.text) == (
            "warning",
            "2 threads of plain functions run past their deadline (hang: 1, narrow: 1): restart the process to be rid of them",
        )
        ENDED.set()
        await until(lambda: not runtime.statistics()["threads_abandoned"])
        assert doctor.threads_of(runtime).level == "ok"


HANGS = """
import asyncio, sys, threading
from holdfast import NO_RETRY, Runtime, Session, agent, tool

@tool(timeout_s=0.05, retry=NO_RETRY)
def hang() -> None:
    threading.Event().wait(60)

@agent(tools=[hang])
async def worker(session: Session[None], text: str) -> str:
    return (await session.call_tool("hang", "{}")).content

async def main() -> None:
    async with Runtime("memory:", [worker]) as runtime:
        print(await (await runtime.spawn(worker, id="a")).ask("go", timeout_s=20))

asyncio.run(main())
"""


def test_the_interpreter_ends_while_functions_hang() -> None:
    """A deploy does not wait for a socket that never answers."""
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "no answer within 0.05 s" in ended.stdout


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    """The idle threads of its parent do not exist there: a function given to one would never run."""
    workers = Workers()
    assert workers.submit(lambda: 1).result(10) == 1
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(workers.submit(lambda: 2).result(5)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "2"
    os.waitpid(child, 0)


def test_an_idle_thread_is_used_again() -> None:
    """Also after a function that raised what no function should."""
    workers = Workers()

    def leave() -> None:
        raise SystemExit

    first = workers.submit(threading.get_ident).result(10)
    with pytest.raises(SystemExit):
        workers.submit(leave).result(10)
    # Where the first is not idle yet, another is started.
    assert first in {workers.submit(threading.get_ident).result(10) for _ in range(1_000)}


async def test_places_are_handed_over_in_turn() -> None:
    """A session that waits with one call is served before the second call of another."""
    limits = places.Places()
    order: list[str] = []

    async def call(session: str) -> None:
        await limits.enter(session)
        order.append(session)

    for session in ("a", "b", "c", "d"):
        await limits.enter(session)
    calls = [asyncio.ensure_future(call(session)) for session in ("e", "e", "e", "f", "g")]
    await asyncio.sleep(0)
    for session in ("a", "b", "c", "d"):
        limits.leave(session)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["e", "f", "g", "e"]
    limits.leave("f")
    await asyncio.sleep(0)
    assert (limits.running, limits.waiting) == (3, 1), "`e` has as many as it may have"
    limits.leave("e")
    await asyncio.gather(*calls)
    assert order[-1] == "e"


async def test_a_place_that_comes_with_a_cancellation_is_handed_on() -> None:
    """Nor does a call that is cancelled while it waits hold up the ones behind it."""
    limits = places.Places()
    for session in ("a", "b", "c", "d"):
        await limits.enter(session)
    one, other, last = (asyncio.ensure_future(limits.enter(session)) for session in ("e", "e", "f"))
    await asyncio.sleep(0)
    other.cancel()
    limits.leave("a")
    one.cancel()
    await asyncio.wait([one, other, last], timeout=1)
    assert [each.cancelled() for each in (one, other, last)] == [True, True, False]
    assert (limits.running, limits.waiting) == (4, 0)
