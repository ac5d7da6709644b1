"""`holdfast.toml`: every limit, without a change to an agent's code. An error reports all its faults at once, one a line.

    [runtime]                     # of the Runtime: idle_s, drain_s, quarantine_s, max_recovering, reconciles
    [runtime.breaker]             # of each dependency
    [process]                     # of `holdfast run`: recovery_s, blocked_s, stuck_s
    [agents.support]              # of the sessions of one agent: mailbox, park_after_s, crash_limit
    [agents.support.budget]       # also breaker, repetition, intensity, backoff
    [failures.openai.rate_limit]  # of a client, dependency or tool, or "all"; by kind of failure: attempts, health, charge, then

Unset keys keep the value from code. TOML has no null: "none" removes a limit.
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
"""The file that is read by default, if it exists."""

NONE = "none"
_MAY_BE_NONE = {"budget": ("steps", "tokens", "usd", "seconds", "tool_calls"), "breaker": ("kill_after",)}


class ProcessLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of `holdfast run` itself.

    Attributes:
        recovery_s: how long READY waits for sessions that are still replaying, in seconds.
        blocked_s: a loop without a heartbeat for so long, in seconds, is blocked: the log names the code that blocks it.
        stuck_s: a process whose loop is blocked for so long, in seconds, exits, so that it is restarted; None is never.
    """

    recovery_s: float = 30.0
    blocked_s: float = 1.0
    stuck_s: float | None = 60.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file; without a file, the code's limits apply."""

    limits: Limits = Limits()
    process: ProcessLimits = ProcessLimits()


class Source:
    """The file, which is read at the start and at each reload.

    Args:
        path: the file; None is holdfast.toml in the current folder, which need not exist.
        check: returns the faults that a Runtime finds in limits; each begins with its key.
    """

    def __init__(self, path: str | None, check: Callable[[Limits], Iterable[str]]) -> None:
        self.path = Path(NAME if path is None else path).absolute()
        self.name = NAME if path is None else path
        self._check = check
        self._needed = path is not None

    def read(self) -> Settings | None:
        """The content of the file; None if there is no file and none is needed.

        Raises:
            ConfigError: its text has a line for each fault of the file.
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
        except (ValueError, RecursionError) as error:  # an integer of 5,000 digits raises a plain ValueError
            raise self._wrong([f"it is not TOML: {error}"]) from error
        large = list(_too_large(table))
        if large:
            raise self._wrong(large)
        # The file exists now. If it is missing later, that is an error: a deleted file must not remove every limit.
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
    """Whole numbers of more than 64 bits, which TOML does not have: so no later code has to handle them."""
    left: list[tuple[str, Any]] = [("", table)]  # no recursion: dotted keys can be nested thousands deep
    while left:
        at, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{at}.{name}" if at else name, value[name]) for name in reversed(value)]
        elif isinstance(value, list):
            left += [(at, each) for each in reversed(value)]
        elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            yield f"{at} has more digits than a whole number of TOML can have"


def _settings(table: dict[str, Any]) -> tuple[Settings, list[str]]:
    """The valid settings of the file, and the faults of its tables and keys."""
    found: list[str] = []
    _known(table, "", ("agents", "failures", "process", "runtime"), found)
    agents, failures = _table(table, "", "agents", found), _table(table, "", "failures", found)
    limits = Limits(
        runtime=RuntimeLimits(**_limits(_table(table, "", "runtime", found), "runtime.", RuntimeLimits, found)),
        agents={
            name: AgentLimits(**_limits(_table(agents, "agents.", name, found), f"agents.{name}.", AgentLimits, found)) for name in agents
        },
        failures={name: _table(failures, "failures.", name, found) for name in failures},
    )
    return Settings(limits=limits, process=_process(_table(table, "", "process", found), found)), found


def _limits(table: Mapping[str, Any], at: str, kind: type[msgspec.Struct], found: list[str]) -> dict[str, Any]:
    """The arguments of `kind`. Only `check` can validate their values, since that depends on the agent."""
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
