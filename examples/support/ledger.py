"""The outside world's own book: one line for each real run of a tool, appended and synced.

It does not know holdfast and has no unique key: an effect that happens twice has two lines.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from examples.support.settings import FOLDER

PATH = FOLDER / "ledger.jsonl"


def append(what: str, *, sync: bool = True, **facts: Any) -> None:
    """Add a line.

    Args:
        what: the kind of event.
        sync: return only when the line is on the disk.
        facts: its other fields.
    """
    line = json.dumps({"what": what, "at": time.time(), "pid": os.getpid(), **facts}) + "\n"
    book = os.open(PATH, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(book, line.encode())  # one write: lines of several threads do not mix
        if sync:
            os.fsync(book)
    finally:
        os.close(book)


def lines(what: str) -> list[dict[str, Any]]:
    """All lines about `what`, the oldest first."""
    if not PATH.exists():
        return []
    whole, _, _being_written = PATH.read_text().rpartition("\n")  # by another call, or by a process that is being killed
    return [line for line in map(json.loads, whole.splitlines()) if line["what"] == what]
