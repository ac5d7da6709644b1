"""The demo, small: real processes, a real SIGKILL, and the counting that has to notice a broken promise."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import pytest

from holdfast.console.demo import main as demo
from holdfast.console.demo import report as demo_report
from holdfast.console.demo.facts import Answered, Asked, Exchange, Fact, Kill, OpenStep, Repeats, refunds_made, repeats
from holdfast.console.demo.processes import Processes
from holdfast.console.demo.report import Scene, summary
from holdfast.console.demo.screen import Quiet
from holdfast.errors import ConfigError
from holdfast.policies.budget import Budget
from holdfast.stores.ops import Activate, CreateSession, UpdateSession
from holdfast.stores.records import Park
from holdfast.stores.sqlite.store import SqliteStore

SEED = 25  # a 429, a 503 and a cut stream, no stall
KILL = Kill(at=100.0, restarted=101.0, open=[OpenStep("refund", "ORD-1001")])


def exchange(
    at: float, ended: float = float("inf"), *, fingerprint: str = "f", said: str = "", heard: str = "", status: int = 200
) -> Exchange:
    """A request; whole if it ended with status 200, without an answer if it never ended."""
    asked = Asked(int(at * 10), at, fingerprint, "ORD-1001", 0, frozenset(heard.split()))
    if ended == float("inf"):
        return Exchange(asked)
    calls = [("refund", {"order_id": "ORD-1001", "cents": 500})] if status == 200 else []
    return Exchange(asked, Answered(asked.number, ended, "ORD-1001", status == 200, status, 10, 5, frozenset(said.split()), calls), ended)


def test_a_small_demo_keeps_its_promises_and_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    """Six sessions and the loop, one SIGKILL with steps open: every promise is kept, counted from outside."""
    assert demo.main(sessions=6, kills=1, seed=SEED, pace=0.2, deadline_s=50.0) == 0
    shown = capsys.readouterr().out
    assert "kill -9 with" in shown
    assert "BROKEN" not in shown
    assert "Every promise was kept" in shown


def test_a_pause_is_told_once_until_there_is_an_answer_again() -> None:
    """A viewer learns why nothing moves, in one line a pause."""
    quiet = Quiet(5.0)
    assert [quiet.over(count, now) for count, now in [(0, 0.0), (0, 4.9), (0, 5.0), (0, 60.0), (1, 61.0), (1, 66.0), (1, 67.0)]] == [
        *(False, False, True, False),
        *(False, True, False),
    ]


async def test_sessions_that_a_breaker_holds_back_are_counted(tmp_path: Path) -> None:
    """From the database, as people see them in `ps`: one that waits for itself is not among them."""
    processes = Processes(tmp_path, tmp_path, {})
    assert processes.held_back() == 0
    store = SqliteStore(str(tmp_path / "sessions.db"))
    await store.open()
    for id, why in {"held": "breaker", "sleeps": "wait"}.items():
        create = CreateSession(id, "support", "shop", "", 1, b"", Budget(), b"", 1.0)
        await store.apply([create, Activate(id, 2.0), UpdateSession(id, 1, 3.0, status="parked", park=Park(why, ""))])
    await store.close()
    assert processes.held_back() == 1


def test_an_installed_package_without_examples_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The demo needs a checkout, and does not end in a traceback where there is none."""
    monkeypatch.setattr("holdfast.__file__", str(tmp_path / "site-packages" / "holdfast" / "__init__.py"))
    with pytest.raises(ConfigError, match="clone the repository and run make demo"):
        demo.main(sessions=1, kills=0)


def test_what_the_report_takes_from_the_example_is_what_the_example_has() -> None:
    """The looping session, its order, its budget, the model and the tools are named alike on both sides."""
    app, customers, shop = (importlib.import_module(f"examples.support.{name}") for name in ("app", "customers", "shop"))
    assert (customers.LOOPER, shop.order_id(0), app.MODEL) == (demo_report.LOOPER, demo_report.LOOP_ORDER, demo_report.MODEL)
    assert (app.support.budget.steps, len(customers.messages("ORD-1"))) == (demo_report.LOOP_STEPS, demo_report.TURNS)
    assert {tool.name for tool in app.support.tools} == set(demo_report.TOOLS)


def test_a_request_made_again_after_an_answer_long_before_the_kill_is_bought_twice() -> None:
    """What was answered more than half a second before the kill had to be recorded."""
    assert repeats([exchange(90.0, 99.0), exchange(101.5, 102.0)], [KILL]) == Repeats(1, 0, 0)


def test_a_request_made_again_without_a_kill_is_bought_twice() -> None:
    """There is no excuse where nothing was killed."""
    assert repeats([exchange(90.0, 91.0), exchange(92.0, 93.0)], []) == Repeats(1, 0, 0)


def test_an_answer_that_was_used_is_bought_twice_even_just_before_the_kill() -> None:
    """Its tool call showed up in a later conversation, so it had been recorded."""
    used = exchange(99.8, 99.9, said="call_1")
    follow = exchange(99.95, fingerprint="g", heard="call_1")
    assert repeats([used, follow, exchange(101.5, 102.0)], [KILL]) == Repeats(1, 0, 0)


@pytest.mark.parametrize(
    ("first", "lost"),
    [(exchange(99.0), 0), (exchange(99.0, 99.8), 1), (exchange(99.0, 100.4), 1)],
    ids=["no answer", "answered just before", "answered after"],
)
def test_a_request_in_flight_at_the_kill_is_maybe_paid(first: Exchange, lost: int) -> None:
    """Nobody was left to write its answer down."""
    assert repeats([first, exchange(101.5, 102.0)], [KILL]) == Repeats(0, 1, lost)


def test_a_request_that_failed_is_an_ordinary_retry() -> None:
    """An answer with 503, or one that was given up long before the kill, cost nothing that is asked about here."""
    assert repeats([exchange(90.0, 90.1, status=503), exchange(91.0, 92.0)], []) == Repeats(0, 0, 0)
    assert repeats([exchange(99.8, 99.9, status=503), exchange(101.5, 102.0)], [KILL]) == Repeats(0, 0, 0)


def test_a_refund_that_was_paid_twice_breaks_the_promise(tmp_path: Path) -> None:
    """The ledger has no unique key: two payments are two lines, and the summary says so."""
    paid = Fact("refund", 1.0, order="ORD-1001", cents=500)
    log = [exchange(90.0, 91.0)]
    assert refunds_made([paid, paid]) == Counter({("ORD-1001", 500): 2})
    rows = {row.what: row for row in summary(Scene(1, 0), [paid], log, [], tmp_path)}
    assert rows["refunds asked / made"].kept is True
    rows = {row.what: row for row in summary(Scene(1, 0), [paid, paid], log, [], tmp_path)}
    assert (rows["refunds asked / made"].figure, rows["refunds asked / made"].kept) == ("1 / 2", False)
