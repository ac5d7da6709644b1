"""Figures: measured in alternating blocks, held against their limit, printed as a table and written as JSON."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: the measurement.
        unit: the unit of `ours` and `raw`.
        ours: the median of holdfast's blocks.
        raw: the median of the raw blocks between them; None if there is no raw limit.
        limit_text: the promise for `ours`; "" if there is none.
        ok: whether the promise is kept; None if there is none.
        ratio: the ratio of ours to raw, or another one that `limit_text` names.
        blocks: all single measurements.
    """

    name: str
    unit: str
    ours: float
    raw: float | None = None
    raw_name: str = ""
    limit_text: str = ""
    ok: bool | None = None
    ratio: float | None = None
    blocks: dict[str, list[float]] = field(default_factory=dict)
    notes: str = ""


def alternate(pairs: int, raw: Callable[[], float], ours: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Measure raw, ours, raw, ours, ...: so other load of the machine affects both."""
    raws: list[float] = []
    mine: list[float] = []
    for _ in range(pairs):
        raws.append(raw())
        mine.append(ours())
    return raws, mine


def compared(
    name: str,
    unit: str,
    raws: list[float],
    mine: list[float],
    *,
    raw_name: str,
    least: float | None = None,
    most: float | None = None,
    notes: str = "",
) -> Figure:
    """A figure whose promise is a ratio to the raw one: at `least` or at `most` so much of it. The ratio is the median of the pairs'."""
    ratio = statistics.median(m / r for m, r in zip(mine, raws, strict=True))
    text, ok = "", None
    if least is not None:
        text, ok = f">= {least:.0%} of raw", ratio >= least
    if most is not None:
        text, ok = f"<= {most:g} x raw", ratio <= most
    return Figure(
        name, unit, statistics.median(mine), statistics.median(raws), raw_name, text, ok, ratio, {"ours": mine, "raw": raws}, notes
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def table(figures: Iterable[Figure]) -> str:
    """The figures for a person."""
    rows = [("figure", "holdfast", "raw", "ratio", "expected", "")]
    rows += [
        (
            figure.name,
            f"{_number(figure.ours)} {figure.unit}",
            "" if figure.raw is None else f"{_number(figure.raw)} {figure.unit}",
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            figure.limit_text,
            {None: "", True: "ok", False: "MISSED"}[figure.ok],
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def as_json(figures: Iterable[Figure], *, quick: bool) -> dict[str, Any]:
    """The figures for a machine, with the machine on which they were measured."""
    return {
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": quick,
        "machine": {
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
            "sqlite": sqlite3.sqlite_version,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "figures": [asdict(figure) for figure in figures],
    }


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
