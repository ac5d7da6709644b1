"""Phrases that must not come back into what a person reads: pages, help texts, messages, docstrings, comments and names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from holdfast.console.cli.app import app

ROOT = Path(__file__).parents[2]

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
    r"somebody|someone|anybody|everybody": "name the actor: a person, a process, the caller",
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
    # But not a name in full, such as BreakerSpec.probes in the change log.
    r"(?<![.])prob(?:e|es|ed|ing)": "reconcile; half-open call; health check",
}

PARAGRAPH = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|$))+")

FOUND = {re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): instead for pattern, instead in PHRASES.items()}


@dataclass(frozen=True)
class Text:
    """A text that a person reads, and where it is."""

    where: str
    text: str


def pages() -> Iterator[Text]:
    """README, the docs, the change log, the Makefile, and the examples of files that an operator writes; paragraph by paragraph."""
    paths = [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "Makefile",
        ROOT / "benchmarks" / "README.md",
        *sorted((ROOT / "docs").glob("**/*.md")),
        *sorted((ROOT / "examples").glob("holdfast.*")),
    ]
    for path in paths:
        for number, text in paragraphs(path.read_text(), 1):
            yield Text(f"{path.relative_to(ROOT)}:{number}", text)


def help_texts() -> Iterator[Text]:
    """Every command of the command line, and each of its options and arguments."""
    commands = typer.main.get_group(app).commands
    for name, command in commands.items():
        yield Text(f"holdfast {name} --help", command.help or "")
        for parameter in command.params:
            yield Text(f"holdfast {name} --help, {parameter.name}", getattr(parameter, "help", None) or "")


def messages() -> Iterator[Text]:
    """The literal texts in the sources: messages, logs, what commands print. No docstrings and no comments."""
    for path in sources("holdfast", "benchmarks", "examples"):
        tree = ast.parse(path.read_text())
        documentation = {id(node) for node in docstring_nodes(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation and is_message(node.value):
                yield Text(f"{path.relative_to(ROOT)}:{node.lineno}", node.value)


def docstrings() -> Iterator[Text]:
    """Each paragraph of the docstrings of modules, classes, functions and attributes."""
    for path in documented():
        for number, text in docstring_paragraphs(path.read_text()):
            yield Text(f"{path.relative_to(ROOT)}:{number}", text)


def comments() -> Iterator[Text]:
    """Each comment; consecutive lines are one text."""
    for path in documented():
        for number, text in comment_blocks(path.read_text()):
            yield Text(f"{path.relative_to(ROOT)}:{number}", text)


def names() -> Iterator[Text]:
    """The names that the package defines: classes, functions, parameters, variables and attributes, each as words."""
    for path in sources("holdfast"):
        for name, number in defined_names(path.read_text()):
            words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").strip()
            yield Text(f"{path.relative_to(ROOT)}:{number}, {name}", words)


def defined_names(source: str) -> Iterator[tuple[str, int]]:
    """Each name that the source defines, and its line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case _:
                pass


def docstring_nodes(tree: ast.AST) -> Iterator[ast.Constant]:
    """The text of every statement that is a text, also below an attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def docstring_paragraphs(source: str) -> Iterator[tuple[int, str]]:
    """The line of each paragraph of the docstrings, and its text on one line."""
    for node in docstring_nodes(ast.parse(source)):
        yield from paragraphs(str(node.value), node.lineno)


def paragraphs(text: str, first: int) -> Iterator[tuple[int, str]]:
    """The line of each paragraph of a text that begins on line `first`, and the paragraph on one line: a line break may split a phrase."""
    for found in PARAGRAPH.finditer(text):
        yield first + text.count("\n", 0, found.start()), " ".join(found[0].split())


def comment_blocks(source: str) -> Iterator[tuple[int, str]]:
    """The line of each comment, and its text without the marks; comments on consecutive lines are one text."""
    first, lines = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if lines and token.start[0] != first + len(lines):
            yield first, " ".join(lines)
            lines = []
        if not lines:
            first = token.start[0]
        lines.append(token.string.lstrip("#: "))
    if lines:
        yield first, " ".join(lines)


def documented() -> list[Path]:
    """The sources whose docstrings and comments are searched."""
    return sources("holdfast", "benchmarks", "examples")


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def is_message(text: str) -> bool:
    """A text of several words that is no SQL."""
    return " " in text and not re.search(r"\b(?:SELECT|FROM|WHEN)\b", text)


def faults(texts: Iterable[Text]) -> list[str]:
    return [
        f"{text.where}: {match[0]!r} (write: {instead}) in {text.text[max(match.start() - 60, 0) : match.end() + 60].strip()!r}"
        for text in texts
        for pattern, instead in FOUND.items()
        if (match := pattern.search(text.text))
    ]


@pytest.mark.parametrize("texts", [pages, help_texts, messages, docstrings, comments, names])
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
    for texts in (docstrings, comments):
        where = {text.where.partition(":")[0] for text in texts()}
        assert {
            "holdfast/runtime/turns/turn.py",
            "holdfast/stores/sqlite/store.py",
            "benchmarks/airline/tools.py",
            "examples/support/tools.py",
        } <= where


def test_the_search_finds_phrases_across_the_lines_of_docstrings_and_comments() -> None:
    """Also below an attribute, and in a comment at the end of a line of code."""
    source = '"""One.\n\nIt goes\non.\n"""\n# A session at\n# work.\nLIMIT = 1  # of nobody\n"""Is\ntold."""\n'
    assert list(docstring_paragraphs(source)) == [(1, "One."), (3, "It goes on."), (9, "Is told.")]
    assert list(comment_blocks(source)) == [(6, "A session at work. of nobody")]


def test_the_search_finds_phrases_in_the_names_of_a_source() -> None:
    """In those that it defines, not in those that it uses."""
    source = "class PutDown:\n    def rested(self, told: int) -> None:\n        self._shown = said = shown()\n"
    assert sorted(defined_names(source)) == [("PutDown", 1), ("_shown", 3), ("rested", 2), ("said", 3), ("self", 2), ("told", 2)]
