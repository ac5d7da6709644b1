"""`python -m benchmarks.storms [--quick] [names...]`: stores fail in many ways under working sessions; count from outside."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks import storms_app
from benchmarks.storms_weather import STORMS, Skipped
from benchmarks.storms_world import Count, broken, count


def play(name: str, sessions: int, scale: float) -> tuple[Count, dict[str, str]]:
    """One storm: its counts, and by session why a person was needed.

    Args:
        scale: 1.0 for the whole storm, less for a shorter one.

    Raises:
        Skipped: this machine cannot make the storm.
    """
    with contextmanager(STORMS[name])(scale) as (url, blow):
        world, done_s = asyncio.run(storms_app.run(url, sessions, blow))
    return count(world, done_s), {**world.unknown, **world.known}


def _table(found: dict[str, Count]) -> str:
    """One line for each count, one column for each storm."""
    lines = [" ".join([" " * 16, *(name.rjust(max(len(name), 12)) for name in found)])]
    for count_ in asdict(Count()):
        values = [getattr(result, count_) for result in found.values()]
        cells = [f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in values]
        label = count_.replace("done_s", "done after s").replace("_s", " s").replace("_", " ")
        lines.append(" ".join([f"{label:16}", *(cell.rjust(max(len(name), 12)) for name, cell in zip(found, cells, strict=True))]))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storms", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(STORMS)}; all without one")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="40 sessions, a fifth of the time")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the counts there")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in STORMS]
    if unknown:
        parser.error(f"unknown storm {', '.join(unknown)}: give one of {', '.join(STORMS)}")
    sessions, scale = (40, 0.2) if options.quick else (options.sessions, 1.0)
    # Each storm makes holdfast warn, as it should.
    logging.getLogger("holdfast").addHandler(logging.NullHandler())
    found, faults = dict[str, Count](), list[str]()
    for name in options.names or STORMS:
        print(f"{name} ...", file=sys.stderr)
        try:
            found[name], reasons = play(name, sessions, scale)
        except Skipped as why:
            print(f"{name} is skipped: {why}")
            continue
        faults += [f"{name}: {fault}" for fault in broken(found[name], quiet=name == "none")]
        faults += [f"{name}: {session} needed a person: {why}" for session, why in list(reasons.items())[:5]]
    print(f"{sessions} sessions in each storm; counted from the outside accounts:\n{_table(found)}")
    if options.json is not None:
        options.json.write_text(json.dumps({name: asdict(result) for name, result in found.items()}, indent=2) + "\n")
    for fault in faults:
        print(f"FAULT {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
