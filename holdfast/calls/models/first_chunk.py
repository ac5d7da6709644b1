"""A time limit for the first chunk of a stream: the only way in which an answer that comes is too slow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio

_NONE = object()


class SlowStart(TimeoutError):
    """No chunk of a stream arrived within `first_chunk_s`."""

    holdfast_failure = "slow"


class _Begun:
    """A stream whose first chunk has arrived."""

    def __init__(self, response: Any, chunks: AsyncIterator[Any], first: Any) -> None:
        self._response, self._chunks, self._first = response, chunks, first

    async def __aiter__(self) -> AsyncIterator[Any]:
        if self._first is not _NONE:
            yield self._first
        async for chunk in self._chunks:
            yield chunk

    async def close(self) -> None:
        await self._response.close()


async def begun_within(seconds: float, close_s: float, open_: Callable[[], Awaitable[Any]]) -> Any:
    """The stream of `open_`, once its first chunk or its end is there.

    Args:
        seconds: how long that may take, from the request on.
        close_s: how long it may take to close the connection of a stream that is too slow, in seconds.

    Raises:
        SlowStart: it took longer.
    If cancelled, the request is ended.
    """
    response = None
    try:
        with anyio.fail_after(seconds):
            response = await open_()
            chunks = aiter(response)
            return _Begun(response, chunks, await anext(chunks, _NONE))
    except BaseException as error:
        if response is not None:
            # Shielded, with a deadline: the connection has to be closed also when the step is cancelled.
            with anyio.move_on_after(close_s, shield=True):
                await response.close()
        if type(error) is TimeoutError:
            raise SlowStart(f"no first chunk within {seconds:g} s") from error
        raise
