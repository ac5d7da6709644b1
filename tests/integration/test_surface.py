"""Frameworks and code written for an SDK's client, on the client of a session: what they ask of it is there, or refused clearly."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Literal

import agents
import openai
import pydantic_ai
import pytest
from agents.models.openai_responses import OpenAIResponsesModel as AgentsResponsesModel
from pydantic import BaseModel, Field, ValidationError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from holdfast import Budget, Runtime, Session, agent, tool
from holdfast.calls import ModelClient, Prices
from holdfast.calls.models.proxy import Proxy
from holdfast.policies.budget import Usage
from tests.integration.fake_steps import FakeSteps
from tests.integration.model_server import ModelServer, Says, calls_function, model_server, response, response_usage, says_text

MODEL = "gpt-4o-mini"
KEY = "sk-of-the-operator"
ASK: list[Any] = [{"role": "user", "content": "hi"}]
USAGE = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server


@pytest.fixture
async def sdk(server: ModelServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=server.base_url.replace("//", "//user:pass@") + "/v1?key=abc") as client:
        yield client


def completion(finish: str = "stop", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": None, **message}
    choices = [{"index": 0, "finish_reason": finish, "message": said}]
    return {"id": "c-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": choices, "usage": USAGE}


def chunks(finish: str = "stop", **delta: Any) -> list[dict[str, Any]]:
    about = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", **delta}, None), ({}, finish)]
    made: list[dict[str, Any]] = [{**about, "choices": [{"index": 0, "delta": each, "finish_reason": end}]} for each, end in deltas]
    return [*made, {**about, "choices": [], "usage": USAGE}]


def events(item: dict[str, Any]) -> list[dict[str, Any]]:
    nothing: dict[str, Any] = {"arguments": ""} if "arguments" in item else {"content": []}
    empty = {**item, **nothing}
    said: list[dict[str, Any]] = []
    place = {"item_id": item["id"], "output_index": 0}
    if "arguments" in item:
        said = [
            {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]},
            {"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"], "name": item["name"]},
        ]
    else:
        part = item["content"][0]
        said = [
            {"type": "response.content_part.added", **place, "content_index": 0, "part": {**part, "text": ""}},
            {"type": "response.output_text.delta", **place, "content_index": 0, "delta": part["text"], "logprobs": []},
            {"type": "response.output_text.done", **place, "content_index": 0, "text": part["text"], "logprobs": []},
            {"type": "response.content_part.done", **place, "content_index": 0, "part": part},
        ]
    made: list[dict[str, Any]] = [
        {"type": "response.created", "response": response(status="in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": {**empty, "status": "in_progress"}},
        *said,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response(item, usage=response_usage(5, 5))},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(made)]


CALL = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"order": "o-7"}'}}


def says(api: str, streamed: bool) -> list[Says]:
    """A call of the tool, then the answer."""
    if api == "responses":
        items = [calls_function("find_order", '{"order": "o-7"}'), says_text("o-7 is on its way")]
        return [Says(events=events(item)) if streamed else Says(response(item, usage=response_usage(5, 5))) for item in items]
    if streamed:
        return [
            Says(events=chunks("tool_calls", tool_calls=[{**CALL, "index": 0}])),
            Says(events=chunks(content="o-7 is on its way")),
        ]
    return [Says(completion("tool_calls", tool_calls=[CALL])), Says(completion(content="o-7 is on its way"))]


found: list[str] = []
bugs: list[str] = []


@tool
async def find_order(order: str) -> str:
    """Finds an order."""
    found.append(order)
    return f"{order} is on its way"


async def pydantic_ai_loop(session: Session[None], api: str, streamed: bool) -> str:
    provider = OpenAIProvider(openai_client=session.clients.openai)
    model = OpenAIResponsesModel(MODEL, provider=provider) if api == "responses" else OpenAIChatModel(MODEL, provider=provider)
    clerk = pydantic_ai.Agent(model)

    @clerk.tool_plain(name="find_order")
    async def _(order: str) -> str:
        return str((await session.call_tool("find_order", {"order": order})).value)

    if not streamed:
        return (await clerk.run("Where is o-7?")).output
    async with clerk.run_stream("Where is o-7?") as run:
        return await run.get_output()


async def openai_agents_loop(session: Session[None], api: str, streamed: bool) -> str:
    async def look(order: str) -> str:
        return str((await session.call_tool("find_order", {"order": order})).value)

    of_api = AgentsResponsesModel if api == "responses" else agents.OpenAIChatCompletionsModel
    model: Any = of_api(model=MODEL, openai_client=session.clients.openai)
    tools: list[agents.Tool] = [agents.function_tool(look, name_override="find_order")]
    clerk = agents.Agent(name="clerk", model=model, tools=tools)
    quiet = agents.RunConfig(tracing_disabled=True)
    if not streamed:
        return str((await agents.Runner.run(clerk, "Where is o-7?", run_config=quiet)).final_output)
    run = agents.Runner.run_streamed(clerk, "Where is o-7?", run_config=quiet)
    async for _ in run.stream_events():
        pass
    return str(run.final_output)


Loop = Callable[[Session[None], str, bool], Coroutine[Any, Any, str]]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("loop", [pydantic_ai_loop, openai_agents_loop])
async def test_a_framework_runs_on_the_client_of_a_session(
    loop: Loop, api: str, streamed: bool, server: ModelServer, sdk: openai.AsyncOpenAI
) -> None:
    """Its tool loop is made of durable steps: after a bug of the handler no answer is bought again, and no tool is called again."""
    server.script = says(api, streamed)
    found.clear()
    bugs[:] = ["a bug"]

    @agent(tools=[find_order], budget=Budget(tokens=100_000, usd=1))
    async def clerk(session: Session[None], text: str) -> str:
        answer = await loop(session, api, streamed)
        if bugs:
            raise ValueError(bugs.pop())
        return answer

    async with Runtime("memory:", [clerk], clients={"openai": sdk}) as runtime:
        handle = await runtime.spawn(clerk, id="a")
        assert (await handle.ask("go", timeout_s=20)).strip() == "o-7 is on its way"
        assert (await handle.row()).usage.tokens == 20
    assert (len(server.requests), found, bugs) == (2, ["o-7"], [])
    assert all(bool(request.get("stream")) is streamed for request in server.requests)


# ---------------------------------------------------------------- the surface


@pytest.fixture
def steps() -> FakeSteps:
    return FakeSteps()


def proxied(sdk: Any, steps: FakeSteps) -> Any:
    return ModelClient("openai", sdk, prices=Prices()).proxy(steps)


async def test_the_address_is_without_credentials(sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer) -> None:
    """Frameworks look at it to tell one provider from another."""
    client = proxied(sdk, steps)
    assert str(client.base_url).rstrip("/") == f"{server.base_url}/v1"
    assert (client.timeout, client.max_retries) == (600.0, 0)
    assert "user" not in repr(client) + str(client.base_url)


@pytest.mark.parametrize(
    "name", ["api_key", "auth_headers", "default_headers", "post", "get", "request", "files", "batches", "close", "websocket_base_url"]
)
async def test_what_could_lead_past_the_steps_is_not_there(name: str, sdk: openai.AsyncOpenAI, steps: FakeSteps) -> None:
    """Neither the key nor a request that no step records."""
    client = proxied(sdk, steps)
    with pytest.raises(AttributeError, match=f"'{name}' of client 'openai' is not available to a handler"):
        getattr(client, name)
    assert not hasattr(client, name)
    assert getattr(client, name, None) is None
    assert KEY not in repr(dir(client))


@pytest.mark.parametrize("name", ["with_raw_response", "with_streaming_response"])
async def test_raw_responses_are_refused_clearly(name: str, sdk: openai.AsyncOpenAI, steps: FakeSteps) -> None:
    """At every place where the SDK has them; a framework that asks whether they are there gets no."""
    client = proxied(sdk, steps)
    for part in (client, client.chat.completions, client.responses, client.embeddings):
        with pytest.raises(
            AttributeError, match=f"{name}' of client 'openai' is not available to a handler: a raw response cannot be recorded"
        ):
            getattr(part, name)
        assert getattr(part, name, None) is None


async def test_options_that_are_harmless_are_taken(sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer) -> None:
    """A timeout is that of the requests; retries are the step's own business; anything else could lead elsewhere."""
    client = proxied(sdk, steps)
    server.script = [Says(completion(content="a")), Says(completion(content="b")), Says(completion(content="c"))]
    quick = client.with_options(timeout=7.5, max_retries=4)
    assert (quick.timeout, client.timeout) == (7.5, 600.0)
    await quick.chat.completions.create(model=MODEL, messages=ASK)
    await quick.copy(max_retries=0).chat.completions.create(model=MODEL, messages=[*ASK, *ASK])
    await client.with_options(timeout=openai.NOT_GIVEN, http_client=client._client, _extra_kwargs={}).chat.completions.create(
        model=MODEL, messages=[*ASK, *ASK, *ASK]
    )
    assert [call.timeout_s for call in steps.calls] == [7.5, 7.5, 600.0]
    for refused in ({"api_key": "other"}, {"base_url": "http://other"}, {"default_headers": {"a": "b"}}, {"http_client": object()}):
        with pytest.raises(TypeError, match=f"{next(iter(refused))}.* is not available to a handler: give the Runtime another client"):
            client.with_options(**refused)


