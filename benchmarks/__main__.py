"""`python -m benchmarks [--json OUT] [--quick] [names…]`: measure, print a table, write JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from benchmarks.report import Figure, as_json, table
from holdfast.console.process.main import tune

NAMES = ("throughput", "postgres", "latency", "asks", "spawns", "memory", "recovery", "isolation", "hostile", "telemetry", "ps")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The cost of holdfast, next to the raw limit.")
    parser.add_argument("names", nargs="*", help=f"which measurements; default all: {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures and single blocks there")
    parser.add_argument("--quick", action="store_true", help="few and short blocks: for a trial, not for figures")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no measurement {', '.join(unknown)}; use: {', '.join(NAMES)}")
    tune()  # as `holdfast run` does for the process; raw and holdfast alike run under it
    figures: list[Figure] = []
    for name in options.names or NAMES:
        began = time.monotonic()
        figures += importlib.import_module(f"benchmarks.{name}").run(options.quick)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(table(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(figures, quick=options.quick), indent=2) + "\n")
    return 0 if all(figure.ok is not False for figure in figures) or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
