"""Spawning: the caller's id is the identity of a session."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast import (
    Budget,
    ConfigError,
    NotJournalable,
    Runtime,
    RuntimeStopped,
    Session,
    SessionConflict,
    SessionNotFound,
    StepError,
    agent,
)
from tests.unit.runtime.support import World


class Count(msgspec.Struct):
    n: int = 0


@agent
async def counter(session: Session[Count], text: str) -> int:
    session.state.n += 1
    return session.state.n


@agent
async def other(session: Session[Any], text: str) -> str:
    return text


async def plain_function(session: Session[Any], text: str) -> None: ...


def test_spawning_twice_gives_the_same_session() -> None:
    """Get or create: the second spawn changes neither state nor budget."""

    async def main(runtime: Runtime) -> list[Any]:
        first = await runtime.spawn(counter, id="s", budget=Budget(steps=5))
        await first.ask("one")
        again = await runtime.spawn(counter, id="s", state=Count(100), budget=Budget(steps=9))
        return [again.id, await again.ask("two"), (await again.row()).budget.steps]

    assert World().life(counter, main) == ["s", 2, 5]


def test_a_session_outlives_its_process() -> None:
    """What was committed before a crash is there after it; spawning again finds it."""
    world = World()

    async def first(runtime: Runtime) -> None:
        await (await runtime.spawn(counter, id="s")).ask("one")
        await world.crash()

    async def second(runtime: Runtime) -> int:
        reply: int = await (await runtime.spawn(counter, id="s")).ask("two")
        return reply

    world.life(counter, first)
    assert world.life(counter, second) == 2


@pytest.mark.parametrize(("chosen", "tenant"), [(other, "acme"), (counter, "globex")], ids=["agent", "tenant"])
def test_an_id_of_another_agent_or_tenant_is_refused(chosen: Any, tenant: str) -> None:
    """Nobody gets hold of somebody else's session by its id."""

    async def main(runtime: Runtime) -> None:
        await runtime.spawn(counter, id="s", tenant="acme")
        with pytest.raises(SessionConflict):
            await runtime.spawn(chosen, id="s", tenant=tenant)

    World().life([counter, other], main)


def test_sessions_without_an_id_get_different_ones() -> None:
    """An id is made where none is given."""

    async def main(runtime: Runtime) -> bool:
        return (await runtime.spawn(counter)).id != (await runtime.spawn(counter)).id

    assert World().life(counter, main)


def test_the_state_given_is_where_a_session_starts() -> None:
    """`state=` is used for a new session."""

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(counter, state=Count(41))).ask("one")

    assert World().life(counter, main) == 42


def test_a_state_that_cannot_be_stored_is_refused() -> None:
    """The caller is told; nothing is created."""

    async def main(runtime: Runtime) -> None:
        with pytest.raises(NotJournalable):
            await runtime.spawn(other, id="s", state=object())
        with pytest.raises(SessionNotFound):
            await runtime.session("s").row()

    World().life(other, main)


def test_an_agent_that_the_runtime_lacks_is_refused() -> None:
    """The error names what to do; no session is made that nobody can run."""

    async def main(runtime: Runtime) -> None:
        with pytest.raises(ConfigError, match="agents="):
            await runtime.spawn(other)

    World().life(counter, main)


def test_a_closed_runtime_accepts_nothing() -> None:
    """After the block of `async with` a handle says so, and the session is untouched."""
    world = World()
    kept: list[Any] = []

    async def main(runtime: Runtime) -> None:
        kept.extend([runtime, await runtime.spawn(counter, id="s")])

    world.life(counter, main)
    runtime = kept[0]
    with pytest.raises(RuntimeStopped):
        runtime.session("s")


def test_an_agent_that_the_runtime_lacks_is_refused_as_a_child() -> None:
    """As by `Runtime.spawn`: no process could run the child."""
    world = World()

    @agent
    async def stranger(session: Session[Any], text: str) -> str:
        return text

    @agent
    async def boss(session: Session[Any], text: str) -> str:
        try:
            await session.spawn(stranger)
        except ConfigError as error:
            return str(error)
        return "spawned"

    async def main(runtime: Runtime) -> str:
        return str(await (await runtime.spawn(boss, id="s")).ask("go"))

    assert world.life(boss, main) == "this Runtime does not have the agent 'stranger': add it to agents="


@pytest.mark.parametrize("what", ["worker", plain_function])
def test_what_is_no_agent_is_refused_with_what_to_give(what: Any) -> None:
    """The name of an agent, or a handler that is not decorated: from outside, and as a child."""
    world = World()
    said: list[str] = []

    @agent(name="worker")
    async def worker(session: Session[Any], text: str) -> None:
        try:
            await session.spawn(what)
        except ConfigError as error:
            said.append(str(error))

    async def main(runtime: Runtime) -> None:
        with pytest.raises(ConfigError, match="is no agent: give what @agent made of the handler"):
            await runtime.spawn(what)
        await (await runtime.spawn(worker, id="s")).ask("go")

    world.life(worker, main)
    assert said == [f"{what!r} is no agent: give what @agent made of the handler, not its name or a plain function"]


def test_the_arguments_on_record_read_back() -> None:
    """A person who looks at the step sees the agent, the id and the first state of the child."""
    world = World()

    @agent
    async def boss(session: Session[Any], text: str) -> str:
        return (await session.spawn(counter, state=Count(7), id="k")).id

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(boss, id="s")
        await handle.ask("go")
        return [msgspec.msgpack.decode(step.record.args) for step in await runtime.store.steps("s", 1)]

    assert world.life([boss, counter], main) == [["counter", "k", False, {"n": 7}]]


def test_an_ask_of_an_unknown_session_names_it() -> None:
    """The error is the developer's to read: it says which session there is none of."""
    world = World()

    @agent
    async def boss(session: Session[Any], text: str) -> str:
        try:
            return str(await session.ask("nowhere", "go"))
        except StepError as error:
            return str(error)

    async def main(runtime: Runtime) -> str:
        return str(await (await runtime.spawn(boss, id="s")).ask("go"))

    assert "no session 'nowhere': check the id, or spawn it" in world.life(boss, main)