def test_a_client_of_one_api_has_what_that_has() -> None:
    """A compatible server's own client, say."""
    names = ("messages.create", "base_url")
    client = Proxy("own", "", names, lambda path: path)
    assert client.messages.create == "messages.create"
    assert dir(client) == ["base_url", "messages"]
    with pytest.raises(AttributeError, match=r"only messages.create is a durable step"):
        client.chat  # noqa: B018
    assert copy.deepcopy(client).messages.create == "messages.create"


# ---------------------------------------------------------------- structured outputs


class Step(BaseModel):
    say: str = Field(description="what to say")
    weight: int = 1


class Plan(BaseModel):
    """A plan."""

    first: Step = Field(description="the first one")
    rest: list[Step] = []
    tone: Literal["warm", "cool"] = "warm"
    note: str | None = None


@dataclasses.dataclass
class Spot:
    city: str


GOOD = '{"first": {"say": "hello", "weight": 2}, "rest": [], "tone": "cool", "note": null}'
PLAN = Plan(first=Step(say="hello", weight=2), tone="cool")


async def test_an_answer_is_read_as_the_class_that_was_asked_for(sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer) -> None:
    """The request has the class as a strict schema; a replay reads the recorded answer the same."""
    server.script = [Says(completion(content=GOOD))]
    for _ in range(2):
        reply = await proxied(sdk, steps).chat.completions.parse(model=MODEL, messages=ASK, response_format=Plan)
        assert (reply.choices[0].message.parsed, reply.usage.total_tokens) == (PLAN, 10)
        assert isinstance(reply, openai.types.chat.ChatCompletion)
    (request,) = server.requests
    form = request["response_format"]["json_schema"]
    assert (request["response_format"]["type"], form["name"], form["strict"]) == ("json_schema", "Plan", True)
    assert (form["schema"]["required"], form["schema"]["additionalProperties"]) == (["first", "rest", "tone", "note"], False)
    first = form["schema"]["properties"]["first"]
    assert (first["description"], first["required"], first["additionalProperties"]) == ("the first one", ["say", "weight"], False)
    assert form["schema"]["properties"]["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Note"}


