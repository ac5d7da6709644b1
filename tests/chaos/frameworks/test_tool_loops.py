"""The tool loops of two frameworks on top, in virtual time, killed at every point: what comes out is what an undisturbed run comes to."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from holdfast import Session
from holdfast.testing import Crashed, Simulation, for_each_seed, simulate
from tests.chaos.frameworks.openai_loop import openai_loop
from tests.chaos.frameworks.pydantic_loop import pydantic_loop
from tests.chaos.frameworks.shop import Loop, Script, Shop, Tally

LOOPS = {"pydantic-ai": pydantic_loop, "openai-agents": openai_loop}
MAX_POINTS = 20_000
PATIENCE_S = 20.0
QUICK = 6
"""How often the quick tests kill each case, evenly over its points."""

THOROUGH = 5
"""The slow tests kill at every so many points; a step has about twenty."""

# ---------------------------------------------------------------- what the clerk does with a message


async def plain(shop: Shop, loop: Loop, session: Session[Any], text: str) -> str:
    return await loop(session, text)


async def patient(shop: Shop, loop: Loop, session: Session[Any], text: str) -> str:
    """The whole loop under a timeout of the handler's own."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await loop(session, text)
    except TimeoutError:
        return f"late, {await session.step(shop.tools['note'], 'fallback')}"


async def apologetic(shop: Shop, loop: Loop, session: Session[Any], text: str) -> str:
    """An error of a tool ends the loop, which cancels the tools beside it."""
    try:
        return await loop(session, text)
    except Exception:
        return f"sorry, {await session.step(shop.tools['note'], 'apology')}"


async def gathered(shop: Shop, loop: Loop, session: Session[Any], text: str) -> str:
    """Two loops at once, each in a branch of its own."""
    return " & ".join(await session.gather(*(loop(session, each) for each in _both(text))))


