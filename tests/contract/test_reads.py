"""What people read comes in bounded pages: lists by a cursor, values up to a size; the same on every store."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast.console.reading import inspect, timeline
from holdfast.console.reading.values import LARGEST
from holdfast.errors import ConfigError
from holdfast.policies.budget import Budget, Usage
from holdfast.stores.excerpt import size_left_out
from holdfast.stores.listed import ALL, Filter, Place, listed
from holdfast.stores.ops import Activate, CommitTurn, CreateSession, EndSession, Enqueue, FailTurn, Op, UpdateSession, WriteStep
from holdfast.stores.protocol import Store
from holdfast.stores.records import Address, Failure, Outcome, Park, StepRecord, StepState

pytestmark = pytest.mark.anyio

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
GONE = encode(Outcome(failure=Failure("TurnFailed", "", "ValueError", "no")))
LONG = 20_000
"""The length of values that are longer than what is kept of a record at once."""


def create(id: str, *, parent: Address | None = None, detached: bool = False, tenant: str = "acme", now: float = 1.0) -> Op:
    return CreateSession(id, "agent", tenant, "ann", 1, encode({}), Budget(steps=5), b"", now, parent, detached)


def enqueue(id: str, body: Any = "text", session: str = "s", *, kind: Any = "message") -> Op:
    return Enqueue(session, id, encode(body), b"d", 2.0, kind=kind)


def step(key: str, *, args: Any = (), result: Any = None, turn: int = 1, state: StepState = StepState.CLOSED, used: int = 1) -> Op:
    record = StepRecord("tool", key, "", b"", 0, "read", Outcome(encode(result)), encode(args), used=Usage(steps=used), opened=3.0)
    return WriteStep("s", 1, turn, key.encode(), state, encode(record))


def commit(turn: int, message: str, *, state: Any = None, reply: Any = None) -> Op:
    return CommitTurn("s", 1, turn, message, encode(state), 1, encode(Outcome(encode(reply))), "idle", Usage(steps=1), 3.0, 3.0 + turn)


async def every_kind(store: Store) -> None:
    """Sessions of each place in the list, some of them with equal times."""
    for n in range(3):
        ids = {kind: f"{kind}-{n}" for kind in ("idle", "working", "waits", "doubt", "failed", "killed", "left")}
        await store.apply([op for id in ids.values() for op in (create(id, tenant=f"tenant-{n % 2}"), Activate(id, 2.0))])
        await store.apply(
            [
                enqueue("m", session=ids["working"]),
                UpdateSession(ids["waits"], 1, 3.0, status="parked", park=Park("wait", "")),
                UpdateSession(ids["doubt"], 1, 3.0, status="parked", park=Park("doubt", "")),
                enqueue("m", session=ids["failed"]),
                FailTurn(ids["failed"], 1, 1, "m", "ValueError: no", (), GONE, 4.0),
                EndSession(ids["killed"], "killed", GONE, 4.0),
                EndSession(ids["left"], "cancelled", GONE, 4.0, park=Park("doubt", "")),
            ]
        )


# ---------------------------------------------------------------- pages


@pytest.mark.parametrize("size", [1, 2, 5, 21])
@pytest.mark.parametrize(
    "which",
    [
        ALL,
        *(Filter(ended=False), Filter(status="parked"), Filter(status="working"), Filter(status="cancelled")),
        Filter(tenant="tenant-0", ended=False),
    ],
)
async def test_the_pages_of_a_list_are_the_list(store: Store, size: int, which: Filter) -> None:
    """In the same order, each session once, whatever is filtered; the page after the last one is empty."""
    await every_kind(store)
    pages = [await store.sessions(which, limit=size)]
    while pages[-1]:
        assert len(pages[-1]) <= size
        pages.append(await store.sessions(which, limit=size, after=pages[-1][-1].place))
    assert [row for page in pages for row in page] == await store.sessions(which)


async def test_a_row_of_a_list_is_the_part_of_the_whole_row_that_is_shown(store: Store) -> None:
    """Also why it was ended, which a list shows."""
    await every_kind(store)
    for row in await store.sessions():
        whole = await store.session(row.id)
        assert whole is not None
        assert row == listed(whole, row.place)
        assert (row.ending == GONE) is (row.status in ("killed", "cancelled"))


async def test_an_overview_says_where_the_next_page_begins(store: Store) -> None:
    """As text, for the command line and the HTTP API; any other text is refused."""
    await every_kind(store)
    page = await inspect.overview(store, ended=True, limit=20)
    assert page.next is not None
    last = await inspect.overview(store, ended=True, limit=20, after=page.next)
    assert (len(page.sessions), len(last.sessions), last.next) == (20, 1, None)
    assert not {line.session for line in last.sessions} & {line.session for line in page.sessions}
    for odd in ("", "1:2", "a:b:c", "1:2:3:4"):
        with pytest.raises(ConfigError, match="use the `next` of the page before"):
            Place.of(odd)


async def test_messages_steps_letters_and_children_come_in_pages(store: Store) -> None:
    """Each list begins after the last one of the page before; of a turn's steps, the last ones come first."""
    await store.apply([create("s"), create("t"), Activate("s", 2.0), Activate("t", 2.0)])
    await store.apply([*(enqueue(f"m{n}") for n in range(5)), enqueue("w", kind="watch"), enqueue("x", session="t")])
    await store.apply([*(step(f"k{n}") for n in range(5)), *(step(f"l{n}", turn=2) for n in range(2))])
    await store.apply([create(f"c{n}", parent=Address("s", 1, b"k")) for n in range(5)])

    first = await store.messages("s", limit=2)
    rest = await store.messages("s", after=first[-1].seq)
    assert [[m.id for m in page] for page in (first, rest)] == [["m0", "m1"], ["m2", "m3", "m4", "w"]]
    await store.apply([commit(1, "m0")])
    assert [m.id for m in await store.messages("s", limit=2, queued=True)] == ["m1", "m2"]

    last = await store.steps("s", 1, limit=2)
    before = await store.steps("s", 1, limit=2, before=last[0].key)
    assert [[each.key for each in page] for page in (last, before)] == [[b"k3", b"k4"], [b"k1", b"k2"]]
    assert [each.key for each in await store.steps("s", 1, before=b"k1")] == [b"k0"]
    assert await store.steps("s", 1, before=b"unknown") == await store.steps("s", 1, before=b"k0") == []

    made = await store.children("s", limit=2)
    later = await store.children("s", after=made[-1].place.num)
    assert [[child.id for child in page] for page in (made, later)] == [["c0", "c1"], ["c2", "c3", "c4"]]

    letters = [FailTurn(id, 1, turn, "m1" if id == "s" else "x", "no", (), GONE, 5.0) for id, turn in (("s", 2), ("t", 1))]
    await store.apply(letters)
    (oldest,) = await store.dead_letters(limit=1)
    assert [letter.session for letter in (oldest, *await store.dead_letters(after=(oldest.created, oldest.session)))] == ["s", "t"]
    assert await store.dead_letters("s", after=(5.0, "s")) == []


