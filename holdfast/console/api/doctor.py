"""Is this process healthy? One line for each check: ok, a warning, or a failure.

A failure wakes the engineer on call: the process or its store is not healthy, or does not recover without a person. Sessions that wait for
a person, and dependencies that are down, are warnings: the process itself is healthy.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import islice

import anyio

from holdfast import errors
from holdfast.calls.tools import threads
from holdfast.console.api.control import Control
from holdfast.console.reading.amounts import number, span
from holdfast.console.reading.values import clean
from holdfast.console.wire.answers import Check, Diagnosis
from holdfast.policies.breaker import in_a_line
from holdfast.runtime.runtime import Runtime
from holdfast.stores.listed import Filter
from holdfast.stores.records import ENDED, Park

OK, WARNING, FAIL = "ok", "warning", "fail"

_HEALTH_CHECK_S = 5.0
_LAG_S, _SAMPLE_S = 0.1, 0.01
_LOW_BYTES, _WAL_BYTES = 1 << 30, 256 << 20
_OLD_S = 300.0
_FIXED = (3, 51, 3)
_REPLAYING = ("session is still replaying", "sessions are still replaying")
_HELD = (
    "of them is held back, since the process died: others are tried first",
    "of them are held back, since the process died: others are tried first",
)
_DELAYED = ("session waits outside a step before the end of its records", "sessions wait outside a step before the end of their records")
_STUCK = ("attempt did not end at its timeout or cancellation", "attempts did not end at their timeout or cancellation")
_NAMED = 20
_FUNCTIONS = 5
_LATE = ("thread of a plain function runs past its deadline", "threads of plain functions run past their deadline")


async def diagnose(control: Control) -> Diagnosis:
    """Run all checks. They change nothing."""
    runtime = control.runtime
    checks = [await _loop(), await _database(runtime), *_counts(runtime), *_breakers(runtime), *_telemetry(runtime), *_files(runtime)]
    try:
        checks += await _people(control)
    except errors.StoreError:
        pass  # the check of the database reports it
    checks.sort(key=lambda check: (FAIL, WARNING, OK).index(check.level))
    return Diagnosis(healthy=all(check.level != FAIL for check in checks), process=os.getpid(), checks=checks)


async def _loop() -> Check:
    lag_s = 0.0
    for _ in range(3):
        began = time.perf_counter()
        await anyio.sleep(_SAMPLE_S)
        lag_s = max(lag_s, time.perf_counter() - began - _SAMPLE_S)
    if lag_s > _LAG_S:
        return _check("loop", FAIL, f"the loop answers {span(lag_s)} late: code blocks it, and the log of the process names that code")
    return _check("loop", OK, f"the loop answers, {span(max(lag_s, 0.0))} late")


async def _database(runtime: Runtime) -> Check:
    began = time.perf_counter()
    try:
        await runtime.check_health(_HEALTH_CHECK_S)
    except errors.HoldfastError as error:
        return _check("database", FAIL, str(error))
    return _check("database", OK, f"the database answers within {span(time.perf_counter() - began)}")


def _counts(runtime: Runtime) -> Iterator[Check]:
    counts = runtime.statistics()
    if counts["ready"]:
        yield _check("ready", OK, "accepting sessions and messages")
    else:
        yield _check("ready", FAIL, "not accepting work: draining, or the last write failed")
    recovering = counts["recovering"]
    text = number(recovering, *_REPLAYING)
    if counts["held"]:
        text = f"{text}; {number(counts['held'], *_HELD)}"
    if counts["delayed"]:
        text = f"{text}; {number(counts['delayed'], *_DELAYED)}"
    yield _check("recovering", WARNING if recovering or counts["delayed"] else OK, text)
    stuck = counts["stuck"]
    yield _check("stuck", FAIL if stuck else OK, f"{number(stuck, *_STUCK)}{_restart(stuck)}")
    yield threads_of(runtime)
    live, steps = number(counts["live"], "session"), number(counts["steps_in_flight"], "step")
    yield _check("work", OK, f"{live} live, {counts['working']} running, {steps} in flight")


def threads_of(runtime: Runtime) -> Check:
    """The check of the threads: abandoned ones are a failure once there are so many that they take the places of others."""
    counts = runtime.statistics()
    late, lost, waiting = counts["threads_abandoned"], counts["threads_lost"], counts["threads_waiting"]
    text = number(late, *_LATE)
    if names := ", ".join(f"{clean(name)}: {many}" for name, many in islice(threads.abandoned_by_name().items(), _FUNCTIONS)):
        text += f" ({names})"
    if lost:
        text += f", and {number(lost, 'place is', 'places are')} lost to them"
    if waiting:
        text += f"; {number(waiting, 'call waits', 'calls wait')} for a free thread"
    return _check("threads", FAIL if lost else WARNING if late or waiting else OK, f"{text}{_restart(late)}")


def _restart(count: int) -> str:
    return f": restart the process to be rid of {'it' if count == 1 else 'them'}" if count else ""


def _breakers(runtime: Runtime) -> Iterator[Check]:
    refusing = {name: view for name, view in runtime.breakers().items() if view.state != "closed"}
    for name, view in refusing.items():
        last = f"; last error: {in_a_line(view.status, view.error)}" if view.error else ""
        yield _check("breaker", WARNING, f"the breaker of {name} is {view.state.replace('_', '-')}: {view.cause}{last}")
    if not refusing:
        yield _check("breaker", OK, "no breaker of a dependency is open")


def _telemetry(runtime: Runtime) -> Iterator[Check]:
    """Whether spans arrive, if they are exported. A collector that is down harms no session."""
    telemetry = runtime.telemetry
    counts = {} if telemetry is None else telemetry.statistics()
    if telemetry is None or not counts:
        return
    trouble = telemetry.trouble
    so_far = f"{number(counts['spans_delivered'], 'span')} delivered, {counts['spans_dropped']} dropped"
    yield _check("telemetry", WARNING if trouble else OK, f"{so_far}{f': {trouble}' if trouble else ''}")


async def _people(control: Control) -> list[Check]:
    """The sessions that wait for a person, and the age of the oldest message."""
    store, checks = control.runtime.store, list[Check]()
    counts = await store.counts()
    failed = counts.get("failed", 0)
    hint = ": holdfast ps --status failed" if failed else ""
    checks.append(_check("failed", WARNING if failed else OK, f"{number(failed, 'session has', 'sessions have')} failed{hint}"))
    parks = [row.park for row in await store.sessions(Filter(status="parked")) if row.park is not None]
    checks += _repairs(parks)
    waiting = [park for park in parks if park.until is None and not park.waits_on]
    hint = ": holdfast ps --status parked" if waiting else ""
    parked = number(len(waiting), "session is", "sessions are")
    checks.append(_check("parked", WARNING if waiting else OK, f"{parked} parked until a person acts{hint}"))
    ended = [row for row in await store.sessions(Filter(ended=False)) if row.status in ENDED]
    hint = ": holdfast ps" if ended else ""
    unknown = number(len(ended), "ended session has", "ended sessions have")
    checks.append(_check("unresolved", WARNING if ended else OK, f"{unknown} effects whose outcome is unknown{hint}"))
    checks.append(_agents(await store.agents(), control.runtime.agents))
    working = await store.sessions(Filter(status="working"))
    oldest = max((control.now() - row.updated for row in working), default=0.0)
    level = WARNING if oldest > _OLD_S else OK
    checks.append(_check("oldest", level, f"oldest running session: last write {span(oldest)} ago" if working else "no session is running"))
    return checks


def _repairs(parks: Sequence[Park]) -> Iterator[Check]:
    """The dependencies that a person has to repair, such as one that refuses the credentials: one line for each, however many wait."""
    waiting: dict[str, list[Park]] = {}
    for park in parks:
        if park.reason == "repair":
            waiting.setdefault(park.dependency, []).append(park)
    for dependency, those in sorted(waiting.items()):
        name, count = clean(dependency), number(len(those), "session waits", "sessions wait")
        last = max(those, key=lambda park: park.since).text
        command = f"repair it, then holdfast resume --dependency {shlex.quote(name)}"
        yield _check("repair", WARNING, f"{count} for {name}: {last}: {command}")


def _agents(found: Mapping[str, int], here: Container[str]) -> Check:
    """Whether this process has the agent of every session that has not ended."""
    missing = [f"{name} ({number(count, 'session')})" for name, count in found.items() if name not in here]
    if not missing:
        return _check("agents", OK, "this process has the agent of every session")
    more = [f"and {len(missing) - _NAMED} more"] if len(missing) > _NAMED else []
    names = ", ".join(missing[:_NAMED] + more)
    text = f"agents in the database that this process does not have: {names}: add them to agents=, or cancel the sessions"
    return _check("agents", WARNING, text)


def _files(runtime: Runtime) -> Iterator[Check]:
    """The files of a SQLite database: the free space, and the size of the write-ahead log."""
    path = getattr(runtime.store, "path", None)
    if path is None:
        return
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path)) or "/").free
    level = FAIL if free < _LOW_BYTES else OK
    yield _check("disk", level, f"{_mega(free)} are free where the database is{': make room' if level == FAIL else ''}")
    try:
        wal = os.path.getsize(f"{path}-wal")
    except OSError:
        wal = 0
    level = WARNING if wal > _WAL_BYTES else OK
    yield _check("wal", level, f"the write-ahead log takes {_mega(wal)}{': a reader holds it up' if level == WARNING else ''}")
    if sqlite3.sqlite_version_info < _FIXED:
        yield _check(
            "sqlite",
            WARNING,
            f"SQLite is {sqlite3.sqlite_version}: before 3.51.3 two writers can corrupt a database; let only this process write it",
        )
    else:
        yield _check("sqlite", OK, f"SQLite is {sqlite3.sqlite_version}")


def _mega(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB"


def _check(name: str, level: str, text: str) -> Check:
    return Check(name=name, level=level, text=clean(text))
