"""The end of a stream: the protocol's own mark, or a finish reason followed by nothing."""

from __future__ import annotations

import enum
from typing import Any, Literal, Protocol


class Stage(enum.IntEnum):
    """How near its end a stream is, by the chunks so far."""

    OPEN = 0
    """More must follow: if it ends here, it was cut short."""
    DOUBTFUL = 1
    """There is a finish reason, but it comes before any content, or content came after an earlier one: it is whole if the response ends
    properly here."""
    LIKELY = 2
    """There is a finish reason, in the chunk with the first content: it is whole if the response ends properly, or is silent for long."""
    DONE = 3
    """There is a finish reason, or a report of the usage: it is whole, whatever becomes of the connection."""
    MARKED = 4
    """There is the protocol's own end mark: nothing follows."""


class Ending(Protocol):
    """Follows the chunks of one stream to its end. Content after a finish reason takes the reason back."""

    @property
    def stage(self) -> Stage:
        """How near its end the stream is."""
        ...

    def add(self, chunk: dict[str, Any]) -> None:
        """Take the next chunk."""
        ...

    def mark(self) -> None:
        """The end mark `[DONE]` came."""
        ...


Reason = Literal["ended", "limit", "filtered", "broken", "malformed", "none"]
"""What a finish reason means: the model had ended; a limit of tokens was reached; a filter or policy ended the answer; the provider broke
the answer off, so that it is none; the model's tool call is no call; there is no reason yet."""
