"""Phrases that must not come back into what a person reads: the pages, the help of the command, its messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from holdfast.console.cli.app import app

ROOT = Path(__file__).parents[2]

NOT_YET: tuple[str, ...] = ()
"""Files that are not searched yet. Shorten this."""

PHRASES: dict[str, str] = {
    # the pattern -> what to write instead
    r"put(?:s|ting)? down|down cleanly|put(?:s|ting)? away": "stopped cleanly; evicted from memory; passivated",
    r"taken over|took over": "lost ownership",
    r"writes nothing more": "is fenced and cannot write",
    r"go(?:es|ing)? on|went on|gone on": "resumes; continues",
    r"doubts? (?:is|are) settled|settles? (?:a|the) doubts?": "N effects resolved",
    r"put it right": "deploy code that ...",
    r"at work": "running",
    r"until it rests|rested|rests": "until it is idle",
    r"waits no longer|undoes nothing": "stops waiting; the request stays",
    r"(?:is|not|process) well": "healthy; not healthy",
    r"written longest ago": "oldest running session: last write ... ago",
    r"past (?:their|its) records|past what they had done": "replaying; recovery (replay) is complete",
    r"accepts nothing": "not accepting work",
    r"was asked yet": "has been called yet",
    r"(?:would be|was) done to": "would ... N sessions",
    r"nobody|no one": "name the actor: no process, no person",
    r"whoever|whomever": "name the actor",
    r"nothing that|nothing says|names nothing|is nothing": "unknown key; not of the form ...; give at least one of",
    r"what was": "name the thing",
    r"failed and may have happened": "its outcome is unknown",
    r"bought (?:again|twice)": "requested (or billed) again",
    r"something that may pass": "transient failures",
    r"stand the": "is checked against",
    r"signs? of life": "the watchdog is pinged; a heartbeat",
    r"cannot be run as it is|left to a person": "is not restarted",
    r"from then on": "new ... apply to new ...",
    r"what is not named|stays as the code has it|laid over|lay these": "unset keys keep the value from code; override",
    r"ring of asks": "circular ask",
    r"where it names no limit": "where the child names no limit",
    r"is said|said|says so": "name the actor, and what it writes or reports",
    r"told": "sent; reported",
    r"shown": "the actor shows, lists, prints",
    r"loose": "name the thing",
    r"beside|besides": "next to; also",
}

FOUND = {re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): instead for pattern, instead in PHRASES.items()}


@dataclass(frozen=True)
class Text:
    """A text that a person reads, and where it is."""

    where: str
    text: str


def pages() -> Iterator[Text]:
    """README, the docs, the change log, and the examples of files that an operator writes; line by line."""
    paths = [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").glob("**/*.md")),
        *sorted((ROOT / "examples").glob("holdfast.*")),
    ]
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield Text(f"{path.relative_to(ROOT)}:{number}", line)


def help_texts() -> Iterator[Text]:
    """Every command of the command line, and each of its options and arguments."""
    commands = typer.main.get_group(app).commands
    for name, command in commands.items():
        yield Text(f"holdfast {name} --help", command.help or "")
        for parameter in command.params:
            yield Text(f"holdfast {name} --help, {parameter.name}", getattr(parameter, "help", None) or "")


def messages() -> Iterator[Text]:
    """The literal texts in the package: messages, logs, what commands print. No docstrings and no comments."""
    for path in sorted((ROOT / "holdfast").rglob("*.py")):
        tree = ast.parse(path.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings and is_message(node.value):
                yield Text(f"{path.relative_to(ROOT)}:{node.lineno}", node.value)


def is_message(text: str) -> bool:
    """A text of several words that is no SQL."""
    return " " in text and not re.search(r"\b(?:SELECT|FROM|WHEN)\b", text)


def faults(texts: Iterable[Text]) -> list[str]:
    return [
        f"{text.where}: {match[0]!r} (write: {instead}) in {text.text.strip()!r}"
        for text in texts
        if not text.where.startswith(NOT_YET)
        for pattern, instead in FOUND.items()
        if (match := pattern.search(text.text))
    ]


@pytest.mark.parametrize("texts", [pages, help_texts, messages])
def test_no_phrase_came_back(texts: Callable[[], Iterator[Text]]) -> None:
    """A reader at 2 am, whose first language is another one, reads each text once."""
    found = faults(texts())
    assert not found, "\n".join(["", *found])


def test_the_search_finds_phrases_wherever_a_person_reads_them() -> None:
    """Each kind of text is read, and a phrase is found in any case."""
    assert faults([Text("here", "It Goes on.")]) == ["here: 'Goes on' (write: resumes; continues) in 'It Goes on.'"]
    assert faults([Text("here", "It resumes, and foregoes one.")]) == []
    where = {text.where.partition(":")[0].partition(",")[0] for texts in (pages, help_texts, messages) for text in texts()}
    assert {"README.md", "docs/telemetry.md", "CHANGELOG.md", "holdfast resolve --help", "holdfast/console/cli/words.py"} <= where
