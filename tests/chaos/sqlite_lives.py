"""A program that test_crash_sqlite runs: forks processes that die at a commit, and others that finish what those left.

    python -m tests.chaos.sqlite_lives FOLDER CASE...

A case is "K-before" or "K-after": the first process dies at its K-th COMMIT, just before it or just after it. Prints one JSON line a case.
Forking, before there is a thread or an event loop, saves each process the imports.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.stores.ops import Op, Result
from holdfast.stores.sqlite.store import SqliteStore
from tests.chaos.world import Delivery, FileLedger, World

SENT = [
    Delivery("clerk", "before", [["look", "look-0"]]),
    Delivery(
        "worker",
        "long",
        [
            ["look", "look-1"],
            ["answer", "answer-1"],
            ["note", "note-1"],
            ["refund", "refund-1"],
            ["sleep", "sleep-1", 60.0],
            ["tell", "tell-1", "clerk", [["note", "note-2"]]],
            ["ask", "ask-1", "clerk", [["answer", "answer-2"]]],
            ["gather", "gather-1", [["note", "note-3"], ["refund", "refund-3"], ["answer", "answer-3"]]],
            ["child", "child-1", [["note", "note-4"]]],
            ["charge", "charge-1"],
        ],
    ),
]
PACE = 0.001
KILLED = 137


class MortalStore(SqliteStore):
    """A store whose process dies at one of its commits.

    Attributes:
        commits: how many it has begun.
    """

    def __init__(self, path: Path, die_at: int | None, side: str) -> None:
        super().__init__(path)
        self.commits, self._die_at, self._side, self._traced = 0, die_at, side, False

    def _prepare(self) -> None:
        self._raw().set_trace_callback(self._statement)
        super()._prepare()

    def _statement(self, sql: str) -> None:
        if self._side == "after" and self.commits == self._die_at:
            os._exit(KILLED)  # the first statement after the commit
        if sql.strip().upper() == "COMMIT":
            self.commits += 1
            if self._side == "before" and self.commits == self._die_at:
                os._exit(KILLED)

    def _transaction(self, ops: Sequence[Op]) -> list[Result]:
        results = super()._transaction(ops)
        if self._side == "after" and self.commits == self._die_at:
            os._exit(KILLED)
        return results


def world(folder: Path, die_at: int | None = None, side: str = "") -> World:
    """The world as one process finds it."""
    return World(store=MortalStore(folder / "sessions.db", die_at, side), ledger=FileLedger(folder / "ledger.jsonl"), pace=PACE)


def in_process(life: Callable[[], None]) -> int:
    """Run `life` in a process of its own; its exit status."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        life()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def first_life(folder: Path, die_at: int | None, side: str) -> None:
    """Work until it is done, or dead; the number of commits that it took goes into a file."""

    async def live() -> None:
        here = world(folder, die_at, side)
        assert await here.serve(None, SENT)
        assert isinstance(here.store, MortalStore)
        (folder / "commits").write_text(str(here.store.commits))

    asyncio.run(live())


def last_life(folder: Path) -> None:
    """Finish what is left, then look whether all is as it has to be."""

    async def live() -> None:
        here = world(folder)
        assert await here.serve(None, SENT)
        await here.check(SENT)

    asyncio.run(live())


def main(folder: Path, cases: Sequence[str]) -> None:
    """Play each case in a folder of its own."""
    for case in cases:
        at, _, side = case.partition("-")
        place = folder / case
        place.mkdir()
        died = in_process(lambda: first_life(place, int(at) if side else None, side))  # noqa: B023 — called at once
        finished = in_process(lambda: last_life(place))  # noqa: B023 — called at once
        commits = place / "commits"
        total = int(commits.read_text()) if commits.exists() else None
        print(json.dumps({"case": case, "died": died, "finished": finished, "commits": total}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
