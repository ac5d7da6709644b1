"""A model client as a handler sees it: an object of the shape of the SDK's client, with nothing but durable calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_RAW = ("with_raw_response", "with_streaming_response")


class Proxy:
    """A client, or a part of one, that has durable calls and what is harmless: the client itself is not reachable from it."""

    __slots__ = ("_get", "_name", "_names", "_path")

    def __init__(self, name: str, path: str, names: tuple[str, ...], get: Callable[[str], Any]) -> None:
        """Takes the part at `path`, "" for the whole client.

        Args:
            name: of the client.
            path: as in "chat.completions".
            names: of all that there is, as in "chat.completions.create" or "base_url".
            get: gives the value of a name.
        """
        self._name, self._path, self._names, self._get = name, path, names, get

    def __getattr__(self, name: str) -> Any:
        if name in Proxy.__slots__ or name.startswith("__"):  # a copy that has no attributes yet is asked for `__setstate__`
            raise AttributeError(name)
        path = f"{self._path}.{name}" if self._path else name
        if path in self._names:
            return self._get(path)
        if any(each.startswith(f"{path}.") for each in self._names):
            return Proxy(self._name, path, self._names, self._get)
        calls = [each for each in self._names if "." in each]
        known = " and ".join(filter(None, [", ".join(calls[:-1]), calls[-1]]))
        why = "a raw response cannot be recorded and replayed; " if name in _RAW else ""
        raise AttributeError(
            f"{path!r} of client {self._name!r} is not available to a handler: {why}only {known} "
            f"{'is a durable step' if len(calls) == 1 else 'are durable steps'}; call anything else from a tool",
            name=name,
            obj=self,
        )

    def __dir__(self) -> list[str]:
        depth = self._path.count(".") + 1 if self._path else 0
        below = {each.split(".")[depth] for each in self._names if each.startswith(f"{self._path}." if self._path else "")}
        return sorted(name for name in below if not name.startswith("_"))

    def __repr__(self) -> str:
        return f"<{self._path} of {self._name!r}>" if self._path else f"<client {self._name!r}>"