async def grouped(shop: Shop, loop: Loop, session: Session[Any], text: str) -> str:
    """Two loops at once, in tasks of plain asyncio."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(loop(session, each)) for each in _both(text)]
    return " & ".join(task.result() for task in running)


def _both(text: str) -> list[str]:
    return [text, "beside"] if text == "main" else [text]


# ---------------------------------------------------------------- what the model asks for

SHOPPING: Script = [
    [["look", "look-1"], ["note", "note-1"], ["refund", "refund-1"], ["charge", "charge-1"]],
    [["look", "look-2"], ["look", "look-2"], ["refund", "refund-2"], ["refund", "refund-3"]],
    [["charge", "charge-2"], ["note", "note-2"]],
]
ERRORS: Script = [
    [["look", "missing-1"], ["note", "note-1"], ["charge", "declined-1"], ["refund", "refund-1"]],
    [["refund", "refund-2"], ["refund", "declined-2"], ["charge", "charge-1"]],
]
SLOW_LOOK: Script = [
    [["note", "note-1"], ["refund", "refund-1"], ["charge", "charge-1"]],
    [["look", "slow-1"], ["note", "note-2"], ["refund", "refund-2"]],
    [["charge", "charge-2"]],
]
SLOW_REFUND: Script = [
    [["note", "note-1"], ["charge", "charge-1"]],
    [["refund", "slow-1"], ["note", "note-2"]],
    [["charge", "charge-2"]],
]
SLOW_CHARGE: Script = [
    [["note", "note-1"], ["refund", "refund-1"]],
    [["charge", "slow-1"], ["note", "note-2"]],
    [["charge", "charge-2"]],
]
# The tools beside the missing one are cut off: the charge before it takes effect, the refund after that.
ABORTED: Script = [
    [["note", "note-1"], ["refund", "refund-1"]],
    [["look", "missing-1"], ["refund", "slow-1"], ["charge", "charge-1"], ["note", "note-2"]],
    [["charge", "charge-2"]],
]
# How a shop is made with some framework's loop, by name.
SHAPES: dict[str, Callable[..., Shop]] = {
    "plain": partial(Shop, handler=plain, script=SHOPPING),
    "errors told to the model": partial(Shop, handler=plain, script=ERRORS),
    "an error ends the loop": partial(Shop, handler=apologetic, script=ABORTED),
    "timeout over a slow read": partial(Shop, handler=patient, script=SLOW_LOOK),
    "timeout over a slow refund": partial(Shop, handler=patient, script=SLOW_REFUND),
    "timeout over a slow charge": partial(Shop, handler=patient, script=SLOW_CHARGE),
    "two loops gathered": partial(Shop, handler=gathered, script=SHOPPING),
    "two loops in a task group": partial(Shop, handler=grouped, script=SHOPPING),
}
# A crash before the timeout: the next life finds the refund made, and is in time. Then nothing of the fallback may have been done.
IN_TIME = {"timeout over a slow refund"}


# ---------------------------------------------------------------- lives and deaths


@dataclass(frozen=True)
class Case:
    """A shape under a framework: how its shop is made, and what it may come to."""

    shape: str
    framework: str

    def __str__(self) -> str:
        return f"{self.framework}, {self.shape}"

    def make(self, **options: Any) -> Shop:
        loop = LOOPS[self.framework]
        return SHAPES[self.shape](partial(loop, tell_errors=self.shape != "an error ends the loop"), **options)

    def undisturbed(self, **options: Any) -> tuple[int, Tally]:
        """How many points a run has in which nothing crashes, and what it comes to."""
        shop, simulation = self.make(**options), Simulation(max_points=MAX_POINTS)
        assert simulation.run(shop.serve) is True
        return simulation.points, shop.tally()

    def right(self) -> list[Tally]:
        """What a run may come to that was killed."""
        alone = [self.undisturbed()[1]]
        return [*alone, self.undisturbed(hang_s=0.1)[1]] if self.shape in IN_TIME else alone

    def killed(self, *deaths: int | None, seed: int | None = None, dies_after: str = "") -> Shop:
        """A shop whose process was killed at each of these points (None: where it dies by itself), one life after the other, and then
        lived."""
        shop, now_s = self.make(dies_after=dies_after), 0.0
        for crash_at in deaths:
            life = simulate(shop.serve, seed=seed, crash_at=crash_at, start_s=now_s, max_points=MAX_POINTS)
            if not isinstance(life, Crashed):
                return shop
            shop.store.crash()
            now_s = life.time_s
        assert simulate(shop.serve, seed=seed, start_s=now_s, max_points=MAX_POINTS) is True
        return shop

    def crash_everywhere(self, every: int) -> int:
        """Kill at every so many points of the undisturbed run; how often. Says of all that went wrong where, not of the first alone."""
        points, right = self.undisturbed()[0], self.right()
        faults: dict[str, list[int]] = defaultdict(list)
        for crash_at in range(0, points, every):
            try:
                tally = self.killed(crash_at).tally()
                assert tally in right, f"it came to {tally}, not to {' or '.join(map(str, right))}"
            except Exception as error:
                faults[f"{type(error).__name__}: {error}"].append(crash_at)
        crashes = len(range(0, points, every))
        told = "\n".join(f"crash at {at[:8]} ({len(at)} points): {text[:2000]}" for text, at in faults.items())
        assert not faults, f"{sum(map(len, faults.values()))} of {crashes} crashes\n{told}"
        return crashes


CASES = pytest.mark.parametrize("case", [Case(shape, framework) for framework in LOOPS for shape in SHAPES], ids=str)


@CASES
def test_a_tool_loop_of_a_framework_survives_a_crash(case: Case) -> None:
    """Its answer is the same, each effect is done once, and nothing is left open; killed here and there."""
    points, _ = case.undisturbed()
    assert case.crash_everywhere(points // QUICK) >= QUICK


@pytest.mark.slow
@pytest.mark.timeout(600)
@CASES
def test_a_tool_loop_of_a_framework_survives_a_crash_at_every_step(case: Case) -> None:
    """The same, killed everywhere: several times in each step."""
    assert case.crash_everywhere(THOROUGH) > 100


@pytest.mark.slow
@pytest.mark.timeout(600)
@CASES
def test_tools_in_any_order_and_crashes_during_recovery(case: Case) -> None:
    """The tasks of the framework run in another order under each seed, and what recovers is killed too."""
    points, right = case.undisturbed()[0], case.right()

    def lives(seed: int) -> None:
        draw = random.Random(f"{case} {seed}")
        tally = case.killed(*(draw.randrange(points // (1 + life)) for life in range(3)), seed=seed).tally()
        assert tally in right, f"it came to {tally}, not to {' or '.join(map(str, right))}"

    for_each_seed(lives, range(20))


@pytest.mark.parametrize("framework", LOOPS)
@pytest.mark.parametrize(
    ("shape", "note"), [*((shape, "fallback") for shape in SHAPES if "timeout" in shape), ("an error ends the loop", "apology")]
)
def test_a_crash_after_the_loop_was_left_does_not_lead_back_into_it(shape: str, note: str, framework: str) -> None:
    """The loop was left by a timeout or an error, and the handler did something else: its next life takes that way too, not both."""
    case = Case(shape, framework)
    _, tally = case.undisturbed()
    shop = case.killed(None, dies_after=note)
    assert shop.dies_after == "", "it died there"
    assert shop.tally() == tally


@pytest.mark.parametrize("framework", LOOPS)
def test_some_of_the_crashes_need_a_person(framework: str) -> None:
    """A charge that cannot be asked about is resolved by hand: the crash tests reach that."""
    case = Case("plain", framework)
    points, _ = case.undisturbed()
    assert any(case.killed(crash_at).doubts for crash_at in range(0, points, 47))


@pytest.mark.parametrize("framework", LOOPS)
def test_the_model_sees_what_the_tools_said(framework: str) -> None:
    """The harness holds: the answer repeats every result and every error, as the framework words it."""
    _, tally = Case("errors told to the model", framework).undisturbed()
    said = tally.replies["main"]
    for text in (
        "there is no missing-1",
        "note-1 noted",
        "the card of declined-1 was declined",
        "the bank of declined-2 declined",
        "refund-1 paid back",
        "charge-1 charged",
    ):
        assert text in said
