"""The bank: it is slow, and it pays at every request. Its book is the ledger."""

from __future__ import annotations

import anyio
import anyio.to_thread

from examples.support import ledger
from examples.support.settings import PACE

_WAY_S = 0.2
"""How long a request and its answer take each, in seconds."""


async def pay_back(order: str, cents: int) -> None:
    """Pay. A process that dies while this runs cannot know whether the payment was made."""
    await anyio.sleep(_WAY_S * PACE)
    await anyio.to_thread.run_sync(lambda: ledger.append("refund", order=order, cents=cents))
    await anyio.sleep(_WAY_S * PACE)


async def was_paid_back(order: str, cents: int) -> bool:
    """Whether that payment is in the book."""
    paid = await anyio.to_thread.run_sync(ledger.lines, "refund")
    return any(line["order"] == order and line["cents"] == cents for line in paid)
