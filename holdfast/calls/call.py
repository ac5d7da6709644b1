"""A call to the outside, as a value: the function to run, its effect class, its highest cost and the codec of its result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, Protocol

import msgspec

from holdfast.codec import Codec
from holdfast.policies.budget import Usage
from holdfast.policies.failures import NO_RULES, Rules
from holdfast.policies.retry import Retry

Effect = Literal["read", "idempotent", "once"]
EFFECTS: tuple[Effect, ...] = ("read", "idempotent", "once")

ONE_STEP = Usage(steps=1)
DEFAULT_TIMEOUT_S = 60.0


class Unknown:
    """The result of a `reconcile` that cannot find out whether the effect happened. Use the instance `UNKNOWN`."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


class StepContext(msgspec.Struct, eq=False):
    """The facts that a running effect may know about its step. A tool gets it if it has a parameter annotated `StepContext`.

    Attributes:
        session: id of the session.
        key: the idempotency key, the same for every attempt of this step, also after a crash. Pass it to the service that you call.
        attempt: 1 for the first attempt.
        settled: set it to True once the consumer has got a part of the result (a streamed chunk): a failure after that is not retried.
        begun: False while the attempt certainly has not begun (it waits for a thread): an effect that is cut by then did not happen.
        remains: the outcome of the thread of an attempt that was cut, which still runs; None if there is no such thread.
    """

    session: str
    key: str
    attempt: int
    settled: bool = False
    begun: bool = True
    remains: asyncio.Future[Any] | None = None


class Call(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One call.

    Attributes:
        kind: "step", "tool" or "model".
        name: its name in the journal and for people.
        effect: its effect class.
        args: its arguments as MessagePack with sorted keys (see holdfast.codec.canonical); their digest is its identity.
        run: performs one attempt.
        codec: the codec of the result.
        timeout_s: the time limit of one attempt, in seconds.
        retry: how often and how long an attempt that failed is made again.
        failures: its user's rules on what a failure means.
        most: the most that one attempt can cost.
        meter: computes the cost of an attempt from its result, if it is known only then; None: the cost is exactly `most`.
        check: checks an answer before it is recorded. It raises to fail the attempt, which is charged by `meter` all the same.
        reconcile: for `once`: finds out whether an attempt of unknown outcome happened. It gets the context, and returns the result, raises
            NotDone, or returns UNKNOWN.
        settles_s: how long after an attempt has ended, in seconds, its effect may still appear; `reconcile` is not called before.
        dependency: the name of its dependency; all calls with the same name share a breaker.
        costs: whether it can cost money or tokens. If so, it is opened with a durable record even if it is a `read`.
        facts: computes the facts about its answer for telemetry, from the answer, or from None if there is none. The result may hold
            `provider`, `model`, `response_model`, `response_id`, `finish_reasons`, `input_tokens`, `output_tokens`, `cached_tokens`,
            `reasoning_tokens`. Only called if there is an observer.
    """

    kind: str
    name: str
    effect: Effect
    args: bytes
    run: Callable[[StepContext], Awaitable[Any]]
    codec: Codec
    timeout_s: float = DEFAULT_TIMEOUT_S
    retry: Retry = Retry()
    failures: Rules = NO_RULES
    most: Usage = ONE_STEP
    meter: Callable[[Any], Usage] | None = None
    check: Callable[[Any], None] | None = None
    reconcile: Callable[[StepContext], Awaitable[Any]] | None = None
    settles_s: float = 0.0
    dependency: str | None = None
    costs: bool = False
    facts: Callable[[Any], dict[str, Any]] | None = None


def cost_of(error: BaseException) -> Usage | None:
    """The cost of a failed attempt, if its error has it; None: the cost is unknown, so the most that it can cost is charged."""
    usage = getattr(error, "holdfast_usage", None)
    return usage if isinstance(usage, Usage) else None


class Steps(Protocol):
    """The step pipeline of one session's turn, which runs calls."""

    async def run(self, call: Call) -> Any:
        """Run the call as a step. Returns its result, decoded from its record.

        Raises:
            StepError: it failed for good. The other errors are those of Session.step.
        If cancelled, the step ends before the turn does, with a record of what is known.
        """
        ...

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` concurrently with the handler, as a numbered branch that ends with the turn at the latest."""
        ...
