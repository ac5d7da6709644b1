"""Asks for one message by several steps and sessions, killed at every point in virtual time: each gets the answer, to one message."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import AskTimeout, Runtime, Session, agent
from holdfast.testing import Crashed
from tests.unit.runtime.support import World, idle

ANSWERS_AFTER_S = {"later than the first deadline": 6.0, "as the deadline passes": 2.0, "as they park": 1.0}


def agents(after_s: float) -> list[Any]:
    @agent
    async def answers(session: Session[Any], text: str) -> str:
        await session.sleep(after_s)
        return f"answer to {text}"

    @agent(park_after_s=1.0)
    async def again(session: Session[Any], text: str) -> list[str]:
        try:
            return [await session.ask("to", "question", id="q", timeout_s=2.0)] * 2
        except AskTimeout as error:
            return await session.gather(*(session.ask("to", "question", id=error.message_id, timeout_s=500) for _ in range(2)))

    @agent(park_after_s=1.5)
    async def other(session: Session[Any], text: str) -> list[str]:
        return [await session.ask("to", "question", id="q", timeout_s=500)]

    return [answers, again, other]


@pytest.mark.parametrize("stride", [13, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("when", ANSWERS_AFTER_S)
def test_a_crash_at_every_point_loses_no_answer(when: str, seed: int | None, stride: int) -> None:
    """One message arrives for all of them, and is handled once; no ask waits for its deadline."""

    async def main(runtime: Runtime) -> Any:
        again, answers, other = (made[name] for name in ("again", "answers", "other"))
        await runtime.spawn(answers, id="to")
        one, two = await runtime.spawn(again, id="one"), await runtime.spawn(other, id="two")
        await two.tell("go", id="go")
        found = await one.ask("go", id="go", timeout_s=400) + await two.ask("go", id="go", timeout_s=400)
        to = await idle(runtime.session("to"))
        return set(found), to.turn, len(await runtime.store.messages("to"))

    crash_at = (seed or 0) % stride  # other points for each seed
    while True:
        made = {each.name: each for each in agents(ANSWERS_AFTER_S[when])}
        world = World(seed=seed)
        life = world.life([*made.values()], main, crash_at=crash_at)
        over = not isinstance(life, Crashed)
        if not over:
            life = world.life([*made.values()], main)
        assert life == ({"answer to question"}, 1, 1), f"killed at point {crash_at}"
        assert world.time_s < 400, f"killed at point {crash_at}: an answer was waited for to the deadline"
        if over:
            break
        crash_at += stride
    assert crash_at > 50
