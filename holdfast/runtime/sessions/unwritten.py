"""Writes of steps that no turn makes any more: at the end of a drain, and of a session that was cancelled or killed. Only the memory of the
process has what they write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from holdfast import events
from holdfast.errors import ConfigError, SessionError, StoreError
from holdfast.runtime.sessions import conclusion
from holdfast.runtime.sessions.actor import Actor
from holdfast.runtime.turns import doubt
from holdfast.runtime.turns.failures import describe
from holdfast.runtime.turns.node import Node
from holdfast.stores.ops import UpdateSession

_WITHIN_S = 5.0
"""How long that may take, in seconds: the store may still be down."""


async def write_in_hand(node: Node, load: Callable[[str], Awaitable[Actor]]) -> None:
    """Write what `node.in_hand` has, in the open turns that it belongs to. No session runs meanwhile.

    What cannot be written is lost with the process: its effects are in doubt at the next start.
    """
    try:
        async with asyncio.timeout(_WITHIN_S):
            for id in dict.fromkeys(session for session, _ in node.in_hand):
                await _write_of(id, load)
    except (StoreError, TimeoutError) as error:
        _not_written(error)


async def _write_of(id: str, load: Callable[[str], Awaitable[Actor]]) -> None:
    try:
        actor = await load(id)
        if actor.task is None:
            await doubt.write_what_is_known(actor.open_turn())
    except (SessionError, ConfigError) as error:  # one that cannot be loaded does not keep the others from being written
        _not_written(error)


async def write_rest(actor: Actor, in_background: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """The session was cancelled or killed while effects were under way: write what is known of them, and store the doubts that are left, so
    that people see them; again once the threads that still run have ended."""
    if actor.current is not None:
        await actor.current.written()
    turn = actor.open_turn()
    await _write_known_and_doubts(actor)
    threads = [task for step in actor.journal.in_doubt() if (task := actor.node.remains.get(turn.place_of(step.key))) is not None]
    if threads:
        in_background(_write_after(threads, actor))


async def _write_after(threads: list[asyncio.Task[None]], actor: Actor) -> None:
    await asyncio.wait(threads)
    await _write_known_and_doubts(actor)


async def _write_known_and_doubts(actor: Actor) -> None:
    await doubt.write_what_is_known(actor.open_turn())
    park = conclusion.doubt_left(actor.journal)
    if park != actor.park:
        actor.park = park
        status = None if park is not None else actor.status  # any status clears the stored park
        op = UpdateSession(actor.id, actor.owner.epoch, actor.node.clock.time(), status=status, park=park)
        await actor.node.group.submit(op, keep=True)


def _not_written(error: Exception) -> None:
    events.log.warning("outcomes of effects could not be written before the end: %s", describe(error))
