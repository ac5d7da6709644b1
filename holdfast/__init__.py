"""holdfast: supervised, durable sessions for AI agents.

```python
import asyncio

from holdfast import Budget, Runtime, Session, agent, tool


@tool(effect="once")
async def refund(order: str, cents: int) -> str:
    return f"{cents} cents of {order} paid back"


@agent(version=1, tools=[refund], budget=Budget(steps=40))
async def support(session: Session[None], order: str) -> str:
    return await session.step(refund, order, 4200)


async def main() -> None:
    async with Runtime("sqlite:///sessions.db", agents=[support]) as runtime:
        ticket = await runtime.spawn(support, id="ticket-1234")  # get or create
        print(await ticket.ask("order-17", id="message-1"))


asyncio.run(main())
```

See README.md for the whole picture and docs/semantics.md for the promises.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast.errors import (
    AskCycle,
    AskTimeout,
    BudgetExhausted,
    ConfigError,
    HoldfastError,
    MailboxFull,
    MessageConflict,
    MessageRefused,
    NodeUnreachable,
    NotAwaited,
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
    SessionError,
    SessionNotFound,
    StateError,
    StepError,
    StoreError,
    StoreLocked,
    StoreLost,
    TurnFailed,
    WriteRefused,
)

if TYPE_CHECKING:
    from holdfast.calls.call import UNKNOWN, StepContext
    from holdfast.calls.tools.definition import tool
    from holdfast.calls.tools.results import ToolResult
    from holdfast.console.client.node import connect
    from holdfast.policies.breaker import BreakerSpec
    from holdfast.policies.budget import Budget, Usage
    from holdfast.policies.failures import FailureRule
    from holdfast.policies.repetition import RepetitionSpec
    from holdfast.policies.retry import NO_RETRY, Retry
    from holdfast.runtime.agents.definition import Agent, agent
    from holdfast.runtime.handle import Handle
    from holdfast.runtime.runtime import Runtime
    from holdfast.runtime.steps.session import Child, Session
    from holdfast.supervisors.intensity import Backoff, Intensity
    from holdfast.telemetry.telemetry import Telemetry

__version__ = "0.1.0"

__all__ = [
    "NO_RETRY",
    "UNKNOWN",
    "Agent",
    "AskCycle",
    "AskTimeout",
    "Backoff",
    "BreakerSpec",
    "Budget",
    "BudgetExhausted",
    "Child",
    "ConfigError",
    "FailureRule",
    "Handle",
    "HoldfastError",
    "Intensity",
    "MailboxFull",
    "MessageConflict",
    "MessageRefused",
    "NodeUnreachable",
    "NotAwaited",
    "NotDone",
    "NotJournalable",
    "NotWritten",
    "OutcomeUnknown",
    "RepetitionDetected",
    "RepetitionSpec",
    "ReplyTimeout",
    "Retry",
    "Runtime",
    "RuntimeStopped",
    "SchemaTooNew",
    "Session",
    "SessionConflict",
    "SessionEnded",
    "SessionError",
    "SessionNotFound",
    "StateError",
    "StepContext",
    "StepError",
    "StoreError",
    "StoreLocked",
    "StoreLost",
    "Telemetry",
    "ToolResult",
    "TurnFailed",
    "Usage",
    "WriteRefused",
    "agent",
    "connect",
    "tool",
]  # fmt: skip

# Imported when they are first asked for, so that `holdfast --help` and the inspection commands start without the runtime.
_WHERE = {
    "UNKNOWN": "holdfast.calls.call",
    "StepContext": "holdfast.calls.call",
    "ToolResult": "holdfast.calls.tools.results",
    "tool": "holdfast.calls.tools.definition",
    "connect": "holdfast.console.client.node",
    "Telemetry": "holdfast.telemetry.telemetry",
    "BreakerSpec": "holdfast.policies.breaker",
    "Budget": "holdfast.policies.budget",
    "Usage": "holdfast.policies.budget",
    "FailureRule": "holdfast.policies.failures",
    "RepetitionSpec": "holdfast.policies.repetition",
    "NO_RETRY": "holdfast.policies.retry",
    "Retry": "holdfast.policies.retry",
    "Agent": "holdfast.runtime.agents.definition",
    "agent": "holdfast.runtime.agents.definition",
    "Handle": "holdfast.runtime.handle",
    "Runtime": "holdfast.runtime.runtime",
    "Child": "holdfast.runtime.steps.session",
    "Session": "holdfast.runtime.steps.session",
    "Backoff": "holdfast.supervisors.intensity",
    "Intensity": "holdfast.supervisors.intensity",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_WHERE[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
