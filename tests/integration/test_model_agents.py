"""Agents on each provider's API, in a real runtime: the usual loop over tools, with a bug in the middle of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from holdfast import Budget, Runtime, Session, agent, events, tool
from holdfast.stores.memory.store import MemoryStore
from tests.integration.model_server import (
    ModelServer,
    Says,
    calls_function,
    message,
    message_events,
    model_server,
    response,
    response_events,
    response_usage,
    says_text,
    text_deltas,
)

found: list[str] = []
bugs: list[str] = []


class Talk(msgspec.Struct):
    """What a session remembers, and how it asks."""

    messages: list[dict[str, Any]] = []
    streamed: bool = False


@tool
async def find_order(order: str) -> str:
    """Finds an order."""
    found.append(order)
    return f"{order} is on its way"


async def answer_of(create: Any, streamed: bool, **asked: Any) -> Any:
    if not streamed:
        return await create(**asked)
    async with await create(**asked, stream=True) as stream:
        async for _ in stream:
            pass
        return await stream.final()


@agent(version=1, tools=[find_order], budget=Budget(tokens=50_000, usd=0.50))
async def on_responses(session: Session[Talk], text: str) -> str:
    """As OpenAI's documentation has it."""
    items = session.state.messages
    items.append({"role": "user", "content": text})
    while True:
        create, tools = session.clients.openai.responses.create, session.tools.openai_responses()
        reply = await answer_of(create, session.state.streamed, model="gpt-4o-mini", input=items, tools=tools)
        items += [item.model_dump(exclude_none=True) for item in reply.output]
        calls = [item for item in reply.output if item.type == "function_call"]
        for call in calls:
            result = await session.call_tool(call.name, call.arguments)
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": result.content})
        if not calls:
            if bugs:
                raise RuntimeError(bugs.pop())
            return str(reply.output_text)


@agent(version=1, tools=[find_order], budget=Budget(tokens=50_000, usd=0.50))
async def on_messages(session: Session[Talk], text: str) -> str:
    """As Anthropic's documentation has it."""
    messages = session.state.messages
    messages.append({"role": "user", "content": text})
    while True:
        create, tools = session.clients.anthropic.messages.create, session.tools.anthropic()
        model = "claude-sonnet-4-6"
        reply = await answer_of(create, session.state.streamed, model=model, max_tokens=500, messages=messages, tools=tools)
        messages.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in reply.content]})
        results: list[Any] = []
        for block in reply.content:
            if block.type == "tool_use":
                result = await session.call_tool(block.name, block.input)
                results.append({"type": "tool_result", "tool_use_id": block.id, "content": result.content})
        if not results:
            if bugs:
                raise RuntimeError(bugs.pop())
            return str(reply.content[0].text)
        messages.append({"role": "user", "content": results})


TEXT = {"type": "text", "text": "Tomorrow."}
TOOL = {"type": "tool_use", "id": "toolu_1", "name": "find_order", "input": {"order": "o-1"}}
CALL = calls_function("find_order", '{"order": "o-1"}')
WRITTEN = [{"type": "input_json_delta", "partial_json": part} for part in ('{"order":', ' "o-1"}')]
USAGE, MUCH = response_usage(1_000, 10, cached=400), {"input_tokens": 300, "cache_read_input_tokens": 700, "output_tokens": 10}


def script(name: str, streamed: bool) -> list[Says]:
    """A tool call, then the answer; each takes 1,010 tokens."""
    if name == "on_responses":
        wholes = [response(CALL, usage=USAGE), response(says_text("Tomorrow."), usage=USAGE)]
        return [Says(events=response_events("", whole)) if streamed else Says(whole) for whole in wholes]
    if not streamed:
        return [Says(message(TOOL, stop_reason="tool_use", usage=MUCH)), Says(message(TEXT, usage=MUCH))]
    call = message_events(WRITTEN, block={**TOOL, "input": {}}, end=MUCH, stop_reason="tool_use")
    return [Says(events=call), Says(events=message_events(text_deltas("Tomorrow."), end=MUCH))]


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    found.clear()
    bugs[:] = ["a bug after all answers"]
    async with model_server() as serving:
        yield serving


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("handler", [on_responses, on_messages], ids=["responses", "messages"])
async def test_an_agent_that_crashes_does_not_buy_its_answers_again(handler: Any, streamed: bool, server: ModelServer) -> None:
    """The loop over tools works on replayed answers as on live ones, and each answer is paid once."""
    server.script += script(handler.name, streamed)
    seen: list[events.Event] = []
    async with (
        openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-very-secret") as gpt,
        anthropic.AsyncAnthropic(base_url=server.base_url, api_key="sk-ant-very-secret") as claude,
    ):
        runtime = Runtime(MemoryStore(), agents=[handler], clients={"openai": gpt, "anthropic": claude})
        runtime.observe(seen.append)
        async with runtime:
            ticket = await runtime.spawn(handler, id="t-1", state=Talk(streamed=streamed))
            assert (await ticket.ask("Where is o-1?")).strip() == "Tomorrow."
            used = (await ticket.row()).usage
    assert (len(server.requests), found, bugs) == (2, ["o-1"], [])
    model = server.requests[0]["model"]
    assert [each.name for each in seen if isinstance(each, events.StepReplayed)] == [model, "find_order", model]
    ended = [each for each in seen if isinstance(each, events.StepEnded) and each.kind == "model"]
    assert [(each.tokens, dict(each.facts or {}).get("output_tokens")) for each in ended] == [(1_010, 10)] * 2
    assert used.tokens == 2_020
    assert used.microusd > 0
    assert "o-1 is on its way" in str(server.requests[1])
