"""The figures that the pages state are those of the code: a constant or a default that changes takes its sentence with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast import codec
from holdfast.calls.tools import places
from holdfast.clock import TIMER_S
from holdfast.console.process.main import NO_STORE, REFUSED
from holdfast.console.process.settings import ProcessLimits
from holdfast.policies import culprit
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.sessions import alarms, recovery
from holdfast.runtime.turns import deadlines, failures, flight, parking
from holdfast.telemetry import conventions, exporter, link, logs, posting, settings, spans

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
WORDS = {5: "five", 100: "a hundred", 1000: "thousand"}
ORDINALS = {2: "third"}  # by how many there were before


def default(struct: type[msgspec.Struct], name: str) -> Any:
    return next(field.default for field in msgspec.structs.fields(struct) if field.name == name)


def period(seconds: float) -> str:
    return {1.0: "second", 60.0: "minute"}.get(seconds, f"{seconds:g} s")


STATED: list[tuple[str, str]] = [
    # the page, a part of a sentence of it
    ("README.md", f"code between two steps counts as waiting after {parking.QUIET_S:g} s"),
    ("README.md", f"is complete, after {default(ProcessLimits, 'recovery_s'):g} s (`recovery_s`) at the latest"),
    ("README.md", "past a limit (`stuck_s`) the process exits"),
    ("README.md", f"if the store cannot be reached (exit code {NO_STORE}); exit code {REFUSED} (configuration error) is not restarted"),
    ("docs/semantics.md", f"have run no step for {parking.QUIET_S:g} s, and for {parking.PERSON_S:g} s where a person is"),
    ("docs/semantics.md", f"is cancelled again*, at first after {flight.FIRST_S:g} s"),
    ("docs/semantics.md", f"comes again* each {period(deadlines.AGAIN_S)}"),
    ("docs/semantics.md", f"died uncleanly {WORDS[default(Agent, 'crash_limit')]} times since its last record"),
    ("docs/semantics.md", f"gives its place back ({places.THREADS} run at once), up to {places.ABANDONED} such threads"),
    ("docs/semantics.md", f"a session has at most {places.OWN} threads"),
    ("docs/semantics.md", f"after the {ORDINALS[culprit.SUSPECT_FROM]} unclean end in a row"),
    ("docs/semantics.md", f"has run for a {period(culprit.FIRST_S)} (longer after each end)"),
    ("docs/semantics.md", f"gives its place back after {WORDS[int(recovery._LOOK_S * recovery._LOOKS)]} seconds"),
    ("docs/semantics.md", f"More than {WORDS[alarms._AT_ONCE]} alarms of the same instant ring over a second for each "
     f"{WORDS[alarms._A_SECOND]}"),
    ("docs/semantics.md", f"it ends a wait within a {period(TIMER_S)}"),
    ("docs/semantics.md", f"it is read again each {period(failures.STATE_S)} and with each message"),
    ("CHANGELOG.md", f"a value is at most {codec.MAX_BYTES // MIB} MiB"),
    ("CHANGELOG.md", f"{places.THREADS} at once and at most {places.OWN} of one session"),
    ("docs/telemetry.md", f"the text is cut at {conventions.MAX_TEXT:,} characters ({logs.MAX_MESSAGE:,} in a log line)"),
    ("docs/telemetry.md", f"cut in its middle past {logs.MAX_EXCEPTION:,} characters"),
    ("docs/telemetry.md", f"A process of its own (`nice` {exporter.NICE})"),
    ("docs/telemetry.md", f"{default(settings.Settings, 'queue_bytes') // MIB} MiB of encoded spans in the exporter"),
    ("docs/telemetry.md", f"then {link.PENDING_BYTES // MIB} MiB of records in the runtime"),
    ("docs/telemetry.md", f"A post is tried {posting.TRIES} times, for {default(settings.Settings, 'timeout_s'):g} seconds each"),
    ("docs/telemetry.md", f"it gets {default(settings.Settings, 'flush_s'):g} seconds to post what it has"),
    ("docs/telemetry.md", f"{spans.MAX_NOTES} for each at most"),
]  # fmt: skip


@pytest.mark.parametrize(("page", "stated"), STATED, ids=[stated[:60] for _, stated in STATED])
def test_a_stated_figure_is_that_of_the_code(page: str, stated: str) -> None:
    """The sentence stands on the page with the figure that the code has."""
    assert stated in re.sub(r"\s+", " ", (ROOT / page).read_text())
