"""Calls to the outside, as values: with an effect class, a timeout, a schema and a meter."""

from holdfast.calls.call import UNKNOWN, Call, Effect, StepContext, Steps, Unknown, cost_of
from holdfast.calls.models.client import ModelClient
from holdfast.calls.models.prices import Prices
from holdfast.calls.models.replies import BrokenStream, EmptyReply, NoReply, ReportedError
from holdfast.calls.models.streams import ModelStream
from holdfast.calls.tools.definition import tool
from holdfast.calls.tools.functions import spec_for
from holdfast.calls.tools.results import ToolResult, failed, succeeded
from holdfast.calls.tools.tool import Tool, ToolArgumentError
from holdfast.calls.tools.toolset import Toolset

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
