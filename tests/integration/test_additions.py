"""The fields that holdfast adds to requests: the right name of a limit by host and model, and servers that refuse one."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from holdfast.calls.models.openai_chat import OpenAIChat
from holdfast.errors import StepError
from tests.integration.fake_steps import FakeSteps, models
from tests.integration.quirks.chat_shapes import HELLO, answer

NEW, OLD = "max_completion_tokens", "max_tokens"


@pytest.mark.parametrize(
    ("host", "model", "name"),
    [
        ("api.openai.com", "gpt-4o-mini", NEW),
        ("eu.api.openai.com", "gpt-4o", NEW),
        ("shop.openai.azure.com", "my-deployment", NEW),  # anomalyco/opencode#37964
        ("shop.cognitiveservices.azure.com", "my-deployment", NEW),
        ("shop.services.ai.azure.com", "gpt-5", NEW),
        ("litellm.shop.example", "gpt-5-mini", NEW),  # OpenHands/software-agent-sdk#1083
        ("openrouter.ai", "openai/o3-mini", NEW),  # lobehub/lobehub#5909
        ("gateway.shop.example", "azure/gpt-5.4", NEW),  # koosoli/ESPHomeDesigner#379
        ("openrouter.ai", "openai/gpt-oss-120b", OLD),
        ("openrouter.ai", "openai/gpt-4o", OLD),
        ("localhost", "Qwen/Qwen3-0.6B", OLD),
        ("api.mistral.ai", "codestral-2508", OLD),  # Gitlawb/openclaude#739
        ("api.deepseek.com", "deepseek-chat", OLD),
        ("generativelanguage.googleapis.com", "gemini-2.5-pro", OLD),
        ("not-api.openai.com.example", "llama", OLD),
    ],
)
def test_the_limit_has_the_name_that_host_and_model_know(host: str, model: str, name: str) -> None:
    """OpenAI's newer models refuse the old name, many servers the new one, or ignore it."""
    assert OpenAIChat().limited(100, host, model, capped=True) == {name: 100}


class Server:
    """Refuses requests with certain fields, and answers the others."""

    def __init__(self, refusals: dict[str, str]) -> None:
        self.refusals = refusals
        self.sent: list[dict[str, Any]] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        self.sent.append({name: body[name] for name in (NEW, OLD, "stream_options") if name in body})
        refusal = next((text for name, text in self.refusals.items() if name in body), None)
        if refusal is not None:
            return httpx2.Response(400, json={"error": {"message": refusal, "type": "invalid_request_error"}})
        if not body.get("stream"):
            return httpx2.Response(200, json=answer())
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in HELLO)
        return httpx2.Response(200, text=f"{text}data: [DONE]\n\n", headers={"content-type": "text/event-stream"})

    def proxy(self, steps: FakeSteps) -> Any:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self.answer))
        return models(openai.AsyncOpenAI(api_key="k", base_url="http://gateway.example/v1", http_client=http), steps, cap_tokens=True)


async def ask(proxy: Any, question: str = "hello", **more: Any) -> Any:
    return await proxy.chat.completions.create(model="my-deployment", messages=[{"role": "user", "content": question}], **more)


async def test_a_limit_that_is_refused_is_sent_by_its_other_name() -> None:
    """At once, in the same attempt; the next request begins with the name that the server takes."""
    steps, server = FakeSteps(), Server({OLD: f"Unsupported parameter: '{OLD}' is not supported with this model. Use '{NEW}' instead."})
    proxy = server.proxy(steps)
    assert (await ask(proxy)).choices[0].message.content == "hello"
    await ask(proxy, "again")
    assert server.sent == [{OLD: 4096}, {NEW: 4096}, {NEW: 4096}]
    assert (steps.faults, len(steps.used)) == ([], 2)


async def test_stream_options_that_are_refused_are_left_out() -> None:
    """The answer then has no usage, or the server reports it all the same."""
    steps, server = FakeSteps(), Server({"stream_options": "Extra inputs are not permitted: stream_options"})
    proxy = server.proxy(steps)
    for question in ("hello", "again"):
        stream = await ask(proxy, question, stream=True, max_tokens=5)
        assert (await stream.final()).choices[0].message.content == "hello"
    assert ["stream_options" in sent for sent in server.sent] == [True, False, False]
    assert steps.faults == []


@pytest.mark.parametrize("text", [f"{OLD} is too large: 4096", "Unsupported value: 'temperature'"])
async def test_other_refusals_are_the_handlers(text: str) -> None:
    """A limit whose value is refused is not sent under a name that the server may ignore."""
    steps, server = FakeSteps(), Server({OLD: text})
    with pytest.raises(StepError):
        await ask(server.proxy(steps))
    assert (len(server.sent), steps.faults) == (1, ["BadRequestError"])


async def test_a_limit_is_never_left_out() -> None:
    """Not even if the server refuses both names: the answer could cost anything."""
    steps, server = FakeSteps(), Server({OLD: f"unknown parameter {OLD}", NEW: f"unknown parameter {NEW}"})
    with pytest.raises(StepError):
        await ask(server.proxy(steps))
    assert server.sent == [{OLD: 4096}, {NEW: 4096}]


async def test_the_handlers_own_fields_are_sent_as_they_are() -> None:
    """Its own mistake is its own error."""
    steps, server = FakeSteps(), Server({OLD: f"unsupported parameter {OLD}", "stream_options": "unsupported parameter stream_options"})
    with pytest.raises(StepError):
        await ask(server.proxy(steps), max_tokens=5)
    with pytest.raises(StepError):
        await (await ask(server.proxy(steps), stream=True, max_completion_tokens=5, stream_options={"include_usage": True})).final()
    assert len(server.sent) == 2
