"""holdfast: supervised, durable sessions for AI agents.

    from holdfast import Budget, Runtime, Session, agent, tool

See README.md for the whole picture and docs/semantics.md for the promises.
"""

from __future__ import annotations

from holdfast.calls.call import UNKNOWN, StepContext
from holdfast.calls.results import ToolResult
from holdfast.calls.tools import tool
from holdfast.errors import (
    AskCycle,
    AskTimeout,
    BudgetExhausted,
    ConfigError,
    HoldfastError,
    MailboxFull,
    MessageConflict,
    NotDone,
    NotJournalable,
    NotWritten,
    OutcomeUnknown,
    RepetitionDetected,
    ReplyTimeout,
    RuntimeStopped,
    SchemaTooNew,
    SessionConflict,
    SessionEnded,
    SessionNotFound,
    StateError,
    StepError,
    StoreError,
    StoreLocked,
    TurnFailed,
)
from holdfast.policies.breaker import BreakerSpec
from holdfast.policies.budget import Budget, Usage
from holdfast.policies.repetition import RepetitionSpec
from holdfast.policies.retry import NO_RETRY, Retry
from holdfast.runtime.agent import Agent, agent
from holdfast.runtime.handle import Handle
from holdfast.runtime.runtime import Runtime
from holdfast.runtime.session import Child, Session
from holdfast.supervisors.intensity import Backoff, Intensity

__version__ = "0.1.0"

__all__ = [
    "NO_RETRY", "UNKNOWN", "Agent", "AskCycle", "AskTimeout", "Backoff", "BreakerSpec", "Budget", "BudgetExhausted", "Child", "ConfigError",
    "Handle", "HoldfastError", "Intensity", "MailboxFull", "MessageConflict", "NotDone", "NotJournalable", "NotWritten", "OutcomeUnknown",
    "RepetitionDetected", "RepetitionSpec", "ReplyTimeout", "Retry", "Runtime", "RuntimeStopped", "SchemaTooNew", "Session",
    "SessionConflict", "SessionEnded", "SessionNotFound", "StateError", "StepContext", "StepError", "StoreError", "StoreLocked",
    "ToolResult", "TurnFailed", "Usage", "agent", "tool",
]  # fmt: skip
