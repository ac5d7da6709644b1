"""`python -m benchmarks.soak [--kills 200] [--sessions 200]`: kill a running process again and again; count from outside."""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks import raw
from benchmarks.soak_world import Count, World, count


def _start(directory: Path, sessions: int, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.soak_app", str(directory), str(sessions), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _life(directory: Path, sessions: int, seconds: float, early: bool) -> None:
    """Start the program and kill it `seconds` after it is ready, or (early) so long after its start, wherever it is then."""
    process = _start(directory, sessions, "work")
    assert process.stdout is not None
    if not early and process.stdout.readline() != "started\n":
        raise RuntimeError(f"the program ended by itself with {process.wait()}")
    time.sleep(seconds)
    if process.poll() is not None:
        raise RuntimeError(f"the program ended by itself with {process.returncode}")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def soak(kills: int, sessions: int, seed: int, directory: Path) -> Count:
    """Kill it `kills` times, let it finish, count."""
    chance, world = random.Random(seed), World(directory)
    for number in range(kills):
        # One in ten is killed while it starts, imports and recovers.
        early = chance.random() < 0.1
        _life(directory, sessions, chance.uniform(0.1, 0.8) if early else chance.uniform(0.05, 1.0), early)
        world.log("kill", number=number)
        if sys.stderr.isatty() or number % 20 == 19:
            print(f"{number + 1} of {kills} kills", end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr)
    last = _start(directory, sessions, "finish")
    if last.wait(timeout=600) != 0:
        raise RuntimeError(f"the program could not finish: it ended with {last.returncode}")
    assert last.stdout is not None
    last.stdout.close()
    done = json.loads((directory / "answers.json").read_text())
    return count(world, done["answers"], done["unsettled"])


def _faults(result: Count) -> list[str]:
    none = (
        "lost", "wrong_answers", "notes_applied_twice", "notes_missing", "payments_twice", "payments_missing", "asked_again", "both_ways",
        "unsettled",
    )  # fmt: skip
    faults = [f"{name.replace('_', ' ')}: {getattr(result, name)}, expected 0" for name in none if getattr(result, name)]
    if result.kills_with_open_step < 0.8 * result.kills:
        faults.append(f"only {result.kills_with_open_step} of {result.kills} kills met an open step")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the times of the kills")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the counts there")
    parser.add_argument("--quick", action="store_true", help="10 kills of 50 sessions")
    options = parser.parse_args()
    kills, sessions = (10, 50) if options.quick else (options.kills, options.sessions)
    began = time.monotonic()
    with raw.scratch() as directory:
        result = soak(kills, sessions, options.seed, directory)
    print(f"{kills} kills of {sessions} sessions in {time.monotonic() - began:.0f} s, counted from the outside ledger:")
    for name, value in asdict(result).items():
        if name != "faults":
            print(f"  {name.replace('_', ' '):24} {value:>8,}")
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(result), indent=2) + "\n")
    faults = _faults(result)
    for fault in faults + result.faults[:20]:
        print(f"FAULT {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