async def test_the_letter_that_blocks_a_session_is_that_of_its_open_turn(store: Store) -> None:
    """Of all that are asked for at once; sessions without one, and unknown ones, are left out."""
    await every_kind(store)
    found = await store.blocking_letters(["failed-2", "idle-0", "nobody", "failed-0"])
    assert {id: (letter.session, letter.turn) for id, letter in found.items()} == {id: (id, 1) for id in ("failed-0", "failed-2")}
    assert await store.blocking_letters([]) == {}


async def test_the_living_children_are_those_that_end_with_their_parent(store: Store) -> None:
    """Not those that are detached or have ended; and those of one turn, for a turn that is given up."""
    await store.apply([create("s"), create("a", parent=Address("s", 1, b"a")), create("b", parent=Address("s", 2, b"b"))])
    await store.apply([create("free", parent=Address("s", 1, b"c"), detached=True), create("gone", parent=Address("s", 1, b"d"))])
    await store.apply([create("grandchild", parent=Address("a", 1, b"a")), EndSession("gone", "killed", GONE, 4.0)])
    assert [child.id for child in await store.living_children("s")] == ["a", "b"]
    assert [child.id for child in await store.living_children("s", turn=2)] == ["b"]
    assert await store.living_children("s", turn=3) == await store.living_children("b") == []


# ---------------------------------------------------------------- sizes


def size_of(value: bytes) -> int | None:
    return size_left_out(decode(value))


