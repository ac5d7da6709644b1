"""The recordings: the messages, the tool calls and their outputs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.airline.tables import MissingData, read_json

Spoken = dict[str, Any]
"""A message of a conversation, in the form of OpenAI's API."""


@dataclass(frozen=True)
class Used:
    """A call of a tool, as the recorded assistant made it: its arguments are JSON text."""

    tool: str
    arguments: str
    output: str


@dataclass(frozen=True)
class Turn:
    """A user's message, and its answer.

    Attributes:
        answer: the assistant's last message; None if the recording ends with a tool: a person got the case, or the recording was cut off.
        used: the tool calls before it, in order.
    """

    text: str
    answer: str | None
    used: tuple[Used, ...]


@dataclass(frozen=True)
class Conversation:
    """One recording.

    Attributes:
        id: the id of its session.
        messages: all messages except the system prompt.
    """

    id: str
    messages: tuple[Spoken, ...]

    @property
    def turns(self) -> list[Turn]:
        """The user's messages to which the assistant reacted. The last message often is a goodbye without an answer."""
        starts = [at for at, message in enumerate(self.messages) if message["role"] == "user"]
        parts = [self.messages[start:end] for start, end in pairwise([*starts, len(self.messages)])]
        return [_turn(part) for part in parts if any(message["role"] == "assistant" for message in part)]


def _turn(part: tuple[Spoken, ...]) -> Turn:
    used: list[Used] = []
    called: dict[str, Spoken] = {}
    for message in part:
        # An id of a call may come again later in a conversation, so the latest one counts.
        called.update((call["id"], call["function"]) for call in message.get("tool_calls") or ())
        if message["role"] == "tool":
            function = called[message["tool_call_id"]]
            used.append(Used(function["name"], function["arguments"], message["content"]))
    last = part[-1]
    return Turn(part[0]["content"], last["content"] if last["role"] == "assistant" else None, tuple(used))


def load(path: Path, *, run: str, first: int | None = None) -> list[Conversation]:
    """The conversations of a file, a list of objects with `messages`.

    Args:
        path: .json or .json.gz.
        run: the prefix of their ids.
        first: only so many of them.

    Raises:
        MissingData: there is no such file, or it has other content.
    """
    found = read_json(path)
    try:
        every = [tuple(message for message in each["messages"] if message["role"] != "system") for each in found[:first]]
    except (KeyError, TypeError) as error:
        raise MissingData(f"{path} holds no conversations: a list of objects with messages is needed") from error
    if not every:
        raise MissingData(f"{path} holds no conversations: its list is empty")
    return [Conversation(f"{run}-c{number:03}", messages) for number, messages in enumerate(every)]
