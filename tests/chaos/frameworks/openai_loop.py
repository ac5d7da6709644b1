"""openai-agents' tool loop: its model asked in a step, its tools wrapped by hand. Each tool of a round runs in a task within a task.

The SDK turns an error of a tool, and also a cancellation of it, into text for the model. Cancelled, it cancels its tasks and does not wait.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agents import (
    Agent,
    AgentOutputSchemaBase,
    FunctionTool,
    Handoff,
    Model,
    ModelResponse,
    ModelSettings,
    ModelTracing,
    RunConfig,
    RunContextWrapper,
    Runner,
    Tool,
    TResponseInputItem,
    Usage,
    function_tool,
)
from agents.items import TResponseStreamEvent
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from openai.types.responses.response_prompt_param import ResponsePromptParam

from holdfast import Session, StepError
from tests.chaos.frameworks.shop import Line, Loop, Reply, Shop

Context = RunContextWrapper[Session[Any]]


def openai_loop(shop: Shop, *, tell_errors: bool = True) -> Loop:
    """A Runner over the shop's tools.

    Args:
        tell_errors: an error of a tool is text for the model (the SDK's way); else it ends the run.
    """

    async def look(context: Context, label: str) -> str:
        return str(await context.context.step(shop.tools["look"], label))

    async def note(context: Context, label: str) -> str:
        return (await context.context.call_tool("note", {"label": label})).content

    async def refund(context: Context, label: str) -> str:
        return str(await context.context.step(shop.tools["refund"], label))

    async def charge(context: Context, label: str) -> str:
        return str(await context.context.step(shop.tools["charge"], label))

    def told(context: RunContextWrapper[Any], error: Exception) -> str:
        return error.message if isinstance(error, StepError) else f"{type(error).__name__}: {error}"

    failure = told if tell_errors else None
    tools: list[FunctionTool] = [function_tool(each, failure_error_function=failure) for each in (look, note, refund, charge)]

    async def run(session: Session[Any], text: str) -> str:
        clerk = Agent[Session[Any]](name="clerk", model=_Scripted(shop, session), tools=list[Tool](tools))
        result = await Runner.run(clerk, text, context=session, run_config=RunConfig(tracing_disabled=True))
        return str(result.final_output)

    return run


class _Scripted(Model):
    def __init__(self, shop: Shop, session: Session[Any]) -> None:
        self._shop, self._session = shop, session

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: ResponsePromptParam | None,
    ) -> ModelResponse:
        lines = [["user", input]] if isinstance(input, str) else [_line(item) for item in input]
        return _response(await self._session.step(self._shop.ask_model, lines))

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[TResponseStreamEvent]:
        raise NotImplementedError


def _response(reply: Reply) -> ModelResponse:
    if reply.calls:
        calls = [
            ResponseFunctionToolCall(call_id=call.id, name=call.tool, arguments=call.arguments, type="function_call")
            for call in reply.calls
        ]
        return ModelResponse(output=[*calls], usage=Usage(), response_id=None)
    text = ResponseOutputText(text=reply.text, type="output_text", annotations=[], logprobs=[])
    message = ResponseOutputMessage(id="answer", content=[text], role="assistant", status="completed", type="message")
    return ModelResponse(output=[message], usage=Usage(), response_id=None)


def _line(item: Any) -> Line:
    """What the model reads of an item."""
    match item:
        case {"role": "user", "content": text}:
            return ["user", str(text)]
        case {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}:
            return ["call", str(id), str(name), str(arguments)]
        case {"type": "function_call_output", "call_id": id, "output": output}:
            return ["tool", str(id), str(output)]
    raise AssertionError(f"not expected: {item}")
