"""`python -m benchmarks.airline --conversations FILE --data DIR --store URL --concurrency 50 --kills 5 --json OUT`"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.airline.processes import ROOT, ProcessFailed
from benchmarks.airline.run import Plan, run
from benchmarks.airline.tables import MissingData

DATA = ROOT.parent / "shared" / "tau-airline"
"""The default folder of the tables and the recordings."""

BROKEN, MISSING = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run by the options; 0 if every promise was kept, 1 if not, 2 if the data are missing."""
    options = _options(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="holdfast-airline-"))
    plan = Plan(
        conversations=options.conversations or options.data / "conversations.json.gz",
        data=options.data,
        folder=folder,
        store=options.store,
        concurrency=options.concurrency,
        kills=options.kills,
        first=options.first,
        pace=options.pace,
        deadline_s=options.deadline_s,
    )
    try:
        report = run(plan)
    except MissingData as error:
        print(f"airline: {error}", file=sys.stderr)
        if options.folder is None:
            folder.rmdir()  # the fault was found before the folder had files
        return MISSING
    except ProcessFailed as error:
        print(f"airline: {error} (the logs are in {folder})", file=sys.stderr)
        return BROKEN
    if options.json is not None:
        options.json.write_text(report.as_json())
    for name, value in asdict(report).items():
        if isinstance(value, int | float | str) and value != "":
            print(f"  {name.replace('_', ' '):26} {value}")
    for what, number in ({} if report.broken else report.differing).items():
        print(f"  differs from the recording: {number} x {what}")
    faults = report.faults(kills_wanted=plan.kills)
    for fault in faults:
        print(f"FAULT {fault}")
    return BROKEN if faults else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.airline", description="Recorded conversations, run again under kill -9.")
    parser.add_argument("--conversations", type=Path, metavar="FILE", help="the recordings; default conversations.json.gz in --data")
    parser.add_argument("--data", type=Path, metavar="DIR", default=DATA, help="the tables and policy.md")
    parser.add_argument("--store", metavar="URL", help="default a SQLite file in the folder of the run")
    parser.add_argument("--concurrency", type=_number(1), default=50, help="conversations at once")
    parser.add_argument("--kills", type=_number(0), default=5)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the counts there")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for the books and logs of the run; default a new temporary one")
    parser.add_argument("--first", type=_number(1), metavar="N", help="only the first N conversations")
    parser.add_argument("--pace", type=float, default=1.0, help="how long the model (50 ms) and a write (40 ms) take, times this")
    parser.add_argument("--deadline-s", type=float, default=1200.0, help="give up after so many seconds")
    options = parser.parse_args(arguments)
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.absolute().parent}")
    return options


def _number(least: int) -> type[int]:
    class Number(int):
        def __new__(cls, text: str) -> Number:
            number = super().__new__(cls, text)
            if number < least:
                raise ValueError(text)
            return number

    Number.__name__ = f"number, at least {least}"
    return Number


if __name__ == "__main__":
    sys.exit(main())
