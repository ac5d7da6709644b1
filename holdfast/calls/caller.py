"""The code that calls a tool, as far as the tool may know it: a handler, a step, or code that belongs to no turn."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class Caller(Protocol):
    """The place in a turn that code runs at."""

    @property
    def in_step(self) -> bool:
        """Whether it is part of a step, which has a record. A handler's own code has none."""
        ...


caller: ContextVar[Caller | None] = ContextVar("holdfast_caller", default=None)
"""Where the running code is; None where it belongs to no turn."""


def unrecorded() -> bool:
    """Whether an effect of the calling code would leave no record: it is a handler's, outside a step."""
    found = caller.get()
    return found is not None and not found.in_step
