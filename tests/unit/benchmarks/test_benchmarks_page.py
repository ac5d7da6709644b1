"""benchmarks/README.md and the benchmarks name the same measurements, files and figures."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import isolation, memory, ps, recovery, soak_shapes
from benchmarks.__main__ import NAMES
from holdfast.runtime.sessions.recovery import _MANY, _PAUSE_S

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "benchmarks" / "README.md").read_text()
FLAT = re.sub(r"\s+", " ", PAGE)


def test_every_measurement_has_its_row_in_the_order_in_which_it_runs() -> None:
    """And no row is about one that is gone."""
    table = PAGE.split("| measurement |", 1)[1].split("\n\n", 1)[0]
    assert tuple(line.split("|")[1].strip() for line in table.splitlines()[2:]) == NAMES


def test_every_file_that_is_named_exists() -> None:
    """Without a folder it is one of the benchmarks."""
    named = re.findall(r"`([\w/]+\.py)`", PAGE)
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "benchmarks" / name).exists()] == []


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    """Sizes, counts and limits that a change of a benchmark would leave behind."""
    for text in (
        f"after {memory.MANY:,} of them than after {memory.FEW:,}",
        f"would add {memory.MANY - memory.FEW:,}",
        f"open turns of {recovery.RECORDS} records",
        f"p99 step time of {isolation.NORMAL} normal sessions",
        f"with {ps.SESSIONS:,} sessions in the store, {ps.WORKING} of them running",
        f"one of {len(soak_shapes.SHAPES)} shapes",
        f"{_MANY} or more sessions resume, for {_PAUSE_S:g} s at most",
    ):
        assert text in FLAT, text
