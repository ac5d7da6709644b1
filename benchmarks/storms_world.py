"""The outside world of the storms: the runs and effects of the tools, which holdfast does not see, and the counts of them.

No effect but the note looks for its key first: a second run of it would be a second effect. For each run the world knows whether it
returned, so it can tell whether the outcome of an effect was known where a person was asked for it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

ONCE = ("pay", "charge")
"""The tools whose effects must not happen twice; only the first has a `reconcile`."""

STEPS = ("look", "answer", "note", *ONCE, "confirm")


@dataclass
class Runs:
    """The runs of one tool for one message.

    Attributes:
        begun: how many began.
        made: how many effects they made.
        returned: how many handed their result to holdfast.
    """

    begun: int = 0
    made: int = 0
    returned: int = 0

    @property
    def known(self) -> bool:
        """Whether holdfast was handed the outcome of each run that began; no run was cut."""
        return self.begun == self.returned


@dataclass
class World:
    """The accounts of one storm.

    Attributes:
        runs: by session, message and tool.
        keys: the idempotency keys of the notes made.
        accepted: the messages, by session, of which a `tell` returned.
        answers: the answers, by session and message.
        down_s: how long the store took no write, in seconds.
        unsure: the same as in `Count`.
        refused: how many calls from outside raised an error of the store.
        reconciled: how often `reconcile` was asked.
        known, unknown: by session, why a person was asked: although the outcome was known, or because a run was cut.
    """

    runs: defaultdict[tuple[str, str, str], Runs] = field(default_factory=lambda: defaultdict(Runs))
    keys: set[str] = field(default_factory=set)
    accepted: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    answers: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    down_s: float = 0.0
    unsure: int = 0
    refused: int = 0
    reconciled: int = 0
    known: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


@dataclass
class Count:
    """The counts of one storm; see `promises` for those that must be 0.

    Attributes:
        down_s: seconds in which the store took no write; 0 where the storm did not reach it.
        unsure: writes of turns, each of which had no known outcome, and the turns that were read again for that.
        refused: calls from outside that raised an error of the store.
        accepted, lost: messages, and those without an answer at the end.
        twice, missing: effects (notes and the two `once` ones) that happened twice, and that did not happen in an answered message.
        paid_again: paid answers that were requested again although holdfast had been handed one.
        cut: runs of tools that did not return.
        reconciled: calls of `reconcile`.
        person_known: sessions that needed a person although the outcome was known.
        person_unknown: those that needed one because a run was cut.
        done_s: seconds from the end of the storm until each accepted message was answered, without a person.
    """

    down_s: float = 0.0
    unsure: int = 0
    refused: int = 0
    accepted: int = 0
    lost: int = 0
    wrong: int = 0
    twice: int = 0
    missing: int = 0
    paid_again: int = 0
    cut: int = 0
    reconciled: int = 0
    person_known: int = 0
    person_unknown: int = 0
    done_s: float = 0.0


def count(world: World, done_s: float) -> Count:
    """Compare the messages that were accepted and answered with the runs and effects."""
    result = Count(world.down_s, world.unsure, world.refused, reconciled=world.reconciled, done_s=done_s)
    result.person_known, result.person_unknown = len(world.known), len(world.unknown)
    for session, messages in world.accepted.items():
        result.accepted += len(messages)
        for message in messages:
            answer, runs = world.answers[session].get(message), {tool: world.runs[session, message, tool] for tool in STEPS}
            result.lost += answer is None
            result.wrong += answer not in (None, f"done {message}")
            result.twice += sum(max(runs[tool].made - 1, 0) for tool in ("note", *ONCE))
            result.missing += answer is not None and any(runs[tool].made == 0 for tool in ("note", *ONCE))
            result.paid_again += max(runs["answer"].returned - 1, 0)
            result.cut += sum(run.begun - run.returned for run in runs.values())
    return result


def broken(result: Count, *, quiet: bool) -> list[str]:
    """The promises that a storm broke, one line each.

    Args:
        quiet: nothing was to fail.
    """
    none = {
        "lost": "accepted messages were lost",
        "wrong": "answers were wrong",
        "twice": "effects happened twice",
        "missing": "effects are missing",
        "paid_again": "paid answers were requested again although holdfast had them",
        "person_known": "sessions needed a person although the outcome was known",
        "person_unknown": "sessions needed a person, since a run was cut",
    }
    found = [f"{text}: {getattr(result, name)}, expected 0" for name, text in none.items() if getattr(result, name)]
    if not quiet and result.down_s == 0:
        found.append("the storm did not reach the store: no write failed")
    return found
