"""The customers: they write, wait for the answer, and write again. They run next to the Runtime:

    holdfast run examples.support.app:runtime --with examples.support.customers:talk

After a restart they send all messages again. Sessions and messages have ids, so no message is handled twice, and an answered message gets
the same answer again.
"""

from __future__ import annotations

import anyio

from examples.support import ledger, shop
from examples.support.app import Conversation, support
from examples.support.settings import CUSTOMERS
from holdfast import Runtime
from holdfast.events import Event, MaybePaid, StepReplayed

LOOPER = "looper"
"""The session whose model makes the same call again and again."""


def messages(order: str) -> list[str]:
    """The messages of a customer."""
    return [
        f"Hello, where is my order {order}?",
        "It is here, but it is broken. I want my money back.",
        "Thank you. Is anything left to do?",
    ]


async def talk(runtime: Runtime) -> None:
    """All customers, at once."""
    shop.stock(CUSTOMERS + 1)
    runtime.observe(_note)
    async with anyio.create_task_group() as group:
        for number in range(1, CUSTOMERS + 1):
            group.start_soon(_customer, runtime, f"ticket-{number}", messages(shop.order_id(number)), number % 3 == 0)
        group.start_soon(_customer, runtime, LOOPER, [f"My order {shop.order_id(0)} is a riddle."], False)


async def _customer(runtime: Runtime, ticket: str, texts: list[str], streamed: bool) -> None:
    session = await runtime.spawn(support, id=ticket, tenant="shop", state=Conversation(streamed=streamed))
    for number, text in enumerate(texts, 1):
        answer = await session.ask(text, id=f"{ticket}/{number}", timeout_s=600)
        ledger.append("answer", sync=False, session=ticket, message=number, text=answer)


def _note(event: Event) -> None:
    if isinstance(event, StepReplayed | MaybePaid):
        ledger.append("replayed" if isinstance(event, StepReplayed) else "maybe paid", sync=False, session=event.session, name=event.name)
