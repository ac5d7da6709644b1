"""The frame in which every supervisor runs: children end one by one, in order, and never because the caller was cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from holdfast.errors import SupervisorGaveUp


async def run_shielded(serve: Callable[[TaskGroup], Awaitable[None]], stop_all: Callable[[], Awaitable[None]]) -> None:
    """Run `serve` with a group for the children until it ends or this is cancelled, then `stop_all`.

    A task group cancels its children all at once. So the children's group is under a shield, and only a watch outside it feels
    the cancellation; it cancels `serve`, whichever await that is in, and `stop_all` stops the children in their order.

    Args:
        serve: given the group to start children in; its end, or its error, ends the whole.
        stop_all: stops every child; each has a deadline, and with them the shield has one. Called again if it was interrupted.

    Raises:
        SupervisorGaveUp: raised by `serve`.
    """
    await checkpoint()
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
                    # Carried around the groups, which would wrap it in an exception group.
                    gave_up = error
                finally:
                    await _finish(stop_all)
        outer.cancel_scope.cancel()
    # Without it a cancelled run would return as if it had not been.
    await checkpoint()
    if gave_up is not None:
        try:
            raise gave_up
        finally:
            del gave_up


async def _watch(serving: anyio.CancelScope) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        serving.cancel()


async def _finish(stop_all: Callable[[], Awaitable[None]]) -> None:
    """Stop the children even if a native `Task.cancel()` arrives meanwhile, which no shield holds off; raise that at the end."""
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
