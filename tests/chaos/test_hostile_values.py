"""A session with a value that no codec, store, log or terminal can take, in each place where one can go, beside twenty healthy sessions:
it harms only itself.

The quick tests try some values in each place, others in the next; the slow ones try all in all, and 1 GB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast import NO_RETRY, Runtime, Session, agent
from holdfast.calls import ModelClient
from holdfast.stores.memory.store import MemoryStore
from holdfast.testing import Simulation, simulate
from tests.chaos.hostile.inside import INSIDE, given
from tests.chaos.hostile.models import ANSWERS, CHUNKS, FakeClient
from tests.chaos.hostile.outside import OUTSIDE
from tests.chaos.hostile.values import GIGABYTES, LARGE, SMALL
from tests.chaos.hostile.world import Values, campaign

PLACES = [*INSIDE, *OUTSIDE]
ALL = {**SMALL, **LARGE}


def every(values: Values) -> dict[str, Values]:
    """Every value in every place."""
    return dict.fromkeys(PLACES, values)


def some(count: int, start: int) -> dict[str, Values]:
    """In each place so many values, beginning behind those of the place before."""
    names = list(ALL)
    chosen = ([names[(start + at * count + nth) % len(names)] for nth in range(count)] for at in range(len(PLACES)))
    return {place: {name: ALL[name] for name in picked} for place, picked in zip(PLACES, chosen, strict=True)}


def in_memory(cases: dict[str, Values]) -> list[str]:
    """In virtual time."""
    store = MemoryStore()

    async def main(simulation: Simulation) -> list[str]:
        return await campaign(lambda: store, cases, clock=simulation.clock, chance=simulation.random)

    faults = simulate(main, seed=1, max_points=100_000_000)
    assert isinstance(faults, list)
    return faults


def test_there_are_enough_places() -> None:
    """More than fifty, inside a handler and outside."""
    assert (len(INSIDE) > 50, len(OUTSIDE) > 50) == (True, True)


def test_some_values_in_memory() -> None:
    """The healthy sessions answer, none is parked, no caller waits in vain; the next start finds all as it was."""
    assert in_memory(some(4, 0)) == []


async def test_some_values_on_sqlite(tmp_path: Path) -> None:
    """The same in real time, with other values."""
    assert await campaign(lambda: f"sqlite:///{tmp_path}/hostile.db", some(2, 7)) == []


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_all_values_in_memory() -> None:
    assert in_memory(every(ALL)) == []


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_all_values_on_sqlite(tmp_path: Path) -> None:
    assert await campaign(lambda: f"sqlite:///{tmp_path}/hostile.db", every(ALL)) == []


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_all_values_on_postgres(postgres_url: str) -> None:
    assert await campaign(lambda: postgres_url, every(ALL)) == []


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("name", GIGABYTES)
def test_a_gigabyte_in_every_place(name: str) -> None:
    """One value at a time: it exists once, and no place makes another of its size. Not where the test itself would encode it first."""
    places = [
        place for place in PLACES if not any(part in place for part in ("HTTP", "JSON", "in a path", "in a query", "a client's name"))
    ]
    assert in_memory({place: {name: GIGABYTES[name]} for place in places}) == []


HALF = "half \ud83d of an emoji"


@pytest.mark.parametrize(
    ("how", "value", "kept"),
    [
        ("the text of an answer", HALF, "half \ufffd of an emoji"),
        ("the text of a chunk", HALF, "half \ufffd of an emoji"),
        ("the text of an answer", "\ud83d\ude00 joined", "\U0001f600 joined"),
        ("an unknown field of an answer", 10**30, 10**30),
        ("an unknown field of an answer", {HALF: [-(10**400)]}, {"half \ufffd of an emoji": [-(10**400)]}),
    ],
)
def test_an_answer_with_an_odd_value_is_kept_and_bought_once(how: str, value: Any, kept: Any) -> None:
    """A provider's JSON can have what no store can: what is paid for is kept, with U+FFFD for half a character."""
    client = FakeClient()

    @agent(version=1)
    async def reader(session: Session[None], id: str) -> Any:
        wanted: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [], "user": {"id": id, "how": how}}
        if how in CHUNKS:
            async with await session.clients.openai.chat.completions.create(**wanted, stream=True) as stream:
                return "".join([chunk.choices[0].delta.content async for chunk in stream])
        assert how in ANSWERS
        reply = await session.clients.openai.chat.completions.create(**wanted)
        return reply.reasoning["deeper"][0] if how == "an unknown field of an answer" else reply.choices[0].message.content

    async def main(simulation: Simulation) -> Any:
        clients = {"openai": ModelClient("openai", client, retry=NO_RETRY)}
        async with Runtime(MemoryStore(), [reader], clients=clients, clock=simulation.clock, random=simulation.random) as runtime:
            given["s"] = value
            return await (await runtime.spawn(reader, id="s")).ask("s", timeout_s=30.0)

    assert simulate(main, max_points=100_000) == kept
    assert client.chat.completions.bought == 1
