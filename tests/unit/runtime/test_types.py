"""What a turn leaves behind has to read back as its type: a session must not lose itself at its own commit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast import Intensity, Runtime, Session, TurnFailed, agent
from tests.unit.runtime.support import World


class Count(msgspec.Struct):
    n: int = 0


@agent(name="worker", intensity=Intensity(0, 60.0))
async def worker(session: Session[Count], text: str) -> int:
    if text == "bad state":
        session.state.n = "text"  # type: ignore[assignment]
        return 0
    if text == "bad reply":
        return "text"  # type: ignore[return-value]
    session.state.n += 1
    return session.state.n


@pytest.mark.parametrize("text", ["bad state", "bad reply"])
def test_a_state_or_reply_of_another_type_fails_its_turn(text: str) -> None:
    """It is a bug of that turn, and nothing of it is stored; the session goes on from the state before."""

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        first = await handle.ask("good")
        with pytest.raises(TurnFailed, match="NotJournalable"):
            await handle.ask(text)
        failed = (await handle.row()).status
        await handle.drop()
        return [first, failed, await handle.ask("good")]

    assert World().life(worker, main) == [1, "failed", 2]
