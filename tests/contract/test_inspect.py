"""What people are told of sessions is the same over every store: the lines of `ps`, and the turns of `show`."""

from __future__ import annotations

import os
import shlex
from typing import Any

import msgspec
import pytest

from holdfast.console.reading import inspect, timeline
from holdfast.console.reading.line import Line
from holdfast.console.reading.views import Detail
from holdfast.errors import ConfigError, SessionNotFound
from holdfast.policies.budget import Budget, Usage
from holdfast.stores.ops import (
    Activate,
    CommitTurn,
    CreateSession,
    EndSession,
    Enqueue,
    FailTurn,
    Op,
    RetryLetter,
    UpdateSession,
    WriteStep,
)
from holdfast.stores.protocol import Store
from holdfast.stores.records import Address, Failure, Outcome, Park, StepRecord, StepState

pytestmark = pytest.mark.anyio

encode = msgspec.msgpack.encode
OK = encode(Outcome(value=encode("done")))
GONE = encode(Outcome(failure=Failure("TurnFailed", "", "ValueError", "no")))


def spawn(id: str, *, tenant: str = "acme", parent: Address | None = None, messages: int = 0) -> list[Op]:
    create = CreateSession(id, "support", tenant, "ann", 1, encode({"n": 0}), Budget(steps=5), b"", 1.0, parent)
    return [create, *(Enqueue(id, f"m{n}", encode(f"text {n}"), b"d", 2.0) for n in range(messages)), Activate(id, 3.0)]


def step(session: str, name: str, state: StepState, *, turn: int = 1, used: int = 1) -> WriteStep:
    outcome = Outcome(encode(name)) if state is StepState.CLOSED else None
    record = StepRecord("tool", name, "", b"d", 0, "once", outcome, encode([name]), used=Usage(steps=used), opened=4.0, closed=5.0)
    return WriteStep(session, 1, turn, name.encode(), state, encode(record))


def commit(session: str, turn: int) -> CommitTurn:
    state = encode({"n": turn})
    return CommitTurn(session, 1, turn, f"m{turn - 1}", state, 1, OK, "idle", Usage(steps=1), 5.0, 6.0 + turn)


def fail(session: str, message: str = "m0") -> FailTurn:
    return FailTurn(session, 1, 1, message, f"ValueError: {session}", ("refund",), GONE, 7.0)


def park(session: str, reason: str, **more: Any) -> UpdateSession:
    return UpdateSession(session, 1, 8.0, status="parked", park=Park(reason, f"{reason}!", **more))


async def lines(store: Store, **filters: Any) -> dict[str, Line]:
    return {line.session: line for line in (await inspect.overview(store, "here", now=10.0, **filters)).sessions}


async def detail(store: Store, id: str, **more: Any) -> Detail:
    return await inspect.detail(store, id, "here", now=10.0, **more)


async def test_an_overview_says_who_runs_the_store_and_counts_all_sessions(store: Store) -> None:
    """Whatever is filtered, the counts are of the whole store, in the order in which people read them."""
    await store.apply([*spawn("a"), *spawn("b", tenant="initech", messages=1), *spawn("c"), EndSession("c", "killed", GONE, 4.0)])
    view = await inspect.overview(store, "here", tenant="initech", now=10.0)
    assert (view.store, view.process) == ("here", os.getpid())
    assert list(view.counts.items()) == [("working", 1), ("idle", 1), ("killed", 1)]
    assert [line.session for line in view.sessions] == ["b"]
    assert set(await lines(store)) == {"a", "b"}
    assert set(await lines(store, ended=True, agent="support")) == {"a", "b", "c"}
    assert await lines(store, agent="sales") == {}
    with pytest.raises(ConfigError, match="use one of failed, parked"):
        await inspect.overview(store, status="dead")


async def test_a_line_says_why_and_names_the_command_that_helps(store: Store) -> None:
    """One command a reason, with the session's id; whoever goes on by itself needs none, and a person's own pause asks nobody."""
    parks = {"doubt": park("doubt", "doubt"), "paused": park("paused", "paused"), "wait": park("wait", "wait", until=70.0)}
    parks |= {"odd one": park("odd one", "migration"), "spent": park("spent", "budget"), "crashes": park("crashes", "crashes")}
    await store.apply([*spawn("bug", messages=1), fail("bug"), *[op for id, parked in parks.items() for op in (*spawn(id), parked)]])
    await store.apply([step("spent", "refund", StepState.CLOSED, used=5)])
    found = await lines(store)
    assert {id: (line.why, line.next) for id, line in found.items()} == {
        "bug": ("ValueError: bug", "fix the cause, then holdfast retry bug, or holdfast drop bug"),
        "doubt": ("doubt!", "holdfast resolve doubt 'done|retry|fail'"),
        "spent": ("budget!", "holdfast budget spent --steps ..."),
        "crashes": ("crashes!", "find out why the process died, then holdfast resume crashes"),
        "paused": ("paused!", "holdfast resume paused"),
        "odd one": ("migration!", "holdfast resume 'odd one'"),
        "wait": ("wait!", ""),
    }
    pasted = [word for line in found.values() for word in shlex.shlex(line.next, punctuation_chars=True)]
    assert not {"|", "&", ";", ">", "<"} & set(pasted), "a shell runs no part of a command that still needs a choice"
    assert {id for id, line in found.items() if line.asks_a_person} == {"bug", "doubt", "spent", "crashes"}
    assert (found["paused"].status, found["paused"].reason) == ("parked", "paused")


