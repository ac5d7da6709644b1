"""The model's answers and failures: they depend only on the conversation, the seed and the number of the attempt."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any, Literal

Fault = Literal["429", "503", "stall", "cut"]
RIDDLE = "riddle"
"""A conversation with this word makes the model loop."""

STALL_S = 60.0
_ORDER = re.compile(r"ORD-\d+")


@dataclass(frozen=True)
class Line:
    """An answer: text, or tool calls, each with its arguments."""

    text: str | None = None
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


@dataclass(frozen=True)
class Manner:
    """The delivery of an answer: after `wait_s` seconds, unless it fails."""

    wait_s: float
    fault: Fault | None = None


def order_of(messages: list[dict[str, Any]]) -> str:
    """The order of a conversation; it identifies the conversation."""
    found = _ORDER.search(str(messages[0]["content"]))
    return found.group() if found else "ORD-0"


def position_of(messages: list[dict[str, Any]]) -> int:
    """The number of the requested answer in the conversation, from 0."""
    return sum(message["role"] == "assistant" for message in messages)


def answer(messages: list[dict[str, Any]]) -> Line:
    """The next answer of a conversation."""
    order = order_of(messages)
    if RIDDLE in str(messages[0]["content"]):
        return Line(calls=(("find_order", {"order_id": order}),))
    users = [at for at, message in enumerate(messages) if message["role"] == "user"]
    turn = _TURNS[min(len(users), len(_TURNS)) - 1]
    return turn(order, position_of(messages[users[-1] :]), messages)


def manner(messages: list[dict[str, Any]], *, attempt: int, streamed: bool, seed: int, pace: float) -> Manner:
    """The delivery of the next answer of a conversation; `attempt` counts from 1."""
    chance = random.Random(f"{seed}/{order_of(messages)}/{position_of(messages)}")
    wait_s = chance.uniform(0.35, 1.05) * pace
    if RIDDLE in str(messages[0]["content"]):
        return Manner(wait_s / 6)
    fault: Fault | None = None
    draw = chance.random()
    for name, share in (("429", 0.04), ("503", 0.04), ("stall", 0.015), ("cut", 0.08 if streamed else 0.0)):
        if 0 <= draw < share:
            fault = name  # type: ignore[assignment] # one of the literals above
        draw -= share
    return Manner(wait_s, fault if attempt == 1 or (attempt == 2 and fault == "503") else None)


# ---------------------------------------------------------------- the three turns of a conversation


def _where_is_it(order: str, step: int, messages: list[dict[str, Any]]) -> Line:
    if step == 0:
        return _find(order)
    if step == 1:
        return _note(order, "asked where it is")
    return Line(f"Your order {order} ({_found(messages)['item']}) was delivered.")


def _it_is_broken(order: str, step: int, messages: list[dict[str, Any]]) -> Line:
    if step == 0:
        return Line(calls=_find(order).calls + _note(order, "says that it is broken").calls)
    if step == 1:
        return Line(calls=(("refund", {"order_id": order, "cents": _found(messages)["cents"]}),))
    if step == 2:
        return _note(order, "was refunded")
    return Line(f"I am sorry. I have refunded {_found(messages)['cents'] / 100:.2f} for {order}.")


def _is_that_all(order: str, step: int, messages: list[dict[str, Any]]) -> Line:
    if step == 0:
        return _find(order)
    if step == 1:
        return _note(order, "nothing left to do")
    return Line(f"No, all is settled for {order}. Have a good day.")


_TURNS = (_where_is_it, _it_is_broken, _is_that_all)


def _find(order: str) -> Line:
    return Line(calls=(("find_order", {"order_id": order}),))


def _note(order: str, text: str) -> Line:
    return Line(calls=(("add_note", {"order_id": order, "text": f"The customer {text}."}),))


def _found(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The last result of find_order: the model knows only the conversation."""
    for message in reversed(messages):
        if message["role"] == "tool" and '"cents"' in message["content"]:
            found: dict[str, Any] = json.loads(message["content"])
            return found
    return {"item": "?", "cents": 0}
