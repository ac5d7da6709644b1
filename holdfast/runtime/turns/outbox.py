"""The messages that leave when a turn commits, by recipient."""

from __future__ import annotations

from holdfast.stores.ops import Enqueue


class Outbox:
    """The messages of one turn's tells, in the order of the tells."""

    __slots__ = ("_ids", "_number", "_of")

    def __init__(self) -> None:
        self._of: dict[str, list[tuple[int, Enqueue]]] = {}
        self._ids: dict[tuple[str, str], Enqueue] = {}
        self._number = 0

    def add(self, message: Enqueue) -> None:
        """The message leaves with the commit."""
        self._number += 1
        self._of.setdefault(message.session, []).append((self._number, message))
        self._ids[message.session, message.id] = message

    def count(self, target: str) -> int:
        """How many messages are for this session."""
        return len(self._of.get(target, ()))

    def find(self, target: str, id: str) -> Enqueue | None:
        """The message of this id for this session, also one that was taken out."""
        return self._ids.get((target, id))

    def take(self, target: str) -> tuple[Enqueue, ...]:
        """Take out the messages for this session."""
        return tuple(message for _, message in self._of.pop(target, ()))

    def all(self) -> tuple[Enqueue, ...]:
        """All messages."""
        if not self._of:
            return ()
        return tuple(message for _, message in sorted((each for of in self._of.values() for each in of), key=lambda each: each[0]))
