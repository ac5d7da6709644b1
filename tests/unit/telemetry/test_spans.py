"""From events to spans, as a collector reads them."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

import pytest
from opentelemetry import trace

from holdfast import Budget, Retry, Runtime, Session, StepError, Usage, agent, events, tool
from holdfast.telemetry import conventions
from holdfast.telemetry.context import carried
from holdfast.telemetry.ids import within
from holdfast.telemetry.recorder import FULL
from tests.unit.runtime.support import World, idle, rest
from tests.unit.telemetry.support import Collected

SECRET = "Bearer abcdefghijklmnop"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_OK = 2


def started(context: str = "", session: str = "s", turn: int = 1) -> events.TurnStarted:
    return events.TurnStarted(session, turn, "m-1", 0, "support", "acme", "ada", context, 100.0)


def step(kind: str, name: str, **more: Any) -> tuple[events.StepStarted, events.StepEnded]:
    key = ascii(f"{kind} {name}").encode()
    ended: dict[str, Any] = {"ok": True, "attempts": 1, "duration_s": 0.25, **more}
    return (
        events.StepStarted("s", 1, key, kind, name, "read", 101.0),
        events.StepEnded("s", 1, kind, name, "read", key=key, **ended),
    )


class Frozen:
    """A clock that stands."""

    def monotonic(self) -> float:
        return 110.0

    time = monotonic


def collect(*all: events.Event) -> Collected:
    """What these events make, told in a context of their own."""
    collected = Collected()
    recorder = collected.recorder(Frozen())

    def tell() -> None:
        for event in all:
            recorder(event)
        recorder.pack()

    Context().run(tell)
    return collected


# ---------------------------------------------------------------- what a span says


def test_a_turn_and_its_steps_are_one_trace_by_the_genai_names() -> None:
    """Names, parents, times, tokens and cost are where GenAI tools look for them."""
    facts = {
        "provider": "openai", "model": "gpt-4o-mini", "response_model": "gpt-4o-mini-2024", "response_id": "r-1",
        "finish_reasons": ["stop"], "input_tokens": 10, "output_tokens": 5, "cached_tokens": 4, "reasoning_tokens": 2, "other": object(),
    }  # fmt: skip
    collected = collect(
        started(),
        *step("model", "gpt-4o-mini", tokens=15, microusd=1250, attempts=2, facts=facts),
        *step("tool", "refund"),
        *step("step", "look"),
        *step("sleep", "sleep"),
        events.TurnCommitted("s", 1, "m-1", "idle", 15, 1250),
    )
    turn, model = collected.named("invoke_agent support"), collected.named("chat gpt-4o-mini")
    others = [collected.named(name) for name in ("execute_tool refund", "step look", "sleep")]
    assert turn.parent == ""
    assert {span.trace for span in collected.spans()} == {turn.trace}
    assert {span.parent for span in (model, *others)} == {turn.id}
    assert len({span.id for span in collected.spans()}) == 5
    assert (turn.began_s, turn.ended_s, model.began_s, model.ended_s) == (100.0, 110.0, 101.0, 101.25)
    common = {
        "session.id": "s", "gen_ai.conversation.id": "s", "gen_ai.agent.name": "support", "user.id": "ada", "holdfast.tenant": "acme",
        "holdfast.turn": 1, "holdfast.message.id": "m-1",
    }  # fmt: skip
    cost = {"holdfast.tokens": 15, "holdfast.microusd": 1250}
    assert turn.attributes == {**common, **cost, "gen_ai.operation.name": "invoke_agent", "holdfast.status": "idle"}
    assert model.attributes == {
        **common, **cost, "gen_ai.usage.cost": 0.00125, "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.provider.name": "openai",
        "gen_ai.response.model": "gpt-4o-mini-2024", "gen_ai.response.id": "r-1", "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5, "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 2, "holdfast.step.kind": "model", "holdfast.step.name": "gpt-4o-mini",
        "holdfast.effect": "read", "holdfast.attempts": 2,
    }  # fmt: skip
    assert others[0].attributes["gen_ai.tool.name"] == "refund"
    assert others[0].attributes["gen_ai.operation.name"] == "execute_tool"
    assert [span.kind for span in (turn, model, *others)] == [1, 3, 1, 1, 1]
    assert {span.status for span in collected.spans()} == {0}


def test_a_secret_in_an_error_is_in_no_span() -> None:
    """A token that an exception quotes is masked before anything is recorded: status, events and what crosses the pipe."""
    collected = collect(
        started(),
        step("tool", "refund")[0],
        events.StepRetried("s", 1, "refund", 1, f"401: {SECRET}", 0.5),
        step("tool", "refund", ok=False, error="AuthError", cause=f"401: {SECRET}")[1],
        events.TurnCrashed("s", 1, f"AuthError: {SECRET}"),
        events.SessionFailed("s", "m-1", f"AuthError: {SECRET}"),
    )
    failed, turn = collected.named("execute_tool refund"), collected.named("invoke_agent support")
    assert (failed.status, failed.error, failed.attributes["error.type"]) == (NOT_OK, "401: [redacted]", "AuthError")
    assert failed.events == [
        ("holdfast.retry", {"holdfast.name": "refund", "holdfast.attempt": 1, "holdfast.cause": "401: [redacted]", "holdfast.delay_s": 0.5})
    ]
    assert (turn.status, turn.error, turn.attributes["error.type"]) == (NOT_OK, "AuthError: [redacted]", "TurnFailed")
    assert turn.events == [("holdfast.crash", {"holdfast.error": "AuthError: [redacted]"})]
    assert b"abcdefgh" not in b"".join(collected.batches)


def test_odd_text_and_numbers_go_through() -> None:
    """What a provider or a user names is encoded whatever it is, and bounded."""
    odd = "naïve \U0001f9ea \udcff"
    facts = {"response_id": "x" * 5000, "input_tokens": -1, "output_tokens": 1 << 62, "model": "\x00"}
    collected = collect(started(), *step("step", "ünïcode", facts=facts, ok=False, cause=odd, error="E"))
    [span] = collected.spans()
    assert span.name == "step ünïcode"
    assert span.error == "naïve \U0001f9ea \ufffd"
    assert len(span.attributes["gen_ai.response.id"]) == conventions.MAX_TEXT
    assert (span.attributes["gen_ai.usage.input_tokens"], span.attributes["gen_ai.usage.output_tokens"]) == (-1, 1 << 62)


# ---------------------------------------------------------------- traces carried in


def test_a_turn_is_a_child_of_whoever_sent_its_message() -> None:
    """The caller's trace goes on in the session: the same trace id, and the caller's span is the parent, which is elsewhere."""
    collected = collect(started(PARENT), *step("step", "look"), events.TurnCommitted("s", 1, "m-1", "idle"))
    turn, inner = collected.named("invoke_agent support"), collected.named("step look")
    assert (turn.trace, turn.parent) == tuple(PARENT.split("-")[1:3])
    assert (inner.trace, inner.parent) == (turn.trace, turn.id)
    assert (turn.flags, inner.flags) == (0x301, 0x101)


def test_a_link_begins_a_trace_of_its_own() -> None:
    """Two agents that tell each other things do not share one endless trace."""
    collected = collect(started("link:" + PARENT), events.TurnCommitted("s", 1, "m-1", "idle"))
    [turn] = collected.spans()
    sender = "-".join(PARENT.split("-")[1:3])
    assert (turn.parent, turn.links) == ("", [sender])
    assert turn.trace != PARENT.split("-")[1]


def test_an_unsampled_caller_is_honoured() -> None:
    """Nothing is recorded, and what the step calls is told so, in the caller's trace."""
    seen: list[str] = []
    collected = Collected()
    recorder = collected.recorder(Frozen())
    begin, end = step("step", "look")

    def tell() -> None:
        recorder(started(PARENT[:-1] + "0"))
        recorder(begin)
        seen.append(carried())
        recorder(end)
        recorder(events.TurnCommitted("s", 1, "m-1", "idle"))
        recorder.pack()

    Context().run(tell)
    assert (seen[0][:35], seen[0][-3:]) == (PARENT[:35], "-00")
    assert collected.batches == []


