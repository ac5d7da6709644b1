"""The demo's figures and how it counts them: from books that holdfast does not keep.

- `ledger.jsonl`: a line for each real run of a tool, appended and synced by the tool itself; no column in it is unique. The process also
  records which answers customers got and which steps it replayed.
- `model.jsonl`: the model server's own log of its requests and answers.
- `shop.db`: the notes that the shop has.

**An answer paid for twice** is a request that is made again (same fingerprint: the whole conversation) after it was answered in full,
unless that answer was in flight at a kill. An answer is in flight if its request came before the restart of the process, had not ended
`FLIGHT_S` before the kill, and does not occur in any later conversation (each tool call that the server makes up has an id of its own):
there was an answer, but the process died before it could record it. Such a request, made again, is `maybe paid`, like one that the kill cut
off before its answer.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

FLIGHT_S = 0.5
"""How long before a kill an answer may have left the server and still not be recorded, in seconds: it has to be read, decoded and
committed."""

T = TypeVar("T")


class Fact(msgspec.Struct, frozen=True):
    """A line of the ledger; fields that do not apply to its `what` are empty."""

    what: str
    at: float
    order: str = ""
    cents: int = 0
    session: str = ""
    message: int = 0
    text: str = ""
    name: str = ""


class Asked(msgspec.Struct, frozen=True, tag_field="what", tag="asked"):
    """The model server got a request; `heard` are the ids of all tool calls in its conversation."""

    number: int
    at: float
    fingerprint: str
    order: str
    position: int
    heard: frozenset[str]


class Answered(msgspec.Struct, frozen=True, tag_field="what", tag="answered"):
    """The model server answered; `whole` if the caller got the whole answer; `call_ids` are the ids of the tool calls in it."""

    number: int
    at: float
    order: str
    whole: bool
    status: int
    tokens_in: int
    tokens_out: int
    call_ids: frozenset[str]
    calls: list[tuple[str, dict[str, Any]]]


class Left(msgspec.Struct, frozen=True, tag_field="what", tag="left"):
    """The caller hung up before it had its answer."""

    number: int
    at: float


class OpenStep(msgspec.Struct, frozen=True):
    """A step that had begun and not ended; `order` is the order of a tool's step."""

    name: str
    order: str = ""


class Kill(msgspec.Struct, frozen=True):
    """The process was killed at `at`, with steps open, and started again at `restarted`."""

    at: float
    restarted: float
    open: list[OpenStep]


class Tail(Generic[T]):
    """The lines of a file that grows."""

    def __init__(self, path: Path, type_: Any) -> None:
        self._path, self._decode, self._at = path, msgspec.json.Decoder(type_).decode, 0
        self.lines: list[T] = []

    def read(self) -> list[T]:
        """The new lines; a line that is not complete yet waits for the next call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        new: list[T] = [self._decode(line) for line in whole.splitlines()]
        self.lines += new
        return new


class Exchange(msgspec.Struct):
    """One request to the model server, and its outcome."""

    asked: Asked
    answer: Answered | None = None
    ended: float = float("inf")

    @property
    def whole(self) -> bool:
        """Whether it was answered in full."""
        return self.answer is not None and self.answer.whole


def exchanges(log: Iterable[Asked | Answered | Left]) -> list[Exchange]:
    """The server's log as requests with their answers, in order of the requests."""
    found: dict[int, Exchange] = {}
    for line in log:
        if isinstance(line, Asked):
            found[line.number] = Exchange(line)
        else:
            found[line.number].ended = line.at
            found[line.number].answer = line if isinstance(line, Answered) else None
    return list(found.values())


class Repeats(msgspec.Struct, frozen=True):
    """Requests that were made again: after a whole answer that should have been recorded; because they were in flight at a kill; and how
    many of the latter had been answered in full."""

    requested_twice: int
    maybe_paid: int
    lost: int


def repeats(all_: Sequence[Exchange], kills: Sequence[Kill]) -> Repeats:
    """Sort the requests that were made more than once. See the head of this module."""
    heard: dict[str, float] = {}
    groups: dict[str, list[Exchange]] = defaultdict(list)
    for exchange in all_:
        groups[exchange.asked.fingerprint].append(exchange)
        for id in exchange.asked.heard:
            heard.setdefault(id, exchange.asked.at)
    twice = maybe = lost = 0
    for group in groups.values():
        for first, again in pairwise(group):
            flew = _in_flight(first, again, kills)
            used = first.answer is not None and any(heard.get(id, float("inf")) < again.asked.at for id in first.answer.call_ids)
            if first.whole and (used or not flew):
                twice += 1
            elif flew:
                maybe += 1
                lost += first.whole
    return Repeats(twice, maybe, lost)


def _in_flight(first: Exchange, again: Exchange, kills: Sequence[Kill]) -> bool:
    """Whether a kill came between the request and its answer's record, as far as one can tell from outside."""
    at = bisect_right([kill.restarted for kill in kills], first.asked.at)
    if at == len(kills):
        return False
    failed = first.answer is not None and not first.whole and first.ended < kills[at].at
    return not failed and first.ended >= kills[at].at - FLIGHT_S and again.asked.at >= kills[at].restarted


def notes_kept(folder: Path) -> int:
    """The number of notes in the shop."""
    if not (folder / "shop.db").exists():
        return 0
    shop = sqlite3.connect(f"file:{folder / 'shop.db'}?mode=ro", uri=True)
    try:
        return int(shop.execute("SELECT count(*) FROM notes").fetchone()[0])
    finally:
        shop.close()


def calls_asked(all_: Iterable[Exchange], name: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The calls that the model asked for: their arguments, by the place in the conversation (an answer given twice is one place)."""
    return {
        (each.asked.order, each.asked.position): arguments
        for each in all_
        if each.answer is not None and each.whole
        for called, arguments in each.answer.calls
        if called == name
    }


def refunds_made(ledger: Iterable[Fact]) -> Counter[tuple[str, int]]:
    """The number of payments by the bank, by order and amount: more than 1 is a double payment."""
    return Counter((fact.order, fact.cents) for fact in ledger if fact.what == "refund")
