"""The end of a drain: the last writes of steps whose outcome is unknown are made again, since only the memory of the process has them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from holdfast import events
from holdfast.errors import ConfigError, SessionError, StoreError
from holdfast.runtime.sessions.actor import Actor
from holdfast.runtime.turns import doubt
from holdfast.runtime.turns.failures import describe
from holdfast.runtime.turns.node import Node
from holdfast.runtime.turns.turn import Turn

_WITHIN_S = 5.0
"""How long that may take, in seconds: the store may still be down."""


async def write_in_hand(node: Node, load: Callable[[str], Awaitable[Actor]]) -> None:
    """Write what `node.in_hand` has, in the open turns that it belongs to. No session runs meanwhile.

    What cannot be written is lost with the process: its effects are in doubt at the next start.
    """
    try:
        async with asyncio.timeout(_WITHIN_S):
            for id in dict.fromkeys(session for session, _ in node.in_hand):
                await _write_of(id, node, load)
    except (StoreError, TimeoutError) as error:
        _not_written(error)


async def _write_of(id: str, node: Node, load: Callable[[str], Awaitable[Actor]]) -> None:
    try:
        actor = await load(id)
        if actor.mailbox and actor.task is None:
            await doubt.write_what_is_known(Turn(actor.owner, node, actor.mailbox[0], actor.journal))
    except (SessionError, ConfigError) as error:  # one that cannot be loaded does not keep the others from being written
        _not_written(error)


def _not_written(error: Exception) -> None:
    events.log.warning("outcomes of effects could not be written before the end: %s", describe(error))
