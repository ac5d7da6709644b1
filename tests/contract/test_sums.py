"""What a session cost itself and with those below it: one rule, on every store, live and after a restart."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import pytest

from holdfast import Budget, Runtime, Session, agent
from holdfast.console.reading import inspect
from holdfast.console.reading.views import Detail
from holdfast.policies.budget import Usage
from holdfast.stores.protocol import Store
from holdfast.stores.records import Returns
from holdfast.stores.returns import Account, sums

pytestmark = pytest.mark.anyio

TREE = {"g": "", "p": "g", "c": "p", "other": "g"}
"""Three generations; each session below g is given a part of what the one above it has."""

ROUNDS = {"g": 3, "p": 4, "c": 5, "other": 2}


class Disk(Protocol):
    def store(self) -> Store: ...


async def work(number: int) -> int:
    return number


@agent(name="member", budget=Budget(steps=100, tool_calls=50))
async def member(session: Session[Any], text: str) -> None:
    match text.split():
        case ["spawn", id, steps]:
            await session.spawn(member, id=id, budget=Budget(steps=int(steps), tool_calls=5))
        case ["free"]:
            await session.spawn(member, id="free", detached=True)
        case ["work", count]:
            for number in range(int(count)):
                await session.step(work, number)
        case ["finish"]:
            session.finish("done")


async def grow(runtime: Runtime) -> None:
    await runtime.spawn(member, id="g")
    for text in ("free", "spawn p 60", "spawn other 10"):
        await runtime.session("g").ask(text)
    await runtime.session("p").ask("spawn c 30")
    for id, rounds in {**ROUNDS, "free": 9}.items():
        await runtime.session(id).ask(f"work {rounds}")


async def details(store: Store) -> dict[str, Detail]:
    return {id: await inspect.detail(store, id) for id in TREE}


def spawned(id: str) -> int:
    """Its spawns cost a step each; the detached one is g's, too."""
    return sum(above == id for above in TREE.values()) + (id == "g")


def check(found: dict[str, Detail]) -> None:
    """Own and that of the children is the total, at each level; own is what the steps of a session cost, whatever the others did."""
    own, total = {}, {}
    for id, view in found.items():
        assert view.own is not None
        assert view.total is not None
        own[id], total[id] = view.own.steps, view.total.steps
    assert own == {id: rounds + spawned(id) for id, rounds in ROUNDS.items()}
    for id in TREE:
        below = [child for child, above in TREE.items() if above == id]
        assert total[id] == (own[id] or 0) + sum(total[child] or 0 for child in below)


async def _ended(runtime: Runtime, *ids: str) -> None:
    while {(await runtime.session(id).row()).status for id in ids} & {"idle", "parked"}:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def test_a_row_from_before_shares_were_kept_counts_its_limits_as_its_share() -> None:
    """Where nobody raised them, they are what it was given."""
    family = [
        Account("g", "", 0, Budget(steps=100), Usage(steps=46), Returns()),
        Account("old", "g", 1, Budget(steps=40), Usage(steps=7), Returns()),
        Account("ended", "g", 1, Budget(steps=20), Usage(steps=5), Returns(left=Usage(steps=15))),
    ]
    found = sums(family, {"old": Usage(steps=2)})
    assert {id: (each.own.steps, each.total.steps) for id, each in found.items()} == {"g": (1, 15), "old": (9, 9), "ended": (5, 5)}


@pytest.mark.parametrize("ends", ["cancel", "finish"])
async def test_own_and_children_are_the_total_at_each_level(disk: Disk, ends: str) -> None:
    """While all live, when the middle one has ended first, and in the next process; a detached child is not among them."""
    store = disk.store()
    async with Runtime(store, [member]) as runtime:
        await grow(runtime)
        found = await details(store)
        check(found)
        # What counts against the limits has what was given and is not back: 60 and 10.
        assert found["g"].line.used.steps == 3 + 3 + 60 + 10
        await (runtime.session("p").cancel() if ends == "cancel" else runtime.session("p").ask("finish"))
        await _ended(runtime, "p", "c")
        check(await details(store))
    again = disk.store()
    async with Runtime(again, [member]) as runtime:
        found = await details(again)
        check(found)
        await runtime.session("other").cancel()
        await _ended(runtime, "other")
        found = await details(again)
        check(found)
        assert found["g"].total is not None
        # All has come back: what counts against a limit is what was spent. Active time has no limit here: none was given and none counts.
        assert found["g"].line.used.steps == found["g"].total.steps
        assert (found["g"].line.used.seconds or 0) < (found["g"].total.seconds or 0)
    await again.open()
    try:
        check(await details(again))
    finally:
        await again.close()


async def test_an_open_turn_counts_and_a_family_that_is_too_large_has_no_sums(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step counts when it has ended, before its turn has."""
    began, go = asyncio.Event(), asyncio.Event()

    @agent(name="slow", budget=Budget(steps=10))
    async def slow(session: Session[Any], text: str) -> None:
        await session.step(work, 1)
        began.set()
        await go.wait()

    store = disk.store()
    async with Runtime(store, [slow]) as runtime:
        handle = await runtime.spawn(slow, id="s")
        await handle.tell("go")
        await asyncio.wait_for(began.wait(), 10)
        view = await inspect.detail(store, "s")
        assert view.own == view.total == view.line.used
        assert view.line.used.steps == 1
        monkeypatch.setattr(inspect, "FAMILY", 0)
        view = await inspect.detail(store, "s")
        assert (view.own, view.total) == (None, None)
        go.set()
