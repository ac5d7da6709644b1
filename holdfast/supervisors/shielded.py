"""The frame in which every supervisor runs: children end one by one, in order, also when the caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from holdfast.errors import SupervisorGaveUp
from holdfast.supervisors.owned import OwnerFactory


async def run_shielded(serve: Callable[[TaskGroup], Awaitable[None]], stop_all: Callable[[], Awaitable[None]]) -> None:
    """Run `serve` with a task group for the children until it ends or this is cancelled, then run `stop_all`.

    A task group cancels all its children at once. So a shield protects the children's group, and only a task outside the shield gets the
    cancellation. That task cancels `serve`, at whatever await it is, and `stop_all` stops the children in their order.

    Args:
        serve: gets the group to start children in; when it ends or raises, `stop_all` runs.
        stop_all: stops every child. Each has a deadline, and so the shield has one. Called again if it was interrupted.

    Raises:
        SupervisorGaveUp: raised by `serve`.
    """
    await checkpoint()
    gave_up: SupervisorGaveUp | None = None
    loop = asyncio.get_running_loop()
    OwnerFactory.install(loop)
    try:
        gave_up = await _run(serve, stop_all)
    finally:
        OwnerFactory.remove(loop)
    # Without this, a cancelled run would return normally.
    await checkpoint()
    if gave_up is not None:
        try:
            raise gave_up
        finally:
            del gave_up


async def _run(serve: Callable[[TaskGroup], Awaitable[None]], stop_all: Callable[[], Awaitable[None]]) -> SupervisorGaveUp | None:
    gave_up: SupervisorGaveUp | None = None
    async with anyio.create_task_group() as outer:
        # The shield ends with the last child's stop deadline.
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as children:
                serving = anyio.CancelScope()
                outer.start_soon(_watch, serving)
                try:
                    with serving:
                        await serve(children)
                except SupervisorGaveUp as error:
                    # Kept outside the groups, which would wrap it in an exception group.
                    gave_up = error
                finally:
                    await _finish(stop_all)
        outer.cancel_scope.cancel()
    try:
        return gave_up
    finally:
        del gave_up


async def _watch(serving: anyio.CancelScope) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        serving.cancel()


async def _finish(stop_all: Callable[[], Awaitable[None]]) -> None:
    """Stop the children even if a native `Task.cancel()` arrives meanwhile, which no anyio shield stops; raise it at the end."""
    interrupted: BaseException | None = None
    while True:
        try:
            await stop_all()
            break
        except anyio.get_cancelled_exc_class() as error:
            interrupted = error
    if interrupted is not None:
        try:
            raise interrupted
        finally:
            del interrupted