async def test_a_session_that_was_ended_in_the_middle_of_an_effect_says_so(store: Store) -> None:
    """Nobody knows whether it happened, and somebody can still find out and write it down."""
    outcome = msgspec.msgpack.encode(Outcome(failure=Failure("SessionEnded", "", "killed", "it misbehaved")))
    await store.apply([*spawn("s"), step("s", "refund", StepState.DOUBT), EndSession("s", "killed", outcome, 5.0)])
    line = (await lines(store, ended=True))["s"]
    assert (line.why, line.next) == ("it misbehaved; refund may or may not have happened", "holdfast resolve s 'done|retry|fail'")
    assert not line.asks_a_person


async def test_an_ended_session_that_left_a_doubt_asks_a_person_until_that_is_resolved(store: Store) -> None:
    """Listed without being asked for, in front of those that run; `show` also tells why it was ended."""
    outcome = encode(Outcome(failure=Failure("SessionEnded", "", "cancelled", "its parent has ended")))
    left = Park("doubt", "ended while the outcome of refund was unknown; resolve it: done, retry or fail")
    await store.apply([*spawn("idle"), *spawn("odd one"), step("odd one", "refund", StepState.DOUBT)])
    await store.apply([EndSession("odd one", "cancelled", outcome, 5.0, park=left)])
    line, _ = (await inspect.overview(store, now=10.0)).sessions
    assert (line.session, line.status, line.reason, line.asks_a_person) == ("odd one", "cancelled", "doubt", True)
    assert (line.why, line.next, line.until) == (left.text, "holdfast resolve 'odd one' 'done|retry|fail'", None)
    view = await detail(store, "odd one")
    assert (view.line, view.ended, view.result) == (line, "cancelled: its parent has ended", None)
    await store.apply([UpdateSession("odd one", 2, 11.0, status="cancelled")])
    assert set(await lines(store)) == {"idle"}
    line = (await lines(store, ended=True))["odd one"]
    assert (line.reason, line.asks_a_person) == (None, False)


async def test_a_failed_session_in_doubt_is_resolved_before_it_is_dropped(store: Store) -> None:
    """The letter tells the three kinds of effects apart, and the next command is the one that is not refused."""
    failed = msgspec.structs.replace(fail("s"), in_doubt=("wire",), failed=("book", "mail"))
    await store.apply([*spawn("s", messages=1), failed])
    line = (await lines(store))["s"]
    assert line.why == "ValueError: s; outcome unknown: wire"
    assert line.next == "holdfast resolve s 'done|retry|fail', then holdfast retry s, or holdfast drop s"
    (letter,) = (await detail(store, "s")).dead_letters
    assert (letter.effects, letter.in_doubt, letter.failed) == (["refund"], ["wire"], ["book", "mail"])
    entry = (await timeline.read(store, "s")).entries[-1]
    assert entry.text == "ValueError: s; done before it failed: refund; outcome unknown: wire; failed: book, mail"


async def test_a_session_that_reconciles_by_itself_needs_no_person(store: Store) -> None:
    """It says until when it waits, and names no command."""
    await store.apply([*spawn("s"), step("s", "refund", StepState.DOUBT), park("s", "reconcile", until=70.0)])
    line = (await lines(store))["s"]
    assert (line.reason, line.until, line.next, line.asks_a_person) == ("reconcile", 70.0, "", False)


