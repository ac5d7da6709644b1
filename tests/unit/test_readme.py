"""README.md and the code say the same: statuses, reasons, commands, options and files that the page names are there, and all are named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer.main

from holdfast.console.cli.app import app
from holdfast.console.cli.render import with_reason
from holdfast.stores.records import DISPLAY_STATUSES, ENDED, PARK_REASONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "README.md").read_text()
COMMANDS = {
    name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")} | {"--help"}
    for name, command in typer.main.get_group(app).commands.items()
}
MOST_LINES = 450


def statuses_of(page: str) -> set[str]:
    """What stands in code marks in the first column of the table of statuses."""
    table = page.split("| it is | because | do |\n", 1)[1].split("\n\n", 1)[0]
    return {mark for line in table.splitlines()[1:] for mark in re.findall(r"`([^`]+)`", line.split("|")[1])}


def test_the_table_of_statuses_is_that_of_the_code() -> None:
    """Each status and each reason as `ps` prints them: none is missing, and none is there that does not exist."""
    parked = {with_reason("parked", reason) for reason in PARK_REASONS}
    unresolved = {with_reason(status, "doubt") for status in ENDED if status != "finished"}
    assert statuses_of(PAGE) == parked | unresolved | {status for status in DISPLAY_STATUSES if status != "parked"}


def test_every_reason_that_the_code_parks_for_is_known() -> None:
    """A literal reason of `Park`, `pause` or `park_here` is one of PARK_REASONS, and each of these has a place that parks for it."""
    given: set[str] = set()
    for path in (ROOT / "holdfast").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                given |= reasons_of(node)
    assert given == set(PARK_REASONS)


def reasons_of(call: ast.Call) -> set[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""
    at = {"Park": 0, "park_here": 1, "pause": 2}.get(name)
    if at is None or len(call.args) <= at or not isinstance(given := call.args[at], ast.Constant):
        return set()
    return {str(given.value)} - {""}


def commands_of(page: str) -> list[str]:
    """Every `holdfast ...` on the page: in code marks, in blocks, after a `$`."""
    return [found for line in page.splitlines() for found in re.findall(r"(?<![\w./-])holdfast ([a-z]+(?: [^`;#|\n]*)?)", code_of(line))]


def code_of(line: str) -> str:
    """The parts of a line that are code: all of an indented one or of a command, else what stands in marks."""
    if line.startswith(("    holdfast", "$ ")):
        return line.partition("#")[0]
    return "; ".join(re.findall(r"`([^`]+)`", line))


def test_every_command_and_option_of_the_page_exists() -> None:
    """A renamed one would send the reader to an error."""
    commands = commands_of(PAGE)
    assert len(commands) > 30
    for command in commands:
        name, *words = command.split()
        assert name in COMMANDS, command
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= COMMANDS[name], command


def test_every_command_that_takes_filters_or_json_is_named() -> None:
    """The two sentences below the table are about exactly those commands."""
    (filters,) = re.findall(r"^((?:`\w+`(?:, | and ))+`\w+`) take filters", PAGE, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", filters)) == {name for name, options in COMMANDS.items() if "--where-reason" in options}
    (without,) = re.findall(r"All but (.*?) have `--json`", PAGE)
    assert set(re.findall(r"`(\w+)`", without)) == {name for name, options in COMMANDS.items() if "--json" not in options}


def test_every_file_that_is_linked_exists() -> None:
    """Links and names of files in this repository, on the pages that people read."""
    for page in (ROOT / "README.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")):
        linked = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in link]
        assert [link for link in linked if not (page.parent / link).exists()] == [], page


def test_every_target_of_make_exists() -> None:
    """`make X` on the page."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", PAGE, re.MULTILINE))
    assert {"test", "demo", "bench"} <= named <= targets


def test_the_page_is_short_enough_to_read() -> None:
    """What is longer belongs into docs/."""
    assert len(PAGE.splitlines()) < MOST_LINES


@pytest.mark.parametrize("name", ["ps", "show", "retry"])
def test_the_readers_of_this_page_see_what_is_on_it(name: str) -> None:
    """The tests above look at the commands that are there."""
    assert name in {command.split()[0] for command in commands_of(PAGE)}
    assert commands_of("so `holdfast show ID --turn 1`, or\n    holdfast ps --all  # every one\n$ holdfast nope; x\n") == [
        "show ID --turn 1", "ps --all  ", "nope",
    ]  # fmt: skip
