"""Collects the faults of a spec, so that one `ConfigError` names them all."""

from __future__ import annotations

from holdfast.errors import ConfigError
from holdfast.given import LARGEST, brief, is_number


class Faults:
    """The faults of one spec; `check` raises if there are any."""

    __slots__ = ("_spec", "found")

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self.found: list[str] = []

    def add(self, text: str) -> None:
        self.found.append(text)

    def whole(self, field: str, value: object, least: int, *, optional: bool = False, most: int | None = LARGEST) -> None:
        """Notes a value that is not an int from `least` to `most`."""
        if optional and value is None:
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.add(f"{field} is {brief(value)}: give a whole number, {least} or more{', or None' if optional else ''}")
        elif most is not None:
            self._most(field, value, most)

    def number(
        self,
        field: str,
        value: object,
        least: float = 0.0,
        *,
        positive: bool = False,
        optional: bool = False,
        most: int | None = LARGEST,
    ) -> None:
        """Notes a value that is not a finite number from `least` (or over 0 if `positive`) to `most`."""
        if optional and value is None:
            return
        if not is_number(value):
            self.add(f"{field} is {brief(value)}: give a finite number{' or None' if optional else ''}")
        elif positive and value <= 0:
            self.add(f"{field} is {brief(value)}: it has to be over 0")
        elif value < least:
            self.add(f"{field} is {brief(value)}: it cannot be below {least:g}")
        elif most is not None:
            self._most(field, value, most)

    def _most(self, field: str, value: float, most: int) -> None:
        if value > most:
            self.add(f"{field} is {brief(value)}: give at most {most:,}")

    def ratio(self, field: str, value: object) -> None:
        """Notes a value that is not over 0 and at most 1."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
            self.add(f"{field} is {brief(value)}: give a share over 0 and at most 1")

    def check(self) -> None:
        """Raise if there are faults.

        Raises:
            ConfigError: at least one fault was noted; the message names every field.
        """
        if self.found:
            raise ConfigError(f"{self._spec}: {'; '.join(self.found)}")
