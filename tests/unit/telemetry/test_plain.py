"""The plain way: ordinary spans of the SDK say what the exporter's spans say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from holdfast import Agent, Runtime, Session, Usage, agent, tool
from holdfast.telemetry.plain import Plain
from holdfast.testing.simulation import SimulatedClock
from tests.unit.runtime.support import World
from tests.unit.telemetry.support import Collected, Read

tracer = TracerProvider().get_tracer("shop")
SECRET = "Bearer abcdefghijklmnop"


@tool(cost=Usage(tokens=10, microusd=500))
async def buy(n: int) -> int:
    trace.get_current_span().set_attribute("mine", n)
    return n


async def fail() -> None:
    raise ValueError(f"no {SECRET}")


async def inner() -> None:
    pass


@agent
async def worker(session: Session[None], text: str) -> int:
    await session.gather(session.step(buy, 1), session.step(buy, 2))

    async def outer() -> None:
        with tracer.start_as_current_span("the handler's own"):
            await session.step(inner)

    await session.step(outer)
    try:
        await session.step(fail)
    except Exception:
        await session.sleep(5)
    return 1


def told(span: ReadableSpan) -> tuple[Any, ...]:
    """What both ways have to agree on."""
    assert span.context is not None
    attributes = {key: list(value) if isinstance(value, tuple) else value for key, value in (span.attributes or {}).items()}
    events = [(event.name, dict(event.attributes or {})) for event in span.events]
    parent = "" if span.parent is None else f"{span.parent.span_id:016x}"
    return (
        span.name,
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
        parent,
        attributes,
        events,
        span.status.description or "",
    )


def read(span: Read, mine: dict[str, Any]) -> tuple[Any, ...]:
    return span.name, span.trace, span.id, span.parent, {**span.attributes, **mine}, span.events, span.error


def run(provider: TracerProvider, agent: Agent = worker) -> Collected:
    """The same turn twice, observed by one way and by the other."""
    collected = Collected()

    async def exported(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        await (await runtime.spawn(agent, id="s", tenant="acme", user="ada")).ask("go", id="m-1", timeout_s=1000)
        recorder.pack()

    async def plain(runtime: Runtime) -> Any:
        runtime.observe(Plain(provider, SimulatedClock(asyncio.get_running_loop())))
        await (await runtime.spawn(agent, id="s", tenant="acme", user="ada")).ask("go", id="m-1", timeout_s=1000)

    World(seed=1).life(agent, exported)
    World(seed=1).life(agent, plain)
    return collected


def test_both_ways_make_the_same_spans() -> None:
    """Names, ids, parents, attributes, events and errors are equal; the SDK's have what user code set on the current span besides."""
    memory, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    collected = run(provider)
    plain = sorted(map(told, memory.get_finished_spans()), key=lambda span: span[2])
    theirs = sorted(collected.spans(), key=lambda span: span.id)
    mine = {span[2]: {"mine": span[4]["mine"]} for span in plain if "mine" in span[4]}
    assert len(plain) == 7
    assert len(mine) == 2
    assert plain == [read(span, mine.get(span.id, {})) for span in theirs]
    assert "abcdefgh" not in str(plain)
    ids = {span.name: span for span in theirs if span.name != "step buy"}
    assert ids["step inner"].parent == ids["step outer"].id
    assert ids["step outer"].parent == ids["invoke_agent worker"].id
    times = {f"{span.context.span_id:016x}": span for span in memory.get_finished_spans() if span.context is not None}
    for span in theirs:
        assert (times[span.id].end_time or 0) / 1e9 == pytest.approx(span.ended_s)
        assert (times[span.id].start_time or 0) / 1e9 == pytest.approx(span.began_s)
    provider.shutdown()


def test_the_providers_sampler_decides() -> None:
    """What the program set up for its spans holds for holdfast's, too."""
    memory, provider = InMemorySpanExporter(), TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    run(provider)
    assert memory.get_finished_spans() == ()
    provider.shutdown()


class Begun(SpanProcessor):
    """Keeps what was begun and has not ended, as processors do that show spans while they run."""

    def __init__(self) -> None:
        self.open: list[Any] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.open.append(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.open.remove(next(one for one in self.open if one.context == span.context))


def test_a_turn_that_crashes_keeps_its_span() -> None:
    """Its crashes are on it as in the exporter's way, and no span was begun that does not end, also of a step that it left."""
    runs: list[str] = []

    async def slow() -> str:
        await asyncio.sleep(5)
        return "slept"

    @agent
    async def crashing(session: Session[None], text: str) -> str:
        async def bug() -> None:
            await asyncio.sleep(1)
            runs.append("run")
            if len(runs) % 3:
                raise ZeroDivisionError("a bug")

        async with asyncio.TaskGroup() as group:
            group.create_task(bug())
            slept = group.create_task(session.step(slow))
        return slept.result()

    memory, begun, provider = InMemorySpanExporter(), Begun(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.add_span_processor(begun)
    collected = run(provider, crashing)
    plain = sorted(map(told, memory.get_finished_spans()), key=lambda span: span[2])
    assert [(span[0], [name for name, _ in span[5]]) for span in plain if span[0].startswith("invoke")] == [
        ("invoke_agent crashing", ["holdfast.crash", "holdfast.crash"])
    ]
    assert plain == [read(span, {}) for span in sorted(collected.spans(), key=lambda span: span.id)]
    assert begun.open == []
    provider.shutdown()
