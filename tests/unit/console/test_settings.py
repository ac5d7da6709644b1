"""`holdfast.toml`: what it sets, and what is said of one that is wrong."""

from __future__ import annotations

import inspect
import os
import re
import tomllib
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast import Backoff, BreakerSpec, Budget, ConfigError, FailureRule, Intensity, RepetitionSpec, Runtime, Session, agent
from holdfast.console.process.settings import ProcessLimits, Settings, Source
from holdfast.policies.failures import TABLE
from holdfast.runtime.agents.limits import SINGLE, AgentLimits, Limits, RuntimeLimits, apply, apply_breaker, failure_rules, faults

EXAMPLES = Path(__file__).parents[3] / "examples"


@agent(budget=Budget(steps=40, usd=0.50), repetition=RepetitionSpec(same=4, window=10), mailbox=7)
async def support(session: Session[Any], text: str) -> str:
    return text


def check(limits: Limits) -> Iterable[str]:
    return faults(limits, {"support": support}, BreakerSpec(), ())


def read(folder: Path, text: str) -> Settings:
    (folder / "limits.toml").write_text(text)
    settings = Source(str(folder / "limits.toml"), check).read()
    assert settings is not None
    return settings


def refused(folder: Path, text: str) -> list[str]:
    """The faults, each without the name of the file that it has to begin with."""
    with pytest.raises(ConfigError) as refusal:
        read(folder, text)
    start = f"{folder / 'limits.toml'}: "
    lines = str(refusal.value).splitlines()
    assert all(line.startswith(start) for line in lines)
    return [line.removeprefix(start) for line in lines]


ALL = """
[runtime]
idle_s = 5
drain_s = 12.5
quarantine_s = 0.5
max_recovering = 8
reconciles = 4
breaker = { window = 50, kill_after = "none" }

[process]
recovery_s = 3
blocked_s = 0.5
stuck_s = "none"

[agents.support]
mailbox = 20
park_after_s = 1
crash_limit = 2
budget = { steps = 100, tokens = 5000, usd = "none", seconds = 60, tool_calls = 9 }
breaker = { minimum = 3, open_s = 2.5, kill_after = 4 }
repetition = { same = 2 }
intensity = { restarts = 1, within_s = 10 }
backoff = { base_s = 1, max_s = 4 }
"""


def test_every_limit_can_be_set(tmp_path: Path) -> None:
    """Of the Runtime, of the process and of an agent; "none" takes a limit away."""
    settings = read(tmp_path, ALL)
    assert settings.process == ProcessLimits(recovery_s=3, blocked_s=0.5, stuck_s=None)
    assert settings.limits.runtime == RuntimeLimits(
        idle_s=5, drain_s=12.5, quarantine_s=0.5, max_recovering=8, reconciles=4, breaker={"window": 50, "kill_after": None}
    )
    changed = apply(support, settings.limits.agents["support"])
    assert (changed.mailbox, changed.park_after_s, changed.crash_limit) == (20, 1, 2)
    assert changed.budget == Budget(steps=100, tokens=5000, seconds=60, tool_calls=9)
    assert changed.breaker == BreakerSpec(minimum=3, open_s=2.5, kill_after=4)
    assert changed.repetition == RepetitionSpec(same=2, window=10)
    assert (changed.intensity, changed.backoff) == (Intensity(1, 10), Backoff(base_s=1, max_s=4))


def test_the_example_files_agree_with_the_code_and_with_each_other() -> None:
    """What people copy from has no fault and names the defaults; its service unit waits longer than what it waits for takes."""
    settings = Source(str(EXAMPLES / "holdfast.toml"), check).read()
    assert settings is not None
    assert settings.process == ProcessLimits()
    runtime, defaults = settings.limits.runtime, inspect.signature(Runtime).parameters
    assert {name: getattr(runtime, name) for name in SINGLE} == {name: defaults[name].default for name in SINGLE}
    assert apply_breaker(BreakerSpec(), runtime.breaker) == BreakerSpec()
    assert apply(support, settings.limits.agents["support"]).breaker == BreakerSpec()
    unit = dict(re.findall(r"^(\w+)=(.*)$", (EXAMPLES / "holdfast.service").read_text(), re.MULTILINE))
    assert unit["Type"] == "notify"
    assert float(unit["TimeoutStartSec"]) > settings.process.recovery_s
    assert runtime.drain_s is not None
    assert float(unit["TimeoutStopSec"]) > runtime.drain_s


