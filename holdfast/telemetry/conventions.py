"""The names that spans carry, in one place.

The GenAI conventions of OpenTelemetry are still in development. These are the names that holdfast writes; they change only on purpose.
Langfuse also reads `session.id` and `user.id`; cost is in `gen_ai.usage.cost`, in US dollars.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Value: TypeAlias = str | bool | int | float | tuple[str, ...]
Attributes: TypeAlias = dict[str, Value]

SCOPE: Final = "holdfast"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
COST_USD: Final = "gen_ai.usage.cost"
CONVERSATION: Final = "gen_ai.conversation.id"
AGENT: Final = "gen_ai.agent.name"
TOOL: Final = "gen_ai.tool.name"
SESSION: Final = "session.id"
USER: Final = "user.id"
ERROR_TYPE: Final = "error.type"

TENANT: Final = "holdfast.tenant"
TURN: Final = "holdfast.turn"
MESSAGE: Final = "holdfast.message.id"
RESTARTS: Final = "holdfast.restarts"
STATUS: Final = "holdfast.status"
KIND: Final = "holdfast.step.kind"
NAME: Final = "holdfast.step.name"
EFFECT: Final = "holdfast.effect"
ATTEMPTS: Final = "holdfast.attempts"
TOKENS: Final = "holdfast.tokens"
MICROUSD: Final = "holdfast.microusd"

INVOKE_AGENT: Final = "invoke_agent"
CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"

FACTS: Final[Mapping[str, str]] = {
    "provider": PROVIDER,
    "model": REQUEST_MODEL,
    "response_model": RESPONSE_MODEL,
    "response_id": RESPONSE_ID,
    "finish_reasons": FINISH_REASONS,
    "input_tokens": INPUT_TOKENS,
    "output_tokens": OUTPUT_TOKENS,
    "cached_tokens": CACHED_TOKENS,
    "reasoning_tokens": REASONING_TOKENS,
}
"""The facts that a call can give about its answer (holdfast.calls.call.Call.facts), and the attribute of each."""

MAX_TEXT: Final = 1024
"""The most characters of a free text."""

_MAX_INT = 1 << 63
_MODEL, _TOOL = "model", "tool"
_NAMED_BY_ID = frozenset({"ask", "watch"})  # their name is the id of the other session, and there must be few span names


def version() -> str:
    """The version of holdfast that writes the spans, "" if it is not installed as a package."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of("holdfast")
    except PackageNotFoundError:
        return ""


def clean(text: str) -> str:
    """The text without characters that cannot be encoded (half of a surrogate pair)."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def turn_name(agent: str) -> str:
    """The name of a turn's span."""
    return f"{INVOKE_AGENT} {agent}"


def step_name(kind: str, name: str) -> str:
    """The name of a step's span. A model step has the name of its model, a tool step that of its tool; the name contains no id."""
    if kind == _MODEL:
        return f"{CHAT} {name}"
    if kind == _TOOL:
        return f"{EXECUTE_TOOL} {name}"
    return kind if name == kind or kind in _NAMED_BY_ID else f"{kind} {name}"


def session_attributes(session: str, agent: str, tenant: str, user: str, turn: int, message: str) -> Attributes:
    """The attributes that the spans of a turn and of its steps share."""
    common: Attributes = {SESSION: session, CONVERSATION: session, AGENT: agent, TENANT: tenant, TURN: turn, MESSAGE: message}
    if user:
        common[USER] = user
    return common


def step_attributes(kind: str, name: str, effect: str) -> Attributes:
    """The attributes of a step that are known before it runs."""
    own: Attributes = {KIND: kind, NAME: name, EFFECT: effect}
    if kind == _MODEL:
        own |= {OPERATION: CHAT, REQUEST_MODEL: name}
    elif kind == _TOOL:
        own |= {OPERATION: EXECUTE_TOOL, TOOL: name}
    return own


def cost_attributes(tokens: int, microusd: int, *, total: bool = False) -> Attributes:
    """The cost of a step, or with `total` of all steps of a turn; an amount of 0 has no attribute.

    A total does not have the GenAI name: backends add up the attributes of that name over all spans of a trace.
    """
    cost: Attributes = {}
    if tokens:
        cost[TOKENS] = tokens
    if microusd:
        cost[MICROUSD] = microusd
        if not total:
            cost[COST_USD] = microusd / 1_000_000
    return cost


def fact_attributes(facts: Mapping[str, Any]) -> Attributes:
    """The facts that a call gives about its answer, by the GenAI names. Facts with an unknown name or a type that is not plain are left
    out."""
    found: Attributes = {}
    for fact, attribute in FACTS.items():
        value = facts.get(fact)
        if isinstance(value, str):
            found[attribute] = clean(value[:MAX_TEXT])
        elif isinstance(value, float) or (isinstance(value, int) and abs(value) < _MAX_INT):
            found[attribute] = value
        elif isinstance(value, list | tuple) and value:
            found[attribute] = tuple(clean(str(item)[:MAX_TEXT]) for item in value[:16])
    return found
