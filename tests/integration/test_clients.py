"""Clients of model providers, with the real OpenAI SDK against a local server that fails on demand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx2
import openai
import pytest
from llmock.scenarios import Fail, Reply, StreamFault, ToolCall
from llmock.testing import LLMockServer

from holdfast import FailureRule
from holdfast.calls import ModelClient, ModelStream, Prices
from holdfast.errors import ConfigError, StepError
from holdfast.policies.budget import Usage
from tests.integration.fake_steps import FakeSteps, models
from tests.integration.model_server import Says, chat_chunks, model_server

KEY = "sk-very-secret"
ASK = [{"role": "user", "content": "Where is my order?"}]
MODEL = "gpt-4o-mini"


@pytest.fixture(scope="module")
def running() -> Iterator[LLMockServer]:
    with LLMockServer() as server:
        yield server


@pytest.fixture
def server(running: LLMockServer) -> Iterator[LLMockServer]:
    running.state.reset()
    yield running
    running.state.reset()


@pytest.fixture
async def client(server: LLMockServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.base_url("openai"), api_key=KEY) as client:
        yield client


@pytest.fixture
def steps() -> FakeSteps:
    return FakeSteps()


def requests(server: LLMockServer) -> list[Any]:
    return [record.body for record in server.state.journal.records()]


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# ---------------------------------------------------------------- whole answers


async def test_a_call_is_one_metered_step(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """It carries what the pipeline needs to guard it, and costs what the provider reports."""
    server.state.scenarios.add(Reply(text="On its way."))
    reply = await models(client, steps).chat.completions.create(model=MODEL, messages=ASK)
    assert isinstance(reply, openai.types.chat.ChatCompletion)
    assert reply.choices[0].message.content == "On its way."
    (call,) = steps.calls
    assert (call.kind, call.name, call.effect, call.dependency, call.costs) == ("model", MODEL, "read", "openai", True)
    assert call.timeout_s == 600
    assert reply.usage is not None
    price = Prices().price(MODEL, None, reply.usage.prompt_tokens, reply.usage.completion_tokens)
    assert steps.used == [Usage(steps=1, tokens=reply.usage.total_tokens, microusd=price or 0)]
    assert price
    assert call.most.tokens >= reply.usage.total_tokens
    assert call.most.microusd >= price


async def test_a_recorded_answer_is_not_bought_again(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """Replay gives the same answer, with its tool calls, without a request."""
    server.state.scenarios.add(Reply(tool_calls=(ToolCall("find", {"order": "o-1"}),)))
    live = await models(client, steps).chat.completions.create(messages=ASK, model=MODEL)
    again = await models(client, FakeSteps(steps.records)).chat.completions.create(model=MODEL, messages=ASK)
    assert again == live
    assert json.loads(again.choices[0].message.tool_calls[0].function.arguments) == {"order": "o-1"}
    assert len(requests(server)) == 1


async def test_messages_of_the_sdk_can_be_sent_back(client: Any, steps: FakeSteps) -> None:
    """As the SDK allows: the message of an answer goes into the next request as it is."""
    create = models(client, steps).chat.completions.create
    reply = await create(model=MODEL, messages=ASK)
    assert (await create(model=MODEL, messages=[*ASK, reply.choices[0].message, *ASK])).choices


async def test_only_the_step_retries(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """The SDK's own retries would multiply: two requests for two attempts, the wait as asked for, the refused one free."""
    server.state.scenarios.add(Fail(429, retry_after=7))
    await models(client, steps).chat.completions.create(model=MODEL, messages=ASK)
    assert (len(requests(server)), steps.waits, steps.faults) == (2, [7.0], ["RateLimitError"])
    assert steps.used[0] == Usage(steps=1)


