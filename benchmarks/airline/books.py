"""Books: append-only files of JSON lines, which outlive the processes that write them. No field of a line is unique.

A run has three. `ledger.jsonl`: the writes to the airline's tables, each synced before it is answered. `witness.jsonl`: the observations of
the process that is killed. `model.jsonl`: the requests to the model server, and its answers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEDGER = "ledger.jsonl"
WITNESS = "witness.jsonl"
MODEL = "model.jsonl"


class Book:
    """One file; whole lines stay, whatever happens to the process."""

    def __init__(self, path: Path) -> None:
        """Open it, and cut off a line that a killed process left unfinished: it was never answered."""
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        whole = os.pread(self._file, size, 0).rfind(b"\n") + 1
        if whole != size:
            os.ftruncate(self._file, whole)

    def append(self, *, sync: bool = False, **facts: Any) -> None:
        """Add a line.

        Args:
            sync: return only when it is on the disk.
            facts: the fields of the line.
        """
        os.write(self._file, json.dumps(facts).encode() + b"\n")  # one write: lines of several threads do not mix
        if sync:
            os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """All whole lines, the oldest first; none if there is no such file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
