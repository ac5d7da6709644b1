"""Logs as JSON, one object a line, with the session, turn and step of each line. The important events are logged too.

```python
from holdfast import Runtime, Session, agent
from holdfast.telemetry import logs


@agent
async def support(session: Session[None], text: str) -> str:
    return "hello"


runtime = Runtime("memory:", agents=[support])
runtime.observe(logs.to_json())  # also sets up the logging of the process, unless its code has done so
```

Each line that any code logs inside a handler has the ids of its turn and step. No line holds a secret that holdfast knows, or a text that
looks like one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

from holdfast import events, redact
from holdfast.clock import Clock, SystemClock
from holdfast.telemetry.frames import StepFrame, TurnFrame, current_var, step_of

MAX_MESSAGE, MAX_EXCEPTION = 8_192, 8_192

_WAITS: Final = "wait"  # the reason of a park that the answer of another session ends
_EXTRA: Final = "holdfast"
_RENAMED: Final = {"message": "message_id"}  # a line's text is its "message", too
_STANDARD: Final = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", _EXTRA}
_SYSTEM_CLOCK: Final = SystemClock()
_here = current_var("holdfast_log")
_encode = msgspec.json.Encoder().encode

LEVELS: Final[Mapping[type[events.Event], int]] = {
    events.Spawned: logging.INFO,
    events.Resumed: logging.DEBUG,
    events.TurnStarted: logging.DEBUG,
    events.TurnCommitted: logging.INFO,
    events.TurnLeft: logging.DEBUG,
    events.TurnCrashed: logging.WARNING,
    events.StepStarted: logging.DEBUG,
    events.StepEnded: logging.DEBUG,
    events.StepLeft: logging.DEBUG,
    events.StepReplayed: logging.DEBUG,
    events.StepRetried: logging.INFO,
    events.ThreadAbandoned: logging.WARNING,
    events.MaybePaid: logging.WARNING,
    events.DoubtRaised: logging.WARNING,
    events.DoubtSettled: logging.INFO,
    events.SessionRewound: logging.WARNING,
    events.Drifted: logging.WARNING,
    events.Unclaimed: logging.WARNING,
    events.SessionParked: logging.WARNING,
    events.SessionFailed: logging.ERROR,
    events.Undelivered: logging.WARNING,
    events.SessionEndedEvent: logging.INFO,
    events.SessionStuck: logging.ERROR,
    events.StoreFailed: logging.ERROR,
}
"""The level of each event; `level_of` has the two whose level depends on their fields."""


def level_of(event: events.Event) -> int:
    """The level at which an event is logged: higher for a step that failed, lower for a park that ends by itself."""
    if type(event) is events.StepEnded and not event.ok:
        return logging.INFO
    if type(event) is events.SessionParked and (event.until is not None or event.reason == _WAITS):
        return logging.INFO
    return LEVELS.get(type(event), logging.INFO)


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON: its text and fields, and the turn and step in which it was logged."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a newline."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _bounded(_message(record), MAX_MESSAGE),
        }
        line |= _about(record.__dict__.get(_EXTRA))
        line |= {_clean(key): _plain(value, key) for key, value in record.__dict__.items() if key not in _STANDARD and key not in line}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = _bounded(self.formatException(record.exc_info), MAX_EXCEPTION)
        if record.stack_info:
            line["stack"] = _bounded(record.stack_info, MAX_EXCEPTION)
        return _encode(line).decode()


def to_json(stream: TextIO | None = None, *, level: int = logging.INFO, clock: Clock = _SYSTEM_CLOCK) -> EventLog:
    """Write every log record of this process as JSON; replaces the present handlers. Returns the observer of events to add to a Runtime.

    Args:
        stream: default stderr.
        level: the lowest level that is written.
        clock: the clock of the events' times.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    return EventLog(clock=clock)