async def test_a_mistake_in_the_request_is_not_retried(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """A 400 is the caller's."""
    server.state.scenarios.add(Fail(400, message="bad tools"))
    with pytest.raises(StepError, match="bad tools") as caught:
        await models(client, steps).chat.completions.create(model=MODEL, messages=ASK)
    assert (caught.value.category, caught.value.type, len(requests(server))) == ("semantic", "BadRequestError", 1)


async def test_an_empty_answer_is_paid_and_asked_again(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """It is a failure of the provider's, but not a free one."""
    server.state.scenarios.add(Reply(text=""), Reply(text="Here."))
    reply = await models(client, steps).chat.completions.create(model=MODEL, messages=ASK)
    assert reply.choices[0].message.content == "Here."
    assert steps.faults == ["EmptyReply"]
    assert steps.used[0].tokens > 0
    assert steps.used[0].microusd > 0


@pytest.mark.parametrize(("code", "category"), [("server_error", "transient"), ("context_length_exceeded", "semantic"), (401, "permanent")])
async def test_an_error_with_status_200_is_judged_like_the_http_error(code: Any, category: str, steps: FakeSteps) -> None:
    """As proxies send it: it is told in the provider's words, costs nothing, and is asked for again only where that may help."""
    failed = Says({"error": {"message": "Sorry.", "code": code}})
    async with model_server() as server, openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client:
        server.script += [failed, failed, failed, failed, failed]
        with pytest.raises(StepError, match="Sorry") as caught:
            await models(client, steps).chat.completions.create(model=MODEL, messages=ASK)
        assert (caught.value.category, caught.value.type) == (category, "ReportedError")
        assert set(steps.used) == {Usage(steps=1)}
        assert (len(server.requests) > 1) is (category == "transient")


@pytest.mark.parametrize(
    ("body", "type_", "kind", "requests"),
    [
        ("  \n", "EmptyReply", "empty_answer", 3),
        ("<html>busy</html>", "UnreadableReply", "unreadable_answer", 3),
        ('{"id": "x", "choices": [}', "UnreadableReply", "unreadable_answer", 3),
        ('{"id": "x", "choices": [{"message": {"content": "The answ', "BrokenReply", "broken", 4),
    ],
    ids=["blank", "page", "garbled", "half"],
)
async def test_a_whole_answer_that_does_not_decode_is_asked_for_a_few_times(
    body: str, type_: str, kind: str, requests: int, steps: FakeSteps
) -> None:
    """The provider has answered, so it is healthy; a body that was cut short is a connection that broke."""
    async with model_server() as server, openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client:
        server.script += [Says(body, kind="application/json")] * 5
        with pytest.raises(StepError) as caught:
            await models(client, steps).chat.completions.create(model=MODEL, messages=ASK)
        assert (caught.value.type, caught.value.kind, len(server.requests)) == (type_, kind, requests)


@pytest.mark.parametrize("first_chunk_s", [None, 0.05])
async def test_a_stream_is_too_slow_only_for_a_client_that_asks_for_that(first_chunk_s: float | None, steps: FakeSteps) -> None:
    """By the time to its first chunk; the next attempt may be quick."""
    async with model_server() as server, openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client:
        slow, quick = chat_chunks("slow but good"), chat_chunks("quick")
        done = {**quick[0], "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        server.script += [Says(events=[*slow, done], held=4), Says(events=[*quick, done])]
        asyncio.get_running_loop().call_later(0.3, server.released.set)
        proxy = ModelClient("openai", client, first_chunk_s=first_chunk_s).proxy(steps)
        async with await proxy.chat.completions.create(model=MODEL, messages=ASK, stream=True) as stream:
            chunks = [chunk async for chunk in stream]
        assert text_of(chunks) == ("slow but good " if first_chunk_s is None else "quick ")
        assert steps.faults == ([] if first_chunk_s is None else ["SlowStart"])


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"first_chunk_s": 0}, "client 'openai': first_chunk_s is 0: it has to be over 0"),
        ({"failures": {"emtpy_answer": FailureRule()}}, "client 'openai': failures.emtpy_answer is no kind of failure: did you mean"),
    ],
)
async def test_wrong_options_of_a_client_are_refused(options: dict[str, Any], fault: str, client: Any) -> None:
    """Where the client is made, in one line."""
    with pytest.raises(ConfigError, match=re.escape(fault)):
        ModelClient("openai", client, **options)


async def test_a_rule_of_the_client_decides_how_often_an_answer_is_bought(steps: FakeSteps) -> None:
    """Instead of the table."""
    async with model_server() as server, openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client:
        server.script += [Says("", kind="application/json")] * 2
        proxy = ModelClient("openai", client, failures={"empty_answer": FailureRule(attempts=2)}).proxy(steps)
        with pytest.raises(StepError):
            await proxy.chat.completions.create(model=MODEL, messages=ASK)
        assert len(server.requests) == 2