def test_a_share_of_the_traces_is_recorded_whole() -> None:
    """The ratio decides by trace, so that a turn and its steps are both there or both not."""
    collected = Collected()
    recorder = collected.recorder(Frozen(), lambda trace_id: within(trace_id, 0.25))

    def tell() -> None:
        for turn in range(400):
            recorder(started(turn=turn))
            recorder(events.StepStarted("s", turn, b"key", "step", "look", "read", 101.0))
            recorder(events.StepEnded("s", turn, "step", "look", "read", True, 1, 0.1, b"key"))
            recorder(events.TurnCommitted("s", turn, "m-1", "idle"))
        recorder.pack()

    Context().run(tell)
    spans = collected.spans()
    assert 60 < len({span.trace for span in spans}) < 140
    assert len(spans) == 2 * len({span.trace for span in spans})


def test_a_full_batch_does_not_wait_for_the_timer() -> None:
    """However little time has passed, memory does not grow with the rate."""
    collected = collect(started(), *(step("step", "look")[1] for _ in range(FULL + 1)))
    assert len(collected.batches) == 2


def test_one_name_that_cannot_be_encoded_takes_no_other_span_with_it() -> None:
    """The odd one is counted, the rest of its batch arrives."""
    collected = Collected()
    recorder = collected.recorder(Frozen())

    def tell() -> None:
        for event in (started(), *step("step", "\udcff"), *step("step", "look")):
            recorder(event)
        recorder.pack()

    Context().run(tell)
    assert [span.name for span in collected.spans()] == ["step look"]
    assert recorder.refused == 1


