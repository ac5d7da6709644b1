"""A streamed answer of a model as one durable step."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import anyio
import msgspec

from holdfast.calls.call import Call, StepContext, Steps
from holdfast.calls.models.columns import Packer
from holdfast.calls.models.dialect import Dialect, Fields, Tokens
from holdfast.calls.models.ends import Stage
from holdfast.calls.models.facts import facts_of
from holdfast.calls.models.metering import Meter
from holdfast.calls.models.replies import (
    BrokenStream,
    EmptyReply,
    ReportedError,
    UnreadableReply,
    fields_of,
    reported,
    reported_by,
)
from holdfast.calls.models.streamed import Streamed
from holdfast.calls.models.wire import END
from holdfast.codec.answers import Halves
from holdfast.errors import StepError
from holdfast.policies.budget import Usage

USAGE_GRACE_S = 2.0
"""How long, in seconds, a stream is read after its content is complete or the consumer has left: for the usage that the provider reports
last, and until the connection is free for the next request. A stream that stays open longer is cut: the answer is complete."""

LIKELY_S = 30.0
"""How long, in seconds, a stream may be silent after a finish reason in the chunk with its first content. Some servers send a reason with
every chunk, so more may come; others send the whole answer in one chunk and leave the connection open."""

CLOSE_S = 2.0
"""How long it may take to close the connection of a cut stream, in seconds."""

RECORD_S = 5.0
"""How long a handler whose scope was cancelled waits, in seconds, until the stream that it leaves is recorded."""

MARKED_S = 0.1
"""How long, in seconds, a stream is read after its end mark: until the connection is free for the next request."""

_SILENCE_S: dict[Stage, Callable[[], float]] = {
    Stage.LIKELY: lambda: LIKELY_S,
    Stage.DONE: lambda: USAGE_GRACE_S,
    Stage.MARKED: lambda: MARKED_S,
}


class ModelStream:
    """The chunks of an answer as they arrive; recorded chunks at once.

    Use it as a context manager: if the handler leaves it early, the request ends, and the session is charged for the chunks that had
    arrived. A failure before the handler took the first chunk is retried; a later failure is raised to the handler when it takes the next
    chunk.
    """

    def __init__(self, open_: Callable[[], Awaitable[Any]], *, dialect: Dialect, request: Fields, meter: Meter) -> None:
        """Takes the function that opens the stream (see `wire.Events`), and the handler's request; `open_` may send more than `request`."""
        self._open, self._dialect, self._request, self._meter = open_, dialect, request, meter
        self._step = str(request["model"])
        self._records: list[Fields] = []
        self._packer, self._halves = Packer(), Halves()
        self._taken = 0
        self._context: StepContext | None = None
        self._scope: anyio.CancelScope | None = None
        self._left = self._ended = self._cut = self._over = False
        self._ending = dialect.ending(request)
        self._waiting = self._was_cancelled = False
        self._longest_s = 0.0
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    # ---------------------------------------------------------------- the consumer's side

    async def __aenter__(self) -> ModelStream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with anyio.move_on_after(RECORD_S, shield=True):
            # Shielded, within a deadline: a cancelled scope of anyio would let the handler run on before the step is recorded, and replay
            # would not give it what it had taken.
            await self.close()
        await self.close()

    def __aiter__(self) -> ModelStream:
        return self

    async def __anext__(self) -> Any:
        while True:
            while self._taken < len(self._records):
                at, self._taken = self._taken, self._taken + 1
                if self._context is not None:
                    self._context.settled = True
                if self._dialect.for_consumer(self._records[at], self._request):
                    # From the record also live, so that a replay gives the same.
                    return self._dialect.chunk(self._records[at])
            if self._ended:
                await self._leave_again()
                self._raise()
                raise StopAsyncIteration
            await self._wait()

    async def final(self) -> Any:
        """The whole answer, as if it had not been streamed. Waits for its end; the handler may take chunks before, after or not at all.

        Raises:
            StepError: the step failed, or the stream was left early.
        If cancelled, the request continues until the stream is left; another call waits for it again.
        """
        while not self._ended:
            await self._wait()
        await self._leave_again()
        self._raise()
        return self._whole()

    @property
    def message(self) -> Any:
        """The message of the answer with which the conversation continues, once the stream has ended.

        For a chat completion this is the message of its first choice; for a response or a message of Anthropic it is the whole answer.

        Raises:
            StepError: the stream has not ended, has failed, or was left early.
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
        """End the request if it still runs, and wait until its step is recorded.

        If cancelled, the request is ended all the same, and its step recorded by the end of the turn.
        """
        self._left = True
        if self._ended:
            return
        if self._scope is not None:
            self._limit(self._scope)
        while not self._ended:
            await self._change()

    def _whole(self) -> Any:
        return self._dialect.reply_type().model_construct(**self._dialect.assemble(self._records))

    async def _leave_again(self) -> None:
        """On replay, where the consumer was cancelled before while it waited: wait until it is cancelled again.

        Where it does not, as long as the request might have taken; then it gets the error of a stream that was left.
        """
        if self._was_cancelled and not self._left:
            await anyio.sleep(self._longest_s)

    async def _wait(self) -> None:
        """Wait for a chunk, or the end. Where the consumer is cancelled here, `waiting` stays noted."""
        self._waiting = True
        await self._change()
        self._waiting = False

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if self._cut:
            # Also on replay: the handler did not get past this point, and must not take the part for the whole answer.
            raise StepError(self._step, "StreamCut", f"the stream was left after {len(self._records)} chunks")

    def _limit(self, scope: anyio.CancelScope) -> None:
        """Set how long the stream is read on, by how near its end it is."""
        silence_s = _SILENCE_S.get(self._ending.stage)
        if silence_s is not None:
            scope.deadline = anyio.current_time() + min(silence_s(), USAGE_GRACE_S if self._left else math.inf)
        elif self._left:
            scope.cancel()
        else:
            scope.deadline = math.inf

    # ---------------------------------------------------------------- the step's side

    async def follow(self, steps: Steps, call: Call) -> None:
        """Run the step to its end, in a branch concurrent with the handler; `attempt` makes its attempts.

        It raises nothing of the step's: the consumer gets that. If cancelled, the consumer gets StepError, since its turn ended first.
        """
        self._longest_s = call.timeout_s
        try:
            outcome: Streamed = await steps.run(call)
            if self._context is None:
                self._records = outcome.recorded()
            self._cut = outcome.cut
            self._was_cancelled = outcome.waiting and self._context is None
        except Exception as error:
            # The error belongs to the consumer, for which this branch runs.
            self._error = error
        except BaseException:
            self._error = StepError(self._step, "Cancelled", "the turn ended before the stream did", "transient")
            raise
        finally:
            self._ended = True
            self._changed.set()

    async def attempt(self, context: StepContext) -> Streamed:
        """One request, read to its end or until the consumer leaves. If it fails, chunks that the consumer did not take are dropped.

        If cancelled, the request is closed, at the latest after CLOSE_S.
        """
        self._context, self._ending, self._over = context, self._dialect.ending(self._request), False
        self._halves = Halves()
        if self._abandoned():
            return Streamed([], cut=True, tokens=Tokens())
        try:
            with anyio.CancelScope() as self._scope:
                await self._receive()
            return self._outcome()
        except Exception as error:
            stage = self._ending.stage
            if stage >= Stage.DONE and not isinstance(error, ReportedError):
                # The content is complete: a later failure does not matter.
                return self._outcome()
            if self._abandoned() and stage < Stage.DONE:
                # The consumer has left: a broken stream concerns no code any more.
                return self._cut_outcome()
            self._note_cost(error)
            self._forget()
            raise
        except BaseException:
            self._forget()
            raise
        finally:
            self._scope = None

    def usage(self, streamed: Streamed) -> Usage:
        """The cost: as reported, else estimated."""
        if streamed.tokens is not None:
            return self._meter.of(streamed.tokens)
        chunks = streamed.recorded()
        return self._meter.of_reply(self._dialect, self._dialect.assemble(chunks), self._dialect.heard(chunks))

    def facts(self, streamed: Streamed | None) -> Fields:
        """The facts that the answer gives about itself."""
        reply = None if streamed is None else self._dialect.assemble(streamed.recorded())
        return facts_of(self._dialect, self._step, reply, None if streamed is None else streamed.tokens)

    def check(self, streamed: Streamed) -> None:
        """Raises EmptyReply if a complete answer is empty, ReportedError if it reports a failure."""
        if not streamed.cut:
            self._dialect.check(self._dialect.assemble(streamed.recorded()), self._request)

    async def _receive(self) -> None:
        try:
            events = await self._open()
            try:
                async for event in events:
                    if self._ending.stage is not Stage.MARKED:
                        self._receive_event(event)
                self._over = True
            finally:
                # Shielded, with a deadline: the connection has to be returned or closed also when the consumer has left.
                with anyio.move_on_after(CLOSE_S, shield=True):
                    await events.close()
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BrokenStream(f"the stream became unreadable after {len(self._records)} chunks: {error}") from error
        except Exception as error:
            failure = reported_by(error)
            if failure is None:
                raise
            raise failure from error

    def _receive_event(self, event: Any) -> None:
        before = self._ending.stage
        if event is END:
            self._ending.mark()
        else:
            for chunk in self._dialect.chunks(self._halves.take(fields_of(event))):
                self._receive_chunk(chunk)
        if self._scope is not None and self._ending.stage is not before:
            self._limit(self._scope)

    def _receive_chunk(self, chunk: Fields) -> None:
        error = self._dialect.error(chunk)
        if error is not None:
            raise reported(error)
        chunk.pop("obfuscation", None)  # OpenAI pads its chunks against observers of the connection
        self._records.append(chunk)
        self._packer.add(chunk)
        self._changed.set()
        self._ending.add(chunk)

    def _outcome(self) -> Streamed:
        stage = self._ending.stage
        if self._over and not self._records:
            raise EmptyReply("the model answered with a blank body")
        # A stream that ends by its deadline ends in silence; with a doubt only a proper end counts.
        if stage >= Stage.LIKELY or (stage is Stage.DOUBTFUL and self._over):
            known = self._dialect.tokens(self._dialect.assemble(self._records))
            whole = Streamed(self._records, tokens=None if known is not None else self._so_far(), columns=self._packer.columns())
            try:
                self.check(whole)
            except (EmptyReply, ReportedError, UnreadableReply):
                # The pipeline calls `check` again, once it has the answer to charge for: until then the consumer must not take its chunks.
                self._forget()
            return whole
        if self._left:
            return self._cut_outcome()
        raise BrokenStream(f"the stream ended after {len(self._records)} chunks without saying that it was complete")

    def _cut_outcome(self) -> Streamed:
        tokens = self._so_far()
        del self._records[self._taken :]
        return Streamed(self._records, cut=True, tokens=tokens, waiting=self._waiting)

    def _so_far(self) -> Tokens:
        known = self._dialect.tokens(self._dialect.assemble(self._records))
        if known is not None and self._ending.stage >= Stage.LIKELY:
            return known
        guess = self._meter.estimate(self._dialect.heard(self._records))
        # Anthropic reports the tokens of the prompt at the beginning, and those of the answer at the end.
        return guess if known is None else msgspec.structs.replace(known, output=max(known.output, guess.output))

    def _note_cost(self, error: Exception) -> None:
        # A provider charges for the content that it has streamed, also if the stream breaks; not for a request that it refuses.
        if self._records and (self._dialect.heard(self._records) or not isinstance(error, ReportedError)):
            error.holdfast_usage = self._meter.of(self._so_far())  # type: ignore[attr-defined] # an exception takes any attribute

    def _abandoned(self) -> bool:
        return self._left

    def _forget(self) -> None:
        # Without an await after the failure, so that the consumer takes no chunk of it before the next attempt.
        if self._taken == 0:
            self._records, self._packer = [], Packer()
