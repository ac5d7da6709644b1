"""A streamed answer of a model as one durable step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import anyio
import msgspec

from holdfast.calls.call import Call, StepContext, Steps
from holdfast.calls.dialect import Dialect, Fields, Tokens
from holdfast.calls.facts import facts_of
from holdfast.calls.meter import Meter
from holdfast.calls.replies import BrokenStream, EmptyReply, NoReply, ReportedError, fields_of, reported, reported_by
from holdfast.errors import StepError
from holdfast.policies.budget import Usage

USAGE_GRACE_S = 2.0
"""How long a stream is still read after its last word: for the usage that the provider reports after it, where it is left, and
until the connection is free for the next request. One that stays open is cut then: the answer is whole."""

CLOSE_S = 2.0
"""How long the closing of a connection may take that is cut."""


class Streamed(msgspec.Struct, frozen=True):
    """What a streamed step records.

    Attributes:
        chunks: what the provider sent; of one that was left early, what the consumer had taken.
        cut: whether the consumer left before the end.
        tokens: what it took, where that is not in the chunks.
    """

    chunks: list[Fields]
    cut: bool = False
    tokens: Tokens | None = None


class ModelStream:
    """Chunks of an answer as they come; recorded ones at once.

    Use it as a context manager: whoever leaves it early ends the request, and is charged for what had come by then. A failure
    before the first chunk was taken is tried again; one after that is raised where the chunks are taken.
    """

    def __init__(self, open_: Callable[[], Awaitable[Any]], *, dialect: Dialect, request: Fields, meter: Meter) -> None:
        """Takes how to open it, and what was asked; `open_` may send more than the handler's `request`."""
        self._open, self._dialect, self._request, self._meter = open_, dialect, request, meter
        self._step = str(request["model"])
        self._records: list[Fields] = []
        self._taken = 0
        self._context: StepContext | None = None
        self._scope: anyio.CancelScope | None = None
        self._left = self._ended = self._cut = self._said = False
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
                if self._dialect.shown(self._records[at], self._request):
                    # Of the record also live: what is replayed is the same then.
                    return self._dialect.chunk(self._records[at])
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
        return self._whole()

    @property
    def message(self) -> Any:
        """The message of the answer, as a conversation goes on with it, once the stream has ended.

        Of a chat completion that is the message of its first choice, of a response or a message of Anthropic's the whole.

        Raises:
            StepError: it has not, or it failed, or was left early.
        """
        if not self._ended:
            raise StepError(self._step, "StreamOpen", "the stream has not ended: take all chunks, or await final()")
        self._raise()
        return self._dialect.message(self._whole())

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

    def _whole(self) -> Any:
        return self._dialect.reply_type().model_construct(**self._dialect.assemble(self._records))

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
        if self._dialect.finished(self._records):
            scope.deadline = min(scope.deadline, anyio.current_time() + USAGE_GRACE_S)
        else:
            scope.cancel()

    # ---------------------------------------------------------------- the step's side

    async def follow(self, steps: Steps, call: Call) -> None:
        """Runs the step, whose attempts are `attempt`, to its end: the branch beside the handler."""
        try:
            outcome: Streamed = await steps.run(call)
            if self._context is None:
                self._records = outcome.chunks
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
        self._context, self._said = context, False
        if self._abandoned():
            return Streamed([], cut=True, tokens=Tokens())
        try:
            with anyio.CancelScope() as self._scope:
                await self._receive()
            return self._outcome()
        except Exception as error:
            if self._abandoned() and not self._dialect.complete(self._records):
                # What breaks when the consumer has left breaks for nobody.
                return self._outcome()
            if self._said and not isinstance(error, ReportedError):
                # What breaks after the last word takes nothing away from it.
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
        if streamed.tokens is not None:
            return self._meter.of(streamed.tokens)
        return self._meter.of_reply(self._dialect, self._dialect.assemble(streamed.chunks), self._dialect.heard(streamed.chunks))

    def facts(self, streamed: Streamed | None) -> Fields:
        """What the answer tells about itself."""
        reply = None if streamed is None else self._dialect.assemble(streamed.chunks)
        return facts_of(self._dialect, self._step, reply, None if streamed is None else streamed.tokens)

    def check(self, streamed: Streamed) -> None:
        """Raises EmptyReply where a whole answer holds nothing, ReportedError where it says that it failed."""
        if not streamed.cut:
            self._dialect.check(self._dialect.assemble(streamed.chunks), self._request)

    async def _receive(self) -> None:
        try:
            response = await self._open()
            try:
                async for chunk in response:
                    self._receive_chunk(fields_of(chunk))
            finally:
                # Shielded, with a deadline: the connection has to go back or be closed also when the consumer has left.
                with anyio.move_on_after(CLOSE_S, shield=True):
                    await response.close()
        except (json.JSONDecodeError, UnicodeDecodeError, NoReply) as error:
            raise BrokenStream(f"the stream became unreadable after {len(self._records)} chunks: {error}") from error
        except Exception as error:
            said = reported_by(error)
            if said is None:
                raise
            raise said from error

    def _receive_chunk(self, chunk: Fields) -> None:
        error = self._dialect.error(chunk)
        if error is not None:
            raise reported(error)
        self._records.append(chunk)
        self._changed.set()
        if not self._said and self._dialect.last(chunk, self._request) and self._dialect.complete(self._records):
            self._said = True
            if self._scope is not None:
                self._scope.deadline = min(self._scope.deadline, anyio.current_time() + USAGE_GRACE_S)

    def _outcome(self) -> Streamed:
        if self._dialect.complete(self._records):
            told = self._dialect.tokens(self._dialect.assemble(self._records))
            whole = Streamed(self._records, tokens=None if told is not None else self._so_far())
            try:
                self.check(whole)
            except (EmptyReply, ReportedError):
                # The pipeline asks `check` again, after it has the answer to charge for: until then nobody is to take its chunks.
                self._forget()
            return whole
        if self._left:
            tokens = self._so_far()
            del self._records[self._taken :]
            return Streamed(self._records, cut=True, tokens=tokens)
        raise BrokenStream(f"the stream ended after {len(self._records)} chunks without saying that it was complete")

    def _so_far(self) -> Tokens:
        told = self._dialect.tokens(self._dialect.assemble(self._records))
        if told is not None and self._dialect.finished(self._records):
            return told
        guess = self._meter.estimate(self._dialect.heard(self._records))
        # Anthropic reports the prompt at the beginning, and the answer at the end.
        return guess if told is None else msgspec.structs.replace(told, output=max(told.output, guess.output))

    def _note_cost(self, error: Exception) -> None:
        # A provider charges for what it has streamed, also where the stream breaks; not for a request that it turns down.
        if self._records and (self._dialect.heard(self._records) or not isinstance(error, ReportedError)):
            error.holdfast_usage = self._meter.of(self._so_far())  # type: ignore[attr-defined] # an exception takes any attribute

    def _abandoned(self) -> bool:
        return self._left

    def _forget(self) -> None:
        # In the same breath as the failure, so that no chunk of it is taken while the next attempt is decided on.
        if self._taken == 0:
            self._records = []