# ---------------------------------------------------------------- in a runtime


def span_here() -> str:
    return f"{trace.get_current_span().get_span_context().span_id:016x}"


def test_code_in_a_step_sees_the_steps_span_and_the_handler_the_turns() -> None:
    """Instrumented clients beneath a step get it as their parent, in branches and in steps within steps too."""
    world, collected = World(), Collected()

    async def look(n: int) -> str:
        await asyncio.sleep(0.1 * n)
        return span_here()

    @agent
    async def nested(session: Session[None], text: str) -> list[str]:
        async def outer() -> str:
            inner = await session.step(look, 9)
            return f"{span_here()} {inner}"

        before = span_here()
        branches = await session.gather(session.step(look, 1), session.step(look, 2))
        return [before, *branches, await session.step(outer), span_here()]

    async def main(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        reply = await (await runtime.spawn(nested, id="s")).ask("go")
        recorder.pack()
        return reply

    before, first, second, both, after = world.life(nested, main)
    assert trace.get_current_span() is trace.INVALID_SPAN
    turn = collected.named("invoke_agent nested")
    spans = {span.id: span for span in collected.spans()}
    assert before == after == turn.id
    outer, inner = both.split()
    assert {spans[id].parent for id in (first, second, outer)} == {turn.id}
    assert spans[inner].parent == outer
    assert len({first, second, outer, inner, turn.id}) == 5
    assert spans[inner].trace == turn.trace


def test_a_turn_that_crashes_parks_and_goes_on_in_another_process_is_one_trace() -> None:
    """Ids are derived: steps done before and after a kill hang under the one span of their turn, and a replayed step makes none."""
    world, collected = World(), Collected()

    async def look(n: int) -> int:
        if n == 2 and world.lives == 1:
            await world.crash()
        return n

    @agent(park_after_s=0.0)
    async def long(session: Session[None], text: str) -> int:
        await session.step(look, 1)
        if len(world.done) == 0:
            world.done.append("bug")
            raise ZeroDivisionError("a bug")
        await session.step(look, 2)
        await session.sleep(60)
        return await session.step(look, 3)

    async def main(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        runtime.observe(lambda event: recorder.pack())
        return await (await runtime.spawn(long, id="s")).ask("go", id="m-1", timeout_s=1000)

    world.life(long, main)
    assert world.life(long, main) == 3
    turn = collected.named("invoke_agent long")
    steps = [span for span in collected.spans() if span.id != turn.id]
    assert [span.name for span in steps] == ["step look", "step look", "sleep", "step look"]
    assert {span.parent for span in steps} == {turn.id}
    assert {span.trace for span in steps} == {turn.trace}
    assert len({span.id for span in steps}) == 4
    assert [name for name, _ in turn.events] == ["holdfast.crash", "holdfast.left", "holdfast.park"]
    assert turn.ended_s - turn.began_s >= 60
    sleep = steps[2]
    assert sleep.ended_s - sleep.began_s >= 60


def test_an_asked_session_is_in_the_trace_and_a_told_one_is_linked() -> None:
    """A question belongs to whoever waits for its answer; what is told goes its own way and says where it came from."""
    world, collected = World(), Collected()

    @agent
    async def other(session: Session[None], text: str) -> str:
        return text

    @agent
    async def asker(session: Session[None], text: str) -> str:
        await session.tell("told", "hi")
        return str(await session.ask("asked", "hello"))

    async def main(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        told = await runtime.spawn(other, id="told")
        await runtime.spawn(other, id="asked")
        await (await runtime.spawn(asker, id="s")).ask("go")
        await idle(told)
        recorder.pack()

    world.life([asker, other], main)
    turns = {span.attributes["session.id"]: span for span in collected.spans() if span.name.startswith("invoke_agent")}
    ask = collected.named("ask")
    assert ask.attributes["holdfast.step.name"] == "asked"
    assert (turns["asked"].trace, turns["asked"].parent) == (turns["s"].trace, ask.id)
    assert turns["told"].trace != turns["s"].trace
    assert (turns["told"].parent, turns["told"].links) == ("", [f"{turns['s'].trace}-{turns['s'].id}"])


def test_a_paid_call_made_again_after_a_kill_says_so() -> None:
    """Whoever looks at the cost sees that one answer may have been paid twice."""
    world, collected = World(), Collected()

    @tool(cost=Usage(microusd=500))
    async def buy() -> int:
        if world.lives == 1:
            await world.crash()
        return 1

    @agent(budget=Budget(usd=1))
    async def buyer(session: Session[None], text: str) -> int:
        return await session.step(buy)

    async def main(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        reply = await (await runtime.spawn(buyer, id="s")).ask("go", id="m-1")
        recorder.pack()
        return reply

    world.life(buyer, main)
    world.life(buyer, main)
    named = [name for span in collected.spans() for name, _ in span.events]
    assert "holdfast.maybe_paid" in named
    assert collected.named("step buy").attributes["holdfast.microusd"] == 1000


def test_retries_are_events_and_a_cut_step_is_a_span() -> None:
    """One span a logical step: attempts are inside it. A step that its caller let go of is not silently missing."""
    world, collected = World(), Collected()

    @tool(retry=Retry(attempts=3, base_s=1.0))
    async def flaky() -> str:
        world.done.append("try")
        if len(world.done) < 3:
            raise ConnectionError(f"cut {SECRET}")
        return "ok"

    async def slow() -> None:
        await asyncio.sleep(100)

    @agent
    async def worker(session: Session[None], text: str) -> str:
        reply = await session.step(flaky)
        try:
            async with asyncio.timeout(5):
                await session.step(slow)
        except TimeoutError:
            return reply
        return "not cut"

    async def main(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        reply = await (await runtime.spawn(worker, id="s")).ask("go")
        recorder.pack()
        return reply

    assert world.life(worker, main) == "ok"
    tried, cut = collected.named("step flaky"), collected.named("step slow")
    assert [name for name, _ in tried.events] == ["holdfast.retry", "holdfast.retry"]
    assert tried.attributes["holdfast.attempts"] == 3
    assert (cut.status, cut.attributes["error.type"]) == (NOT_OK, "CancelledError")
    assert cut.ended_s - cut.began_s == pytest.approx(5)


def test_a_dead_letter_and_a_killed_turn_end_their_spans() -> None:
    """A turn that ends badly has its span too, with why."""
    world, collected = World(), Collected()

    async def hang() -> None:
        await asyncio.sleep(1000)

    @agent
    async def doomed(session: Session[None], text: str) -> None:
        if text == "hang":
            await session.step(hang)
        raise StepError("refund", "ValueError", f"no such order {SECRET}")

    async def main(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        failing, hanging = await runtime.spawn(doomed, id="failing"), await runtime.spawn(doomed, id="hanging")
        await failing.tell("go")
        await hanging.tell("hang")
        await rest(failing)
        await hanging.cancel()
        await asyncio.sleep(1)
        recorder.pack()

    world.life(doomed, main)
    by_session = {span.attributes["session.id"]: span for span in collected.spans() if span.name == "invoke_agent doomed"}
    assert {id: span.attributes["holdfast.status"] for id, span in by_session.items()} == {"failing": "failed", "hanging": "cancelled"}
    assert {span.status for span in by_session.values()} == {NOT_OK}
    assert "abcdefgh" not in str(collected.spans())


def test_a_step_beside_another_is_not_beneath_it() -> None:
    """Only what a step does itself is beneath it: not its neighbour, and not what comes after its end."""
    world, collected = World(), Collected()

    async def look(s: float) -> str:
        await asyncio.sleep(s)
        return span_here()

    @agent
    async def busy(session: Session[None], text: str) -> list[str]:
        async def outer() -> str:
            await asyncio.sleep(2)  # its neighbour has ended by now
            both = await session.gather(session.step(look, 3.0), session.step(look, 4.0))
            return " ".join([span_here(), *both])

        beside = await session.gather(session.step(look, 1.0), session.step(outer))
        return [*beside, await session.step(look, 5.0)]

    async def main(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        reply = await (await runtime.spawn(busy, id="s")).ask("go")
        recorder.pack()
        return reply

    first, inside, last = world.life(busy, main)
    outer, *inner = inside.split()
    turn = collected.named("invoke_agent busy")
    parents = {span.id: span.parent for span in collected.spans()}
    assert {parents[id] for id in (first, outer, last)} == {turn.id}
    assert {parents[id] for id in inner} == {outer}


def test_a_step_that_its_caller_let_go_of_is_beneath_the_step_it_ran_in() -> None:
    """A cut step is nested as one that ended."""
    world, collected = World(), Collected()

    async def slow() -> None:
        await asyncio.sleep(100)

    @agent
    async def worker(session: Session[None], text: str) -> None:
        async def outer() -> None:
            try:
                async with asyncio.timeout(5):
                    await session.step(slow)
            except TimeoutError:
                return

        await session.step(outer)

    async def main(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        await (await runtime.spawn(worker, id="s")).ask("go")
        recorder.pack()

    world.life(worker, main)
    assert collected.named("step slow").parent == collected.named("step outer").id


def test_a_pause_is_on_the_turns_span() -> None:
    """Who looks at the trace sees that a person held the session up, and why."""
    world, collected = World(), Collected()

    async def slow() -> None:
        await asyncio.sleep(5)

    @agent
    async def worker(session: Session[None], text: str) -> None:
        await session.step(slow)
        await session.step(slow)

    async def main(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go")
        await asyncio.sleep(1)
        await handle.pause("I said so")
        await handle.resume()
        await idle(handle)
        recorder.pack()

    world.life(worker, main)
    said = dict(collected.named("invoke_agent worker").events)
    assert said["holdfast.left"] == {"holdfast.why": "pause"}
    assert (said["holdfast.park"]["holdfast.reason"], "I said so" in said["holdfast.park"]["holdfast.text"]) == ("paused", True)
