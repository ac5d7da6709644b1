"""The counts of a run, from its books, compared with the recordings and with the same calls made without holdfast."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.airline import differences, direct
from benchmarks.airline.app import GIVEN_OVER
from benchmarks.airline.books import LEDGER, MODEL, WITNESS, read
from benchmarks.airline.model_server import THE_END
from benchmarks.airline.recordings import Conversation
from benchmarks.airline.tables import Tables
from benchmarks.airline.tools import TOOLS
from benchmarks.airline.world import World
from holdfast.calls.tools.results import failed

LEAST_IDENTICAL = 0.85


@dataclass
class Report:
    """The counts of a run; `ledger` is the path of the book of all writes.

    Attributes:
        turns, turns_answered: the users' messages, and those that were answered.
        model_calls, model_calls_repeated: different calls of the model, and those made again because a kill cut them off.
        answers_bought_twice: calls made again although the conversation had continued with their answer.
        answers_differing: answers to users that differ from the recorded ones.
        outputs_compared, outputs_identical: outputs of tools, compared with the recorded ones.
        outputs_as_uninterrupted: outputs that equal, letter for letter, those of the same calls without holdfast; for a tool that does not
            exist, the session's error for the model.
        writes_expected: those that succeed when the recorded calls are made, each once, without holdfast.
        writes_missing: expected and not made.
        worlds_differing: sessions whose tables differ from those after the same calls without holdfast.
        broken: the fault of a process; empty if there is none.
        doubts, doubts_made: writes for which `reconcile` had to find out whether they were made, and those that were made.
        differing: the kinds of differences from recorded outputs, with the number of each.
    """

    conversations: int = 0
    turns: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    outputs_compared: int = 0
    outputs_identical: int = 0
    writes_expected: int = 0
    writes_made: int = 0
    writes_twice: int = 0
    messages_lost: int = 0
    kills: int = 0
    kills_with_open_step: int = 0
    steps_replayed: int = 0
    seconds: float = 0.0
    ledger: str = ""
    broken: str = ""
    turns_answered: int = 0
    answers_differing: int = 0
    model_calls_repeated: int = 0
    answers_bought_twice: int = 0
    outputs_as_uninterrupted: int = 0
    writes_missing: int = 0
    worlds_differing: int = 0
    doubts: int = 0
    doubts_made: int = 0
    open_at_kills: list[dict[str, int]] = field(default_factory=list)
    differing: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def faults(self, *, kills_wanted: int) -> list[str]:
        """The broken promises; empty if all were kept."""
        zero = (
            "writes_twice", "writes_missing", "messages_lost", "worlds_differing", "answers_differing", "answers_bought_twice",
        )  # fmt: skip
        found = [f"{name.replace('_', ' ')}: {getattr(self, name)}, expected 0" for name in zero if getattr(self, name)]
        if self.broken:
            found.insert(0, self.broken)
        if self.turns_answered != self.turns:
            found.append(f"only {self.turns_answered} of {self.turns} turns were answered")
        if self.outputs_identical < LEAST_IDENTICAL * self.outputs_compared:
            found.append(f"only {self.outputs_identical} of {self.outputs_compared} outputs are the recorded ones")
        if self.outputs_as_uninterrupted != self.outputs_compared:
            found.append(f"{self.outputs_compared - self.outputs_as_uninterrupted} outputs are not those of an uninterrupted run")
        if self.kills != kills_wanted:
            found.append(f"only {self.kills} of {kills_wanted} kills")
        if self.kills_with_open_step != self.kills:
            found.append(f"only {self.kills_with_open_step} of {self.kills} kills met an open step")
        return found


def count(folder: Path, tables: Tables, conversations: Sequence[Conversation], *, kills: Sequence[Sequence[str]], seconds: float) -> Report:
    """Read the books in `folder`. `kills` has the running steps at each kill."""
    result = Report(conversations=len(conversations), seconds=round(seconds, 1), ledger=str((folder / LEDGER).resolve()))
    result.kills, result.kills_with_open_step = len(kills), sum(map(bool, kills))
    result.open_at_kills = [dict(Counter(names)) for names in kills]
    _count_model(result, read(folder / MODEL))
    witness = list(read(folder / WITNESS))
    result.steps_replayed = sum(line["what"] == "replayed" for line in witness)
    reconciled = [line["made"] for line in witness if line["what"] == "reconcile"]
    result.doubts, result.doubts_made = len(reconciled), sum(reconciled)
    answers = {line["message"]: line for line in witness if line["what"] == "answered"}
    accepted = {line["message"] for line in witness if line["what"] == "accepted"}
    result.messages_lost = len(accepted - answers.keys() | {line["message"] for line in witness if line["what"] == "lost"})
    # A store may still have sessions of an earlier run that was given up: their lines do not count.
    mine = {conversation.id for conversation in conversations}
    lines = [line for line in read(folder / LEDGER) if line["session"] in mine]
    result.writes_made = len(lines)
    world = World(tables, folder)
    differing: Counter[str] = Counter()
    for conversation in conversations:
        expected = direct.run(conversation, tables)
        _count_answers(result, conversation, expected, answers, differing)
        _count_writes(result, expected, [line for line in lines if line["session"] == conversation.id])
        result.worlds_differing += world.view(conversation.id).changed() != expected.view.changed()
    world.close()
    result.differing = dict(differing.most_common())
    return result


def _count_model(result: Report, lines: Iterable[dict[str, Any]]) -> None:
    furthest: dict[str, int] = {}
    asked: Counter[tuple[str, int]] = Counter()
    for line in lines:
        if line["what"] == "asked":
            session, place = line["session"], line["place"]
            asked[session, place] += 1
            # The conversation had continued, so the answer to this call had been recorded.
            result.answers_bought_twice += place < furthest.get(session, 0)
            furthest[session] = max(place, furthest.get(session, 0))
    result.model_calls, result.model_calls_repeated = len(asked), asked.total() - len(asked)


def _count_answers(
    result: Report,
    conversation: Conversation,
    expected: direct.Expected,
    answers: dict[str, dict[str, Any]],
    differing: Counter[str],
) -> None:
    uninterrupted = iter(expected.outputs)
    for number, turn in enumerate(conversation.turns, 1):
        result.turns += 1
        answer = answers.get(f"{conversation.id}/{number}", {})
        result.turns_answered += bool(answer)
        if answer:
            given_over = bool(turn.used) and turn.used[-1].tool == "transfer_to_human_agents"
            wanted = turn.answer if turn.answer is not None else GIVEN_OVER if given_over else THE_END
            result.answers_differing += answer["text"] != wanted
        outputs = answer.get("outputs", [])
        result.tool_calls += len(outputs)
        for place, used in enumerate(turn.used):
            alone = next(uninterrupted)
            ours = outputs[place] if place < len(outputs) else None
            result.outputs_compared += 1
            result.outputs_as_uninterrupted += ours == (_no_such_tool(used.tool) if alone is None else alone)
            if ours is not None and differences.same(ours, used.output):
                result.outputs_identical += 1
            else:
                why = "there is none" if ours is None else differences.difference(ours, used.output)
                differing[f"{used.tool}: {why}"] += 1


def _no_such_tool(name: str) -> str:
    known = ", ".join(tool.name for tool in TOOLS)
    return failed("UnknownTool", f"there is no tool {name!r}; use one of: {known}").content


def _count_writes(result: Report, expected: direct.Expected, lines: list[dict[str, Any]]) -> None:
    made = Counter(_identity(line["tool"], line["arguments"]) for line in lines)
    wanted = Counter(_identity(tool, arguments) for tool, arguments in expected.writes)
    result.writes_expected += wanted.total()
    result.writes_missing += (wanted - made).total()
    # A write counts as made twice if there are more than the conversation asks for, or two under one key.
    keys = Counter(line["key"] for line in lines)
    result.writes_twice += max((made - wanted).total(), keys.total() - len(keys))


def _identity(tool: str, arguments: dict[str, Any]) -> str:
    return f"{tool} {json.dumps(arguments, sort_keys=True)}"


def tally(names: Iterable[str]) -> str:
    """The number of each, as text."""
    return " + ".join(f"{number} {name}" for name, number in sorted(Counter(names).items())) or "none"