def test_the_example_names_every_limit() -> None:
    """As README.md has it: each key of the Runtime, of `holdfast run`, and of an agent; a breaker's keys stand once."""
    named = tomllib.loads((EXAMPLES / "holdfast.toml").read_text())
    own = named["agents"]["support"]
    specs = {"budget": Budget, "repetition": RepetitionSpec, "intensity": Intensity, "backoff": Backoff}
    for table, of in (
        (named["runtime"], RuntimeLimits),
        (named["runtime"]["breaker"], BreakerSpec),
        (named["failures"]["all"]["empty_answer"], FailureRule),
        (named["process"], ProcessLimits),
        (own, AgentLimits),
        *((own[key], of) for key, of in specs.items()),
    ):
        assert set(table) == set(of.__struct_fields__), of


def test_the_rules_of_the_example_are_those_of_the_table() -> None:
    """What people copy from names the defaults."""
    settings = Source(str(EXAMPLES / "holdfast.toml"), check).read()
    assert settings is not None
    found: list[str] = []
    rules = failure_rules(settings.limits.failures, {}, (), found)
    assert found == []
    for kind, rule in rules["all"].items():
        assert {field: getattr(TABLE[kind], field) for field in FailureRule.__struct_fields__} == msgspec.structs.asdict(rule)


def test_what_is_not_named_stays_as_the_code_has_it(tmp_path: Path) -> None:
    """One field of a budget leaves the others; the agent of the code is not touched."""
    changed = apply(support, read(tmp_path, "[agents.support.budget]\nsteps = 3\n").limits.agents["support"])
    assert (changed.budget, changed.mailbox, changed.handler) == (Budget(steps=3, usd=Decimal("0.5")), 7, support.handler)
    assert support.budget == Budget(steps=40, usd=Decimal("0.5"))
    assert apply(support, None) is support
    assert read(tmp_path, "") == Settings()


def test_a_number_of_too_many_digits_is_one_line(tmp_path: Path) -> None:
    """Wherever it stands; TOML has whole numbers of 64 bits, and Python's limit for reading one raises an error of its own."""
    assert [fault[:15] for fault in refused(tmp_path, f"[runtime]\ndrain_s = {'9' * 5000}")] == ["it is not TOML:"]
    text = f"[runtime]\ndrain_s = {'9' * 400}\n[process]\nstuck_s = -{'9' * 30}\n[agents.support]\nbudget = {{ steps = [[{1 << 63}]] }}"
    said = "has more digits than a whole number of TOML can have"
    assert refused(tmp_path, text) == [f"{key} {said}" for key in ("runtime.drain_s", "process.stuck_s", "agents.support.budget.steps")]