class EventLog:
    """An observer that logs events with their fields, and marks the turn and the step for all other lines that are logged in them."""

    def __init__(self, logger: str = "holdfast.events", *, clock: Clock = _SYSTEM_CLOCK) -> None:
        self._log, self._time = logging.getLogger(logger), clock.time
        self._turns: dict[str, TurnFrame] = {}
        self._before: dict[type[events.Event], Callable[[Any], None]] = {
            events.TurnStarted: self._turn_started,
            events.StepStarted: self._step_started,
        }
        self._after: dict[type[events.Event], Callable[[Any], None]] = {
            events.StepEnded: self._step_over,
            events.StepLeft: self._step_over,
            events.TurnCommitted: self._turn_over,
            events.TurnLeft: self._turn_over,
            events.SessionParked: self._turn_over,
            events.StoreFailed: self._turn_over,
            events.SessionFailed: self._turn_over,
            events.SessionEndedEvent: self._turn_over,
        }

    def __call__(self, event: events.Event) -> None:
        """Record an event; call it in the task of that event."""
        kind = type(event)
        if (do := self._before.get(kind)) is not None:
            do(event)
        level = level_of(event)
        if self._log.isEnabledFor(level):
            self._say(level, event)
        if (do := self._after.get(kind)) is not None:
            do(event)

    def _say(self, level: int, event: events.Event) -> None:
        turn = self._turns.get(event.session)
        fields = {"event": event.__struct_config__.tag, **_ids(_here.get(), turn, event.session)}
        for field in event.__struct_fields__:
            value = getattr(event, field)
            if value not in (None, "", b"") and field not in ("key", "context", "facts"):
                fields[_RENAMED.get(field, field)] = value
        if type(event) is events.TurnCommitted and turn is not None:
            fields["duration_s"] = round(max(self._time() - turn.began, 0.0), 6)
        self._log.log(level, "%s", _text(event), extra={_EXTRA: fields})

    def _turn_started(self, event: events.TurnStarted) -> None:
        turn = self._turns[event.session] = TurnFrame(event)
        _here.set(turn)

    def _turn_over(self, event: events.Event) -> None:
        self._turns.pop(event.session, None)

    def _step_started(self, event: events.StepStarted) -> None:
        turn = self._turns.get(event.session)
        if turn is not None:
            _here.set(StepFrame(event, turn, _here.get()))

    def _step_over(self, event: events.StepEnded | events.StepLeft) -> None:
        step = step_of(_here.get(), event.session, event.key)
        if step is not None:
            _here.set(step.within)


def _text(event: events.Event) -> str:
    """An event as a line for people: its name and its most important field."""
    values = [
        str(getattr(event, field)) for field in ("name", "reason", "status", "text", "error", "cause", "why") if getattr(event, field, "")
    ]
    return f"{event.__struct_config__.tag}: {', '.join(values)}" if values else str(event.__struct_config__.tag)


def _ids(here: TurnFrame | StepFrame | None, turn: TurnFrame | None, session: str) -> dict[str, Any]:
    """The ids of the step or turn that the code runs in, if it is of `session`; else those of the open turn, if there is one."""
    frame = here if here is not None and here.of.session == session and (turn is None or here.of is turn) else turn
    if frame is None:
        return {"session": session}
    of = frame.of
    found = {"agent": of.agent, "session": of.session, "tenant": of.tenant, "turn": of.turn}
    if of.user:
        found["user"] = of.user
    if isinstance(frame, StepFrame):
        found["step"] = f"{frame.kind} {frame.name}"
    return {**found, "trace_id": f"{of.ids.trace_id:032x}", "span_id": f"{frame.span_id:016x}"}


def _about(fields: Any) -> dict[str, Any]:
    """The fields of an event, or the ids of the turn and step of the code that logs."""
    if isinstance(fields, dict):
        return {key: _plain(value, key) for key, value in fields.items()}
    here = _here.get()
    return {} if here is None else {key: _plain(value) for key, value in _ids(here, None, here.of.session).items()}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        # The caller's format string is wrong: a line with that fault is better than none.
        return f"{record.msg} (its arguments do not fit: {type(error).__name__})"


def _plain(value: Any, name: str = "") -> Any:
    if value is not None and not isinstance(value, bool | str) and name and redact.is_secret(name):
        return redact.MASK
    if value is None or isinstance(value, bool | int | float):
        return value if not isinstance(value, int) or abs(value) < 1 << 63 else str(value)
    return _bounded(value if isinstance(value, str) else str(value), MAX_MESSAGE, name)


def _bounded(value: str, limit: int, name: str = "") -> str:
    """The text of a field without secrets. If it is too long, its first third and its last two thirds within `limit`."""
    value = _clean(redact.text(value, name))
    return value if len(value) <= limit else f"{value[: limit // 3]} [...] {value[-(limit * 2 // 3) :]}"


def _clean(value: str) -> str:
    """The text without characters that cannot be encoded."""
    return value.encode("utf-8", "backslashreplace").decode()
