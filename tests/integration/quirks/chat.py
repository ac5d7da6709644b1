"""Quirks of chat completions: how a handler asks, and every table of them."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.quirks.chat_calls import CALLS
from tests.integration.quirks.chat_ends import ENDS
from tests.integration.quirks.chat_forms import FORMS
from tests.integration.quirks.play import Gets, Quirk

QUIRKS: list[Quirk] = [*ENDS, *CALLS, *FORMS]


def request(client: Any, after_tool: bool) -> tuple[Any, dict[str, Any]]:
    """The call that a handler makes, and its arguments."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
    if after_tool:
        call = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
        messages += [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "a", "content": "sunny"}]
    return client.chat.completions.create, {"model": "gpt-4o-mini", "messages": messages}


def gets(reply: Any) -> Gets:
    """What the handler reads in the answer."""
    choice = reply.choices[0]
    message = choice.message
    calls = [(call.function.name, call.function.arguments, call.id) for call in message.tool_calls or []]
    assert len({id for *_, id in calls if id}) == len(calls)
    content = message.content
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content or [])
    thinks = any(getattr(message, name, None) for name in ("reasoning_content", "reasoning", "reasoning_details"))
    thinks = thinks or (isinstance(content, list) and any(part.get("type") == "thinking" for part in content))
    return Gets(text, tuple((name, json.loads(arguments or "{}")) for name, arguments, _ in calls), choice.finish_reason, bool(thinks))
