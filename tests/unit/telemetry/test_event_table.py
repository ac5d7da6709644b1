"""docs/telemetry.md lists every event as it is."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from holdfast import events
from holdfast.telemetry import conventions, notes
from holdfast.telemetry.logs import LEVELS

PAGE = (Path(__file__).parents[3] / "docs" / "telemetry.md").read_text()
KINDS = [kind for kind in events.Event.__subclasses__() if kind.__module__ == events.__name__]
SPANS = {events.TurnCommitted, events.SessionFailed, events.SessionEndedEvent, events.StepEnded}


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table with that heading, by their first cell."""
    table = PAGE.split(heading, 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    return {row[0].strip("`"): row[1:] for row in cells}


EVENTS = rows("| event | when |")


def name_of(kind: type[events.Event]) -> str:
    return str(kind.__struct_config__.tag)


def test_every_event_has_a_row_and_every_row_an_event() -> None:
    """None is added without a word, none stays after it is gone."""
    assert set(EVENTS) == {name_of(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_a_row_says_what_is_so(kind: type[events.Event]) -> None:
    """Its fields in order, the level it is logged at, and what becomes of it in a trace."""
    when, fields, level, trace = EVENTS[name_of(kind)]
    assert when
    assert re.findall(r"`(\w+)`", fields) == [field for field in kind.__struct_fields__ if field != "session"]
    assert level.split(";")[0] == logging.getLevelName(LEVELS[kind])
    noted = {**notes.OF_STEP, **notes.OF_TURN}.get(kind)
    assert re.findall(r"`(holdfast\.\w+)`", trace) == ([] if noted is None else [noted])
    assert trace.startswith("span of") == (kind in SPANS)


def test_every_attribute_is_in_the_table() -> None:
    """What is exported is what the page says, by its full name or its ending."""
    listed = {name for cell in rows("| attribute | on |") for name in re.findall(r"[a-z_.]+", cell)}
    constants = {value for name, value in vars(conventions).items() if name.isupper() and isinstance(value, str) and "." in value}
    missing = {
        name for name in constants if name not in listed and not any(part.startswith(".") and name.endswith(part) for part in listed)
    }
    assert missing == set()
