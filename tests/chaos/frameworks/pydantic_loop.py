"""pydantic-ai's tool loop: its model asked in a step, its tools wrapped by hand. It runs the tools of a round in tasks of its own."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent, ModelMessage, ModelRetry, RunContext
from pydantic_ai.messages import (
    ModelResponse,
    RetryPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from holdfast import Session, StepError
from tests.chaos.frameworks.shop import Line, Loop, Reply, Shop

Context = RunContext[Session[Any]]


def pydantic_loop(shop: Shop, *, tell_errors: bool = True) -> Loop:
    """An Agent over the shop's tools.

    Args:
        tell_errors: an error of a tool is text for the model (ModelRetry); else it ends the run.
    """
    clerk: Agent[Session[Any], str] = Agent(deps_type=Session[Any], retries=5)

    async def step(context: Context, name: str, label: str) -> str:
        try:
            return str(await context.deps.step(shop.tools[name], label))
        except StepError as error:
            if tell_errors:
                raise ModelRetry(error.message) from error
            raise

    @clerk.tool
    async def look(context: Context, label: str) -> str:
        return await step(context, "look", label)

    @clerk.tool
    async def note(context: Context, label: str) -> str:
        return (await context.deps.call_tool("note", {"label": label})).content

    @clerk.tool
    async def refund(context: Context, label: str) -> str:
        return await step(context, "refund", label)

    @clerk.tool
    async def charge(context: Context, label: str) -> str:
        return await step(context, "charge", label)

    async def run(session: Session[Any], text: str) -> str:
        async def ask(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            return _response(await session.step(shop.ask_model, [line for message in messages for line in _lines(message)]))

        return (await clerk.run(text, deps=session, model=FunctionModel(ask))).output

    return run


def _response(reply: Reply) -> ModelResponse:
    if not reply.calls:
        return ModelResponse(parts=[TextPart(reply.text)])
    return ModelResponse(parts=[ToolCallPart(call.tool, call.arguments, call.id) for call in reply.calls])


def _lines(message: ModelMessage) -> list[Line]:
    """What the model reads of a message."""
    lines: list[Line] = []
    for part in message.parts:
        match part:
            case UserPromptPart():
                lines.append(["user", str(part.content)])
            case ToolCallPart():
                lines.append(["call", part.tool_call_id, part.tool_name, part.args_as_json_str()])
            case ToolReturnPart():
                lines.append(["tool", part.tool_call_id, part.model_response_str()])
            case RetryPromptPart():
                lines.append(["tool", part.tool_call_id, part.model_response()])
            case TextPart():
                lines.append(["answer", part.content])
            case _:
                raise AssertionError(f"not expected: {part}")
    return lines
