"""A session is reached alike inside its process and outside of it: the same Handle, the same values, the same errors.

What differs is said by `Node.session`: outside, a reply is plain data.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import holdfast
from holdfast import Budget, Runtime, Session, agent, tool
from holdfast.console.api.server import controlled
from holdfast.console.client.node import Node, connect
from holdfast.console.reading import inspect
from holdfast.console.reading.views import Detail

pytestmark = pytest.mark.anyio


class Said(msgspec.Struct):
    text: str
    raw: bytes = b"\xff"


@tool(effect="once")
async def wire(order: str) -> dict[str, Any]:
    raise ConnectionError("cut")


@tool(effect="once")
async def post(order: str) -> str:
    await asyncio.Event().wait()
    return order


async def look(number: int) -> int:
    return number


async def hang() -> str:
    await asyncio.Event().wait()
    return ""


@agent(tools=[wire, post], mailbox=2, park_after_s=0.0)
async def clerk(session: Session[None], text: str) -> Said:
    match text:
        case "nap":
            await session.sleep(3600)
        case "bug":
            raise ZeroDivisionError("oops Bearer abcdefghijkl")
        case "wire":
            return Said((await session.call_tool("wire", '{"order": "o1"}')).content)
        case "wire twice":
            replies = await session.gather(*(session.call_tool("wire", f'{{"order": "o{n}"}}') for n in range(2)))
            return Said(" ".join(reply.content for reply in replies))
        case "pay and fail":
            await session.step(look, 1)
            await session.gather(*(session.call_tool(name, '{"order": "o1"}') for name in ("wire", "post")))
        case "hang":
            try:
                await session.step(hang)
            except holdfast.StepError as error:
                return Said(f"{error.step}: {error.category}")
        case "steps":
            return Said(str(sum([await session.step(look, number) for number in range(3)])))
        case "end":
            session.finish({"raw": b"\xff", "n": 1})
    return Said(f"hello {text}")


@agent
async def other(session: Session[None], text: str) -> str:
    return text


@pytest.fixture(params=["inside", "outside"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Runtime | Node]:
    """Somebody who reaches the sessions of a process: the process itself, or another one's client over the real socket."""
    runtime = Runtime("memory:", agents=[clerk, other])
    with controlled(runtime, str(tmp_path / "own" / "s")) as path:
        async with runtime:
            if request.param == "inside":
                yield runtime
            else:
                async with connect(path) as found:
                    yield found


async def parked(handle: holdfast.Handle, text: str) -> None:
    """Send it, and wait until the session has parked over it."""
    await handle.tell(text, id=text)
    while (await handle.row()).status != "parked":  # noqa: ASYNC110 — outside there is no event to wait for
        await asyncio.sleep(0.001)


async def parked_again(handle: holdfast.Handle) -> None:
    """Wait until it is parked and nothing of it runs."""
    while (await handle.row()).status != "parked" or ((live := await handle.live()) is not None and live.working):  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_messages_come_back_as_replies(node: Runtime | Node) -> None:
    """The same id gets the same answer, whatever the time limit; a message of one's own id is known by it."""
    handle = await node.spawn(clerk, id="s/1", tenant="acme", user="ann", budget=Budget(steps=5, usd=0.25))
    first = await handle.ask("you", id="m1")
    assert msgspec.to_builtins(first, builtin_types=(bytes,)) == {"text": "hello you", "raw": b"\xff"}
    assert await handle.ask("you", id="m1", timeout_s=0.0) == first
    assert await handle.tell("again", id="m2") == "m2"
    row = await node.session("s/1").row()
    assert (row.id, row.agent, row.tenant, row.user, row.budget) == ("s/1", "clerk", "acme", "ann", Budget(steps=5, usd=0.25))


