"""The shapes that strangers give their handlers: plain asyncio, tasks, groups, steps inside steps, timeouts of their own, retries in loops.

None of them asks the session for more than a step. What each of them may come to is in `demands`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from holdfast import Session, StepError

Op = list[Any]
"""One operation: its name, its label, and what else it takes."""

Script = list[Op]

Play = Callable[[Op], Awaitable[Any]]
"""What plays one operation."""

AT_ONCE = ("agather", "group", "task", "completed", "anyio")
"""The shapes that play a script at once, each in another way; their results are in the order of the script."""

SHAPES = (*AT_ONCE, "nested", "hurry", "again", "retry", "cancelled", "finally")


async def shaped(session: Session[Any], play: Play, op: Op, pace: float) -> Any:
    """Play an operation that is one of `SHAPES`; `pace` is how long its seconds are."""
    match op:
        case ["agather", _, script]:
            return list(await asyncio.gather(*(play(inner) for inner in script)))
        case ["group", _, script]:
            return await _group(play, script)
        case ["task", _, script]:
            return await _tasks(play, script)
        case ["completed", _, script]:
            return await _completed(play, script)
        case ["anyio", _, script]:
            return await _anyio(play, script)
        case ["nested", label, script]:
            return await _nested(session, play, label, script)
        case ["hurry", label, seconds, inner, otherwise]:
            return await _hurry(play, label, seconds * pace, inner, otherwise)
        case ["again", _, times, seconds, inner]:
            return await _again(play, times, seconds * pace, inner)
        case ["retry", _, times, inner]:
            return await _retry(play, times, inner)
        case ["cancelled", label, seconds, inner]:
            return await _cancelled(play, label, seconds * pace, inner)
        case ["finally", _, inner, last]:
            return await _finally(play, inner, last)
    raise AssertionError(f"unknown shape {op!r}")


async def _group(play: Play, script: Script) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_coroutine(play, inner)) for inner in script]
    return [task.result() for task in tasks]


async def _tasks(play: Play, script: Script) -> list[Any]:
    """All but the last are begun before it and awaited after it: where it fails, nothing awaits them."""
    *early, last = script
    tasks = [asyncio.create_task(_coroutine(play, inner)) for inner in early]
    result = await play(last)
    return [*[await task for task in tasks], result]


async def _completed(play: Play, script: Script) -> list[Any]:
    work = [_numbered(play, number, inner) for number, inner in enumerate(script)]
    found = [await each for each in asyncio.as_completed(work)]
    return [result for _, result in sorted(found, key=_number)]


async def _anyio(play: Play, script: Script) -> list[Any]:
    found: list[tuple[int, Any]] = []

    async def one(number: int, inner: Op) -> None:
        found.append(await _numbered(play, number, inner))

    async with anyio.create_task_group() as group:
        for number, inner in enumerate(script):
            group.start_soon(one, number, inner)
    return [result for _, result in sorted(found, key=_number)]


async def _nested(session: Session[Any], play: Play, label: str, script: Script) -> Any:
    async def order(label: str) -> list[Any]:
        return [await play(inner) for inner in script]

    return await session.step(order, label)


async def _hurry(play: Play, label: str, seconds: float, inner: Op, otherwise: Op) -> list[Any]:
    try:
        async with asyncio.timeout(seconds):
            result = await play(inner)
    except TimeoutError:
        await play(["note", f"{label}-otherwise"])
        return ["otherwise", await play(otherwise)]
    await play(["note", f"{label}-used"])
    return ["used", result]


async def _again(play: Play, times: int, seconds: float, inner: Op) -> Any:
    for _ in range(times):
        try:
            async with asyncio.timeout(seconds):
                return await play(inner)
        except TimeoutError:
            continue
    return await play(inner)


async def _retry(play: Play, times: int, inner: Op) -> Any:
    for _ in range(times):
        try:
            return await play(inner)
        except StepError:
            continue
    return await play(inner)


async def _cancelled(play: Play, label: str, seconds: float, inner: Op) -> list[Any]:
    task = asyncio.create_task(_coroutine(play, inner))
    await asyncio.sleep(seconds)
    task.cancel()
    try:
        result = await task
    except asyncio.CancelledError:  # which is also what the handler gets where it is ended itself: the usual mistake
        await play(["note", f"{label}-otherwise"])
        return ["otherwise", None]
    await play(["note", f"{label}-used"])
    return ["used", result]


async def _finally(play: Play, inner: Op, last: Op) -> list[Any]:
    results = []
    try:
        results.append(await play(inner))
    finally:
        results.append(await play(last))
    return results


async def _coroutine(play: Play, op: Op) -> Any:
    return await play(op)


async def _numbered(play: Play, number: int, op: Op) -> tuple[int, Any]:
    return number, await play(op)


def _number(found: tuple[int, Any]) -> int:
    return found[0]