async def test_a_session_whose_agent_is_gone_says_so_and_how_to_end_it(store: Store) -> None:
    """Only where the asker knows which agents there are; one that has ended needs no agent, and a doubt is resolved without one."""
    await store.apply([*spawn("idle"), *spawn("busy", messages=1), step("busy", "refund", StepState.OPEN)])
    await store.apply([*spawn("bug", messages=1), fail("bug"), *spawn("nap"), park("nap", "wait", until=70.0)])
    await store.apply([*spawn("unsure"), park("unsure", "doubt"), *spawn("over"), EndSession("over", "killed", GONE, 9.0)])
    assert await lines(store, agents={"support", "sales"}, ended=True) == await lines(store, ended=True)
    found = await lines(store, agents={"sales"}, ended=True)
    gone = "this process does not have agent 'support'"
    assert {id: line.why for id, line in found.items()} == {
        "idle": gone,
        "busy": gone,
        "bug": f"ValueError: bug; {gone}",
        "nap": f"wait!; {gone}",
        "unsure": f"doubt!; {gone}",
        "over": "no",
    }
    assert found["busy"].next == "add it to agents=, or holdfast cancel busy"
    assert found["unsure"].next == "holdfast resolve unsure 'done|retry|fail'"
    assert {id for id, line in found.items() if line.asks_a_person} == {"busy", "bug", "nap", "unsure"}
    assert (await detail(store, "bug", agents=())).line == found["bug"]


async def test_each_step_of_a_session_has_the_key_that_resolve_takes(store: Store) -> None:
    """In hexadecimal, as a person types it."""
    await store.apply([*spawn("s"), step("s", "refund", StepState.DOUBT), step("s", "wire", StepState.DOUBT)])
    (turn,) = (await detail(store, "s")).turns
    assert {bytes.fromhex(step.key): step.name for step in turn.steps} == {b"refund": "refund", b"wire": "wire"}


async def test_many_failed_sessions_have_each_its_own_cause(store: Store) -> None:
    """However the letters are read, and also where a session that has ended left one."""
    ids = [f"s{n}" for n in range(25)]
    await store.apply([op for id in ids for op in (*spawn(id, messages=1), fail(id))])
    await store.apply([EndSession("s0", "killed", GONE, 9.0)])
    for limit in (5, 100):
        assert all(line.why == f"ValueError: {id}" for id, line in (await lines(store, limit=limit)).items())
    assert len(await lines(store, limit=100)) == 24


async def test_a_detail_has_the_last_turns_and_the_open_one(store: Store) -> None:
    """Each with its message and steps; earlier ones are counted, and one turn can be asked for."""
    await store.apply([*spawn("s", messages=4), *spawn("child", parent=Address("s", 1, b"spawn"))])
    await store.apply([op for turn in (1, 2, 3) for op in (step("s", f"t{turn}", StepState.CLOSED, turn=turn), commit("s", turn))])
    await store.apply([step("s", "open", StepState.OPEN, turn=4)])
    view = await detail(store, "s", turns=2)
    assert [(t.turn, t.open, t.body, t.reply, t.state) for t in view.turns] == [
        (2, False, "text 1", "done", {"n": 2}),
        (3, False, "text 2", "done", {"n": 3}),
        (4, True, "text 3", None, None),
    ]
    assert [[(s.name, s.state, s.outcome) for s in t.steps] for t in view.turns] == [
        [("t2", "closed", "t2")],
        [("t3", "closed", "t3")],
        [("open", "open", None)],
    ]
    assert (view.earlier_turns, [m.id for m in view.mailbox], [c.session for c in view.children]) == (1, ["m3"], ["child"])
    assert view.line == (await lines(store))["s"]
    assert [t.turn for t in (await detail(store, "s", turn=1)).turns] == [1]
    with pytest.raises(SessionNotFound, match="no turn 5: it has 1 to 3, and 4 is open"):
        await detail(store, "s", turn=5)


async def test_a_detail_shows_the_letter_and_later_the_retried_message(store: Store) -> None:
    """A message that was retried is at the head of the mailbox again, however many came and went after it."""
    await store.apply([*spawn("s", messages=1), fail("s")])
    view = await detail(store, "s")
    assert [(letter.message, letter.cause, letter.effects) for letter in view.dead_letters] == [("m0", "ValueError: s", ["refund"])]
    assert [(t.turn, t.open, t.body, t.error) for t in view.turns] == [(1, True, "text 0", "ValueError: no")]
    await store.apply([Enqueue("s", f"n{n}", encode(n), b"d", 8.0) for n in range(1_050)])
    await store.apply([RetryLetter("s", 1, 9.0)])
    view = await detail(store, "s")
    assert ([m.id for m in view.mailbox[:2]], len(view.mailbox), view.dead_letters) == (["m0", "n0"], inspect.MAILBOX, [])
    mailbox = await timeline.mailbox(store, "s", now=10.0)
    assert (len(mailbox.messages) + mailbox.more, view.line.queued) == (1_051, 1_051)
    assert [(t.message, t.error) for t in view.turns] == [("m0", None)]


async def test_an_unknown_id_is_told_with_those_that_are_like_it(store: Store) -> None:
    """Where it was looked for, how to list them all, and which may have been meant."""
    await store.apply([*spawn("order-17"), *spawn("other")])
    with pytest.raises(SessionNotFound, match=r"no session 'order' in here: holdfast ps --all lists them \(did you mean order-17\?\)"):
        await detail(store, "order")
