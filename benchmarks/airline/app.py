"""An airline's service desk that survives `kill -9`: holdfast run benchmarks.airline.app:desk_runtime"""

from __future__ import annotations

from typing import Any

import msgspec
from openai import AsyncOpenAI

from benchmarks.airline import settings, tools
from benchmarks.airline.books import WITNESS, Book
from benchmarks.airline.tables import Tables
from benchmarks.airline.world import World
from holdfast import Budget, Runtime, Session, agent

MODEL = "gpt-4o"
GIVEN_OVER = "A colleague takes over."
"""The message for the user when a person takes over: the model sends no more messages."""


class Conversation(msgspec.Struct):
    """The state of a session between messages."""

    policy: str = ""
    messages: list[dict[str, Any]] = []


class Answer(msgspec.Struct):
    """The answer to a message.

    Attributes:
        text: the text for the user.
        outputs: the outputs of the tools in the turn, in order.
    """

    text: str
    outputs: list[str]


@agent(version=1, tools=tools.TOOLS, budget=Budget(steps=400, tokens=5_000_000, usd=20, seconds=3600))
async def desk(session: Session[Conversation], text: str) -> Answer:
    """Answer a user: call the model and run the tools that it asks for, until it has an answer or a person takes over."""
    messages, outputs = session.state.messages, list[str]()
    messages.append({"role": "user", "content": text})
    while True:
        reply = await session.clients.openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "system", "content": session.state.policy}, *messages],
            tools=session.tools.openai(),
            user=session.id,
        )
        message = reply.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return Answer(message.content or "", outputs)
        for call in message.tool_calls:
            result = await session.call_tool(call.function.name, call.function.arguments)
            # The tools answer with text: the model reads it as it is, not as JSON again.
            outputs.append(result.content if result.error else result.value)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": outputs[-1]})
        if any(call.function.name == "transfer_to_human_agents" for call in message.tool_calls):
            return Answer(GIVEN_OVER, outputs)


def desk_runtime() -> Runtime:
    """The Runtime, with the tools on the tables and the ledger that the environment names."""
    folder = settings.folder()
    tools.connect(World(Tables.load(settings.data()), folder), Book(folder / WITNESS), settings.pace())
    # holdfast retries; retries of the SDK would multiply these.
    openai = AsyncOpenAI(base_url=settings.model_url(), api_key="the local model needs none", max_retries=0, timeout=30.0)
    return Runtime(f"sqlite:///{folder / 'airline.db'}", agents=[desk], clients={"openai": openai})
