"""The agent's tools, each with its effect class: holdfast needs no more to resume after a crash."""

from __future__ import annotations

from examples.support import bank, ledger, shop
from holdfast import NotDone, StepContext, tool


@tool(effect="read")  # may run again at any time
def find_order(order_id: str) -> shop.Order:
    """Look up an order.

    Args:
        order_id: such as ORD-1001.
    """
    ledger.append("find_order", order=order_id)
    return shop.find(order_id)


@tool(effect="idempotent")  # may run again with the same key, which the shop recognises
def add_note(order_id: str, text: str, step: StepContext) -> str:
    """Leave a note on an order, for the colleagues.

    Args:
        order_id: such as ORD-1001.
        text: what to remember.
    """
    ledger.append("add_note", order=order_id, key=step.key)
    shop.add_note(step.key, order_id, text)
    return "noted"


async def was_refunded(order_id: str, cents: int) -> str:
    """Ask the bank whether it paid: holdfast calls this after a crash in the middle of a refund."""
    if await bank.was_paid_back(order_id, cents):
        return "paid back"
    raise NotDone(f"{order_id} was not refunded")


# A refund runs again only if the query above answers that it did not happen. After a crash the query waits until the call can no longer
# arrive.
@tool(effect="once", reconcile=was_refunded, timeout_s=5.0)
async def refund(order_id: str, cents: int) -> str:
    """Pay an order back.

    Args:
        order_id: such as ORD-1001.
        cents: how much.
    """
    await bank.pay_back(order_id, cents)
    return "paid back"
