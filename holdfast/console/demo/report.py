"""The end of the demo: the table with its figures and the promises that it kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from holdfast.calls.models.prices import Prices
from holdfast.console.demo.facts import Exchange, Fact, Kill, calls_asked, notes_kept, refunds_made, repeats

# As examples/support has them.
TURNS = 3
TOOLS = ("find_order", "add_note", "refund")
MODEL = "gpt-4o-mini"
LOOPER, LOOP_ORDER, LOOP_STEPS = "looper", "ORD-1000", 40
GIVEN_UP_S = 3.5  # its client gives up after 4


class Row(msgspec.Struct, frozen=True):
    """One line of the summary; `kept` is None if there is no promise."""

    what: str
    figure: str
    kept: bool | None = None
    source: str = ""


class Scene(msgspec.Struct, frozen=True):
    """The number of sessions, without the one that loops, and of kills."""

    sessions: int
    kills: int


def done(ledger: Iterable[Fact]) -> set[str]:
    """Sessions whose customer has the answer to every message."""
    answers: dict[str, set[int]] = {}
    for fact in ledger:
        if fact.what == "answer":
            answers.setdefault(fact.session, set()).add(fact.message)
    return {session for session, got in answers.items() if len(got) >= (1 if session == LOOPER else TURNS)}


def summary(scene: Scene, ledger: Sequence[Fact], log: Sequence[Exchange], kills: Sequence[Kill], folder: Path) -> list[Row]:
    """The figures, each with the book from which it was counted."""
    finished = done(ledger) - {LOOPER}
    runs = Counter(fact.what for fact in ledger)
    again = repeats(log, kills)
    rows = [
        Row("sessions done", f"{len(finished)} of {scene.sessions}", len(finished) == scene.sessions, "customers"),
        Row(
            "kills with steps open",
            _kills(kills, scene),
            sum(bool(kill.open) for kill in kills) == scene.kills,
            "database",
        ),
        Row("steps run", f"{sum(runs[tool] for tool in TOOLS) + sum(each.whole for each in log)}", None, "ledger, server"),
        Row(
            "steps replayed",
            f"{runs['replayed']}",
            runs["replayed"] > 0 if scene.kills else None,
            "process",
        ),
        _refunds(scene, ledger, log),
        _doubts(ledger, kills),
        _notes(log, folder),
        Row("answers paid for twice", f"{again.requested_twice}", again.requested_twice == 0, "server"),
        Row("maybe_paid", f"{again.maybe_paid} ({again.lost} answered in full)", None, "server"),
        *_failures(log),
        _loop(ledger, log, kills),
    ]
    return rows


def _kills(kills: Sequence[Kill], scene: Scene) -> str:
    counts = ", ".join(str(len(kill.open)) for kill in kills)
    return f"{sum(bool(kill.open) for kill in kills)} of {scene.kills}" + (f" ({counts})" if kills else "")


def _refunds(scene: Scene, ledger: Sequence[Fact], log: Sequence[Exchange]) -> Row:
    asked = Counter((str(each["order_id"]), int(each["cents"])) for each in calls_asked(log, "refund").values())
    made = refunds_made(ledger)
    return Row(
        "refunds asked / made",
        f"{asked.total()} / {made.total()}",
        asked == made and asked.total() == scene.sessions,
        "server, ledger",
    )


def paid_and_open(ledger: Iterable[Fact], kill: Kill) -> int:
    """Refunds that the bank had paid at the kill, and holdfast had not recorded."""
    paid = {fact.order for fact in ledger if fact.what == "refund" and fact.at <= kill.restarted}
    return sum(step.name == "refund" and step.order in paid for step in kill.open)


def _doubts(ledger: Sequence[Fact], kills: Sequence[Kill]) -> Row:
    begun = sum(step.name == "refund" for kill in kills for step in kill.open)
    paid = sum(paid_and_open(ledger, kill) for kill in kills)
    return Row("refunds cut by a kill", f"{begun} ({paid} already paid)", None, "database, ledger")


def _notes(log: Sequence[Exchange], folder: Path) -> Row:
    asked, kept = len(calls_asked(log, "add_note")), notes_kept(folder)
    return Row("notes asked / kept", f"{asked} / {kept}", asked == kept and asked > 0, "server, shop")


def _failures(log: Sequence[Exchange]) -> list[Row]:
    answers = [each.answer for each in log if each.answer is not None]
    limited, down = (sum(answer.status == status for answer in answers) for status in (429, 503))
    cut = sum(answer.status == 200 and not answer.whole for answer in answers)
    stalled = sum(each.answer is None and GIVEN_UP_S <= each.ended - each.asked.at < float("inf") for each in log)
    return [
        Row("refused with 429 / 503", f"{limited} / {down}", None, "server"),
        Row("streams cut / calls stalled", f"{cut} / {stalled}", None, "server"),
    ]


def _loop(ledger: Sequence[Fact], log: Sequence[Exchange], kills: Sequence[Kill]) -> Row:
    answers = [each.answer for each in log if each.asked.order == LOOP_ORDER and each.answer is not None and each.whole]
    tools = sum(fact.what in TOOLS and fact.order == LOOP_ORDER for fact in ledger)
    prices = Prices()
    cost = sum(prices.price(MODEL, None, each.tokens_in, each.tokens_out) or 0 for each in answers)
    # The model never gives it an answer: if the customer has one, the agent gave up by itself.
    stopped = any(fact.what == "answer" and fact.session == LOOPER for fact in ledger)
    figure = f"{len(answers) + tools} steps, ${cost / 1_000_000:.4f}" if stopped else "not stopped"
    # A free read that a kill cuts off has no record, so it is not charged.
    kept = stopped and len(answers) + tools <= LOOP_STEPS + len(kills)
    return Row("loop, stopped by its budget", figure, kept, "server, ledger")
