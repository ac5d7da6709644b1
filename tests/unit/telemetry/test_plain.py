"""The plain way: ordinary spans of the SDK say what the exporter's spans say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from holdfast import Runtime, Session, Usage, agent, tool
from holdfast.telemetry.plain import Plain
from holdfast.testing.simulation import SimulatedClock
from tests.unit.runtime.support import World
from tests.unit.telemetry.support import Collected, Read

SECRET = "Bearer abcdefghijklmnop"


@tool(cost=Usage(tokens=10, microusd=500))
async def buy(n: int) -> int:
    trace.get_current_span().set_attribute("mine", n)
    return n


async def fail() -> None:
    raise ValueError(f"no {SECRET}")


@agent
async def worker(session: Session[None], text: str) -> int:
    await session.gather(session.step(buy, 1), session.step(buy, 2))
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


def run(provider: TracerProvider) -> Collected:
    """A turn, observed by both ways."""
    world, collected = World(), Collected()

    async def main(runtime: Runtime) -> Any:
        clock = SimulatedClock(asyncio.get_running_loop())
        recorder = collected.recorder(clock)
        runtime.observe(recorder)
        runtime.observe(Plain(provider, clock))
        await (await runtime.spawn(worker, id="s", tenant="acme", user="ada")).ask("go")
        recorder.pack()

    world.life(worker, main)
    return collected


def test_both_ways_make_the_same_spans() -> None:
    """Names, ids, parents, attributes, events and errors are equal; the SDK's have what user code set on the current span besides."""
    memory, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    collected = run(provider)
    plain = sorted(map(told, memory.get_finished_spans()), key=lambda span: span[2])
    theirs = sorted(collected.spans(), key=lambda span: span.id)
    mine = {span[2]: {"mine": span[4]["mine"]} for span in plain if "mine" in span[4]}
    assert len(plain) == 5
    assert len(mine) == 2
    assert plain == [read(span, mine.get(span.id, {})) for span in theirs]
    assert "abcdefgh" not in str(plain)
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