async def test_an_answer_cut_at_its_length_is_an_answer(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """Whoever set the limit knows what to do about it."""
    server.state.scenarios.add(Reply(text="", finish_reason="length"))
    reply = await models(client, steps).chat.completions.create(model=MODEL, messages=ASK)
    assert (reply.choices[0].finish_reason, steps.faults) == ("length", [])


async def test_the_answer_of_a_lax_server_is_kept_as_it_is(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """A finish reason that OpenAI does not have is no reason to lose what is paid."""
    server.state.scenarios.add(Reply(text="Here.", finish_reason="eos"))
    reply = await models(client, steps).chat.completions.create(model=MODEL, messages=ASK)
    assert reply.choices[0].finish_reason == "eos"


# ---------------------------------------------------------------- limits and prices


@pytest.mark.parametrize("capped", ["tokens", "money"])
async def test_a_capped_session_sends_a_limit_that_is_not_part_of_the_identity(
    capped: str, server: LLMockServer, client: Any, steps: FakeSteps
) -> None:
    """Without one an answer could cost anything; a budget set later does not make it another call."""
    await models(client, steps, cap_tokens=capped == "tokens", cap_money=capped == "money").chat.completions.create(
        model=MODEL, messages=ASK
    )
    assert requests(server)[0]["max_tokens"] == 4096
    assert steps.calls[0].most.tokens > 4096
    await models(client, steps).chat.completions.create(model=MODEL, messages=ASK)
    assert steps.calls[0].args == steps.calls[1].args
    assert len(requests(server)) == 1


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_handlers_own_limit_is_what_is_reserved(name: str, server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """For each of the answers asked for."""
    proxy = models(client, steps, cap_tokens=True)
    await proxy.chat.completions.create(model=MODEL, messages=ASK, n=2, **{name: 100})
    sent = requests(server)[0]
    assert (sent[name], "max_tokens" in sent, steps.calls[0].most.tokens // 100) == (100, name == "max_tokens", 2)


async def test_openai_itself_is_sent_the_name_that_all_its_models_take(steps: FakeSteps) -> None:
    """Its newer models refuse `max_tokens`."""
    sent: list[Any] = []

    def refuse(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.content))
        return httpx2.Response(400, json={"error": {"message": "no"}})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(refuse)) as http:
        proxy = models(openai.AsyncOpenAI(api_key=KEY, http_client=http), steps, cap_money=True)
        with pytest.raises(StepError):
            await proxy.chat.completions.create(model=MODEL, messages=ASK)
    assert (sent[0]["max_completion_tokens"], "max_tokens" in sent[0]) == (4096, False)


async def test_an_unknown_price_fails_closed_when_money_is_capped(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """Before the call, naming the model and the way out; without a cap it goes through and costs tokens only."""
    with pytest.raises(ConfigError, match=r"the price of model 'my-model' is not known.*Prices\(overrides="):
        await models(client, steps, cap_money=True).chat.completions.create(model="my-model", messages=ASK)
    assert requests(server) == []
    await models(client, steps).chat.completions.create(model="my-model", messages=ASK)
    assert (steps.total.microusd, steps.total.tokens > 0) == (0, True)
    own = models(client, FakeSteps(), prices=Prices({"my-model": (1, 1)}), cap_money=True)
    assert await own.chat.completions.create(model="my-model", messages=ASK)


async def test_a_search_that_no_answer_tells_of_is_refused_when_money_is_capped(
    server: LLMockServer, client: Any, steps: FakeSteps
) -> None:
    """It costs by number: before the call, in one line; without a cap it goes through."""
    with pytest.raises(
        ConfigError, match=r"what web search costs a use is not known for model 'gpt-4o-mini'.*: do without it, or lift the"
    ):
        await models(client, steps, cap_money=True).chat.completions.create(model=MODEL, messages=ASK, web_search_options={})
    assert requests(server) == []
    assert await models(client, steps, cap_tokens=True).chat.completions.create(model=MODEL, messages=ASK, web_search_options={})


async def test_a_file_that_the_provider_keeps_is_reserved_by_what_fits_into_the_model(client: Any, steps: FakeSteps) -> None:
    """Its id tells nothing of its length."""
    messages = [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}, {"type": "text", "text": "What is it?"}]}]
    await models(client, steps, cap_tokens=True).chat.completions.create(model=MODEL, messages=messages, max_tokens=10)
    assert steps.calls[0].most.tokens == 128_010