async def test_the_sdk_asks_for_the_same_schema(sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer) -> None:
    """What its own `parse` sends is what this one sends."""
    server.script = [Says(completion(content=GOOD)), Says(completion(content=GOOD))]
    theirs = await sdk.chat.completions.parse(model=MODEL, messages=ASK, response_format=Plan)
    ours = await proxied(sdk, steps).chat.completions.parse(model=MODEL, messages=ASK, response_format=Plan)
    assert server.requests[0] == {**server.requests[1], "stream": False}
    assert theirs.choices[0].message.parsed == ours.choices[0].message.parsed


class Node(BaseModel):
    child: Node | None = Field(None, description="the next one")
    twin: Node = Field(description="the same")


async def test_a_class_that_contains_itself_has_an_end(sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer) -> None:
    """Its schema is written out once."""
    server.script = [Says(completion(refusal="no"))]
    await proxied(sdk, steps).chat.completions.parse(model=MODEL, messages=ASK, response_format=Node)
    form = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert len(json.dumps(form)) < 3_000


async def structured_by_pydantic_ai(client: Any) -> Any:
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
    return (await pydantic_ai.Agent(model, output_type=pydantic_ai.NativeOutput(Plan)).run("plan")).output


async def structured_by_openai_agents(client: Any) -> Any:
    clerk = agents.Agent(name="clerk", output_type=Plan, model=agents.OpenAIChatCompletionsModel(model=MODEL, openai_client=client))
    return (await agents.Runner.run(clerk, "plan", run_config=agents.RunConfig(tracing_disabled=True))).final_output


@pytest.mark.parametrize("ask", [structured_by_pydantic_ai, structured_by_openai_agents])
async def test_a_framework_gets_structured_answers(
    ask: Callable[[Any], Coroutine[Any, Any, Any]], sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer
) -> None:
    """Which it asks for by `response_format` of `create`; a replay gives the same."""
    server.script = [Says(completion(content=GOOD))]
    assert [await ask(proxied(sdk, steps)) for _ in range(2)] == [PLAN, PLAN]
    (request,) = server.requests
    assert request["response_format"]["type"] == "json_schema"


