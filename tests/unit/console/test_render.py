"""What `ps` prints on a terminal or into a pipe: its head, and the names of reasons."""

from __future__ import annotations

import socket

import pytest

from holdfast.console.cli import render, words
from holdfast.console.reading.amounts import Amounts
from holdfast.console.reading.line import Line
from holdfast.console.reading.views import Overview
from holdfast.console.wire.answers import Did, DidMany, One
from holdfast.runtime.sessions.rewinding import EffectSince, Rewound


def line(status: str, reason: str | None) -> Line:
    return Line(
        session="s", agent="a", tenant="t", status=status, reason=reason, why="", next="", asks_a_person=False, turn=0, queued=0, steps=0,
        used=Amounts(), limits=Amounts(), dependency="", until=None, updated=1.0, age_s=0.0,
    )  # fmt: skip


def overview(*lines: Line, stuck: int = 0, **counts: int) -> Overview:
    return Overview(store="here", process=7, host=socket.gethostname(), clean=True, counts=counts, sessions=list(lines), stuck=stuck)


@pytest.mark.parametrize(
    ("status", "reason", "read"),
    [
        ("parked", "doubt", "parked (outcome unknown)"),
        ("cancelled", "doubt", "cancelled (outcome unknown)"),
        ("parked", "reconcile", "parked (waits for reconcile)"),
        ("parked", "budget", "parked (budget)"),
        ("idle", None, "idle"),
    ],
)
def test_a_status_is_printed_with_its_reason(status: str, reason: str | None, read: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same in `ps` and in the list of what a verb did to many."""
    render.ps(overview(line(status, reason)), all=False)
    assert read in capsys.readouterr().out
    words.did_many(
        DidMany(verb="kill", dry_run=True, sessions=[One(session="s", agent="a", status=status, why=reason, changed=True)], more=False)
    )
    assert read in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stuck", "head"),
    [(0, "run by process 7; "), (1, "run by process 7, 1 attempt stuck: holdfast doctor; "), (3, "7, 3 attempts stuck: ")],
)
def test_the_head_of_ps_counts_attempts_that_are_stuck(stuck: int, head: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And names the command that says more."""
    render.ps(overview(stuck=stuck), all=False)
    assert head in capsys.readouterr().out


def test_ended_sessions_that_are_listed_are_not_counted_as_more(capsys: pytest.CaptureFixture[str]) -> None:
    """One in doubt is in the list without --all."""
    for cancelled, more in ((1, False), (3, True)):
        render.ps(overview(line("cancelled", "doubt"), cancelled=cancelled), all=False)
        assert ("2 more have ended" in capsys.readouterr().out) is more


def test_a_rewind_lists_the_effects_since(capsys: pytest.CaptureFixture[str]) -> None:
    words.rewound(Rewound(session="s", turn=1, as_turn=4, effects=[EffectSince(2, "pay"), EffectSince(3, "pay")], changed=False))
    assert capsys.readouterr().out.splitlines() == [
        "s: would have the state after turn 1, as turn 4",
        "  turn 2: pay was done, and stays done",
        "  turn 3: pay was done, and stays done",
    ]


@pytest.mark.parametrize(
    ("did", "kept", "read"),
    [
        (Did(session="s", verb="interrupt", count=2), False, "2 attempts interrupted"),
        (Did(session="s", verb="interrupt", changed=False, count=0), False, "no such step is in flight"),
        (Did(session="s", verb="drop"), False, "dropped"),
        (Did(session="s", verb="drop"), True, "turn given up; its message is a dead letter"),
    ],
)
def test_each_verb_says_what_it_did(did: Did, kept: bool, read: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On one line."""
    words.did(did, letter_kept=kept)
    assert capsys.readouterr().out == f"s: {read}\n"
