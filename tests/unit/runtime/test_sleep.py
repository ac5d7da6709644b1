"""Sleep: a short one is held in memory, a long one is one row."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast import Runtime, Session, agent
from holdfast.events import Resumed, SessionParked
from holdfast.stores.ops import Op
from tests.unit.runtime.support import World, rest


@agent(park_after_s=5.0)
async def sleeper(session: Session[Any], seconds: float) -> str:
    await session.sleep(seconds)
    return "awake"


@pytest.mark.parametrize(("seconds", "parks"), [(4.0, 0), (1000.0, 1)])
def test_only_a_long_sleep_parks(seconds: float, parks: int) -> None:
    """Both take the time they say; the long one holds no memory meanwhile."""
    world = World()

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(sleeper, id="s")).ask(seconds, timeout_s=2000)

    assert world.life(sleeper, main) == "awake"
    assert len(world.seen(SessionParked)) == parks
    assert seconds <= world.time_s < seconds + 1


def test_a_parked_sleeper_takes_no_memory() -> None:
    """It is not among the live sessions, and its row says until when."""

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(sleeper, id="s")
        await handle.tell(1000, id="m")
        row = await rest(handle)
        return [row.park.reason, round(row.park.until - 1_800_000_000), runtime.statistics()["live"]]

    assert World().life(sleeper, main) == ["wait", 1000, 0]


@pytest.mark.parametrize("down_s", [300.0, 5000.0], ids=["back in time", "back late"])
def test_a_sleeper_wakes_after_a_restart(down_s: float) -> None:
    """At its time, or at once where that passed while the process was down: never the whole sleep again."""
    world = World()

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(sleeper, id="s")
        await handle.tell(1000, id="m")
        await rest(handle)
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("s").ask(1000, id="m", timeout_s=2000)

    world.life(sleeper, first)
    world.time_s = down_s
    assert world.life(sleeper, second) == "awake"
    assert world.time_s == pytest.approx(max(down_s, 1000.0), abs=1)


def test_it_goes_on_by_itself_after_a_restart() -> None:
    """Nobody has to ask: the alarm is set from the store."""
    world = World()

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(sleeper, id="s")
        await handle.tell(1000, id="m")
        await rest(handle)

    async def second(runtime: Runtime) -> Any:
        import asyncio

        await asyncio.sleep(1100)
        return (await runtime.store.session("s")).pending  # type: ignore[union-attr]

    world.life(sleeper, first)
    assert world.life(sleeper, second) == 0
    assert world.seen(Resumed)


def test_sleeps_at_once_take_as_long_as_the_longest() -> None:
    """Branches that sleep park together and wake each at its time."""

    @agent
    async def both(session: Session[Any], text: str) -> str:
        await session.gather(session.sleep(100), session.sleep(300))
        return "awake"

    world = World()

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(both, id="s")).ask("go", timeout_s=2000)

    assert world.life(both, main) == "awake"
    assert world.time_s == pytest.approx(300.0, abs=1)


def test_a_writer_that_crashes_when_an_alarm_rings_leaves_no_sleeper_asleep() -> None:
    """The one whose time came meanwhile is woken when the writer is back, and the alarms after it ring."""
    world = World()

    class Fault:
        async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
            raise RuntimeError("a fault of the store")

        async def after_apply(self, n: int, ops: Sequence[Op]) -> None: ...

    async def main(runtime: Runtime) -> Any:
        handles = [await runtime.spawn(sleeper, id=id) for id in ("1", "2")]
        asks = [asyncio.ensure_future(handles[0].ask(10.0, timeout_s=300))]
        await asyncio.sleep(3)
        asks.append(asyncio.ensure_future(handles[1].ask(10.0, timeout_s=300)))
        await asyncio.sleep(6.99)
        world.store.faults = Fault()
        await asyncio.sleep(0.05)
        world.store.faults = None
        return await asyncio.gather(*asks)

    assert world.life(sleeper, main) == ["awake", "awake"]
    assert world.time_s < 15


def test_the_deadline_of_an_ask_that_was_answered_wakes_nobody() -> None:
    """A session that was parked on it and resumed is passivated, and is not activated again for it."""

    @agent(name="asker")
    async def asker(session: Session[Any], text: str) -> str:
        return str(await session.ask("to", text, timeout_s=600))

    @agent(name="answerer")
    async def answerer(session: Session[Any], text: str) -> str:
        await asyncio.sleep(10)
        return text

    async def main(runtime: Runtime) -> list[int]:
        handle = await runtime.spawn(asker, id="from")
        await runtime.spawn(answerer, id="to")
        for number in range(3):
            await handle.ask(str(number))
        before = (await handle.row()).epoch
        await asyncio.sleep(1500)
        return [(await handle.row()).epoch - before, runtime.statistics()["live"]]

    world = World()
    assert world.life([asker, answerer], main, idle_s=5.0) == [0, 0]
    assert world.seen(SessionParked)
