"""The expected results: the recorded calls of a conversation, made on a fresh world without holdfast and without kills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.airline import arithmetic, reads
from benchmarks.airline.recordings import Conversation
from benchmarks.airline.tables import Tables, View
from benchmarks.airline.tools import TOOLS
from benchmarks.airline.world import attempt
from benchmarks.airline.writes import WRITES, Refused
from holdfast.calls.tools.results import failed
from holdfast.errors import HoldfastError

Write = tuple[str, dict[str, Any]]
"""A write that was made: the tool and its arguments."""

_READS: dict[str, Callable[..., str]] = {
    "get_user_details": reads.get_user_details,
    "get_reservation_details": reads.get_reservation_details,
    "list_all_airports": reads.list_all_airports,
    "search_direct_flight": reads.search_direct_flight,
    "search_onestop_flight": reads.search_onestop_flight,
    "calculate": lambda view, expression: arithmetic.calculate(expression),
    "think": lambda view, thought: "",
    "transfer_to_human_agents": lambda view, summary: "Transfer successful",
}
_TOOLS = {tool.name: tool for tool in TOOLS}


@dataclass
class Expected:
    """The expected results of a conversation.

    Attributes:
        outputs: the outputs of all its tool calls, in order; None where the recording calls a tool that does not exist.
        writes: the writes that were made, in order, without refused ones.
        view: the tables afterwards.
    """

    view: View
    outputs: list[str | None] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)


def run(conversation: Conversation, tables: Tables) -> Expected:
    """Make all its calls, each once."""
    expected = Expected(View(tables))
    for turn in conversation.turns:
        for used in turn.used:
            expected.outputs.append(_call(expected, used.tool, used.arguments))
    return expected


def _call(expected: Expected, name: str, given: str) -> str | None:
    if name not in _TOOLS:
        return None
    try:
        arguments = _TOOLS[name].parse(given)
    except HoldfastError as error:
        return failed(type(error).__name__, str(error)).content
    if name in _READS:
        return _READS[name](expected.view, **arguments)
    assert name in WRITES
    try:
        change = attempt(expected.view, name, arguments)
    except Refused as error:
        return str(error)
    expected.view.apply(change)
    expected.writes.append((name, arguments))
    return change.result