async def test_an_earlier_state_comes_back(node: Runtime | Node) -> None:
    """What it would do, and what it did, is the same inside and outside."""
    handle = await node.spawn(clerk, id="s")
    for text in ("a", "b"):
        await handle.ask(text)
    dry = await handle.rewind(0, dry_run=True)
    done = await handle.rewind(0, "wrong")
    assert (dry.turn, dry.as_turn, dry.effects, dry.changed) == (0, 3, [], False)
    assert done == msgspec.structs.replace(dry, changed=True)
    assert (await handle.row()).turn == 3
    with pytest.raises(holdfast.SessionError, match="'s' is at turn 3: give an earlier one"):
        await handle.rewind(9)
    await parked(handle, "nap")
    with pytest.raises(holdfast.SessionError, match="'s' has an open turn: drop it, then rewind"):
        await handle.rewind(0)


async def test_a_session_is_got_where_it_is_there(node: Runtime | Node) -> None:
    """The same id is the same session, and no other agent's or tenant's."""
    assert (await node.spawn(clerk, id="s")).id == (await node.spawn(clerk, id="s")).id == "s"
    for kind, tenant in ((other, "default"), (clerk, "globex")):
        with pytest.raises(holdfast.SessionConflict) as conflict:
            await node.spawn(kind, id="s", tenant=tenant)
        assert conflict.value.session == "s"


async def test_a_result_is_plain_data(node: Runtime | Node) -> None:
    """Before and after the session has ended; until then a time limit says to ask for it again, and names nobody's message."""
    handle = await node.spawn(clerk, id="s")
    with pytest.raises(holdfast.ReplyTimeout, match=r"'s' has not ended within 0 s; ask for its result again") as late:
        await handle.result(timeout_s=0)
    assert (late.value.message_id, late.value.timeout_s) == ("", 0)
    await handle.tell("end")
    assert await handle.result() == await handle.result(timeout_s=5) == {"raw": b"\xff", "n": 1}


async def test_every_verb_of_a_person_does_the_same(node: Runtime | Node) -> None:
    """Pause, resume, resolve, retry, drop, a higher budget, cancel, kill."""
    handle = await node.spawn(clerk, id="s", budget=Budget(steps=2))
    await handle.pause("look at it")
    park = (await handle.row()).park
    assert park is not None
    assert (park.reason, park.text) == ("paused", "look at it")
    await handle.resume()
    await parked(handle, "steps")
    await handle.raise_budget(Budget(steps=2, usd=0.5))
    assert msgspec.to_builtins(await handle.ask("steps", id="steps"))["text"] == "3"
    await parked(handle, "wire")
    assert await handle.resolve("done", step="none of this name") == 0
    assert await handle.resolve("done", result={"paid": True}) == 1
    assert msgspec.to_builtins(await handle.ask("wire", id="wire"))["text"] == '{"paid":true}'
    for verb in (handle.retry, handle.drop):
        with pytest.raises(holdfast.TurnFailed) as failed:
            await handle.ask("bug", id="bug")
        assert (failed.value.message_id, "oops [redacted]" in failed.value.cause) == ("bug", True)
        await verb()
    assert (await handle.cancel("enough"), await handle.cancel(), await handle.kill()) == (True, False, False)
    assert (await handle.row()).status == "cancelled"


async def in_flight(handle: holdfast.Handle, steps: int) -> None:
    """Wait until so many of its steps are."""
    while (live := await handle.live()) is None or len(live.steps) != steps:  # noqa: ASYNC110 — outside there is no event to wait for
        await asyncio.sleep(0.001)


async def test_what_is_in_flight_is_interrupted(node: Runtime | Node) -> None:
    """By its name or whatever it is, as its timeout would; nothing where nothing is in flight. A `once` is in doubt then."""
    handle = await node.spawn(clerk, id="s")
    assert await handle.interrupt() == 0
    await handle.tell("pay and fail", id="p")
    await in_flight(handle, 1)  # the other one has failed by then
    assert await handle.interrupt("another name") == 0
    assert await handle.interrupt("post") == 1
    while (await handle.row()).status != "parked":  # noqa: ASYNC110 — as above
        await asyncio.sleep(0.001)
    park = (await handle.row()).park
    assert park is not None
    assert park.reason == "doubt"
    assert await handle.resolve("fail") == 2