async def test_a_response_is_read_as_the_class_that_was_asked_for(sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer) -> None:
    """Beside what else `text` has; a dataclass is a class, too."""
    said = response(says_text('{"city": "Bonn"}'), usage=response_usage(5, 5))
    server.script = [Says(said)]
    for _ in range(2):
        reply = await proxied(sdk, steps).responses.parse(model=MODEL, input="where?", text_format=Spot, text={"verbosity": "low"})
        assert reply.output_parsed == Spot("Bonn")
    (request,) = server.requests
    assert request["text"]["verbosity"] == "low"
    assert (request["text"]["format"]["type"], request["text"]["format"]["schema"]["required"]) == ("json_schema", ["city"])


async def test_the_arguments_of_a_call_are_read_as_the_class_of_its_tool(
    sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer
) -> None:
    """As the SDK does for `openai.pydantic_function_tool`."""
    call = {"id": "call_1", "type": "function", "function": {"name": "Step", "arguments": '{"say": "x"}'}}
    server.script = [Says(completion("tool_calls", tool_calls=[call]))]
    reply = await proxied(sdk, steps).chat.completions.parse(model=MODEL, messages=ASK, tools=[openai.pydantic_function_tool(Step)])
    assert reply.choices[0].message.tool_calls[0].function.parsed_arguments == Step(say="x")
    assert reply.choices[0].message.parsed is None


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (completion(content='{"first": 5}'), ValidationError),
        (completion(content="no JSON"), ValidationError),
        (completion("length", content='{"first": {"sa'), openai.LengthFinishReasonError),
        (completion("content_filter", content=""), openai.ContentFilterFinishReasonError),
    ],
)
async def test_an_answer_of_another_form_is_recorded_before_it_is_an_error(
    answer: dict[str, Any], error: type[Exception], sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer
) -> None:
    """It is paid for: the error is that of the SDK, and asking again gives the recorded answer."""
    server.script = [Says(answer)]
    for _ in range(2):
        with pytest.raises(error):
            await proxied(sdk, steps).chat.completions.parse(model=MODEL, messages=ASK, response_format=Plan)
    assert (len(server.requests), len(steps.records)) == (1, 1)


async def test_a_refusal_is_an_answer(sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer) -> None:
    """Without a value of the class."""
    server.script = [Says(completion(refusal="I cannot help with that."))]
    reply = await proxied(sdk, steps).chat.completions.parse(model=MODEL, messages=ASK, response_format=Plan)
    assert (reply.choices[0].message.parsed, reply.choices[0].message.refusal) == (None, "I cannot help with that.")


async def test_what_parse_does_not_do_is_refused_before_a_request(sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer) -> None:
    """With the way to do it."""
    client = proxied(sdk, steps)
    with pytest.raises(TypeError, match=r"parse has no stream: use chat.completions.create with stream=True"):
        await client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Plan, stream=True)
    with pytest.raises(TypeError, match=r"give a class to chat.completions.parse"):
        await client.chat.completions.create(model=MODEL, messages=ASK, response_format=Plan)
    with pytest.raises(TypeError, match="give a pydantic model or a dataclass"):
        await client.chat.completions.parse(model=MODEL, messages=ASK, response_format=object())
    assert server.requests == []


# ---------------------------------------------------------------- embeddings


EMBEDDED = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}


async def test_embeddings_are_metered_steps(sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer) -> None:
    """Charged by the tokens that the provider reports, and not requested again on replay."""
    server.script = [Says(EMBEDDED)]
    for _ in range(2):
        reply = await proxied(sdk, steps).embeddings.create(model="text-embedding-3-small", input="hello", encoding_format="float")
        assert reply.data[0].embedding == [0.25, -0.5]
        assert isinstance(reply, openai.types.CreateEmbeddingResponse)
    call, used = steps.calls[0], steps.used[0]
    assert (call.kind, call.name, call.dependency, call.costs) == ("model", "text-embedding-3-small", "openai", True)
    assert used == Usage(steps=1, tokens=7, microusd=Prices().price("text-embedding-3-small", None, 7, 0) or 0)
    assert call.most.tokens >= 7
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "fault"),
    [({**EMBEDDED, "data": []}, "EmptyReply"), ({"error": {"message": "too long", "code": "invalid_prompt"}}, "ReportedError")],
)
async def test_an_answer_without_an_embedding_is_a_failure(
    body: dict[str, Any], fault: str, sdk: openai.AsyncOpenAI, steps: FakeSteps, server: ModelServer
) -> None:
    """As an empty answer of another API is; what was said is in the error."""
    server.script = [Says(body) for _ in range(10)]
    with pytest.raises(Exception, match=r"without an embedding|too long"):
        await proxied(sdk, steps).embeddings.create(model="m", input="hello", encoding_format="float")
    assert set(steps.faults) == {fault}
