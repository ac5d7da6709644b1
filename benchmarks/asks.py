"""Ask round trips a second from outside: accepted durably, handled by a turn, committed, answered."""

from __future__ import annotations

import asyncio
import time

from benchmarks import raw
from benchmarks.report import Figure, alternate, compared
from holdfast import Runtime, Session, agent

_SESSION = (
    "INSERT INTO sessions (id, agent, tenant, user, status, epoch, turn, pending, budget, usage, seed, detached, gates, notes, crashes,"
    " crash_mark, created, updated) VALUES ('s-' || ?, 'echo', 'default', '', 'idle', 1, 0, 0, x'80', x'80', x'0011223344556677', 0,"
    " x'', x'90', 0, 0, 0.0, 0.0)"
)
_ACCEPT = "INSERT INTO messages (session, id, body, digest, kind, state, created) VALUES (?, ?, ?, ?, 'message', 1, ?)"
_PENDING = "UPDATE sessions SET pending = pending + ?, updated = ? WHERE id = ?"
_TURN = "INSERT INTO turns (session, turn, state, version, message, started, ended, usage) VALUES (?, ?, ?, 1, ?, ?, ?, x'80')"
_DONE = "UPDATE messages SET state = 2, reply = ?, done = ? WHERE session = ? AND id = ? AND state = 1"


@agent
async def echo(session: Session[None], text: str) -> str:
    return text


def ours(sessions: int, each: int) -> float:
    """Round trips a second of `sessions` callers, each with a session of its own."""

    async def measure() -> float:
        with raw.scratch() as directory:
            async with Runtime(f"sqlite:///{directory}/ours.db", [echo]) as runtime:
                handles = await asyncio.gather(*(runtime.spawn(echo, id=f"s-{n}") for n in range(sessions)))
                await asyncio.gather(*(handle.ask("warm") for handle in handles))

                async def caller(number: int) -> None:
                    for _ in range(each):
                        await handles[number].ask("ping")

                began = time.perf_counter()
                await asyncio.gather(*map(caller, range(sessions)))
                return sessions * each / (time.perf_counter() - began)

    return asyncio.run(measure())


def bare(sessions: int, each: int) -> float:
    """The two transactions of a round trip and their rows."""

    async def trip(writer: raw.BareWriter, number: int, nth: int) -> None:
        session, id, now = f"s-{number}", f"{number:016x}{nth:016x}", time.time()
        await writer.write((_ACCEPT, (session, id, b"\xa4ping", b"0123456789abcdef", now)), (_PENDING, (1, now, session)))
        await writer.write(
            (_TURN, (session, nth + 1, b"\xc0", id, now, now)),
            (_DONE, (b"\x81\xa5value\xc4\x05\xa4ping", now, session, id)),
            (_PENDING, (-1, now, session)),
        )

    return raw.rate(sessions, each, trip, (_SESSION,))


def run(quick: bool) -> list[Figure]:
    """One caller, and 256."""
    figures = []
    for sessions in (1, 256):
        each = max((1_000 if quick else 10_000) // sessions, 4) if sessions > 1 else (200 if quick else 1_500)
        raws, mine = alternate(
            1 if quick else 5,
            lambda n=sessions, k=each: bare(n, k),  # type: ignore[misc]
            lambda n=sessions, k=each: ours(n, k),  # type: ignore[misc]
        )
        name = f"ask round trips, {sessions} caller{'s' * (sessions > 1)}"
        figures.append(compared(name, "/s", raws, mine, raw_name="its two commits, bare"))
    return figures
