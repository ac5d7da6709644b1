"""The tools of an agent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from holdfast.calls.tools.tool import Tool
from holdfast.errors import ConfigError
from holdfast.given import brief

_MANY = 10
"""After so many faults no more are looked for."""


class Toolset:
    """The tools of an agent, by name."""

    __slots__ = ("_tools",)

    def __init__(self, tools: Iterable[Tool[..., Any]]) -> None:
        """Takes the tools, in the order in which a model gets them.

        Raises:
            ConfigError: an item is not a tool, or two have the same name; the message names all of these.
        """
        self._tools: dict[str, Tool[..., Any]] = {}
        faults: list[str] = []
        given: Iterable[Any] = tools
        for each in given:
            if len(faults) > _MANY:
                break
            if not isinstance(each, Tool):
                faults.append(f"{brief(each)} is not a tool: decorate it with @tool")
            elif each.name in self._tools:
                faults.append(f"two tools are called {each.name!r}: give one of them another name=")
            else:
                self._tools[each.name] = each
        if faults:
            raise ConfigError("; ".join(faults))

    def __getitem__(self, name: str) -> Tool[..., Any]:
        return self._tools[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __iter__(self) -> Iterator[Tool[..., Any]]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def openai(self) -> list[dict[str, Any]]:
        """All of them, as `tools=` of an OpenAI chat completion."""
        return [each.openai() for each in self]

    def openai_responses(self) -> list[dict[str, Any]]:
        """All of them, as `tools=` of an OpenAI response."""
        return [each.openai_responses() for each in self]

    def anthropic(self) -> list[dict[str, Any]]:
        """All of them, as `tools=` of an Anthropic message."""
        return [each.anthropic() for each in self]
