"""A program that test_crash_postgres runs: forks processes that die at a batch, and others that finish what those left.

    python -m tests.chaos.postgres_lives DSN FOLDER CASE...

A case is "K-before", "K-during" or "K-after": the first process dies at its K-th batch, just before it sends it, when it has sent
it and knows nothing, or when it has the answer and told nobody. Each case has a schema of its own. Prints one JSON line a case.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.stores.postgres.interpreter import Interpreter, Write
from holdfast.stores.postgres.store import PostgresStore
from tests.chaos.sqlite_lives import KILLED, PACE, SENT, in_process
from tests.chaos.world import FileLedger, World


class MortalStore(PostgresStore):
    """A store whose process dies at one of its batches.

    Attributes:
        commits: how many it has begun.
    """

    def __init__(self, url: str, schema: str, die_at: int | None, side: str) -> None:
        super().__init__(url, schema=schema)
        self.commits, self._die_at, self._side = 0, die_at, side

    async def _send(self, writer: Any, interpreter: Interpreter, write: Write) -> None:
        self.commits += 1
        if self.commits != self._die_at:
            return await super()._send(writer, interpreter, write)
        if self._side == "during":
            super()._send(writer, interpreter, write).send(None)  # up to where it would wait for the answer
        if self._side == "after":
            await super()._send(writer, interpreter, write)
        os._exit(KILLED)


def main(dsn: str, folder: Path, cases: Sequence[str]) -> None:
    """Play each case in a schema and a folder of its own."""
    for case in cases:
        at, _, side = case.partition("-")
        place = folder / case
        place.mkdir()

        def world(die_at: int | None, here: Path = place, schema: str = f"lives_{case}", side: str = side) -> World:
            return World(store=MortalStore(dsn, schema, die_at, side), ledger=FileLedger(here / "ledger.jsonl"), pace=PACE)

        def first_life(die_at: int | None = int(at) if side else None, here: Path = place) -> None:
            async def live() -> None:
                first = world(die_at)
                assert await first.serve(None, SENT)
                assert isinstance(first.store, MortalStore)
                (here / "commits").write_text(str(first.store.commits))

            asyncio.run(live())

        def last_life() -> None:
            async def live() -> None:
                last = world(None)
                assert await last.serve(None, SENT)
                await last.check(SENT)

            asyncio.run(live())

        died, finished = in_process(first_life), in_process(last_life)
        commits = place / "commits"
        total = int(commits.read_text()) if commits.exists() else None
        print(json.dumps({"case": case, "died": died, "finished": finished, "commits": total}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
