"""The outside world of the soak: the effects of the tools, in files that holdfast does not know, and the counts of them.

A ledger line is appended and synced at the begin and the end of every run of a tool; no field is unique, so that a second run is visible.
Effects are lines in one account a session: a `note` looks for its key first, as a service that takes idempotency keys does; a `pay` does
not look, and would be made twice by a second run.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.soak_shapes import SHAPES

ORDER = {"look": 0, "answer": 1, "note": 1, "pay": 1, "fresh": 1, "stale": 1, "confirm": 2}
"""The place of each step in its turn; those between the first and the last come in the order of the message's shape."""

PLAIN = {"look": 0, "answer": 1, "note": 2, "pay": 3, "confirm": 4}
"""The place of each step if they run one after the other."""


def shape_of(message: str) -> str:
    """The shape (of `soak_shapes`) of the handler of a message such as "m17"."""
    names = list(SHAPES)
    return names[int(message[1:]) % len(names)]


class World:
    """The files below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("notes", "payments"):
            (directory / name).mkdir(exist_ok=True)
        self._ledger = os.open(directory / "ledger.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def log(self, event: str, **fields: Any) -> None:
        """One synced line."""
        os.write(self._ledger, json.dumps({"event": event, **fields}).encode() + b"\n")
        os.fsync(self._ledger)

    def append(self, account: str, session: str, line: str) -> None:
        """Make an effect: append one synced line to an account."""
        file = os.open(self.directory / account / session, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, line.encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)

    def lines(self, account: str, session: str) -> list[str]:
        """The effects made for a session."""
        path = self.directory / account / session
        return path.read_text().splitlines() if path.exists() else []

    def ledger(self) -> Iterator[dict[str, Any]]:
        """All whole lines so far."""
        with open(self.directory / "ledger.jsonl") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)


@dataclass
class Count:
    """The counts from outside."""

    kills: int = 0
    kills_with_open_step: int = 0
    open_steps_at_kills: int = 0
    runs: int = 0
    accepted: int = 0
    lost: int = 0
    wrong_answers: int = 0
    notes_run: int = 0
    notes_applied_twice: int = 0
    notes_missing: int = 0
    payments: int = 0
    payments_twice: int = 0
    payments_missing: int = 0
    asked_again: int = 0
    both_ways: int = 0
    reconciled: int = 0
    unsettled: int = 0
    faults: list[str] = field(default_factory=list)


def count(world: World, answers: dict[str, dict[str, str]], unsettled: int) -> Count:
    """Compare the ledger, the accounts and the sessions' answers (by session and message)."""
    result = Count(unsettled=unsettled)
    running: Counter[tuple[str, str, str]] = Counter()
    furthest: dict[tuple[str, str], int] = {}
    accepted: set[tuple[str, str]] = set()
    ways: dict[tuple[str, str], set[str]] = {}
    for line in world.ledger():
        event = line["event"]
        if event == "kill":
            result.kills += 1
            result.kills_with_open_step += bool(running)
            result.open_steps_at_kills += sum(running.values())
            running.clear()
        elif event == "accepted":
            accepted.add((line["session"], line["message"]))
        elif event == "reconcile":
            result.reconciled += 1
        elif event == "begin":
            turn = (line["session"], line["message"])
            place = (PLAIN if shape_of(turn[1]) == "plain" else ORDER)[line["tool"]]
            if line["tool"] in ("fresh", "stale"):
                ways.setdefault(turn, set()).add(line["tool"])
            running[*turn, line["tool"]] += 1
            result.runs += 1
            result.notes_run += line["tool"] == "note"
            # A later step has begun, so the handler had this step's answer, so it was recorded.
            if place < furthest.get(turn, 0):
                result.asked_again += 1
                result.faults.append(f"{turn}, {shape_of(turn[1])}: {line['tool']} ran after a step that follows it")
            furthest[turn] = max(place, furthest.get(turn, 0))
        elif event == "end":
            running -= Counter([(line["session"], line["message"], line["tool"])])
    result.accepted = len(accepted)
    both = [turn for turn, gone in ways.items() if len(gone) > 1]
    result.both_ways = len(both)
    result.faults += [f"{turn}, {shape_of(turn[1])}: went both ways" for turn in both]
    sessions = {session for session, _ in accepted}
    notes = {s: Counter(line.split()[0] for line in world.lines("notes", s)) for s in sessions}
    payments = {s: Counter(line.split()[0] for line in world.lines("payments", s)) for s in sessions}
    for session, message in accepted:
        if message not in answers.get(session, {}):
            result.lost += 1
            result.faults.append(f"{session}: {message}, {shape_of(message)}, was accepted and not answered")
        elif answers[session][message] != f"done {message}":
            result.wrong_answers += 1
        result.notes_missing += notes[session][message] == 0
        result.payments_missing += payments[session][message] == 0
        if payments[session][message] != 1 or notes[session][message] != 1:
            done = f"{payments[session][message]} payments, {notes[session][message]} notes"
            result.faults.append(f"{session}: {message}, {shape_of(message)}: {done}")
    for session in sessions:
        result.payments += payments[session].total()
        result.notes_applied_twice += sum(n - 1 for n in notes[session].values())
        result.payments_twice += sum(n - 1 for n in payments[session].values())
    return result
