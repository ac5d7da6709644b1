"""The bank: slow, and it pays as often as it is told to. Its book is the ledger."""

from __future__ import annotations

import anyio
import anyio.to_thread

from examples.support import ledger
from examples.support.settings import PACE

_WAY_S = 0.2
"""How long a request takes to get there, and its answer to come back."""


async def pay_back(order: str, cents: int) -> None:
    """Pay. Whoever dies while this runs cannot know whether it was done."""
    await anyio.sleep(_WAY_S * PACE)
    await anyio.to_thread.run_sync(lambda: ledger.append("refund", order=order, cents=cents))
    await anyio.sleep(_WAY_S * PACE)


async def was_paid_back(order: str, cents: int) -> bool:
    """Whether that payment is in the book."""
    paid = await anyio.to_thread.run_sync(ledger.lines, "refund")
    return any(line["order"] == order and line["cents"] == cents for line in paid)