async def test_a_turn_is_given_up_whatever_its_state(node: Runtime | Node) -> None:
    """Running or parked; its message is a dead letter where that is asked for, and is gone where it is not."""
    handle = await node.spawn(clerk, id="s")
    await handle.tell("hang", id="h1")
    await in_flight(handle, 1)
    await handle.drop("no longer needed")
    assert (await handle.row()).status == "idle"
    with pytest.raises(holdfast.TurnFailed, match="given up by a person: no longer needed"):
        await handle.ask("hang", id="h1")
    await parked(handle, "nap")
    await handle.drop("asleep", keep_letter=True)
    assert (await handle.row()).status == "failed"
    with pytest.raises(holdfast.SessionError, match="is a dead letter already"):
        await handle.drop(keep_letter=True)
    await handle.drop()
    assert ((await handle.row()).status, (await handle.row()).turn) == ("idle", 2)
    with pytest.raises(holdfast.SessionError, match="so it has none to drop"):
        await handle.drop()
    await handle.cancel()
    with pytest.raises(holdfast.SessionEnded, match="it has no open turn"):
        await handle.drop()


async def test_an_effect_in_doubt_keeps_its_message_and_the_error_tells_what_became_of_each_effect(node: Runtime | Node) -> None:
    """The turn is given up; the letter goes once the doubt is resolved. Done, in doubt and failed effects are told apart."""
    handle = await node.spawn(clerk, id="s")
    await parked(handle, "wire")
    with pytest.raises(holdfast.SessionError, match=r"the outcome of wire is unknown, so the dead letter of 's' is kept: resolve it"):
        await handle.drop("wrong order")
    with pytest.raises(holdfast.TurnFailed, match="outcome unknown: wire") as failed:
        await handle.ask("wire", id="wire")
    assert (failed.value.effects, failed.value.in_doubt, failed.value.failed) == ((), ("wire",), ())
    row = await handle.row()
    assert (row.status, row.unresolved) == ("failed", None)
    assert await handle.resolve("done", result={"paid": True}) == 1
    await handle.drop("wrong order")
    assert ((await handle.row()).status, (await handle.row()).notes) == ("idle", ("wire",))


async def test_one_of_two_doubts_of_one_name_is_resolved_by_its_key(node: Runtime | Node) -> None:
    """The name would resolve both."""
    handle = await node.spawn(clerk, id="s")
    await parked(handle, "wire twice")
    view = await inspect.detail(node.store, "s") if isinstance(node, Runtime) else await node.get("/sessions/s", Detail)
    first, second = (step.key for step in view.turns[-1].steps)
    assert first != second
    assert await handle.resolve("done", step=first, result={"paid": 1}) == 1
    await parked_again(handle)
    assert await handle.resolve("done", step="wire", result={"paid": 2}) == 1
    assert msgspec.to_builtins(await handle.ask("wire twice", id="wire twice"))["text"] == '{"paid":1} {"paid":2}'


async def test_an_ended_session_keeps_its_doubt_until_it_is_resolved(node: Runtime | Node) -> None:
    """Nothing runs there any more: also "retry" means no more than that it did not happen."""
    for verdict in ("done", "retry", "fail"):
        handle = await node.spawn(clerk, id=verdict)
        await parked(handle, "wire")
        await handle.cancel("enough")
        unresolved = (await handle.row()).unresolved
        assert unresolved is not None
        assert (unresolved.reason, "outcome of wire was unknown" in unresolved.text) == ("doubt", True)
        result = {"paid": True} if verdict == "done" else None
        assert (await handle.resolve(verdict, result=result), await handle.resolve(verdict)) == (1, 0)
        row = await handle.row()
        assert (row.status, row.unresolved) == ("cancelled", None)


