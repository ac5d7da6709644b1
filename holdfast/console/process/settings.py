"""`holdfast.toml`: every limit, without touching the code of an agent. Whatever is wrong with it is told at once, a line for each fault.

    [runtime]                     # of the Runtime: idle_s, drain_s, quarantine_s, max_recovering, reconciles
    [runtime.breaker]             # of each dependency
    [process]                     # of `holdfast run`: recovery_s, blocked_s, stuck_s
    [agents.support]              # of the sessions of one agent: mailbox, park_after_s, crash_limit
    [agents.support.budget]       # also breaker, repetition, intensity, backoff

What is not named stays as the code has it. TOML has no word for nothing: a limit is taken away with "none".
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from holdfast.errors import ConfigError
from holdfast.policies._faults import Faults
from holdfast.runtime.agents.limits import SPECS, AgentLimits, Limits, RuntimeLimits, alike

NAME = "holdfast.toml"
"""The file that is read where none is named, if it is there."""

NONE = "none"
_MAY_BE_NONE = {"budget": ("steps", "tokens", "usd", "seconds", "tool_calls"), "breaker": ("kill_after",)}


class ProcessLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What `holdfast run` itself keeps to.

    Attributes:
        recovery_s: how long the service manager is left waiting for READY while sessions go through their records, in seconds.
        blocked_s: a loop that gives no sign of life for so long is blocked, in seconds: what blocks it is logged.
        stuck_s: after so long the process exits, to be started again; None is never.
    """

    recovery_s: float = 30.0
    blocked_s: float = 1.0
    stuck_s: float | None = 60.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says; without one, nothing is changed."""

    limits: Limits = Limits()
    process: ProcessLimits = ProcessLimits()


class Source:
    """The file, wherever it is, to be read at the start and at each reload.

    Args:
        path: the file; None is holdfast.toml in the current folder, which need not be there.
        check: what a Runtime finds wrong with limits, each fault beginning with its key.
    """

    def __init__(self, path: str | None, check: Callable[[Limits], Iterable[str]]) -> None:
        self.path = Path(NAME if path is None else path).absolute()
        self.name = NAME if path is None else path
        self._check = check
        self._needed = path is not None

    def read(self) -> Settings | None:
        """What the file says; None where there is no file and none is needed.

        Raises:
            ConfigError: its text has a line for each thing that is wrong with the file.
        """
        try:
            text = self.path.read_bytes().decode()
            table = tomllib.loads(text)
        except FileNotFoundError:
            if self._needed:
                raise self._wrong(["there is no such file"]) from None
            return None
        except OSError as error:
            raise self._wrong([f"it cannot be read: {error.strerror}"]) from error
        except UnicodeDecodeError as error:
            raise self._wrong([f"it is not UTF-8 (byte {error.start})"]) from error
        except (ValueError, RecursionError) as error:  # an integer of 5,000 digits is a ValueError of its own
            raise self._wrong([f"it is not TOML: {error}"]) from error
        large = list(_too_large(table))
        if large:
            raise self._wrong(large)
        # A file that was there and is gone was hardly taken away to lift every limit: from now on it is needed.
        self._needed = True
        settings, found = _settings(table)
        found += self._check(settings.limits)
        if found:
            raise self._wrong(found)
        return settings

    def _wrong(self, found: Iterable[str]) -> ConfigError:
        lines = [" ".join(f"{self.name}: {fault}".split()).replace("or None", f'or "{NONE}"') for fault in found]
        return ConfigError("\n".join(lines))


def _too_large(table: dict[str, Any]) -> Iterator[str]:
    """Whole numbers of more than 64 bits, which TOML does not have: nothing that looks at a value need reckon with them."""
    left: list[tuple[str, Any]] = [("", table)]  # not by recursion: dotted keys can be nested thousands deep
    while left:
        at, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{at}.{name}" if at else name, value[name]) for name in reversed(value)]
        elif isinstance(value, list):
            left += [(at, each) for each in reversed(value)]
        elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            yield f"{at} has more digits than a whole number of TOML can have"


def _settings(table: dict[str, Any]) -> tuple[Settings, list[str]]:
    """What of the file is understood, and what is wrong with its tables and keys."""
    found: list[str] = []
    _known(table, "", ("agents", "process", "runtime"), found)
    agents = _table(table, "", "agents", found)
    limits = Limits(
        runtime=RuntimeLimits(**_limits(_table(table, "", "runtime", found), "runtime.", RuntimeLimits, found)),
        agents={
            name: AgentLimits(**_limits(_table(agents, "agents.", name, found), f"agents.{name}.", AgentLimits, found)) for name in agents
        },
    )
    return Settings(limits=limits, process=_process(_table(table, "", "process", found), found)), found


def _limits(table: Mapping[str, Any], at: str, kind: type[msgspec.Struct], found: list[str]) -> dict[str, Any]:
    """The arguments of `kind`; whether their values make sense depends on the agent, so that is for `check` to say."""
    names = kind.__struct_fields__
    _known(table, at, names, found)
    return {name: _overrides(name, _table(table, at, name, found)) if name in SPECS else table[name] for name in names if name in table}


def _overrides(spec: str, table: Mapping[str, Any]) -> dict[str, Any]:
    may_be_none = _MAY_BE_NONE.get(spec, ())
    return {name: None if value == NONE and name in may_be_none else value for name, value in table.items()}


def _process(table: Mapping[str, Any], found: list[str]) -> ProcessLimits:
    _known(table, "process.", ProcessLimits.__struct_fields__, found)
    given = {name: table[name] for name in ProcessLimits.__struct_fields__ if name in table}
    if given.get("stuck_s") == NONE:
        given["stuck_s"] = None
    limits, checks = ProcessLimits(**given), Faults("")
    checks.number("recovery_s", limits.recovery_s)
    checks.number("blocked_s", limits.blocked_s, 0.1)
    checks.number("stuck_s", limits.stuck_s, optional=True)
    if not checks.found and limits.stuck_s is not None and limits.stuck_s <= limits.blocked_s:
        checks.add(f"stuck_s is {limits.stuck_s!r}: it has to be over blocked_s ({limits.blocked_s:g})")
    found += [f"process.{fault}" for fault in checks.found]
    return limits


def _table(table: Mapping[str, Any], at: str, name: str, found: list[str]) -> dict[str, Any]:
    value = table.get(name, {})
    if isinstance(value, dict):
        return value
    found.append(f"{at}{name} is {value!r}: it has to be a table, [{at}{name}]")
    return {}


def _known(table: Mapping[str, Any], at: str, names: Iterable[str], found: list[str]) -> None:
    found += [f"unknown key {at}{name}{alike(name, names)}" for name in table if name not in names]
