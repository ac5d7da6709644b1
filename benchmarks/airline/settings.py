"""The settings of a run's processes, from the environment. `run.py` sets them all."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.airline.tables import MissingData

_PREFIX = "AIRLINE_"


def _given(name: str) -> str:
    try:
        return os.environ[_PREFIX + name]
    except KeyError:
        raise MissingData(f"{_PREFIX}{name} is not set: python -m benchmarks.airline sets it for the processes that it starts") from None


def folder() -> Path:
    """The folder of the books."""
    return Path(_given("FOLDER"))


def data() -> Path:
    """The directory of the tables and the policy."""
    return Path(_given("DATA"))


def conversations() -> Path:
    """The file of the recorded conversations."""
    return Path(_given("CONVERSATIONS"))


def first() -> int | None:
    """How many of the conversations are run, the first ones; None for all."""
    return int(os.environ.get(_PREFIX + "FIRST", "0")) or None


def run() -> str:
    """The prefix of the ids of this run's sessions: a store may have sessions of other runs."""
    return _given("RUN")


def concurrency() -> int:
    """How many conversations run at once."""
    return int(_given("CONCURRENCY"))


def model_url() -> str:
    """The URL of the model server."""
    return _given("MODEL_URL")


def pace() -> float:
    """How slow the model and the airline's system are: 1.0 is 50 ms for an answer and 40 ms for a write."""
    return float(os.environ.get(_PREFIX + "PACE", "1.0"))


def environment(**values: object) -> dict[str, str]:
    """The variables for `values`, which have the names of the functions above; None is left out."""
    return {_PREFIX + name.upper(): str(value) for name, value in values.items() if value is not None}