async def test_what_a_session_does_now_is_told(node: Runtime | Node) -> None:
    """None of one that rests."""
    handle = await node.spawn(clerk, id="s")
    assert await handle.live() is None
    await handle.ask("you")
    live = await handle.live()
    assert live is not None
    assert (live.queued, live.steps) == (0, [])


async def test_whoever_is_not_there_is_not_found(node: Runtime | Node) -> None:
    """By every method, with the id."""
    handle = node.session("nope")
    asked: tuple[Awaitable[Any], ...] = (
        handle.tell("x"),
        handle.ask("x"),
        handle.result(),
        handle.row(),
        handle.cancel(),
        handle.kill(),
        handle.live(),
        handle.pause(),
        handle.resume(),
        handle.raise_budget(Budget(steps=1)),
        handle.resolve("done"),
        handle.retry(),
        handle.drop(),
        handle.interrupt(),
    )
    for asking in asked:
        with pytest.raises(holdfast.SessionNotFound, match="no session 'nope'") as unknown:
            await asking
        assert unknown.value.session == "nope"


async def test_what_makes_no_sense_is_refused_alike(node: Runtime | Node) -> None:
    """Before anything is done: ids, time limits, reasons, amounts, verdicts, values that cannot be stored."""
    handle = await node.spawn(clerk, id="s")
    nonsense: tuple[Awaitable[Any], ...] = (
        handle.tell("x", id=""),
        handle.tell("x", id="a\nb"),
        handle.tell("x", id="x" * 513),
        handle.tell(object()),
        handle.ask("x", timeout_s=float("nan")),
        handle.ask("x", timeout_s=-1),
        handle.result(timeout_s=float("nan")),
        handle.pause("x" * 2001),
        handle.cancel("x" * 2001),
        handle.drop("x" * 2001),
        handle.raise_budget(Budget()),
        handle.resolve("maybe"),
        node.session("a\nb").row(),
        node.spawn(clerk, id=""),
        node.spawn(clerk, id="s2", tenant="a\nb"),
    )
    for number, asking in enumerate(nonsense):
        try:
            await asking
        except holdfast.ConfigError:
            continue
        pytest.fail(f"number {number} was taken")
    row = await handle.row()
    assert (row.status, row.turn) == ("idle", 0)


async def test_a_session_that_is_in_no_state_for_it_says_so(node: Runtime | Node) -> None:
    """Each with the same class and text, and what it carries."""
    handle = await node.spawn(clerk, id="s")
    with pytest.raises(holdfast.MessageRefused, match="does not take this message"):
        await handle.tell({"not": "a text"})
    with pytest.raises(holdfast.SessionError, match="cannot be resumed"):
        await handle.resume()
    with pytest.raises(holdfast.SessionError, match="no dead letter"):
        await handle.retry()
    await parked(handle, "nap")
    with pytest.raises(holdfast.ReplyTimeout, match=r"within 0 s: it is parked \(wait\)") as late:
        await handle.ask("nap", id="nap", timeout_s=0)
    assert (late.value.message_id, late.value.timeout_s, late.value.why[:14]) == ("nap", 0, "it is parked (")
    with pytest.raises(holdfast.MessageConflict, match="use a new id"):
        await handle.tell("other", id="nap")
    await handle.tell("one")
    message = "one more"
    with pytest.raises(holdfast.MailboxFull, match="send again later") as full:
        await handle.tell(message)
    assert (full.value.limit, full.value.message is message) == (2, True)
    await handle.kill("enough")
    with pytest.raises(holdfast.SessionEnded, match="'s' is killed: spawn another"):
        await handle.tell("late")
    with pytest.raises(holdfast.SessionEnded, match="killed: enough"):
        await handle.ask("nap", id="nap")
    with pytest.raises(holdfast.SessionError):
        await handle.pause()
