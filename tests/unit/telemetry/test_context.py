"""The trace of a sender, as a text that travels with its message."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace

from holdfast.telemetry.context import Carried, carried, linked, parse

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_nothing_is_carried_where_no_span_is_current() -> None:
    """Outside any span there is no text, neither to be a child of nor to link to."""
    assert (carried(), linked()) == ("", "")


@pytest.mark.parametrize("sampled", [True, False])
def test_the_current_span_is_carried_as_a_traceparent(sampled: bool) -> None:
    """What is written is the W3C form, sampled or not, and what is read is what was written."""
    context = trace.SpanContext(TRACE, SPAN, is_remote=False, trace_flags=trace.TraceFlags(int(sampled)))
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert carried() == PARENT[:-1] + str(int(sampled))
        assert parse(carried()) == Carried(TRACE, SPAN, sampled, link=False)
        assert parse(linked()) == Carried(TRACE, SPAN, sampled, link=True)


@pytest.mark.parametrize(
    "text",
    [
        "", "link:", "nonsense", PARENT[:-1], PARENT.replace("00-", "ff-"), PARENT.upper(), PARENT + "0",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01", "link:link:" + PARENT,
    ],
)  # fmt: skip
def test_a_text_that_says_nothing_usable_is_no_trace(text: str) -> None:
    """It may come from outside: what is not a traceparent of a known form is ignored, and nothing fails."""
    assert parse(text) is None


def test_a_later_version_of_the_text_is_read_as_far_as_it_is_known() -> None:
    """The W3C recommendation: fields that a later version adds at the end are left aside."""
    assert parse("01" + PARENT[2:] + "-more") == Carried(TRACE, SPAN, True, link=False)


def test_asking_imports_nothing() -> None:
    """A process that does not use OpenTelemetry does not begin to because it sends a message."""
    code = "import sys; from holdfast.telemetry import context; assert context.carried() == ''; print('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True).stdout == "False\n"