async def test_an_image_is_not_reserved_by_its_bytes(client: Any, steps: FakeSteps) -> None:
    """A picture of a megabyte is not half a million tokens."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    await models(client, steps).chat.completions.create(model=MODEL, messages=messages, max_tokens=10)
    assert 2_000 < steps.calls[0].most.tokens < 3_000


# ---------------------------------------------------------------- what a handler can reach


async def test_a_handler_sees_neither_the_key_nor_the_client(client: Any, steps: FakeSteps) -> None:
    """Nothing but durable calls, and what is harmless, is on it."""
    proxy = models(client, steps)
    for part in (proxy, proxy.chat, proxy.chat.completions):
        assert KEY not in repr(part)
        assert not [name for name in ("api_key", "_client", "client", "auth_headers", "post") if getattr(part, name, None)]
    harmless = ["base_url", "copy", "max_retries", "timeout", "with_options"]
    assert (dir(proxy), repr(proxy)) == (sorted([*harmless, "chat", "embeddings", "responses"]), "<client 'openai'>")
    with pytest.raises(
        AttributeError, match=r"'images' of client 'openai' is not available.*only chat.completions.create, .*are durable steps"
    ):
        _ = proxy.images.create
    with pytest.raises(AttributeError, match=r"'chat\.completions\.stream'"):
        _ = proxy.chat.completions.stream
    assert dir(proxy.chat) == ["completions"]
    assert dir(proxy.chat.completions) == dir(proxy.responses) == ["create", "parse"]


async def test_headers_are_sent_and_not_recorded(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """They can hold secrets; what the SDK takes for "not given" is not recorded either."""
    await models(client, steps).chat.completions.create(
        model=MODEL, messages=ASK, extra_headers={"x-token": "hush"}, timeout=30, temperature=openai.NOT_GIVEN
    )
    (call,) = steps.calls
    assert b"hush" not in call.args
    assert b"temperature" not in call.args
    assert call.timeout_s == 30


@pytest.mark.parametrize("wrong", [object(), openai.OpenAI(api_key=KEY)])
def test_what_is_no_such_client_is_refused(wrong: Any) -> None:
    """When the runtime is made, with a hint."""
    with pytest.raises(ConfigError, match=r"client 'shop' is a .*: give an openai.AsyncOpenAI"):
        ModelClient("shop", wrong)


# ---------------------------------------------------------------- streamed answers


async def open_stream(client: Any, steps: FakeSteps, **more: Any) -> ModelStream:
    create = models(client, steps).chat.completions.create
    stream = await create(model=MODEL, messages=ASK, stream=True, **more)
    assert isinstance(stream, ModelStream)
    return stream


async def test_a_stream_gives_chunks_and_the_whole(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """One step, charged by the usage that the provider reports at the end, which a consumer who did not ask does not see."""
    server.state.scenarios.add(Reply(text="It is on its way."))
    async with await open_stream(client, steps) as stream:
        chunks = [chunk async for chunk in stream]
        whole = await stream.final()
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert text_of(chunks) == whole.choices[0].message.content == stream.message.content == "It is on its way."
    assert (whole.object, whole.choices[0].finish_reason) == ("chat.completion", "stop")
    assert requests(server)[0]["stream_options"] == {"include_usage": True}
    assert steps.used == [Usage(1, whole.usage.total_tokens, Prices().price(MODEL, None, 4, whole.usage.completion_tokens) or 0)]


async def test_a_handler_can_go_on_with_its_list_while_an_answer_is_streamed(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """What is sent is what was given, and recorded."""
    asked = [*ASK]
    stream = await models(client, steps).chat.completions.create(model=MODEL, messages=asked, stream=True)
    asked.append({"role": "assistant", "content": "One moment."})
    await stream.final()
    assert requests(server)[0]["messages"] == ASK


async def test_a_recorded_stream_is_replayed_at_once(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """The same chunks, without a request."""
    async with await open_stream(client, steps) as stream:
        live = [chunk async for chunk in stream]
        whole = await stream.final()
    again = FakeSteps(steps.records)
    async with await open_stream(client, again) as stream:
        assert [chunk async for chunk in stream] == live
        assert await stream.final() == whole
    assert (len(requests(server)), again.used) == (1, [])


async def test_tool_calls_are_put_together_from_their_fragments(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """Several at once, each with its own arguments; nobody has to take the chunks for that."""
    wanted = [ToolCall("find", {"order": "o-1" * 10}), ToolCall("refund", {"order": "o-2", "cents": 5})]
    server.state.scenarios.add(Reply(tool_calls=tuple(wanted)))
    stream = await open_stream(client, steps)
    calls = (await stream.final()).choices[0].message.tool_calls
    assert [ToolCall(call.function.name, json.loads(call.function.arguments)) for call in calls] == wanted
    assert len({call.id for call in calls}) == 2


async def test_usage_is_shown_to_whoever_asked_for_it(client: Any, steps: FakeSteps) -> None:
    """As the SDK does: a last chunk without choices."""
    async with await open_stream(client, steps, stream_options={"include_usage": True}) as stream:
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == steps.total.tokens


@pytest.mark.parametrize("fault", [Fail(503), StreamFault("disconnect", after_chunks=0), StreamFault("truncate", after_chunks=0)])
async def test_a_failure_before_the_first_chunk_is_retried(fault: Any, server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """The consumer does not notice."""
    server.state.scenarios.add(fault, Reply(text="Here it is."))
    async with await open_stream(client, steps) as stream:
        chunks = [chunk async for chunk in stream]
    assert text_of(chunks) == stream.message.content != ""
    assert len(steps.faults) == 1


@pytest.mark.parametrize("end", ["whole", "disconnected", "garbled"])
async def test_a_failure_after_the_first_chunk_is_raised_where_chunks_are_taken(end: Any, steps: FakeSteps) -> None:
    """What was said cannot be taken back; a stream that ends without its last chunk is a failure too. Charged by estimate."""
    taken: list[Any] = []
    async with model_server() as server, openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client:
        server.script.append(Says(events=chat_chunks("one two"), end=end, held=0))

        async def take_all() -> None:
            async with await open_stream(client, steps) as stream:
                async for chunk in stream:
                    taken.append(chunk)
                    server.released.set()

        with pytest.raises(StepError) as caught:
            await take_all()
    assert text_of(taken) == "one two "
    assert (caught.value.category, len(steps.used), len(steps.faults)) == ("transient", 1, 1)
    assert 0 < steps.total.tokens < steps.calls[0].most.tokens


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_nobody_took_chunks_of_is_retried_to_the_end(
    kind: Any, server: LLMockServer, client: Any, steps: FakeSteps
) -> None:
    """Nothing reached anybody, so nothing of the first attempt is in the answer."""
    server.state.scenarios.add(StreamFault(kind, after_chunks=3), Reply(text="one two three"), Reply(text="four five"))
    stream = await open_stream(client, steps)
    assert (await stream.final()).choices[0].message.content == "four five"
    assert len(steps.faults) == 1


async def test_leaving_early_ends_the_request_and_is_charged_by_estimate(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """The step is closed as cut when the block is left, though the provider has stalled; what was taken is its record."""
    server.state.scenarios.add(StreamFault("stall", after_chunks=3, stall_seconds=20), Reply(text="one two three four"))
    with anyio.fail_after(5):
        async with await open_stream(client, steps) as stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
    assert stream.cut
    assert steps.branches[0].done()
    assert 0 < steps.total.tokens < steps.calls[0].most.tokens
    with pytest.raises(StepError, match="the stream was left after 2 chunks"):
        await stream.final()


async def test_a_cut_stream_replays_to_where_it_was_left(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """Whoever reads on is told: a part is never taken for the whole."""
    server.state.scenarios.add(StreamFault("stall", after_chunks=3, stall_seconds=20), Reply(text="one two three four"))
    async with await open_stream(client, steps) as stream:
        live = [await anext(stream), await anext(stream)]
    again = FakeSteps(steps.records)
    async with await open_stream(client, again) as stream:
        assert [await anext(stream), await anext(stream)] == live
        with pytest.raises(StepError, match="StreamCut"):
            await anext(stream)
    assert again.used == []


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}])
@pytest.mark.parametrize("end", ["stalled", "disconnected"])
async def test_a_stream_is_whole_with_its_last_word(
    end: Any, usage: dict[str, int] | None, monkeypatch: pytest.MonkeyPatch, steps: FakeSteps
) -> None:
    """Whatever becomes of the connection then, also where no usage came: the answer is there, and paid."""
    monkeypatch.setattr("holdfast.calls.models.streams.USAGE_GRACE_S", 0.05)
    events = chat_chunks("one two")
    events[-1]["choices"][0]["finish_reason"] = "stop"
    events += [{**events[0], "choices": [], "usage": usage}] if usage else []
    async with model_server() as server, openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client:
        server.script.append(Says(events=events, end=end))
        with anyio.fail_after(5):
            async with await open_stream(client, steps) as stream:
                chunks = [chunk async for chunk in stream]
    assert (stream.cut, text_of(chunks), stream.message.content) == (False, "one two ", "one two ")
    assert (steps.faults, len(steps.used)) == ([], 1)
    assert steps.total.tokens == 120 if usage else 0 < steps.total.tokens < steps.calls[0].most.tokens


async def test_an_empty_reason_to_finish_is_no_last_word(monkeypatch: pytest.MonkeyPatch, steps: FakeSteps) -> None:
    """Some servers send one in every chunk: what takes its time is not cut for that, and what breaks is not whole."""
    monkeypatch.setattr("holdfast.calls.models.streams.USAGE_GRACE_S", 0.0)
    events = chat_chunks("one two three")
    for event in events[:-1]:
        event["choices"][0]["finish_reason"] = ""
    events[-1]["choices"][0]["finish_reason"] = "stop"
    async with model_server() as server, openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client:
        server.script += [Says(events=events[:-1], end="disconnected"), Says(events=events)]
        stream = await open_stream(client, steps)
        assert (await stream.final()).choices[0].message.content == "one two three "
    assert len(steps.faults) == 1


async def test_leaving_after_the_last_word_is_not_leaving_early(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """A loop that breaks at the finish reason still pays what the provider reports, and keeps the whole."""
    server.state.scenarios.add(Reply(text="one two"))
    async with await open_stream(client, steps) as stream:
        async for chunk in stream:
            if chunk.choices[0].finish_reason:
                break
    whole = await stream.final()
    assert (stream.cut, whole.choices[0].message.content) == (False, "one two")
    assert steps.total.tokens == whole.usage.total_tokens


async def test_a_handler_that_is_cancelled_in_a_stream_does_not_hang(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """The step beside it is closed as cut all the same."""
    server.state.scenarios.add(StreamFault("stall", after_chunks=2, stall_seconds=20))
    with anyio.fail_after(5):
        with anyio.CancelScope() as scope:
            async with await open_stream(client, steps) as stream:
                await anext(stream)
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        await asyncio.wait(steps.branches)
    assert stream.cut
    assert steps.records


async def test_a_stream_whose_branch_is_cancelled_says_so(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """When the turn ends its branches, nobody waits for ever."""
    server.state.scenarios.add(StreamFault("stall", after_chunks=2, stall_seconds=20))
    with anyio.fail_after(5):
        stream = await open_stream(client, steps)
        await anext(stream)
        steps.branches[0].cancel()
        with pytest.raises(StepError, match="the turn ended before the stream did"):
            async for _ in stream:
                pass
        await asyncio.wait(steps.branches)
    assert steps.branches[0].cancelled()


async def test_an_empty_stream_is_a_failure(server: LLMockServer, client: Any, steps: FakeSteps) -> None:
    """As with a whole answer, and paid as well."""
    server.state.scenarios.add(Reply(text=""), Reply(text="Here."))
    stream = await open_stream(client, steps)
    assert (await stream.final()).choices[0].message.content == "Here."
    assert steps.faults == ["EmptyReply"]
    assert steps.used[0].tokens > 0


async def test_the_message_is_there_only_at_the_end(client: Any, steps: FakeSteps) -> None:
    """A part is never taken for the whole."""
    stream = await open_stream(client, steps)
    with pytest.raises(StepError, match=r"take all chunks, or await final\(\)"):
        _ = stream.message
    await stream.final()
    assert stream.message.content
