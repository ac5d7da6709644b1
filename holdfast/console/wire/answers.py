"""The answers of the control API other than the views of `ps` and `show`. The same structs encode an answer and describe it in the OpenAPI
document."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.console.reading.amounts import Amounts
from holdfast.console.wire.problems import Problem

HEARTBEAT_S = 10.0
"""How often, in seconds, a stream without events sends a heartbeat of its process."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all bodies of answers that are no error."""


class Spawned(Answer, frozen=True, kw_only=True):
    """The session; `created` is False if it existed already."""

    session: str
    agent: str
    tenant: str
    status: str
    created: bool = True


class Accepted(Answer, frozen=True, kw_only=True):
    """The message is durable; `id` is its id."""

    session: str
    id: str


class Replied(Answer, frozen=True, kw_only=True):
    """The reply to a message."""

    session: str
    id: str
    reply: Any


class Finished(Answer, frozen=True, kw_only=True):
    """The result of a finished session."""

    session: str
    result: Any


class Did(Answer, frozen=True, kw_only=True):
    """The outcome of a verb.

    Attributes:
        changed: False if there was nothing to do: the session had ended before, no effect was in doubt, or no step was in flight.
        count: resolved effects or interrupted attempts; None for other verbs.
    """

    session: str
    verb: str
    changed: bool = True
    count: int | None = None


class One(Answer, frozen=True, kw_only=True):
    """The outcome of a verb for one of many sessions; `problem` is the reason why it failed, None if it succeeded or would succeed."""

    session: str
    agent: str
    status: str
    why: str | None
    changed: bool
    problem: Problem | None = None


class DidMany(Answer, frozen=True, kw_only=True):
    """The outcome of a verb for many sessions; with `dry_run` it changed none of them. `more`: there are more than its limit."""

    verb: str
    dry_run: bool
    sessions: list[One]
    more: bool


class AgentView(Answer, frozen=True, kw_only=True):
    """An agent that this process can run."""

    name: str
    version: int
    tools: list[str]
    limits: Amounts
    mailbox: int


class Check(Answer, frozen=True, kw_only=True):
    """One check of `doctor`.

    Attributes:
        level: "ok"; "warning": sessions or dependencies need a look, the process itself does not; "fail": the process or its store is
            not healthy, or a person has to act on it.
        text: the finding, in one line.
    """

    name: str
    level: str
    text: str


class Diagnosis(Answer, frozen=True, kw_only=True):
    """All checks of `doctor`; `healthy` if none failed. Warnings do not count."""

    healthy: bool
    process: int
    checks: list[Check]


class Statistics(Answer, frozen=True, kw_only=True):
    """Counts of a process, as Runtime.statistics has them, with store time."""

    process: int
    at: float
    started: float
    counts: dict[str, int]
    sessions: dict[str, int]


class Happened(Answer, frozen=True, kw_only=True):
    """One event: the name of its class in holdfast.events, wall-clock time, its session, and its other fields."""

    event: str
    at: float
    session: str
    fields: dict[str, Any]


class Dropped(Answer, frozen=True, kw_only=True):
    """How many events this reader lost because it was too slow, since the last such message; sent as `event: dropped`."""

    dropped: int
