"""Answers for the reading commands: from the process that runs the store, if there is one, else from the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from holdfast.console.client import reach
from holdfast.console.client.node import Node, open_node, path_of
from holdfast.console.reading import target
from holdfast.console.reading.target import Source
from holdfast.console.reading.timeline import Mailbox, Timeline
from holdfast.console.reading.views import Detail, Overview
from holdfast.errors import ConfigError, NodeUnreachable
from holdfast.events import log
from holdfast.stores.records import DISPLAY_STATUSES

T = TypeVar("T")

_ANSWER_S = 10.0


class NodeSource:
    """Asks the process that runs the store: its lines also contain what each session does right now."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def overview(
        self,
        *,
        ended: bool = False,
        status: str | None = None,
        agent: str | None = None,
        tenant: str | None = None,
        limit: int = 200,
        after: str | None = None,
    ) -> Overview:
        if status is not None and status not in DISPLAY_STATUSES:
            raise ConfigError(f"there is no status {status!r}: use one of {', '.join(DISPLAY_STATUSES)}")
        query: dict[str, Any] = {"status": status, "agent": agent, "tenant": tenant, "limit": limit, "after": after}
        return await self._node.get("/sessions", Overview, all=ended, **query)

    async def detail(self, id: str, *, turn: int | None = None, whole: bool = False) -> Detail:
        return await self._node.get(path_of(id), Detail, turn=turn, whole=whole or None)

    async def timeline(self, id: str, *, first: int, turns: int) -> Timeline:
        return await self._node.get(f"{path_of(id)}/timeline", Timeline, first=first, turns=turns)

    async def mailbox(self, id: str) -> Mailbox:
        return await self._node.get(f"{path_of(id)}/mailbox", Mailbox)


async def ask(question: Callable[[Source], Awaitable[T]], *, path: str | None, url: str | None, socket: str | None) -> T:
    """The answer of the process that runs the store, if there is one; else that of the store. Only this function chooses between them.

    Args:
        path, url: the store, as in `--db` and `--store`.
        socket: the control socket of the process; then only this process may answer.

    Raises:
        ConfigError: no option names a store and the folder does not have exactly one, or the store cannot be read from outside.
        NodeUnreachable: no process listens on `socket`.
        StoreError: the store does not exist, cannot be read, or is of another version of holdfast.
    """
    if path is not None and url is not None:
        raise ConfigError("give --db or --store, not both")
    listening = reach.find(path, url, socket)
    if listening is not None:
        try:
            async with open_node(listening, timeout_s=_ANSWER_S) as node:
                return await question(NodeSource(node))
        except NodeUnreachable as error:
            if socket is not None:
                raise
            # The socket has outlived its process, or the process is blocked: its store can be read all the same.
            if error.sent:
                log.warning("%s; what follows is read from its store", error)
    async with target.source(target.store_url(path, url)) as found:
        return await question(found)