def test_all_faults_are_told_at_once_each_with_its_file_and_key(tmp_path: Path) -> None:
    """Values, keys, tables and names of agents; a typing error is answered with what was meant."""
    text = """
    drain_s = 5
    [runtime]
    drain_s = -1
    idle = 3
    breaker = { half_open_calls = 0, window = 1e9 }
    [process]
    blocked_s = 0.001
    [agents.suport]
    [agents.support]
    mailbox = "none"
    crash_limit = true
    intensity = 3
    budget = { steps = -1, usd = "much; tokens", token = 1 }
    repetition = { same = 20 }
    backoff = { factor = 0.5 }
    """
    assert refused(tmp_path, text) == [
        "unknown key drain_s: there is agents, failures, process, runtime",
        "unknown key runtime.idle: did you mean 'idle_s'?",
        "agents.support.intensity is 3: it has to be a table, [agents.support.intensity]",
        "process.blocked_s is 0.001: it cannot be below 0.1",
        "runtime.drain_s is -1: it cannot be below 0",
        "runtime.breaker.window is 1000000000.0: give at most 100_000",
        "runtime.breaker.half_open_calls is 0: give a whole number, 1 or more",
        "agents.suport names no agent of this Runtime: did you mean 'support'?",
        "agents.support.budget.token is an unknown key: did you mean 'tokens'?",
        'agents.support.budget.steps is -1: give a whole number, 0 or more, or "none"',
        "agents.support.budget.usd is 'much; tokens': give an amount of dollars, from 0 to 1,000,000,000, or \"none\"",
        "agents.support.repetition.window is 10: it has to be at least same (20) and cycle_max (4)",
        "agents.support.backoff.factor is 0.5: use a number from 1",
        "agents.support.mailbox is 'none': give a whole number, 1 or more",
        "agents.support.crash_limit is True: give a whole number, 1 or more",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[agents.support.budget]\nusd = "much; tokens"', [
            "agents.support.budget.usd is 'much; tokens': give an amount of dollars, from 0 to 1,000,000,000, or \"none\"",
        ]),
        ("[agents.support.budget]\nsteps = 1.5\nseconds = nan", [
            'agents.support.budget.steps is 1.5: give a whole number, 0 or more, or "none"',
            'agents.support.budget.seconds is nan: give a finite number or "none"',
        ]),
        ("[agents.support.budget]\nsteps = 9999999999999", [
            "agents.support.budget.steps is 9999999999999: give at most 1_000_000_000_000",
        ]),
        ("[agents.support.budget]\nsteps = 9999999999999999\n[agents.support.intensity]\nrestarts = 9999999999999", [
            "agents.support.budget.steps is 9999999999999999: give at most 1_000_000_000_000",
            "agents.support.intensity.restarts is 9999999999999: give at most 1_000_000_000_000",
        ]),
        ("[agents.support]\nmailbox = 9999999999999\n[runtime]\nmax_recovering = 9999999999999\nidle_s = 9999999999999", [
            "runtime.idle_s is 9999999999999: give at most 1_000_000_000_000",
            "runtime.max_recovering is 9999999999999: give at most 100_000",
            "agents.support.mailbox is 9999999999999: give at most 1_000_000_000_000",
        ]),
        ("[process]\nstuck_s = 1", ["process.stuck_s is 1: it has to be over blocked_s (1)"]),
        ("[process]\nstuck_s = 2020-01-01", ['process.stuck_s is datetime.date(2020, 1, 1): give a finite number or "none"']),
        ("agents = 3", ["agents is 3: it has to be a table, [agents]"]),
        ("[agents]\nsupport = 3", ["agents.support is 3: it has to be a table, [agents.support]"]),
        ("[runtime]\nidle_s = 'x'\nreconciles = 0", [
            "runtime.idle_s is 'x': give a finite number", "runtime.reconciles is 0: give a whole number, 1 or more",
        ]),
        ('[failures.all.429]\nattempts = 0\nthen = "no; attempts"\nhealth = 3', [
            "failures.all.429.attempts is 0: give a whole number, 1 or more",
            "failures.all.429.health is 3: give 'dependency', 'session', 'none'",
            "failures.all.429.then is 'no; attempts': give 'handler', 'dead letter', 'park', 'person'",
        ]),
        ("[failures.all]\nempty_anwser = { attempts = 1 }\ntimeout = 3\n600 = {}\nbusy = { attemps = 1 }", [
            "failures.all.empty_anwser is no kind of failure: did you mean 'empty_answer'?",
            "failures.all.timeout is 3: give a FailureRule, or a table of its fields (attempts, health, charge, then)",
            f"failures.all.600 is no kind of failure: use {', '.join(TABLE)}; an HTTP status; "
            "an exception's class; or 'code:' and a provider's error code",
            "failures.all.busy.attemps is an unknown key: use attempts, health, charge, then",
        ]),
        ("[failures]\nall = 3\nopenay = {}", [
            "failures.all is 3: it has to be a table, [failures.all]",
            "failures.openay names no client, dependency or tool of this Runtime: there is all",
        ]),
        ("[runtime\n", ["it is not TOML: Expected ']' at the end of a table declaration (at line 1, column 9)"]),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_named_with_what_would(tmp_path: Path, text: str, says: list[str]) -> None:
    """Whatever TOML can hold; one line each."""
    assert refused(tmp_path, text) == says


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """A folder, another encoding, and one that is not there though it was named."""
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Source(str(tmp_path), check).read()
    with pytest.raises(ConfigError, match="there is no such file"):
        Source(str(tmp_path / "limits.toml"), check).read()
    (tmp_path / "limits.toml").write_bytes(b"# \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Source(str(tmp_path / "limits.toml"), check).read()


def test_the_file_that_nobody_named_need_not_be_there_until_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that vanishes between two reloads was hardly taken away to lift every limit. Later changes of folder do not matter."""
    monkeypatch.chdir(tmp_path)
    source = Source(None, check)
    assert source.read() is None
    (tmp_path / "holdfast.toml").write_text("[runtime]\ndrain_s = 3\n")
    os.chdir("/")
    settings = source.read()
    assert settings == Settings(limits=Limits(runtime=RuntimeLimits(drain_s=3)))
    (tmp_path / "holdfast.toml").unlink()
    with pytest.raises(ConfigError, match=r"holdfast\.toml: there is no such file"):
        source.read()


def test_limits_that_make_no_sense_are_not_applied() -> None:
    """Whoever makes them in code is told the same, all at once."""
    with pytest.raises(ConfigError, match=r"agent 'support': budget\.steps is -1: .*; mailbox is 0: "):
        apply(support, AgentLimits(budget={"steps": -1}, mailbox=0))
