"""The Python code in README.md and docs/ compiles, and what is marked with `<!-- test -->` runs. All code in docstrings runs.

Every file and name on the page about the architecture exists.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARK = "<!-- test -->"
BLOCK = re.compile(
    rf"(?P<mark>{re.escape(MARK)}[ \t]*\n\s*)?"
    r"^(?P<indent>[ \t]*)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block: where its code begins, the code, and whether it is to be run."""

    where: str
    code: str
    marked: bool


def blocks_of(text: str, name: str) -> list[Block]:
    return [
        Block(
            where=f"{name}:{text.count(chr(10), 0, found.start('code')) + 1}",
            code=textwrap.dedent(found["code"]),
            marked=found["mark"] is not None,
        )
        for found in BLOCK.finditer(text)
    ]


PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))) if page.is_file()]
BLOCKS = [block for page in PAGES for block in blocks_of(page.read_text(), str(page.relative_to(ROOT)))]

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings_of(path: Path) -> list[tuple[str, str]]:
    """Every docstring of a module and of what is in it, with where it is from."""
    name = str(path.relative_to(ROOT))
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, DOCUMENTED)]
    return [(f"{name}, {getattr(node, 'name', 'module')}", text) for node in nodes if (text := ast.get_docstring(node))]


DOCSTRINGS = [found for path in sorted((ROOT / "holdfast").rglob("*.py")) for found in docstrings_of(path)]
EXAMPLES = [block for where, text in DOCSTRINGS for block in blocks_of(text, where)]


def run(block: Block, folder: Path) -> None:
    """Paste the block into a file, in an empty folder, and run it with this checkout."""
    script = folder / "example.py"
    script.write_text(block.code)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, script.name], cwd=folder, env=env, capture_output=True, text=True, timeout=50)
    assert ran.returncode == 0, f"{block.where}\n{ran.stdout}\n{ran.stderr}"


