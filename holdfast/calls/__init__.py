"""Calls to the outside, as values: with an effect class, a timeout, a schema and a meter."""

from holdfast.calls.call import UNKNOWN, Call, Effect, StepContext, Steps, Unknown
from holdfast.calls.clients import ModelClient, cost_of
from holdfast.calls.prices import Prices
from holdfast.calls.replies import BrokenStream, EmptyReply, NoReply, ReportedError
from holdfast.calls.results import ToolResult, failed, succeeded
from holdfast.calls.streams import ModelStream
from holdfast.calls.tools import Tool, ToolArgumentError, spec_for, tool
from holdfast.calls.toolset import Toolset

__all__ = [
    "UNKNOWN",
    "BrokenStream",
    "Call",
    "Effect",
    "EmptyReply",
    "ModelClient",
    "ModelStream",
    "NoReply",
    "Prices",
    "ReportedError",
    "StepContext",
    "Steps",
    "Tool",
    "ToolArgumentError",
    "ToolResult",
    "Toolset",
    "Unknown",
    "cost_of",
    "failed",
    "spec_for",
    "succeeded",
    "tool",
]
