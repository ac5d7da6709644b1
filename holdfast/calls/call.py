"""A call to the outside, as a value: what to run, what class of effect it has, what it can cost and how its result is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, Protocol

import msgspec

from holdfast.codec import Codec
from holdfast.policies.budget import Usage
from holdfast.policies.retry import Retry

Effect = Literal["read", "idempotent", "once"]
EFFECTS: tuple[Effect, ...] = ("read", "idempotent", "once")

ONE_STEP = Usage(steps=1)
DEFAULT_TIMEOUT_S = 60.0


class Unknown:
    """What a `reconcile` returns when it cannot tell whether the effect happened. Use the instance `UNKNOWN`."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


class StepContext:
    """What a running effect may know about its step. A tool gets it by having a parameter annotated `StepContext`.

    Attributes:
        session: id of the session.
        key: the idempotency key, the same for every attempt of this step, also after a crash. Hand it to the service called.
        attempt: 1 for the first attempt.
        settled: set it to True when something has reached the consumer that cannot be taken back (a streamed chunk): a failure after
            that is not retried.
        begun: False while the attempt certainly has not begun (it waits for a thread): an effect cut then did not happen.
        remains: what the thread of an attempt that was cut comes to, for as long as it is left; None where nothing is.
    """

    __slots__ = ("attempt", "begun", "key", "remains", "session", "settled")

    def __init__(self, session: str, key: str, attempt: int) -> None:
        self.session, self.key, self.attempt = session, key, attempt
        self.settled, self.begun = False, True
        self.remains: asyncio.Future[Any] | None = None


class Call(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One call.

    Attributes:
        kind: "step", "tool" or "model".
        name: by which it is found in the journal and shown.
        effect: its effect class.
        args: its arguments as MessagePack with sorted keys (see holdfast.codec.canonical); their digest is its identity.
        run: performs one attempt.
        codec: of the result.
        timeout_s: of one attempt.
        retry: what to do about transient failures.
        most: the most that one attempt can cost.
        meter: what an attempt did cost, from its result, where that is known only then; None: exactly `most`.
        check: looks at an answer before it is recorded; raises to fail the attempt, which costs what `meter` makes of the answer.
        reconcile: for `once`: tells whether an attempt of unknown outcome happened. Given the context, it returns the result, raises
            NotDone, or returns UNKNOWN.
        settles_s: how long after an attempt has ended, in seconds, its effect may still appear; `reconcile` is not asked before.
        dependency: name of what it depends on; all calls that name the same share a breaker.
        costs: whether it can cost money or tokens, so that it is opened with a durable record though it is a `read`.
        facts: what its answer tells about itself, for telemetry, given the answer, or None where there is none; may hold `provider`,
            `model`, `response_model`, `response_id`, `finish_reasons`, `input_tokens`, `output_tokens`, `cached_tokens`,
            `reasoning_tokens`. Only asked when somebody observes.
    """

    kind: str
    name: str
    effect: Effect
    args: bytes
    run: Callable[[StepContext], Awaitable[Any]]
    codec: Codec
    timeout_s: float = DEFAULT_TIMEOUT_S
    retry: Retry = Retry()
    most: Usage = ONE_STEP
    meter: Callable[[Any], Usage] | None = None
    check: Callable[[Any], None] | None = None
    reconcile: Callable[[StepContext], Awaitable[Any]] | None = None
    settles_s: float = 0.0
    dependency: str | None = None
    costs: bool = False
    facts: Callable[[Any], dict[str, Any]] | None = None


class Steps(Protocol):
    """What a call is handed to: the step pipeline of one session's turn."""

    async def run(self, call: Call) -> Any:
        """Run the call as a step; its result, decoded from its record. Raises StepError when it failed for good."""
        ...

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` beside the handler, as a numbered branch that ends with the turn at the latest."""
        ...
