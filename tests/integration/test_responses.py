"""OpenAI's responses as durable steps, with the real SDK against local servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import openai
import pytest
from llmock.scenarios import Fail, Reply, StreamFault, ToolCall
from llmock.testing import LLMockServer
from openai.types import responses

from holdfast.calls import ModelClient, ModelStream, Prices
from holdfast.errors import ConfigError, StepError
from holdfast.policies.budget import Usage
from tests.integration.fake_steps import FakeSteps, models
from tests.integration.model_server import (
    ModelServer,
    Says,
    calls_function,
    model_server,
    response,
    response_events,
    response_usage,
    says_text,
)

KEY = "sk-very-secret"
MODEL = "gpt-4o-mini"
ASK: dict[str, Any] = {"model": MODEL, "input": "Where is my order?"}
CACHED = response_usage(10_000, 500, cached=4_000, reasoning=300)
CACHED_USD = 6_000 * 0.15 + 4_000 * 0.075 + 500 * 0.6  # micro-dollars, by the list
TEXT = says_text("On its way.")


@pytest.fixture
def steps() -> FakeSteps:
    return FakeSteps()


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as serving:
        yield serving


@pytest.fixture
async def client(server: ModelServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client:
        yield client


@pytest.fixture(scope="module")
def mock() -> Iterator[LLMockServer]:
    with LLMockServer() as serving:
        yield serving


@pytest.fixture
async def mocked(mock: LLMockServer) -> AsyncIterator[openai.AsyncOpenAI]:
    mock.state.reset()
    async with openai.AsyncOpenAI(base_url=mock.base_url("openai"), api_key=KEY) as client:
        yield client


async def create(client: Any, steps: FakeSteps, **more: Any) -> Any:
    caps = {name: more.pop(name) for name in ("cap_money", "cap_tokens", "prices") if name in more}
    return await models(client, steps, **caps).responses.create(**{**ASK, **more})


async def replayed(client: Any, steps: FakeSteps, **more: Any) -> Any:
    """The same call with the records of the first, which has to do without a request."""
    again = FakeSteps(steps.records)
    result = await create(client, again, **more)
    if isinstance(result, ModelStream):
        await asyncio.wait(again.branches)
    assert again.used == []
    return result


# ---------------------------------------------------------------- whole answers


async def test_a_call_is_one_metered_step_that_replays_as_it_was(mock: LLMockServer, mocked: Any, steps: FakeSteps) -> None:
    """Of the SDK's own type, live and replayed, with function calls that a handler can work with."""
    mock.state.scenarios.add(Reply(text="I look.", tool_calls=(ToolCall("find", {"order": "o-1"}),)))
    live = await create(mocked, steps)
    (call,) = steps.calls
    assert (call.kind, call.name, call.effect, call.dependency, call.costs) == ("model", MODEL, "read", "openai", True)
    again = await replayed(mocked, steps)
    assert again == live
    for reply in (live, again):
        assert isinstance(reply, responses.Response)
        assert reply.output_text == "I look."
        assert isinstance(reply.output[1], responses.ResponseFunctionToolCall)
        assert (reply.output[1].name, json.loads(reply.output[1].arguments)) == ("find", {"order": "o-1"})
        assert reply.usage is not None
        assert steps.used[0].tokens == reply.usage.total_tokens
    assert len(mock.state.journal.records()) == 1


