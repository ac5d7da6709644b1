"""For agents of the benchmarks that fail on purpose: the runtime's log records about them are formatted, as for a user, but not printed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGER = logging.getLogger("holdfast")


class _Handler(logging.Handler):
    """Formats every record, so that its cost stays in the measurement; prints only unexpected ones."""

    def __init__(self, expected: tuple[str, ...]) -> None:
        super().__init__()
        self._expected = expected
        self._others = logging.lastResort

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if not any(part in text for part in self._expected) and self._others is not None:
            self._others.handle(record)


@contextmanager
def failures(*expected: str) -> Iterator[None]:
    """Do not print warnings of the runtime that contain one of `expected`."""
    handler, propagate = _Handler(expected), _LOGGER.propagate
    handler.setLevel(logging.WARNING)
    _LOGGER.addHandler(handler)
    _LOGGER.propagate = False
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.propagate = propagate
