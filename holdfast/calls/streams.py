"""A streamed answer of a chat model as one durable step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import anyio
import msgspec

from holdfast.calls.call import ONE_STEP, Call, StepContext, Steps
from holdfast.calls.prices import tokens_of
from holdfast.calls.replies import BrokenStream, EmptyReply, Meter, assemble, fields_of, is_complete, refuse_empty, text_size
from holdfast.errors import StepError
from holdfast.policies.budget import Usage

USAGE_GRACE_S = 2.0
"""How long a stream that is left after its last word is still read, for the usage that the provider reports after it."""

CLOSE_S = 2.0
"""How long the closing of a connection may take that is cut."""


class Streamed(msgspec.Struct, frozen=True):
    """What a streamed step records.

    Attributes:
        chunks: what the provider sent; of one that was left early, what the consumer had taken.
        cut: whether the consumer left before the end.
        tokens: in and out by estimate, where the provider reported none.
    """

    chunks: list[dict[str, Any]]
    cut: bool = False
    tokens: tuple[int, int] | None = None


class ModelStream:
    """Chunks of an answer as they come; recorded ones at once.

    Use it as a context manager: whoever leaves it early ends the request, and is charged for what had come by then. A failure
    before the first chunk was taken is tried again; one after that is raised where the chunks are taken.
    """

    def __init__(
        self,
        open_: Callable[[], Awaitable[Any]],
        *,
        step: str,
        meter: Meter,
        chunk_type: Any,
        reply_type: Any,
        shows_usage: bool,
    ) -> None:
        self._open, self._step, self._meter = open_, step, meter
        self._chunk_type, self._reply_type, self._shows_usage = chunk_type, reply_type, shows_usage
        self._records: list[dict[str, Any]] = []
        self._chunks: list[Any] = []
        self._taken = 0
        self._context: StepContext | None = None
        self._scope: anyio.CancelScope | None = None
        self._left = self._ended = self._cut = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    # ---------------------------------------------------------------- the consumer's side

    async def __aenter__(self) -> ModelStream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    def __aiter__(self) -> ModelStream:
        return self

    async def __anext__(self) -> Any:
        while True:
            while self._taken < len(self._records):
                at, self._taken = self._taken, self._taken + 1
                if self._context is not None:
                    self._context.settled = True
                if self._shows_usage or self._records[at].get("choices"):
                    return self._chunks[at] if self._chunks else self._chunk_type.model_construct(**self._records[at])
            if self._ended:
                self._raise()
                raise StopAsyncIteration
            await self._change()

    async def final(self) -> Any:
        """The whole answer, as if it had not been streamed. Waits for its end; chunks can be taken before, after or not at all.

        Raises:
            StepError: the step failed, or the stream was left early.
        """
        while not self._ended:
            await self._change()
        self._raise()
        return self._reply_type.model_construct(**assemble(self._records))

    @property
    def message(self) -> Any:
        """The message of the first choice, once the stream has ended.

        Raises:
            StepError: it has not, or it failed, or was left early.
        """
        if not self._ended:
            raise StepError(self._step, "StreamOpen", "the stream has not ended: take all chunks, or await final()")
        self._raise()
        return self._reply_type.model_construct(**assemble(self._records)).choices[0].message

    @property
    def cut(self) -> bool:
        """Whether it was left before its end."""
        return self._cut

    async def close(self) -> None:
        """Ends the request if it still runs, and waits until its step is recorded.

        If cancelled, the request is ended all the same, and its step recorded by the end of the turn.
        """
        if self._ended:
            return
        self._left = True
        if self._scope is not None:
            self._cut_short(self._scope)
        while not self._ended:
            await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if self._cut:
            # Also on replay: the handler did not get past this point, and is not to take the part for the whole.
            raise StepError(self._step, "StreamCut", f"the stream was left after {len(self._records)} chunks")

    def _cut_short(self, scope: anyio.CancelScope) -> None:
        if is_complete(self._records):
            scope.deadline = min(scope.deadline, anyio.current_time() + USAGE_GRACE_S)
        else:
            scope.cancel()

    # ---------------------------------------------------------------- the step's side

    async def follow(self, steps: Steps, call: Call) -> None:
        """Runs the step, whose attempts are `attempt`, to its end: the branch beside the handler."""
        try:
            outcome: Streamed = await steps.run(call)
            if self._context is None:
                self._records, self._chunks = outcome.chunks, []
            self._cut = outcome.cut
        except Exception as error:
            # It belongs to the consumer, in whose place this runs.
            self._error = error
        except BaseException:
            self._error = StepError(self._step, "Cancelled", "the turn ended before the stream did", "transient")
            raise
        finally:
            self._ended = True
            self._changed.set()

    async def attempt(self, context: StepContext) -> Streamed:
        """One request, read to its end or until the consumer leaves. What had come when it failed is forgotten unless taken."""
        self._context = context
        if self._abandoned():
            return Streamed([], cut=True, tokens=(0, 0))
        try:
            with anyio.CancelScope() as self._scope:
                await self._receive()
            return self._outcome()
        except Exception as error:
            if self._abandoned() and not is_complete(self._records):
                # What breaks when the consumer has left breaks for nobody.
                return self._outcome()
            self._note_cost(error)
            self._forget()
            raise
        except BaseException:
            self._forget()
            raise
        finally:
            self._scope = None

    def usage(self, streamed: Streamed) -> Usage:
        """What it cost: as reported, else estimated."""
        reported = next((chunk["usage"] for chunk in reversed(streamed.chunks) if chunk.get("usage")), None)
        if streamed.tokens is None:
            return self._meter.of_usage(reported) or self._meter.of_tokens(*self._estimate())
        return self._meter.of_tokens(*streamed.tokens) if any(streamed.tokens) else ONE_STEP

    def check(self, streamed: Streamed) -> None:
        """Raises EmptyReply where a whole answer holds nothing."""
        if not streamed.cut:
            refuse_empty(assemble(streamed.chunks))

    async def _receive(self) -> None:
        response = await self._open()
        try:
            async for chunk in response:
                self._records.append(fields_of(chunk))
                self._chunks.append(chunk)
                self._changed.set()
        except json.JSONDecodeError as error:
            raise BrokenStream(f"the stream became unreadable after {len(self._records)} chunks: {error}") from error
        finally:
            # Shielded, with a deadline: the connection has to go back or be closed also when the consumer has left.
            with anyio.move_on_after(CLOSE_S, shield=True):
                await response.close()

    def _outcome(self) -> Streamed:
        tokens = None if any(chunk.get("usage") for chunk in self._records) else self._estimate()
        if is_complete(self._records):
            whole = Streamed(self._records, tokens=tokens)
            try:
                self.check(whole)
            except EmptyReply:
                # The pipeline asks `check` again, after it has the answer to charge for: until then nobody is to take its chunks.
                self._forget()
            return whole
        if self._left:
            del self._records[self._taken :], self._chunks[self._taken :]
            return Streamed(self._records, cut=True, tokens=tokens or self._estimate())
        raise BrokenStream(f"the stream ended after {len(self._records)} chunks without saying that it was complete")

    def _estimate(self) -> tuple[int, int]:
        deltas = [choice.get("delta") for chunk in self._records for choice in chunk.get("choices") or []]
        return self._meter.prompt, tokens_of(text_size(deltas))

    def _note_cost(self, error: Exception) -> None:
        # A provider charges for what it has streamed, also where the stream breaks.
        if self._records:
            reported = next((chunk["usage"] for chunk in reversed(self._records) if chunk.get("usage")), None)
            usage = self._meter.of_usage(reported) or self._meter.of_tokens(*self._estimate())
            error.holdfast_usage = usage  # type: ignore[attr-defined] # an exception takes any attribute

    def _abandoned(self) -> bool:
        return self._left

    def _forget(self) -> None:
        # In the same breath as the failure, so that no chunk of it is taken while the next attempt is decided on.
        if self._taken == 0:
            self._records, self._chunks = [], []
