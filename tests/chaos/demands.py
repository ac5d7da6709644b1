"""What a script demands: the replies that it may come to, and how often each of its effects happens.

Where the handler lets go of an effect by a timeout of its own, the reply says which way it went, and what must have happened follows
from the reply: an effect that the reply used happened once; one that was let go of happened at most as often as it was asked for (a `once`
effect at most once, since one that may have happened is not made again); nothing happened on the way that the reply does not name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.chaos.shapes import AT_ONCE, Op, Script

UNKNOWN: Any = object()
"""The reply to what nobody got a reply to."""

SLOW_S = 5.0
"""How long a slow effect takes after it was made."""

EFFECTS = ("look", "answer", "note", "refund", "charge")
ONCE = ("refund", "charge")
SLOW = tuple(f"slow_{name}" for name in EFFECTS)


class Demands:
    """What the scripts that were judged demand of the world.

    Args:
        faulty: effects and writes may be late or fail: what would be in time may not be.
        lives: how many processes worked on the scripts.

    Attributes:
        least: how often each effect (name and label) happened at least.
        most: how often at most; an `answer` is not limited here.
        messages: how many messages the scripts sent, at least and at most.
        wrong: what a reply is and may not be.
    """

    def __init__(self, *, faulty: bool, lives: int) -> None:
        self.least: dict[tuple[str, str], int] = {}
        self.most: dict[tuple[str, str], int] = {}
        self.exclusive: list[tuple[tuple[str, str], tuple[str, str]]] = []
        self.messages = [0, 0]
        self.wrong: list[str] = []
        self._faulty, self._lives = faulty, lives
        self._parts = False  # whether what is judged is a part of what is tried again as a whole

    def script(self, script: Script, reply: Any, low: int = 1, high: int = 1) -> None:
        """Judge what a script came to.

        Args:
            reply: what was answered, or UNKNOWN.
            low: 1 if it was certainly played to its end, else 0.
            high: how often it was played at most.
        """
        if reply is not UNKNOWN and not (isinstance(reply, list) and len(reply) == len(script)):
            self.wrong.append(f"{script!r} was answered {reply!r}")
            reply = UNKNOWN
        for number, op in enumerate(script):
            self.op(op, reply if reply is UNKNOWN else reply[number], low, high)

    def op(self, op: Op, reply: Any, low: int, high: int) -> None:
        """Judge what one operation came to; see `script`."""
        match op:
            case ["ask", _, _, inner]:
                self._sent(low, high)
                self.script(inner, reply, low, high)
            case ["tell", label, _, inner]:
                self._sent(low, high)
                self.script(inner, UNKNOWN, low, high)
                self._is(op, reply, label)
            case ["child", label, inner]:
                self._sent(low, high)
                whole, result = self._pair(op, reply)
                self.script([*inner, ["finish", label]], whole, low, high)
                self._is(op, result, label)
            case [name, _, inner] if name in ("gather", "then", "nested", *AT_ONCE):
                self.script(inner, reply, low, high)
            case ["hurry", label, seconds, inner, otherwise]:
                self._parted(op, label, seconds, inner, otherwise, reply, low, high)
            case ["cancelled", label, seconds, inner]:
                self._parted(op, label, seconds, inner, None, reply, low, high)
            case ["again", _, times, _, inner] | ["retry", _, times, inner]:
                # Of a compound a part may have been done and its result used up: to ask for it again is to want it again.
                before, self._parts = self._parts, self._parts or inner[0] not in (*EFFECTS, *SLOW)
                self.op(inner, reply, low, high * (times + 1))
                self._parts = before
            case ["finally", _, first, last]:
                one, two = self._pair(op, reply)
                self.op(first, one, low, high)
                self.op(last, two, low, high)
            case ["call", label, name]:
                self._effect(name, label, low, high)
                self._is(op, reply, label)
            case [name, label] if name in (*EFFECTS, *SLOW):
                self._effect(base(name), label, low, high)
                self._is(op, reply, label)
            case ["sleep" | "stumble", label, _] | ["finish" | "chance", label]:
                self._is(op, reply, label)
            case _:
                raise AssertionError(f"unknown operation {op!r}")

    def _parted(self, op: Op, label: str, seconds: float, inner: Op, otherwise: Op | None, reply: Any, low: int, high: int) -> None:
        """Two ways, of which the handler went one."""
        way, result = self._pair(op, reply)
        notes = {each: ("note", f"{label}-{each}") for each in ("used", "otherwise")}
        if way is UNKNOWN:
            for _, name in notes.values():
                self._effect("note", name, 0, high)
            if high == 1:
                self.exclusive.append((notes["used"], notes["otherwise"]))
            self.op(inner, UNKNOWN, 0, high)
            if otherwise is not None:
                self.op(otherwise, UNKNOWN, 0, high)
            return
        certain = self._certain(inner, seconds)
        if way not in notes or (certain is not None and way != certain):
            self.wrong.append(f"{op!r} went {way!r}, and not {certain or 'one of its ways'!r}")
            return
        used = way == "used"
        self._effect(*notes["used"], low * used, high * used)
        self._effect(*notes["otherwise"], low * (not used), high * (not used))
        self.op(inner, result if used else UNKNOWN, low * used, high)
        if otherwise is not None:
            self.op(otherwise, UNKNOWN if used else result, low * (not used), high * (not used))
        elif not used and result is not None:
            self.wrong.append(f"{op!r} was cancelled and came to {result!r}")

    def _certain(self, inner: Op, seconds: float) -> str | None:
        """The way that a handler surely goes, where time decides it and nothing else."""
        if self._faulty:
            return None
        names = [op[0] for op in leaves(inner)]
        if seconds >= 20 * SLOW_S and all(name in EFFECTS for name in names):
            return "used"
        if seconds < SLOW_S and inner[0] in SLOW and (base(inner[0]) not in ONCE or self._lives == 1):
            return "otherwise"  # where a `once` effect was cut by a crash, its outcome is found, which takes no time
        return None

    def _effect(self, name: str, label: str, low: int, high: int) -> None:
        if name == "look":
            return
        self.least[name, label] = low
        if name != "answer":
            self.most[name, label] = min(high, 1) if name in ONCE and not self._parts else high
        elif high == 0:
            self.most[name, label] = 0

    def _sent(self, low: int, high: int) -> None:
        self.messages[0] += low
        self.messages[1] += high

    def _is(self, op: Op, reply: Any, wanted: Any) -> None:
        if reply is not UNKNOWN and reply != wanted:
            self.wrong.append(f"{op!r} came to {reply!r}")

    def _pair(self, op: Op, reply: Any) -> tuple[Any, Any]:
        if reply is not UNKNOWN:
            if isinstance(reply, list) and len(reply) == 2:
                return reply[0], reply[1]
            self.wrong.append(f"{op!r} came to {reply!r}")
        return UNKNOWN, UNKNOWN

    def breaches(self, counts: dict[tuple[str, str], int]) -> list[str]:
        """What is wrong with the world in which each effect happened so often."""
        found = list(self.wrong)
        for (name, label), least in self.least.items():
            count, most = counts.get((name, label), 0), self.most.get((name, label))
            if count < least or (most is not None and count > most):
                found.append(f"{name} {label} was done {count} times, not {least} to {most}")
        for one, other in self.exclusive:
            if counts.get(one, 0) and counts.get(other, 0):
                found.append(f"{one[1]} and {other[1]}: both ways were gone")
        found += [f"{key} was done, and no script asks for it" for key in counts if key not in self.least]
        return found


def base(name: str) -> str:
    """The effect that a tool has, slow or not."""
    return name.removeprefix("slow_")


def leaves(op: Op) -> list[Op]:
    """The operations inside one that have none inside them."""
    inner = [each for part in op[1:] if isinstance(part, list) for each in ([part] if part and isinstance(part[0], str) else part)]
    return [leaf for each in inner for leaf in leaves(each)] or [op]


def counted(keys: Sequence[Any]) -> dict[tuple[str, str], int]:
    """How often each effect happened."""
    counts: dict[tuple[str, str], int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return counts
