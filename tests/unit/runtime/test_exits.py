"""A handler or tool that ends the process by `sys.exit()` ends only its own turn."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from holdfast import Intensity, Runtime, Session, TurnFailed, agent, tool
from holdfast.events import SessionFailed
from tests.unit.runtime.support import World, rest


@tool
async def leave() -> str:
    sys.exit(3)


@agent(tools=[leave], intensity=Intensity(0, 60.0))
async def worker(session: Session[Any], text: str) -> str:
    if text == "exit":
        sys.exit(3)
    if text == "step":
        return await session.step(leave)
    if text == "tool":
        return (await session.call_tool("leave", {})).content
    return text


@pytest.mark.parametrize("text", ["exit", "step"])
def test_an_exit_is_an_error_like_any_other(text: str) -> None:
    """The message is a dead letter that names it; another session of the process goes on."""
    world = World()

    async def main(runtime: Runtime) -> list[Any]:
        bad, good = await runtime.spawn(worker, id="bad"), await runtime.spawn(worker, id="good")
        with pytest.raises(TurnFailed):
            await bad.ask(text)
        return [(await rest(bad)).status, await good.ask("ok")]

    assert world.life(worker, main) == ["failed", "ok"]
    (failed,) = world.seen(SessionFailed)
    assert "SystemExit" in failed.cause


def test_an_exit_of_a_tool_is_data_for_the_model() -> None:
    """As with every failure of a tool."""

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        return [await handle.ask("tool"), await handle.ask("ok")]

    content, after = World().life(worker, main)
    assert "SystemExit" in content
    assert after == "ok"
