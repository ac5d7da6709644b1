"""What the control API gives beside the views of `ps` and `show`: the same structs encode an answer and describe it in its document."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.console.reading.amounts import Amounts
from holdfast.console.wire.problems import Problem

HEARTBEAT_S = 10.0
"""How often a stream of events says that its process is alive, where nothing happens."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all bodies of answers that are no error."""


class Spawned(Answer, frozen=True, kw_only=True):
    """The session that was got or made; `created` is False where it was there already."""

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
    """What a session finished with."""

    session: str
    result: Any


class Did(Answer, frozen=True, kw_only=True):
    """What a verb did.

    Attributes:
        changed: False where there was nothing to do: a session had ended before, none of its effects was in doubt, no step was in flight.
        count: effects that were resolved, attempts that were interrupted; None for other verbs.
    """

    session: str
    verb: str
    changed: bool = True
    count: int | None = None


class One(Answer, frozen=True, kw_only=True):
    """One session that a verb was meant for; `problem` says why it could not be done, and is None where it was or would be."""

    session: str
    agent: str
    status: str
    why: str | None
    changed: bool
    problem: Problem | None = None


class DidMany(Answer, frozen=True, kw_only=True):
    """What a verb did to many; with `dry_run` it would have, and did nothing. `more` says that there are more than its limit."""

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
    """One thing that `doctor` looked at.

    Attributes:
        level: "ok"; "warning": sessions or dependencies need a look, the process itself does not; "fail": the process or its store is
            not healthy, or a person has to act on it.
        text: the finding, in one line.
    """

    name: str
    level: str
    text: str


class Diagnosis(Answer, frozen=True, kw_only=True):
    """All that `doctor` looked at; `healthy` if no check failed, warnings or not."""

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
    """How many events this reader was too slow for, since it was told last; sent as `event: dropped`."""

    dropped: int
