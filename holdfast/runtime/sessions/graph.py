"""The wait-for graph of sessions: it finds a circular ask before any session waits."""

from __future__ import annotations

from collections.abc import Callable

Waiting = Callable[[str], tuple[str, ...]]
"""The sessions that a session in memory waits for right now."""


class WaitGraph:
    """The waits of parked sessions, by session; those of sessions in memory come from `live`.

    Attributes:
        short: the parked sessions that wait for budget that their children have reserved.
    """

    __slots__ = ("_live", "parked", "short")

    def __init__(self, live: Waiting) -> None:
        self._live = live
        self.parked: dict[str, tuple[str, ...]] = {}
        self.short: set[str] = set()

    def forget(self, id: str) -> None:
        """The session waits no more."""
        self.parked.pop(id, None)
        self.short.discard(id)

    def waiting_for(self, targets: set[str]) -> set[str]:
        """The parked sessions that wait for one of these."""
        return {id for id, waits_on in self.parked.items() if targets.intersection(waits_on)}

    def cycle(self, asker: str, target: str) -> list[str] | None:
        """The sessions through which `target` already waits for `asker`, if it does."""
        came_from: dict[str, str] = {target: ""}
        frontier = [target]
        while frontier:
            id = frontier.pop()
            if id == asker:
                return _path(came_from, id)
            for following in self._live(id) or self.parked.get(id, ()):
                if following not in came_from:
                    came_from[following] = id
                    frontier.append(following)
        return None


def _path(came_from: dict[str, str], id: str) -> list[str]:
    path = []
    while id:
        path.append(id)
        id = came_from[id]
    return path[::-1]
