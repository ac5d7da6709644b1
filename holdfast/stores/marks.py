"""The mark next to a session's count of crashes, one integer: the number of records that the open turn had when the last crash was counted,
how many trials it has passed since its first, and whether it was started alone (then the mark is negative)."""

from __future__ import annotations

from typing import Any

from holdfast.policies.culprit import SUSPECT_FROM

_PASS = 1 << 40
PASSED = f"crash_mark = CASE WHEN crash_mark < 0 THEN -1 - crash_mark ELSE crash_mark END + {_PASS}"
"""As `passed`, in SQL."""


def charge(crashes: int, mark: int | None, records: int, alone: bool) -> tuple[int, int]:
    """The count and the mark after another crash; the turn has so many records now, and a new record starts the count again."""
    passes = 0
    if crashes and mark is not None and _plain(mark) % _PASS == records:
        passes = _plain(mark) - records
    else:
        crashes = 0
    return crashes + 1, -1 - passes - records if alone else passes + records


def passed(mark: int) -> int:
    """The mark after a trial that the session passed: it was not started alone any more."""
    return _plain(mark) + _PASS


def counts(crashes: Any) -> bool:
    """Whether the crashes of a session, a cell of its row, can make it a suspect: only then its records have to be counted."""
    return isinstance(crashes, int) and crashes >= SUSPECT_FROM


def charges(crashes: Any, mark: Any, records: int | None) -> tuple[int, int, bool]:
    """`crashes`, `passes` and `alone` of a Runnable; zeros where they cannot make it a suspect, or its turn has another number of records
    since. Takes any values, since a row may be damaged."""
    if counts(crashes) and isinstance(mark, int) and _plain(mark) % _PASS == records:
        return crashes, _plain(mark) // _PASS, mark < 0
    return 0, 0, False


def _plain(mark: int) -> int:
    return max(mark, -1 - mark)
