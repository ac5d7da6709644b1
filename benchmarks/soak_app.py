"""The program that the soak kills: sessions that run without end; each step leaves a trace outside."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import soak_shapes
from benchmarks.soak_world import World, shape_of
from holdfast import Handle, HoldfastError, NotDone, Runtime, Session, StepContext, Usage, agent, tool

world: World


class Work(msgspec.Struct):
    """The body of a message."""

    message: str
    session: str


async def _run(name: str, work: Work, effect: Any = None) -> None:
    """One run of a tool: 5 to 50 ms, its effect in the middle."""
    world.log("begin", tool=name, session=work.session, message=work.message)
    await asyncio.sleep(random.uniform(0.0025, 0.025))
    if effect is not None:
        effect()
    await asyncio.sleep(random.uniform(0.0025, 0.025))
    world.log("end", tool=name, session=work.session, message=work.message)


@tool
async def look(work: Work) -> str:
    await _run("look", work)
    return "seen"


@tool(cost=Usage(microusd=10))
async def answer(work: Work) -> str:
    await _run("answer", work)
    return "answered"


@tool(effect="idempotent")
async def note(work: Work, context: StepContext) -> str:
    def once_a_key() -> None:
        if not any(line.endswith(context.key) for line in world.lines("notes", work.session)):
            world.append("notes", work.session, f"{work.message} {context.key}")

    await _run("note", work, once_a_key)
    return "noted"


PAY_S = 0.5
"""A payment takes at most 50 ms. After a kill its session waits so long, in seconds, before it asks whether the payment happened."""


async def _paid(work: Work, context: StepContext) -> str:
    """Did this payment happen?"""
    world.log("reconcile", session=work.session, message=work.message)
    if any(line.endswith(context.key) for line in world.lines("payments", work.session)):
        return "paid"
    raise NotDone


@tool(effect="once", reconcile=_paid, timeout_s=PAY_S)
async def pay(work: Work, context: StepContext) -> str:
    await _run("pay", work, lambda: world.append("payments", work.session, f"{work.message} {context.key}"))
    return "paid"


@tool
async def confirm(work: Work) -> str:
    await _run("confirm", work)
    return "confirmed"


@tool(effect="idempotent")
async def fresh(work: Work) -> str:
    """The step of a handler that got its answer in time."""
    await _run("fresh", work)
    return "fresh"


@tool(effect="idempotent")
async def stale(work: Work) -> str:
    """The step of a handler that let go of its answer."""
    await _run("stale", work)
    return "stale"


# The soak kills it every second: five kills without a new record of a turn are not the turn's fault.
@agent(tools=[look, answer, note, pay, fresh, stale, confirm], crash_limit=1_000_000)
async def worker(session: Session[list[str]], message: str) -> str:
    work = Work(message, session.id)
    await session.step(look, work)
    await soak_shapes.SHAPES[shape_of(message)](Middle(session, work))
    await session.step(confirm, work)
    return f"done {message}"


class Middle:
    """The steps between the first and the last, for the shapes to order."""

    def __init__(self, session: Session[list[str]], work: Work) -> None:
        self.session, self._work = session, work

    async def answer(self) -> str:
        return await self.session.step(answer, self._work)

    async def note(self) -> str:
        return await self.session.step(note, self._work)

    async def pay(self) -> str:
        return await self.session.step(pay, self._work)

    async def fresh(self) -> str:
        return await self.session.step(fresh, self._work)

    async def stale(self) -> str:
        return await self.session.step(stale, self._work)


async def _feed(handle: Handle, accepted: set[str]) -> None:
    """Send the session one message after the other; accepted messages are written to the ledger, the others are sent again under their
    ids."""
    number = len(accepted)
    while True:
        message = f"m{number}"
        await handle.tell(message, id=message)
        if message not in accepted:
            world.log("accepted", session=handle.id, message=message)
            accepted.add(message)
        await handle.ask(message, id=message, timeout_s=600)
        number += 1


async def _answers(runtime: Runtime, handle: Handle, accepted: set[str]) -> dict[str, str]:
    """The answers to all accepted messages. Each message is looked up first: to ask under the id of a lost message would send it anew."""
    stored = {message.id for message in await runtime.store.messages(handle.id, limit=1_000_000)}
    answers = {}
    for message in sorted(accepted & stored, key=lambda message: int(message[1:])):
        try:
            answers[message] = await handle.ask(message, id=message, timeout_s=120)
        except HoldfastError as error:
            print(f"{handle.id}, {message}: {error}; {(await handle.row()).park}", file=sys.stderr)
            break  # later messages wait behind it
    return answers


async def main(directory: Path, sessions: int, finish: bool) -> None:
    """Run until killed; with `finish`, answer all accepted messages, write all answers to a file, and end."""
    global world
    world = World(directory)
    accepted: dict[str, set[str]] = {f"s-{n}": set() for n in range(sessions)}
    for line in world.ledger():
        if line["event"] == "accepted":
            accepted[line["session"]].add(line["message"])
    async with Runtime(f"sqlite:///{directory}/soak.db", [worker]) as runtime:
        print("started", flush=True)
        handles = await asyncio.gather(*(runtime.spawn(worker, id=id, state=[]) for id in accepted))
        if not finish:
            await asyncio.gather(*(_feed(handle, accepted[handle.id]) for handle in handles))
        # Each session's last message may still be in its turn: this waits for its answer.
        given = await asyncio.gather(*(_answers(runtime, handle, accepted[handle.id]) for handle in handles))
        answers = dict(zip(accepted, given, strict=True))
        unsettled = sum([(await handle.row()).status == "parked" for handle in handles])
        (directory / "answers.json").write_text(json.dumps({"answers": answers, "unsettled": unsettled}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "finish"))
