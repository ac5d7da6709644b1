"""The limits of the design on the tree itself: sizes, forbidden calls, and nothing of one machine in the files."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "holdfast").rglob("*.py"))
# In two parts each, so that this file does not hold what it looks for.
HOSTS = re.compile("|".join(["pypi" + r"\.org", "python" + r"hosted\.org", "registry" + r"\.npmjs", "index" + r"-url"]))
PATHS = re.compile(r"(?<![\w./-])/(?:" + "|".join(["work", "root", "tmp/v", r"home/\w+/\.pyenv"]) + r")/")


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def project_files() -> list[Path]:
    """Every file that is or would be committed; in a copy without git history, every file outside hidden and cache folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0 and listed.stdout:
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    skipped = {"__pycache__", ".venv", ".git", "build", "dist"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(part in skipped or part.endswith("_cache") for part in path.relative_to(ROOT).parts)
    ]


def calls_and_imports(path: Path) -> set[str]:
    """The dotted names that a module imports, and the last two parts of every attribute that it uses."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=imported):
                names.update(alias.name for alias in imported)
            case ast.ImportFrom(module=str(module), names=imported):
                names.update({module, *(f"{module}.{alias.name}" for alias in imported)})
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                names.update({f"{owner}.{attribute}", f".{attribute}"})
            case ast.Attribute(attr=attribute):
                names.add(f".{attribute}")
            case _:
                pass
    return names


def makes_a_task(path: Path) -> bool:
    """Whether a module calls `asyncio.Task` itself."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Attribute) and called.attr == "Task" for called in calls)


def test_no_module_is_longer_than_400_lines() -> None:
    """Past about 400 lines a second concept has moved in."""
    assert {name_of(path): lines for path in SOURCES if (lines := lines_of(path)) > 400} == {}


def test_only_one_module_creates_tasks() -> None:
    """A task that nobody owns outlives its session; the one module that starts turn tasks ends each of them."""
    names = {".create_task", ".ensure_future", "asyncio.create_task", "asyncio.ensure_future"}
    creators = {name_of(path) for path in SOURCES if makes_a_task(path) or calls_and_imports(path) & names}
    # The factory makes the tasks that other code asks its loop for.
    assert creators == {"holdfast/runtime/turns/tasks.py", "holdfast/supervisors/factory.py"}


def test_nothing_is_unpickled_and_no_wait_escapes_structure() -> None:
    """Pickle runs code that it reads; `asyncio.shield` and `wait_for` lose cancellations."""
    forbidden = {"pickle", "marshal", "dill", "cloudpickle", "shelve", "asyncio.shield", "asyncio.wait_for"}
    found = {name_of(path): used for path in SOURCES if (used := calls_and_imports(path) & forbidden)}
    assert found == {}


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    """What is committed works on any machine, from whatever registry its pip is set to."""
    found: list[str] = []
    for path in project_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name_of(path)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), 1)
            if HOSTS.search(line) or PATHS.search(line)
        ]
    assert found == []