async def test_cached_tokens_are_part_of_the_input_and_cheaper(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Reasoning is part of the output; the facts tell each."""
    server.script.append(Says(response(TEXT, usage=CACHED)))
    reply = await create(client, steps)
    assert steps.used == [Usage(1, 10_500, round(CACHED_USD))]
    facts = steps.calls[0].facts
    assert facts is not None
    assert facts(reply) == {
        "provider": "openai",
        "model": MODEL,
        "response_model": "gpt-4o-mini-2024-07-18",
        "response_id": "resp_1",
        "finish_reasons": ["completed"],
        "input_tokens": 10_000,
        "output_tokens": 500,
        "cached_tokens": 4_000,
        "reasoning_tokens": 300,
    }
    assert facts(None) == {"provider": "openai", "model": MODEL}


async def test_fields_whose_names_python_does_not_have_are_kept(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Under the name that the SDK gives them, live and replayed."""
    server.script.append(Says(response({**calls_function("find", "{}"), "async": True})))
    assert (await create(client, steps)).output[0].async_ is True
    assert (await replayed(client, steps)).output[0].async_ is True


async def test_items_of_an_answer_can_be_sent_back(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """As the SDK allows: what the model said and called, with the results of its calls."""
    item = calls_function("find", "{}")
    server.script += [Says(response(TEXT, item)), Says(response(TEXT))]
    reply = await create(client, steps)
    result = {"type": "function_call_output", "call_id": "call_1", "output": "{}"}
    await create(client, steps, input=[{"role": "user", "content": "?"}, *reply.output, result])
    assert server.requests[1]["input"][1:] == [TEXT, item, result]


@pytest.mark.parametrize(("capped", "sent"), [(True, 4_096), (False, None)])
async def test_a_capped_session_sends_a_limit(capped: bool, sent: int | None, server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Without one an answer could cost anything; it is no part of the call's identity."""
    server.script.append(Says(response(TEXT)))
    await create(client, steps, cap_money=capped)
    assert server.requests[0].get("max_output_tokens") == sent
    assert b"max_output_tokens" not in steps.calls[0].args


async def test_the_handlers_own_limit_is_what_is_reserved(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Wherever it is given: what is in `extra_body` is what the SDK sends."""
    server.script += [Says(response(TEXT)), Says(response(TEXT))]
    await create(client, steps, max_output_tokens=50_000)
    await create(client, steps, max_output_tokens=50_000, extra_body={"max_output_tokens": 90_000})
    assert [call.most.tokens // 10_000 for call in steps.calls] == [5, 9]


async def test_an_unknown_price_fails_closed_when_money_is_capped(client: Any, steps: FakeSteps) -> None:
    """Before the call."""
    with pytest.raises(ConfigError, match="the price of model 'my-model' is not known"):
        await create(client, steps, model="my-model", cap_money=True)


async def test_an_answer_that_is_not_waited_for_cannot_be_a_step(client: Any, steps: FakeSteps) -> None:
    """What it costs would never be known."""
    with pytest.raises(ValueError, match="background=True"):
        await create(client, steps, background=True)


async def test_what_the_provider_puts_before_a_prompt_is_reserved(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """By what the earlier answer took where that is known, else by all that fits into the model, or by what the operator says."""
    prepared = ModelClient("openai", client)
    capped = prepared.proxy(steps, cap_tokens=True).responses.create
    server.script += [Says(response(TEXT, usage=CACHED)), *(Says(response(TEXT)) for _ in range(4))]
    await capped(**ASK, max_output_tokens=100)
    await capped(**ASK, max_output_tokens=100, previous_response_id="resp_1")
    await capped(**ASK, max_output_tokens=100, previous_response_id="resp_of_another_process")
    told = ModelClient("openai", client, context_tokens=20_000).proxy(steps, cap_tokens=True).responses.create
    await told(**ASK, max_output_tokens=101, tools=[{"type": "web_search"}])
    own = [call.most.tokens for call in steps.calls]
    assert own[0] < 300
    assert 10_600 < own[1] < 10_800
    assert own[2:] == [128_100, 20_101]
    with pytest.raises(ConfigError, match="a part of the prompt is kept by the provider"):
        await create(client, steps, model="my-model", conversation="c-1", cap_money=True, prices=Prices({"my-model": (1, 1)}))


async def test_searches_are_reserved_where_money_is_capped(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Of the web and of files, up to the limit of calls; without one, or with a price that nobody knows, nothing is sent."""
    tools = [{"type": "web_search"}, {"type": "file_search", "vector_store_ids": ["v-1"]}]
    found: dict[str, Any] = {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": [], "results": None}
    server.script.append(Says(response(found, TEXT, usage=CACHED, tool_usage={"web_search": {"num_requests": 9}})))
    await create(client, steps, tools=tools, max_tool_calls=10, max_output_tokens=100, cap_money=True)
    assert steps.calls[0].most.microusd == 19_200 + 60 + 10 * (10_000 + 2_500)
    assert steps.used[0].microusd == CACHED_USD + 90_000 + 2_500
    with pytest.raises(ConfigError, match=r"file_search costs by use, the request does not say how often .* give max_tool_calls"):
        await create(client, steps, tools=tools[1:], cap_money=True)
    with pytest.raises(ConfigError, match=r"what code_interpreter costs a use is not known .*: do without it, or lift the limit"):
        await create(client, steps, tools=[{"type": "code_interpreter"}], max_tool_calls=1, cap_money=True)
    assert len(server.requests) == 1


async def test_a_file_that_openai_fetches_is_reserved_by_what_fits_into_the_model(
    server: ModelServer, client: Any, steps: FakeSteps
) -> None:
    """Its id tells nothing of its length."""
    server.script.append(Says(response(TEXT)))
    content = [{"type": "input_file", "file_id": "file-1"}, {"type": "input_text", "text": "Sum it up."}]
    await create(client, steps, input=[{"role": "user", "content": content}], max_output_tokens=100, cap_money=True)
    assert steps.calls[0].most.tokens == 128_100


async def test_only_the_step_retries(mock: LLMockServer, mocked: Any, steps: FakeSteps) -> None:
    """The SDK's own retries are off: two requests for two attempts, the refused one free."""
    mock.state.scenarios.add(Fail(429, retry_after=7))
    await create(mocked, steps)
    assert (len(mock.state.journal.records()), steps.waits, steps.faults) == (2, [7.0], ["RateLimitError"])
    assert steps.used[0] == Usage(steps=1)


async def test_refused_and_incomplete_answers_are_answers(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Whoever asked knows what to do about them."""
    cut = response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    server.script += [Says(response(says_text("No.", "refusal"))), Says(cut)]
    assert (await create(client, steps)).output[0].content[0].refusal == "No."
    reply = await create(client, steps, max_output_tokens=16)
    facts = steps.calls[1].facts
    assert facts is not None
    assert (reply.status, facts(reply)["finish_reasons"]) == ("incomplete", ["max_output_tokens"])
    assert steps.faults == []


async def test_an_empty_answer_is_paid_and_asked_again(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Reasoning alone is none."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    server.script += [Says(response(thought, usage=CACHED)), Says(response(TEXT))]
    assert (await create(client, steps)).output_text == "On its way."
    assert (steps.faults, steps.used[0].tokens) == (["EmptyReply"], 10_500)


@pytest.mark.parametrize(
    ("code", "category"),
    [("server_error", "transient"), ("rate_limit_exceeded", "transient"), ("invalid_prompt", "semantic"), ("bio_policy", "semantic")],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_response_that_failed_is_judged_like_the_http_error(
    streamed: bool, code: str, category: str, server: ModelServer, client: Any, steps: FakeSteps
) -> None:
    """Though it comes with status 200; it is asked for again where that may help, and costs what it says it does."""
    failed = response(status="failed", error={"code": code, "message": "Sorry."})
    one = Says(events=response_events("", failed)) if streamed else Says(failed)
    two = (
        Says(events=response_events("fine", response(says_text("fine"), usage=CACHED)))
        if streamed
        else Says(response(says_text("fine"), usage=CACHED))
    )
    server.script += [one, two]

    async def ask() -> Any:
        reply = await create(client, steps, **({"stream": True} if streamed else {}))
        return await reply.final() if streamed else reply

    if category == "transient":
        assert (await ask()).output_text == "fine"
        assert steps.used == [Usage(steps=1), Usage(1, 10_500, round(CACHED_USD))]
    else:
        with pytest.raises(StepError, match="Sorry") as caught:
            await ask()
        assert (caught.value.category, caught.value.type, steps.used) == (category, "ReportedError", [Usage(steps=1)])


# ---------------------------------------------------------------- streamed answers


async def take(stream: ModelStream, events: list[Any], server: ModelServer | None = None) -> None:
    """All events; what the server holds back until something was taken comes then."""
    async with stream:
        async for event in stream:
            events.append(event)
            if server is not None:
                server.released.set()


async def test_a_stream_gives_events_of_the_sdk_and_the_whole(mock: LLMockServer, mocked: Any, steps: FakeSteps) -> None:
    """One step, charged by the usage of the last event; replay gives the same without a request."""
    mock.state.scenarios.add(Reply(text="I look.", tool_calls=(ToolCall("find", {"order": "o-1"}),)))
    live: list[Any] = []
    stream = await create(mocked, steps, stream=True)
    await take(stream, live)
    assert isinstance(live[0], responses.ResponseCreatedEvent)
    assert isinstance(live[-1], responses.ResponseCompletedEvent)
    assert "".join(event.delta for event in live if isinstance(event, responses.ResponseTextDeltaEvent)) == "I look."
    whole = await stream.final()
    assert isinstance(whole, responses.Response)
    assert (whole.output_text, whole.output[1].type, stream.message) == ("I look.", "function_call", whole)
    assert whole.usage is not None
    assert steps.used[0].tokens == whole.usage.total_tokens
    again = await replayed(mocked, steps, stream=True)
    events: list[Any] = []
    await take(again, events)
    assert (events, await again.final()) == (live, whole)


async def test_an_event_that_the_sdk_does_not_know_passes(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """With all its fields: providers are ahead of their SDKs."""
    new = {"type": "response.hologram.delta", "depth": 3}
    server.script.append(Says(events=[new, *response_events("fine", response(says_text("fine")))]))
    events: list[Any] = []
    await take(await create(client, steps, stream=True), events)
    assert (events[0].type, events[0].depth) == ("response.hologram.delta", 3)


async def test_an_answer_that_was_not_repeated_at_the_end_is_put_together(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """As some compatible servers have it."""
    events = response_events("fine", response())
    done = {"type": "response.output_item.done", "output_index": 0, "sequence_number": 9, "item": says_text("fine")}
    server.script.append(Says(events=[*events[:-1], done, events[-1]]))
    assert (await (await create(client, steps, stream=True)).final()).output_text == "fine"


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_breaks_is_asked_for_again_unless_something_was_taken(
    kind: Any, mock: LLMockServer, mocked: Any, steps: FakeSteps
) -> None:
    """Nothing of the first attempt is in the answer, and it is charged by estimate."""
    mock.state.scenarios.add(StreamFault(kind, after_chunks=6), Reply(text="one two three four"), Reply(text="five six"))
    stream = await create(mocked, steps, stream=True)
    assert (await stream.final()).output_text == "five six"
    assert len(steps.faults) == 1
    assert 0 < steps.used[0].tokens < steps.calls[0].most.tokens


@pytest.mark.parametrize("end", ["whole", "disconnected", "garbled"])
async def test_a_stream_without_its_last_event_is_a_failure(end: Any, server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """All text may be there: nobody said that it was all. What was taken cannot be taken back."""
    server.script.append(Says(events=response_events("on its way", None), end=end, held=0))
    events: list[Any] = []
    with pytest.raises(StepError) as caught:
        await take(await create(client, steps, stream=True), events, server)
    assert (caught.value.category, len(events)) == ("transient", 4)
    assert 0 < steps.total.tokens < steps.calls[0].most.tokens


@pytest.mark.parametrize("end", ["stalled", "disconnected", "garbled"])
async def test_a_stream_is_whole_with_its_last_event(
    end: Any, monkeypatch: pytest.MonkeyPatch, server: ModelServer, client: Any, steps: FakeSteps
) -> None:
    """Whatever becomes of the connection then: the answer is there, and paid."""
    monkeypatch.setattr("holdfast.calls.models.streams.USAGE_GRACE_S", 0.05)
    server.script.append(Says(events=response_events("fine", response(says_text("fine"), usage=CACHED)), end=end))
    with anyio.fail_after(5):
        async with await create(client, steps, stream=True) as stream:
            events = [event async for event in stream]
    assert (stream.cut, len(events), (await stream.final()).output_text) == (False, 3, "fine")
    assert (steps.faults, steps.used) == ([], [Usage(1, 10_500, round(CACHED_USD))])


@pytest.mark.parametrize(
    ("error", "category"),
    [
        ({"code": "rate_limit_exceeded", "message": "Sorry."}, "transient"),
        ({"code": "insufficient_quota", "message": "Sorry."}, "permanent"),
        ({"code": "invalid_image_url", "message": "Sorry."}, "semantic"),
        ({"code": None, "message": "Sorry."}, "transient"),
        ({"error": {"type": "invalid_request_error", "code": None, "message": "Sorry."}}, "semantic"),
    ],
)
async def test_an_error_event_is_judged_like_the_http_error(
    error: dict[str, Any], category: str, server: ModelServer, client: Any, steps: FakeSteps
) -> None:
    """In either of the shapes in which it comes. What had come before it is charged, and cannot be taken back."""
    server.script.append(Says(events=[*response_events("one two", None), {"type": "error", "sequence_number": 3, **error}], held=1))
    events: list[Any] = []
    with pytest.raises(StepError, match=r"Sorry\.") as caught:
        await take(await create(client, steps, stream=True), events, server)
    assert (caught.value.category, len(events)) == (category, 3)
    assert 0 < steps.total.tokens < steps.calls[0].most.tokens


async def test_leaving_early_ends_the_request_and_is_charged_by_estimate(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """The step is closed as cut; replay ends where it was left."""
    server.script.append(Says(events=response_events("one two three", None), end="stalled"))
    with anyio.fail_after(5):
        async with await create(client, steps, stream=True) as stream:
            live = [await anext(stream) for _ in range(2)]
    assert stream.cut
    assert 0 < steps.total.tokens < steps.calls[0].most.tokens
    again = await replayed(client, steps, stream=True)
    assert [await anext(again) for _ in range(2)] == live
    with pytest.raises(StepError, match="StreamCut"):
        await again.final()
