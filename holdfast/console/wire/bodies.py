"""The requests of the control API, with their limits. The same structs decode a request and describe it in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from holdfast.policies.budget import Budget
from holdfast.runtime.agents.ids import MAX_CHARS, MAX_REASON

WAIT_S = 3600.0
"""The longest wait of one request, in seconds; a client that waits longer sends it again."""

MAX_BODY = 1 << 20
"""The most bytes of the body of a request."""

MAX_LISTED = 100_000
"""The most sessions that one answer may list, and one request may act on."""

MOST = 1 << 53
"""The highest amount of any kind: every reader of JSON reads whole numbers up to it exactly."""

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_CHARS, description="Printable text.")]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_CHARS)]
Reason: TypeAlias = Annotated[str, Meta(max_length=MAX_REASON, description="Why; kept in the log, and in the outcome if there is one.")]
Wait: TypeAlias = Annotated[float, Meta(ge=0, le=WAIT_S, description="Seconds.")]
Amount: TypeAlias = Annotated[int, Meta(ge=0, le=MOST)]
Microusd: TypeAlias = Annotated[int, Meta(ge=0, le=MOST, description="Millionths of a dollar.")]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]
Verdict: TypeAlias = Literal["done", "retry", "fail"]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of all bodies: an unknown field is an error and not ignored."""


class Limits(Request, frozen=True, kw_only=True):
    """Amounts of a budget. An amount that is left out is no limit; in a raise it adds nothing."""

    steps: Amount | None = None
    tokens: Amount | None = None
    microusd: Microusd | None = None
    seconds: Seconds | None = None
    tool_calls: Amount | None = None

    def budget(self) -> Budget:
        """The same as a Budget."""
        return budget_of(self.steps, self.tokens, self.microusd, self.seconds, self.tool_calls)


def budget_of(steps: int | None, tokens: int | None, microusd: int | None, seconds: float | None, tool_calls: int | None) -> Budget:
    """A Budget of millionths of a dollar, which are exact."""
    from decimal import Decimal

    usd = None if microusd is None else Decimal(microusd).scaleb(-6)
    return Budget(steps=steps, tokens=tokens, usd=usd, seconds=seconds, tool_calls=tool_calls)


class Spawn(Request, frozen=True, kw_only=True):
    """A session to get or create. Fields that are left out have the agent's values; the id is a new one."""

    agent: Name
    id: Id | None = None
    tenant: Name = "default"
    user: Annotated[str, Meta(max_length=MAX_CHARS)] = ""
    state: Any = None
    budget: Limits | None = None


class Tell(Request, frozen=True, kw_only=True):
    """A message. A second one with the same id changes nothing."""

    message: Any
    id: Id | None = None


class Ask(Request, frozen=True, kw_only=True):
    """A message, to wait for its reply."""

    message: Any
    id: Id | None = None
    timeout_s: Wait = 60.0


class Because(Request, frozen=True, kw_only=True):
    """A verb with a reason only."""

    reason: Reason = ""


class Drop(Because, frozen=True, kw_only=True):
    """An open turn to give up. `keep_letter`: its message becomes a dead letter, which can be retried, and is not dropped for good."""

    keep_letter: bool = False


class Interrupt(Because, frozen=True, kw_only=True):
    """Attempts to end: those of this step name, or all in flight."""

    step: Name | None = None


class Settle(Request, frozen=True, kw_only=True):
    """The outcome of effects in doubt: "done", with `result`; "retry": they did not happen, run them; "fail": they did not happen, fail the
    steps.

    A session that has ended runs no step: there, "retry" and "fail" both mean that they did not happen. `step` is their name, or the key of
    one of them in hexadecimal.
    """

    verdict: Verdict
    step: Name | None = None
    result: Any = None
    reason: Reason = ""


class Rewind(Because, frozen=True, kw_only=True):
    """The turn whose state comes back: 0 is the state that the session was spawned with. `dry_run`: only list the effects since then."""

    turn: Amount
    dry_run: bool = False


class Raise(Request, frozen=True, kw_only=True):
    """The amounts to add to the limits of a session."""

    by: Limits
    reason: Reason = ""


class Many(Request, frozen=True, kw_only=True):
    """The sessions that a verb acts on: those that match every filter. `all` is needed if there is no filter.

    Attributes:
        why: the reason of their park, such as "doubt" or "budget"; `resolve` also finds those that have ended in doubt.
        dependency: the dependency that they are parked for.
        dry_run: only list them.
        limit: how many at most; default 1,000, or all that wait for a dependency.
    """

    status: Name | None = None
    agent: Name | None = None
    tenant: Name | None = None
    why: Name | None = None
    dependency: Name | None = None
    all: bool = False
    dry_run: bool = False
    reason: Reason = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_LISTED)] | None = None


class DropMany(Many, frozen=True, kw_only=True):
    """As `Many`, for open turns to give up; by default those of failed sessions."""

    keep_letter: bool = False


class InterruptMany(Many, frozen=True, kw_only=True):
    """As `Many`, for attempts to end."""

    step: Name | None = None


class SettleMany(Many, frozen=True, kw_only=True):
    """As `Many`, for effects in doubt: their outcome."""

    verdict: Verdict
    step: Name | None = None
    result: Any = None
