"""A support agent that survives `kill -9`: holdfast run examples.support.app:runtime"""

from __future__ import annotations

from typing import Any

import msgspec
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessage

from examples.support import settings
from examples.support.tools import add_note, find_order, refund
from holdfast import Budget, BudgetExhausted, Runtime, Session, agent

MODEL = "gpt-4o-mini"
HANDED_OVER = "I could not settle this. A colleague takes over and will write to you."


class Conversation(msgspec.Struct):
    """The state of a session between messages."""

    messages: list[dict[str, Any]] = []
    streamed: bool = False


@agent(version=1, tools=[find_order, add_note, refund], budget=Budget(steps=40, tokens=500_000, usd=0.50, seconds=900))
async def support(session: Session[Conversation], text: str) -> str:
    """Answer a customer: call the model and run the tools that it asks for, until it has an answer."""
    messages = session.state.messages
    messages.append({"role": "user", "content": text})
    try:
        while True:
            message = await ask_model(session)
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                return message.content or ""
            calls = [call for call in message.tool_calls if call.type == "function"]
            results = await session.gather(*(session.call_tool(call.function.name, call.function.arguments) for call in calls))
            for call, result in zip(calls, results, strict=True):
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result.content})
    except BudgetExhausted:
        return HANDED_OVER


async def ask_model(session: Session[Conversation]) -> ChatCompletionMessage:
    """One durable, metered call of the model. A recorded answer is never requested (or billed) again."""
    create, tools = session.clients.openai.chat.completions.create, session.tools.openai()
    if not session.state.streamed:
        reply = await create(model=MODEL, messages=session.state.messages, tools=tools)
    else:
        async with await create(model=MODEL, messages=session.state.messages, tools=tools, stream=True) as stream:
            reply = await stream.final()
    message: ChatCompletionMessage = reply.choices[0].message
    return message


# holdfast retries; retries of the SDK would multiply these. A call without an answer after 4 s is retried.
openai = AsyncOpenAI(base_url=settings.MODEL_URL, api_key="the local model needs none", max_retries=0, timeout=4.0)
runtime = Runtime(f"sqlite:///{settings.FOLDER / 'sessions.db'}", agents=[support], clients={"openai": openai})