def unfenced_code(text: str) -> list[str]:
    """Indented blocks of a docstring that are Python code: they would not be run."""
    blocks = re.findall(r"(?:^|\n)[ \t]*\n((?:    [^\n]*(?:\n|$)|[ \t]*\n)+)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [block for block in blocks if ">>>" in block or is_code(textwrap.dedent(block))]


def is_code(text: str) -> bool:
    try:
        tree = compile(text, "block", "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Call | ast.Import | ast.ImportFrom | ast.Assign | ast.Await) for node in ast.walk(tree))


@pytest.mark.parametrize("block", BLOCKS, ids=[block.where for block in BLOCKS])
def test_every_python_block_compiles(block: Block) -> None:
    """No page shows code that is not Python; `await` may stand at the top, as in a fragment of an async function."""
    compile(block.code, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.marked], ids=[b.where for b in BLOCKS if b.marked])
def test_a_marked_block_runs(block: Block, tmp_path: Path) -> None:
    """A reader who pastes the block into a file, in an empty directory, sees it end well."""
    run(block, tmp_path)


@pytest.mark.parametrize("block", EXAMPLES, ids=[block.where for block in EXAMPLES])
def test_an_example_in_a_docstring_runs(block: Block, tmp_path: Path) -> None:
    """It is complete: it runs as it stands, with nothing imported or made before it."""
    run(block, tmp_path)


def test_every_example_in_a_docstring_is_fenced() -> None:
    """One form for all, ```python as on the pages; code in another form would not be run."""
    assert [f"{where}: {block}" for where, text in DOCSTRINGS for block in unfenced_code(text)] == []
    assert unfenced_code("What it does:\n\n    x = f(1)\n    y\n\nMore.") == ["    x = f(1)\n    y\n\n"]
    assert unfenced_code("What it does:\n\n    claim -> close\n\n```python\nx = f(1)\n```\n") == []
    assert any("holdfast/testing/__init__.py" in block.where for block in EXAMPLES)


def test_every_mark_stands_before_a_python_block() -> None:
    """A mark that marks nothing would be an example that everybody believes to be tested."""
    marks = sum(page.read_text().count(MARK) for page in PAGES)
    assert marks == sum(block.marked for block in BLOCKS)


def test_the_reader_of_pages_sees_marks_lines_and_indented_blocks() -> None:
    """The two tests above look at all blocks there are, at the lines they say."""
    page = f"# Title\n\n{MARK}\n```python\nprint(1)\n```\n\n1. a list\n\n   ```python\n   x = 2\n   ```\n\n```text\nno\n```\n"
    assert blocks_of(page, "page.md") == [
        Block("page.md:5", "print(1)\n", marked=True),
        Block("page.md:11", "x = 2\n", marked=False),
    ]


# ---------------------------------------------------------------- the page about the architecture

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
RUNTIME = ROOT / "holdfast" / "runtime"
NOT_NAMES = {"once", "settles_s", "runtime"}
"""What stands in code marks there and is defined in no file: an effect class, an option of tools, a package."""

MARKED = re.compile(r"`([^`\n]+)`")
IN_ITS_FILE = re.compile(r"((?:`[\w.]+`(?:,\s| and\s)?)+)\s\(`([\w/]+\.py)`\)")
"""`Name` (`file.py`), or several: defined in that file."""


def is_file(mark: str) -> bool:
    return mark.endswith((".py", "/"))


def file_of(mark: str) -> Path:
    """Without `holdfast/` it is one of the runtime's."""
    return ROOT / mark if mark.startswith("holdfast/") else RUNTIME / mark


def defined_in(path: Path) -> set[str]:
    """What a module defines: classes, functions and constants, and as "Class.name" methods and attributes."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        found = names_of(node)
        names |= found
        if isinstance(node, ast.ClassDef):
            members = [*node.body, *(inner for inner in ast.walk(node) if isinstance(inner, ast.Assign | ast.AnnAssign))]
            names |= {f"{node.name}.{name}" for member in members for name in names_of(member)}
    return names


def names_of(node: ast.AST) -> set[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {name for target in targets for each in ast.walk(target) if (name := target_of(each))}
        case ast.AnnAssign(target=target):
            return {target_of(target)} - {""}
        case _:
            return set()


def target_of(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def missing_of(page: str) -> list[str]:
    """The files and names on the page that do not exist, or not where the page has them."""
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    marks = [mark for mark in MARKED.findall(text) if mark not in NOT_NAMES]
    files = {mark for mark in marks if is_file(mark)}
    missing = [mark for mark in files if not file_of(mark).exists()]
    in_runtime = {name for path in RUNTIME.rglob("*.py") for name in defined_in(path)}
    mentioned = {name for mark in files if file_of(mark).is_file() for name in defined_in(file_of(mark))}
    dotted = re.findall(r"\b[A-Z]\w+\.\w+\b", page)
    missing += [mark for mark in (*marks, *dotted) if not is_file(mark) and mark not in in_runtime | mentioned]
    for names, mark in IN_ITS_FILE.findall(text):
        if file_of(mark).is_file():
            missing += [f"{name} in {mark}" for name in MARKED.findall(names) if name not in defined_in(file_of(mark))]
    return sorted(set(missing))


def packages_of(page: str) -> set[str]:
    """The names in the list of the packages, without what they are for."""
    block = re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0]
    lines = [re.sub(r"^(calls|runtime) +", "", line).strip() for line in block.splitlines()]
    return {name for line in lines for name in re.sub(r"(\S)  .*", r"\1", line).split()}


def test_every_file_and_name_of_the_architecture_exists() -> None:
    """The page follows the code by name: one that was renamed or moved leads nowhere."""
    assert missing_of(ARCHITECTURE) == []


def test_the_list_of_packages_is_complete() -> None:
    """Each package, and each module that stands beside the packages, of holdfast, its calls and its runtime."""
    folders = (ROOT / "holdfast", ROOT / "holdfast" / "calls", RUNTIME)
    there = {path.stem for folder in folders for path in folder.iterdir() if not path.name.startswith("_")}
    assert packages_of(ARCHITECTURE) | {"calls", "runtime"} == {name for name in there if name != "py"}


def test_the_reader_of_the_architecture_finds_what_is_wrong() -> None:
    """A file that is gone, a name that is nowhere, and a name that is in another file."""
    page = "`Turn.run` (`turns/turn.py`), `Turn` (`turns/tasks.py`), `Nowhere`, `turns/gone.py`, `holdfast/policies/`, `once`"
    page += "\n```text\nTurn.walk\n```"
    assert missing_of(page) == ["Nowhere", "Turn in turns/tasks.py", "Turn.walk", "turns/gone.py"]