async def test_values_over_a_size_are_left_out_with_their_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies, replies, states, arguments and results; what describes them stays, and a value of exactly that size."""
    monkeypatch.setattr("holdfast.stores.postgres.reads._AT_ONCE", LONG + LONG // 2)  # more than one of them, and not all at once
    fits, long = "x" * 95, "x" * LONG
    size, reply_size = len(encode(long)), len(encode(Outcome(encode(long))))
    most = len(encode(fits))
    await store.apply([create("s"), Activate("s", 2.0), enqueue("m", long), enqueue("n", fits)])
    await store.apply([step("long", args=long, result=long), step("fits", args=fits, result=fits), step("more", args=long)])

    shown = await store.steps("s", 1, most=most)
    assert [each.key for each in shown] == [b"long", b"fits", b"more"]
    whole, outcome = await store.steps("s", 1), shown[0].record.outcome
    assert outcome is not None
    assert (size_of(shown[0].record.args), size_of(outcome.value)) == (size, size)
    assert msgspec.structs.replace(shown[0].record, args=b"", outcome=None) == msgspec.structs.replace(
        whole[0].record, args=b"", outcome=None
    )
    assert shown[1] == whole[1]
    (journal,) = (await store.open_steps(["s"])).values()
    assert [(each.key, size_of(each.record.args), each.record.used) for each in journal] == [
        (each.key, len(each.record.args), each.record.used) for each in whole
    ]

    await store.apply([commit(1, "m", state=long, reply=long)])
    m, n = await store.messages("s", most=most)
    assert m.reply is not None
    assert (size_of(m.body), size_of(decode(m.reply, type=Outcome).value), decode(n.body)) == (size, reply_size, fits)
    _, point = await store.checkpoints("s", most=most)
    assert (size_of(point.state), point.usage) == (size, Usage(steps=1))
    assert [decode(found.body) for found in await store.messages("s")] == [long, fits]


async def test_show_leaves_large_values_out_and_prints_one_turn_whole(store: Store) -> None:
    """Their size is shown, and the command that prints them."""
    long = "x" * (LARGEST + 1)
    await store.apply([create("s"), Activate("s", 2.0), enqueue("m", long), enqueue("n", long)])
    await store.apply([step("k", args=long, result=long), commit(1, "m", state=long, reply=long)])
    note = f"({len(encode(long)):,} bytes, left out: show --turn N --whole prints them)"
    view = await inspect.detail(store, "s")
    turn = view.turns[0]
    assert {turn.body, turn.reply, turn.state, turn.steps[0].args, turn.steps[0].outcome, view.mailbox[0].body} == {note}
    assert [entry.text for entry in (await timeline.read(store, "s")).entries if entry.what != "spawned"] == [note] * 4
    view = await inspect.detail(store, "s", turn=1, whole=True)
    turn = view.turns[0]
    assert {turn.body, turn.reply, turn.state, turn.steps[0].args, turn.steps[0].outcome, view.mailbox[0].body} == {long}
    with pytest.raises(ConfigError, match="name it by --turn"):
        await inspect.detail(store, "s", whole=True)


async def test_show_has_a_bound_in_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last turns are shown first; the values of earlier ones are left out then. Of a long turn, the last steps are shown."""
    monkeypatch.setattr(inspect, "_PAGE", 2_500)
    monkeypatch.setattr(inspect, "STEPS", 3)
    monkeypatch.setattr(timeline, "ENTRIES", 4)
    monkeypatch.setattr(inspect, "CHILDREN", 1)
    await store.apply([create("s"), Activate("s", 2.0), *(enqueue(f"m{n}", "y" * 990) for n in range(4))])
    for turn in (1, 2, 3):
        await store.apply([step(f"{turn}-{n}", turn=turn) for n in range(5)] + [commit(turn, f"m{turn - 1}")])
    await store.apply([step("open", turn=4, used=7), *(step(f"4-{n}", turn=4) for n in range(4))])
    await store.apply([create(f"c{n}", parent=Address("s", 1, b"k")) for n in range(2)])
    view = await inspect.detail(store, "s")
    assert [("left out" in turn.body, turn.earlier_steps, len(turn.steps)) for turn in view.turns] == [
        (True, True, 3),
        (False, True, 3),
        (False, True, 3),
        (False, True, 3),
    ]
    assert [found.name for found in view.turns[-1].steps] == ["4-1", "4-2", "4-3"]
    assert (view.turns[-1].cost.steps, view.line.used.steps, view.line.steps) == (11, 14, 5)  # of all its steps
    assert ([child.session for child in view.children], view.more_children) == (["c0"], True)
    page = await timeline.read(store, "s")
    assert ({entry.turn for entry in page.entries}, page.next, page.left_out) == ({0, 1}, 2, [1])
    page = await timeline.read(store, "s", first=4)
    assert ([entry.name for entry in page.entries if entry.what == "step"], page.next) == (["4-0", "4-1", "4-2", "4-3"], None)
