"""A model client as a handler sees it: an object of the shape of the SDK's client, with nothing but durable calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Proxy:
    """A client, or a part of one, that has durable calls and no other attributes: the client itself is not reachable from it."""

    __slots__ = ("_bind", "_name", "_path", "_paths")

    def __init__(self, name: str, path: str, paths: tuple[str, ...], bind: Callable[[str], Any]) -> None:
        """Takes the part at `path`, "" for the whole client.

        Args:
            name: of the client.
            path: as in "chat.completions".
            paths: those that have a `create`.
            bind: gives the `create` of a path.
        """
        self._name, self._path, self._paths, self._bind = name, path, paths, bind

    def __getattr__(self, name: str) -> Any:
        if name == "create" and self._path in self._paths:
            return self._bind(self._path)
        path = f"{self._path}.{name}" if self._path else name
        if any(each == path or each.startswith(f"{path}.") for each in self._paths):
            return Proxy(self._name, path, self._paths, self._bind)
        known = " and ".join(f"{each}.create" for each in self._paths)
        raise AttributeError(
            f"{path!r} of client {self._name!r} is not available to a handler: only {known} "
            f"{'is a durable step' if len(self._paths) == 1 else 'are durable steps'}; call anything else from a tool"
        )

    def __dir__(self) -> list[str]:
        depth = self._path.count(".") + 1 if self._path else 0
        below = {each.split(".")[depth] for each in self._paths if each.startswith(f"{self._path}." if self._path else "")}
        return sorted(below | ({"create"} if self._path in self._paths else set()))

    def __repr__(self) -> str:
        return f"<{self._path} of {self._name!r}>" if self._path else f"<client {self._name!r}>"
