"""The shop's order database: another company's service, with its own file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from examples.support.settings import FOLDER

_ITEMS = ("a blue kettle", "a desk lamp", "two mugs", "a rain coat", "a chess set", "an atlas", "a toaster")


class Order(msgspec.Struct, frozen=True):
    id: str
    item: str
    cents: int
    status: str


def order_id(customer: int) -> str:
    """The id of this customer's order."""
    return f"ORD-{1000 + customer}"


def stock(customers: int) -> None:
    """Create the database, with an order for each customer; existing rows stay."""
    with _database() as db:
        db.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, item TEXT, cents INTEGER, status TEXT)")
        db.execute("CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, order_id TEXT, text TEXT)")
        orders = [(order_id(n), _ITEMS[n % len(_ITEMS)], 995 + 137 * n, "delivered") for n in range(customers)]
        db.executemany("INSERT OR IGNORE INTO orders VALUES (?, ?, ?, ?)", orders)


def find(id: str) -> Order:
    """The order. Raises LookupError if there is none."""
    with _database() as db:
        row = db.execute("SELECT id, item, cents, status FROM orders WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise LookupError(f"there is no order {id}")
    return Order(*row)


def add_note(key: str, order: str, text: str) -> None:
    """Store a note. A second call with the same key changes nothing, so the tool is idempotent."""
    with _database() as db:
        db.execute("INSERT OR IGNORE INTO notes VALUES (?, ?, ?)", (key, order, text))


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(FOLDER / "shop.db", timeout=30.0)
    try:
        with db:  # one transaction
            yield db
    finally:
        db.close()
