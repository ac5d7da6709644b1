"""The progress of a run, from its growing books."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.airline.books import LEDGER, MODEL, WITNESS
from benchmarks.airline.writes import WRITES
from holdfast.console.demo.facts import Tail


class Progress:
    """The counts in the books of a run while they grow."""

    def __init__(self, folder: Path) -> None:
        self._witness: Tail[dict[str, Any]] = Tail(folder / WITNESS, dict[str, Any])
        self._model: Tail[dict[str, Any]] = Tail(folder / MODEL, dict[str, Any])
        self._ledger: Tail[dict[str, Any]] = Tail(folder / LEDGER, dict[str, Any])
        self._tools: dict[tuple[str, str], str] = {}
        self._made: set[tuple[str, str]] = set()
        self._asked: set[int] = set()
        self.answered: set[str] = set()
        self.failed: dict[str, str] = {}
        self.replayed = 0

    def look(self) -> None:
        """Read the new lines."""
        for line in self._witness.read():
            match line["what"]:
                case "begin":
                    self._tools[line["session"], line["key"]] = line["tool"]
                case "end":
                    self._tools.pop((line["session"], line["key"]), None)
                case "answered":
                    self.answered.add(line["message"])
                case "failed":
                    self.failed[line["session"]] = f"{line['message']}: {line['text']}"
                case "replayed":
                    self.replayed += 1
        self._made.update((line["session"], line["key"]) for line in self._ledger.read())
        for line in self._model.read():
            (self._asked.add if line["what"] == "asked" else self._asked.discard)(line["number"])

    def open(self) -> list[str]:
        """The running steps, by the name of their tool or "model"."""
        return [*self._tools.values(), *["model"] * len(self._asked)]

    def writing(self, *, made: bool) -> bool:
        """Whether a write is running that is in the ledger already (`made`), or not yet."""
        return any(step in WRITES and (where in self._made) == made for where, step in self._tools.items())

    def killed(self) -> None:
        """Forget the running steps: the process was killed."""
        self._tools.clear()
        self._asked.clear()
