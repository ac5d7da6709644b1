"""Rows as earlier versions wrote them, which today's constructors refuse or which do not decode, and what every store makes of them.

The test of each store writes them under each of its earlier schemas: the sessions of `PLACES` and `ODD_BUDGETS`, the park of "waits" and
the address of the parent of "rests" as bytes that do not decode.
"""

from __future__ import annotations

from holdfast.policies.ledger import Ledger
from holdfast.stores.ops import Activate, Enqueue, Status, UpdateSession
from holdfast.stores.protocol import Store
from holdfast.stores.records import Park, SessionStatus

BAD = b"\xc1"  # the one byte that begins nothing in MessagePack

PLACES: list[tuple[str, SessionStatus, Park | None, int]] = [
    ("rests", "idle", None, 0),
    ("works", "idle", None, 1),
    ("waits", "parked", Park("wait", "waits for t", waits_on=("t",)), 0),
    ("doubts", "parked", Park("doubt", "it may have happened"), 1),
    ("failed", "failed", None, 0),
]
"""A session of each place in the list for people: id, status, park, pending messages."""

ODD_BUDGETS = {
    "negative": {"tokens": -5, "usd": "-1"},
    "huge": {"steps": 10**18, "usd": "1e30", "seconds": 1e300},
    "infinite": {"seconds": float("inf")},
    "no number": {"seconds": float("nan"), "usd": "NaN"},
    "fraction": {"tokens": 1.5},
}
"""Limits that the constructor of Budget refuses today."""


async def check_odd_rows(store: Store) -> None:
    """What a stored limit says holds, whatever the constructor takes; a cell that does not decode is that of its own session."""
    rows = {session.id: session for session in await store.sessions()}
    assert {id for id, row in rows.items() if row.unreadable} == {"waits", "rests"}
    assert (rows["negative"].budget.tokens, rows["negative"].budget.microusd) == (-5, -1_000_000)
    assert (rows["infinite"].budget.seconds, rows["no number"].budget.seconds, rows["fraction"].budget.tokens) == (None, 0, 1)
    for id in ODD_BUDGETS:
        (loaded,) = await store.apply([Activate(id, 3.0)])
        assert loaded.status is Status.DONE
        Ledger(loaded.value.session.budget, loaded.value.session.usage).balance()
    refused = await store.apply([Activate("waits", 3.0), Activate("works", 3.0)])
    assert [result.status for result in refused] == [Status.REFUSED, Status.DONE]
    assert "works" in [row.id for row in await store.runnable()]
    assert await store.orphans() == []
    park = rows["waits"].park
    assert park is not None
    assert park.reason == "state"


async def check_sound_rows(store: Store) -> None:
    """Parks keep their reason, sessions stand where they should in the list, and what later versions added is empty."""
    assert store.unclean
    assert [session.id for session in await store.sessions()] == ["failed", "doubts", "waits", "works", "rests"]
    assert await store.counts() == {"failed": 1, "parked": 2, "working": 1, "idle": 1}
    (waits,) = [session for session in await store.sessions() if session.id == "waits"]
    assert waits.park == Park("wait", "waits for t", waits_on=("t",))
    (message,) = await store.messages("works")
    assert (message.id, message.body, message.also) == ("m", b"\x02", ())
    (letter,) = await store.dead_letters()
    assert (letter.session, letter.effects, letter.in_doubt, letter.failed) == ("failed", ("refund",), (), ())
    assert [(made.turn, made.dropped) for made in await store.checkpoints("failed")] == [(0, False)]
    await store.apply([Enqueue("works", "n", b"", b"", 3.0, context="trace"), UpdateSession("doubts", 1, 4.0, status="idle")])
    assert [message.context for message in await store.messages("works")] == ["", "trace"]
