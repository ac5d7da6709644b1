"""Logs as JSON: one object a line, with the turn and step it was said in."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast import Runtime, Session, agent, events
from holdfast.telemetry.logs import LEVELS, MAX_EXCEPTION, JsonFormatter, level_of, to_json
from holdfast.testing.simulation import SimulatedClock
from tests.unit.runtime.support import World, rest
from tests.unit.telemetry.support import Collected

SECRET = "Bearer abcdefghijklmnop"
log = logging.getLogger("shop")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the root logger would write; as it was again afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def one(**record: Any) -> dict[str, Any]:
    """A record as the formatter writes it."""
    text = JsonFormatter().format(logging.makeLogRecord({"name": "shop", "levelname": "INFO", "created": 0.5, **record}))
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_is_one_object_with_time_level_logger_and_message() -> None:
    """Any JSON log pipeline reads it; what the caller adds is there under its own name."""
    line = one(msg="%s of %d", args=("a\nb", 2), order=17, odd=object)
    assert line.pop("time") == "1970-01-01T00:00:00.500Z"
    assert line == {"level": "INFO", "logger": "shop", "message": "a\nb of 2", "order": 17, "odd": "<class 'object'>"}


def test_no_secret_and_nothing_endless_is_in_a_line() -> None:
    """Message, added fields, traceback and stack are masked, and a traceback without end is cut in its middle."""
    try:
        raise ValueError(f"{SECRET} " + "x" * 50_000 + " the end")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    line = one(msg=f"said {SECRET}", header=SECRET, exc_info=info, stack_info=f"at {SECRET}")
    assert "abcdefgh" not in json.dumps(line)
    assert (line["message"], line["header"], line["stack"]) == ("said [redacted]", "[redacted]", "at [redacted]")
    assert len(line["exception"]) < MAX_EXCEPTION + 100
    assert line["exception"].endswith("the end")


def test_a_record_that_cannot_be_formatted_is_a_line_all_the_same() -> None:
    """A slip in a log call, or text that is not text, loses no line and raises nothing."""
    assert one(msg="%d of %d", args=("x",))["message"] == "%d of %d (its arguments do not fit: TypeError)"
    assert one(msg="half \ud800", big=1 << 80)["big"] == str(1 << 80)


def test_what_a_handler_logs_says_where_it_was_said(stream: io.StringIO) -> None:
    """Session, turn and step are on every line, from the handler, from beneath a step and from holdfast; the trace is that of the spans."""
    world, collected = World(), Collected()

    async def look(n: int) -> int:
        log.info("looking", extra={"n": n})
        await asyncio.sleep(0.25)
        return n

    @agent
    async def worker(session: Session[None], text: str) -> int:
        log.info("begin")
        await session.gather(session.step(look, 1), session.step(look, 2))
        log.info("end")
        return 3

    async def main(runtime: Runtime) -> Any:
        recorder = collected.recorder()
        runtime.observe(recorder)
        runtime.observe(to_json(stream, clock=SimulatedClock(asyncio.get_running_loop())))
        handle = await runtime.spawn(worker, id="s-1", tenant="acme", user="ada")
        await handle.ask("go")
        log.info("outside")
        recorder.pack()

    world.life(worker, main)
    said = {line["message"]: line for line in lines(stream) if line["logger"] == "shop"}
    turn = collected.named("invoke_agent worker")
    common = {"agent": "worker", "session": "s-1", "tenant": "acme", "user": "ada", "turn": 1, "trace_id": turn.trace}
    assert common.items() <= said["begin"].items()
    assert said["begin"]["span_id"] == said["end"]["span_id"] == turn.id
    assert "step" not in said["end"]
    assert said["looking"]["step"] == "step look"
    assert said["looking"]["span_id"] in {span.id for span in collected.spans() if span.name == "step look"}
    assert "session" not in said["outside"]
    [done] = [line for line in lines(stream) if line.get("event") == "TurnCommitted"]
    assert {**common, "level": "INFO", "logger": "holdfast.events", "status": "idle"}.items() <= done.items()
    assert done["message"] == "TurnCommitted: idle"
    assert done["message_id"]
    assert done["duration_s"] == pytest.approx(0.25), "both steps at once, in virtual time"


def test_events_of_note_are_logged_by_how_much_they_matter(stream: io.StringIO) -> None:
    """A crash and a dead letter stand out with their cause, without secrets; a step that went well is for debugging only."""
    world = World()

    async def look() -> None:
        raise ValueError(f"no {SECRET}")

    @agent
    async def worker(session: Session[None], text: str) -> None:
        await session.sleep(0.1)
        await session.step(look)

    async def main(runtime: Runtime) -> Any:
        runtime.observe(to_json(stream, clock=SimulatedClock(asyncio.get_running_loop())))
        handle = await runtime.spawn(worker, id="s-1")
        await handle.tell("go", id="m-1")
        await rest(handle)

    world.life(worker, main)
    said = [line for line in lines(stream) if line["logger"] == "holdfast.events"]
    levels = {line["event"]: line["level"] for line in said}
    assert levels["Spawned"] == "INFO"
    assert levels["StepEnded"] == "INFO"
    assert levels["TurnCrashed"] == "WARNING"
    assert levels["SessionFailed"] == "ERROR"
    assert {line["name"] for line in said if line["event"] == "StepEnded"} == {"look"}
    assert all("cause" in line and line["duration_s"] >= 0 for line in said if line["event"] == "StepEnded")
    assert "abcdefgh" not in stream.getvalue()


def test_a_park_that_asks_a_person_is_a_warning_and_one_that_ends_by_itself_is_not() -> None:
    """At night one line matters, the other does not."""
    assert level_of(events.SessionParked("s", "doubt", "resolve it")) == logging.WARNING
    assert level_of(events.SessionParked("s", "wait", "sleeps", 100.0)) == logging.INFO
    assert level_of(events.SessionParked("s", "wait", "waits for ask other")) == logging.INFO


def test_every_event_has_a_level() -> None:
    """None is added and forgotten."""
    assert set(LEVELS) == {kind for kind in events.Event.__subclasses__() if kind.__module__ == events.__name__}
