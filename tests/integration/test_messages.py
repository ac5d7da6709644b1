"""Anthropic's messages as durable steps, with the real SDK against local servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import anyio
import pytest
from llmock.scenarios import Fail, Reply, StreamFault, ToolCall
from llmock.testing import LLMockServer

from holdfast.calls import ModelClient, ModelStream, Prices
from holdfast.errors import ConfigError, StepError
from holdfast.policies.budget import Usage
from tests.integration.fake_steps import FakeSteps, models
from tests.integration.model_server import ModelServer, Says, message, message_events, model_server, text_deltas

KEY = "sk-ant-very-secret"
MODEL = "claude-sonnet-4-6"
ASK: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "Where is my order?"}]}
CACHED = {
    "input_tokens": 1_000,
    "cache_creation_input_tokens": 2_000,
    "cache_read_input_tokens": 4_000,
    "output_tokens": 500,
    "output_tokens_details": {"thinking_tokens": 300},
}
CACHED_USD = 1_000 * 3 + 2_000 * 3.75 + 4_000 * 0.3 + 500 * 15  # micro-dollars, by the list
TEXT = {"type": "text", "text": "On its way."}


@pytest.fixture
def steps() -> FakeSteps:
    return FakeSteps()


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as serving:
        yield serving


@pytest.fixture
async def client(server: ModelServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=server.base_url, api_key=KEY) as client:
        yield client


@pytest.fixture(scope="module")
def mock() -> Iterator[LLMockServer]:
    with LLMockServer() as serving:
        yield serving


@pytest.fixture
async def mocked(mock: LLMockServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    mock.state.reset()
    async with anthropic.AsyncAnthropic(base_url=mock.base_url("anthropic"), api_key=KEY) as client:
        yield client


async def create(client: Any, steps: FakeSteps, **more: Any) -> Any:
    caps = {name: more.pop(name) for name in ("cap_money", "cap_tokens", "prices") if name in more}
    return await models(client, steps, name="anthropic", **caps).messages.create(**{**ASK, **more})


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
    """Of the SDK's own type, live and replayed, with tool use that a handler can work with."""
    mock.state.scenarios.add(Reply(text="I look.", tool_calls=(ToolCall("find", {"order": "o-1"}),)))
    live = await create(mocked, steps)
    (call,) = steps.calls
    assert (call.kind, call.name, call.effect, call.dependency, call.costs) == ("model", MODEL, "read", "anthropic", True)
    for reply in (live, await replayed(mocked, steps)):
        assert isinstance(reply, anthropic.types.Message)
        assert isinstance(reply.content[0], anthropic.types.TextBlock)
        assert isinstance(reply.content[1], anthropic.types.ToolUseBlock)
        assert (reply.content[0].text, reply.content[1].name, reply.content[1].input) == ("I look.", "find", {"order": "o-1"})
        assert reply.stop_reason == "tool_use"
        assert steps.used[0].tokens == reply.usage.input_tokens + reply.usage.output_tokens
    assert len(mock.state.journal.records()) == 1


async def test_cached_tokens_are_charged_beside_the_input_at_their_own_prices(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Anthropic counts what it writes to and reads from its cache apart; what it thought is part of the output."""
    server.script.append(Says(message(TEXT, usage=CACHED)))
    reply = await create(client, steps)
    assert steps.used == [Usage(1, 7_500, round(CACHED_USD))]
    facts = steps.calls[0].facts
    assert facts is not None
    assert facts(reply) == {
        "provider": "anthropic",
        "model": MODEL,
        "response_model": "claude-sonnet-4-6-20260101",
        "response_id": "msg_1",
        "finish_reasons": ["end_turn"],
        "input_tokens": 7_000,
        "output_tokens": 500,
        "cached_tokens": 4_000,
        "reasoning_tokens": 300,
    }
    assert facts(None) == {"provider": "anthropic", "model": MODEL}


async def test_what_is_cached_for_an_hour_and_searched_costs_more(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """By the price list: twice the input, and a cent a search."""
    hour = {"cache_creation": {"ephemeral_1h_input_tokens": 1_000, "ephemeral_5m_input_tokens": 0}}
    server.script.append(
        Says(message(TEXT, usage={"input_tokens": 0, "output_tokens": 0, **hour, "server_tool_use": {"web_search_requests": 2}}))
    )
    await create(client, steps)
    assert steps.used == [Usage(1, 1_000, 6_000 + 20_000)]


@pytest.mark.parametrize(("control", "price"), [(None, 3), ({"type": "ephemeral"}, 3.75), ({"type": "ephemeral", "ttl": "1h"}, 6)])
async def test_the_most_a_call_can_cost_is_reserved(control: Any, price: float, server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """All of the prompt may have to be written to the cache, where the request wants it cached."""
    server.script.append(Says(message(TEXT)))
    await create(client, steps, cap_money=True, **({"cache_control": control} if control else {}))
    most = steps.calls[0].most
    assert most.tokens > 100
    assert most.microusd == pytest.approx((most.tokens - 100) * price + 100 * 15, abs=1)


async def test_a_limit_is_sent_where_the_handler_gives_none(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Anthropic answers nothing without one; it is no part of the call's identity."""
    server.script.append(Says(message(TEXT)))
    bare = {name: value for name, value in ASK.items() if name != "max_tokens"}
    await models(client, steps).messages.create(**bare)
    assert server.requests[0]["max_tokens"] == 4_096
    assert b"max_tokens" not in steps.calls[0].args


async def test_an_unknown_price_fails_closed_when_money_is_capped(client: Any, steps: FakeSteps) -> None:
    """As with OpenAI: before the call."""
    with pytest.raises(ConfigError, match="the price of model 'claude-9' is not known"):
        await create(client, steps, model="claude-9", cap_money=True)


async def test_tools_that_anthropic_runs_are_reserved_by_what_fits_into_the_model(
    client: Any, server: ModelServer, steps: FakeSteps
) -> None:
    """What they find goes into the prompt, and nobody knows how much that is."""
    server.script.append(Says(message(TEXT)))
    search = {"type": "web_search_20250305", "name": "web_search"}
    await create(client, steps, tools=[search, {"name": "find", "input_schema": {"type": "object"}}], cap_tokens=True)
    assert steps.calls[0].most.tokens == 1_000_100


async def test_searches_are_reserved_where_money_is_capped(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """A cent each, up to the limit of the tool; without one, or with a price that nobody knows, nothing is sent."""
    search = {"type": "web_search_20250305", "name": "web_search"}
    server.script += [
        Says(message(TEXT, usage={"input_tokens": 10, "output_tokens": 5, "server_tool_use": {"web_search_requests": 20}}))
    ] * 2
    for prices in (None, Prices({MODEL: (3, 15)})):
        steps.records.clear()
        await create(client, steps, tools=[{**search, "max_uses": 20}], cap_money=True, prices=prices)
    assert [call.most.microusd for call in steps.calls] == [3_000_000 + 1_500 + 200_000] * 2
    assert [used.microusd for used in steps.used] == [30 + 75 + 200_000] * 2
    with pytest.raises(ConfigError, match=r"web_search costs by use, the request does not say how often .* give max_uses of the tool"):
        await create(client, steps, tools=[search], cap_money=True)
    with pytest.raises(ConfigError, match=r"what web_search costs a use is not known for model 'claude-2'.*usd_per_1000_searches"):
        await create(client, steps, model="claude-2", tools=[{**search, "max_uses": 1}], cap_money=True)
    with pytest.raises(ConfigError, match=r"what code_execution costs a use is not known .*: do without it, or lift the limit"):
        await create(client, steps, tools=[{"type": "code_execution_20250825", "name": "code_execution"}], cap_money=True)
    assert len(server.requests) == 2


async def test_a_document_that_anthropic_fetches_is_reserved_by_what_fits_into_the_model(
    server: ModelServer, client: Any, steps: FakeSteps
) -> None:
    """Its address tells nothing of its length; one that is in the request counts by its own."""
    server.script += [Says(message(TEXT)), Says(message(TEXT))]
    for source in ({"type": "url", "url": "https://example.com/a.pdf"}, {"type": "text", "media_type": "text/plain", "data": "a" * 2_000}):
        content = [{"type": "document", "source": source}]
        await create(client, steps, messages=[{"role": "user", "content": content}], cap_tokens=True)
    fetched, given = (call.most.tokens for call in steps.calls)
    assert fetched == 1_000_100
    assert 1_100 < given < 1_300


async def test_only_the_step_retries(mock: LLMockServer, mocked: Any, steps: FakeSteps) -> None:
    """The SDK's own retries are off: two requests for two attempts, the refused one free."""
    mock.state.scenarios.add(Fail(429, retry_after=7))
    await create(mocked, steps)
    assert (len(mock.state.journal.records()), steps.waits, steps.faults) == (2, [7.0], ["RateLimitError"])
    assert steps.used[0] == Usage(steps=1)


async def test_what_the_sdk_refuses_costs_nothing(client: Any, steps: FakeSteps) -> None:
    """It was never sent: the SDK wants so long an answer streamed."""
    with pytest.raises(StepError, match="Streaming is required"):
        await create(client, steps, max_tokens=64_000)
    assert steps.used == [Usage(steps=1)]


@pytest.mark.parametrize("stop_reason", ["refusal", "max_tokens", "pause_turn"])
async def test_an_answer_that_says_why_it_is_empty_is_an_answer(
    stop_reason: str, server: ModelServer, client: Any, steps: FakeSteps
) -> None:
    """A refusal is a result: whoever asked knows what to do about it."""
    server.script.append(Says(message(stop_reason=stop_reason)))
    assert (await create(client, steps)).stop_reason == stop_reason


async def test_an_empty_answer_is_paid_and_asked_again(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Thoughts alone are none."""
    server.script += [Says(message({"type": "thinking", "thinking": "Hm.", "signature": "x"})), Says(message(TEXT))]
    assert (await create(client, steps)).content[0].text == "On its way."
    assert (steps.faults, steps.used[0].tokens) == (["EmptyReply"], 15)


async def test_nothing_to_add_to_the_results_of_tools_is_an_answer(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Anthropic ends such a turn without a word, and would do so again and again."""
    server.script.append(Says(message()))
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t-1", "content": "done"}]}
    assert (await create(client, steps, messages=[*ASK["messages"], result])).content == []


async def test_blocks_of_an_answer_can_be_sent_back(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """As the SDK allows; also one that it does not know yet, which is kept as it is."""
    odd = {"type": "hologram", "depth": 3}
    server.script += [Says(message(TEXT, odd)), Says(message(TEXT))]
    reply = await create(client, steps)
    await create(client, steps, messages=[*ASK["messages"], {"role": "assistant", "content": reply.content}, *ASK["messages"]])
    assert server.requests[1]["messages"][1]["content"] == [TEXT, odd]


async def test_a_web_page_is_no_answer(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """It says where to look, and is not asked for again."""
    server.script.append(Says("<html>"))
    with pytest.raises(StepError, match="is the client's base_url right"):
        await create(client, steps)


def test_a_client_that_blocks_is_refused() -> None:
    """When the runtime is made, with a hint."""
    with pytest.raises(ConfigError, match=r"client 'claude' is a Anthropic, which blocks: give .* anthropic.AsyncAnthropic"):
        ModelClient("claude", anthropic.Anthropic(api_key=KEY))


async def test_a_handler_sees_neither_the_key_nor_the_client(client: Any, steps: FakeSteps) -> None:
    """Nothing but the durable call, and what is harmless, is on it."""
    proxy = models(client, steps, name="anthropic")
    harmless = ["base_url", "copy", "max_retries", "timeout", "with_options"]
    assert (dir(proxy), dir(proxy.messages), repr(proxy)) == (sorted([*harmless, "messages"]), ["create"], "<client 'anthropic'>")
    assert not [name for name in ("api_key", "_client", "auth_token", "post") if getattr(proxy, name, None)]
    with pytest.raises(AttributeError, match=r"'messages\.stream' of client 'anthropic'.*only messages.create is a durable step"):
        _ = proxy.messages.stream


# ---------------------------------------------------------------- streamed answers


async def take(stream: ModelStream, events: list[Any], server: ModelServer | None = None) -> None:
    """All events; what the server holds back until something was taken comes then."""
    async with stream:
        async for event in stream:
            events.append(event)
            if server is not None:
                server.released.set()


async def test_a_stream_gives_events_of_the_sdk_and_the_whole(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """One step, charged by the totals that are reported at the end; replay gives the same without a request."""
    end = {name: value for name, value in CACHED.items() if name != "input_tokens"}
    begin = {**CACHED, "output_tokens": 1, "output_tokens_details": None}
    server.script.append(Says(events=message_events(text_deltas("on its way"), begin=begin, end=end)))
    live: list[Any] = []
    stream = await create(client, steps, stream=True)
    await take(stream, live)
    assert [type(event).__name__ for event in live] == [
        "RawMessageStartEvent",
        "RawContentBlockStartEvent",
        *["RawContentBlockDeltaEvent"] * 3,
        "RawContentBlockStopEvent",
        "RawMessageDeltaEvent",
        "RawMessageStopEvent",
    ]
    assert isinstance(live[2].delta, anthropic.types.TextDelta)
    whole = await stream.final()
    assert isinstance(whole, anthropic.types.Message)
    assert (whole.content[0].text, whole.stop_reason, stream.message) == ("on its way ", "end_turn", whole)  # type: ignore[union-attr]
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (1_000, 500)
    assert steps.used == [Usage(1, 7_500, round(CACHED_USD))]
    again = await replayed(client, steps, stream=True)
    events: list[Any] = []
    await take(again, events)
    assert (events, await again.final()) == (live, whole)


async def test_thoughts_and_tool_input_are_put_together(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """From their fragments, as the SDK's own helper does; nobody has to take the events for that."""
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", '{"order": "o', '-1", "cents": 5}')]
    tool = {"type": "tool_use", "id": "t-1", "name": "refund", "input": {}}
    thoughts = [{"type": "thinking_delta", "thinking": "Hm"}, {"type": "thinking_delta", "thinking": "."}]
    events = message_events(deltas, block=tool, stop_reason="tool_use")
    thinking = message_events(
        [*thoughts, {"type": "signature_delta", "signature": "sig"}], block={"type": "thinking", "thinking": "", "signature": ""}
    )
    for event in events:
        if "index" in event:
            event["index"] = 1
    server.script.append(Says(events=[*thinking[:-2], *events[1:]]))
    whole = await (await create(client, steps, stream=True)).final()
    assert [block.type for block in whole.content] == ["thinking", "tool_use"]
    assert (whole.content[0].thinking, whole.content[0].signature) == ("Hm.", "sig")
    assert whole.content[1].input == {"order": "o-1", "cents": 5}


async def test_a_part_of_a_tools_input_is_not_taken_for_the_whole(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Cut at the limit of its length it is no object, so that no tool takes it."""
    tool = {"type": "tool_use", "id": "t-1", "name": "refund", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": '{"cents": 5'}]
    server.script.append(Says(events=message_events(deltas, block=tool, stop_reason="max_tokens")))
    whole = await (await create(client, steps, stream=True)).final()
    assert whole.content[0].input == '{"cents": 5'


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_breaks_is_asked_for_again_unless_something_was_taken(
    kind: Any, mock: LLMockServer, mocked: Any, steps: FakeSteps
) -> None:
    """Nothing of the first attempt is in the answer, and it is charged by estimate."""
    mock.state.scenarios.add(StreamFault(kind, after_chunks=5), Reply(text="one two three four"), Reply(text="five six"))
    stream = await create(mocked, steps, stream=True)
    assert (await stream.final()).content[0].text == "five six"
    assert len(steps.faults) == 1
    assert 0 < steps.used[0].tokens < steps.calls[0].most.tokens


@pytest.mark.parametrize("end", ["whole", "disconnected", "garbled"])
async def test_a_stream_without_its_last_event_is_a_failure(end: Any, server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """All text may be there; without a reason to stop and without `message_stop` it is not whole. Charged by what was reported."""
    server.script.append(Says(events=message_events(text_deltas("on its way"), begin=CACHED)[:-2], end=end, held=0))
    events: list[Any] = []
    with pytest.raises(StepError) as caught:
        await take(await create(client, steps, stream=True), events, server)
    assert (caught.value.category, len(events), steps.used) == ("transient", 6, [Usage(1, 7_500, round(CACHED_USD))])


@pytest.mark.parametrize("end", ["whole", "disconnected", "garbled"])
async def test_a_stream_with_a_reason_to_stop_is_whole(end: Any, server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """Some gateways leave `message_stop` out (esengine/DeepSeek-Reasonix#8756): the answer is there, and paid."""
    server.script.append(Says(events=message_events(text_deltas("on its way"), end=CACHED)[:-1], end=end))
    whole = await (await create(client, steps, stream=True)).final()
    assert (whole.content[0].text, whole.stop_reason, steps.faults) == ("on its way ", "end_turn", [])


@pytest.mark.parametrize(
    ("type_", "category"),
    [("overloaded_error", "transient"), ("invalid_request_error", "semantic"), ("authentication_error", "permanent"), ("new", "transient")],
)
async def test_an_error_event_is_judged_like_the_http_error(
    type_: str, category: str, server: ModelServer, client: Any, steps: FakeSteps
) -> None:
    """What had come before it is charged; had nothing come, it is as free as a refused request."""
    error = {"type": "error", "error": {"type": type_, "message": "Sorry."}}
    server.script += [Says(events=[*message_events(text_deltas("one two"))[:4], error], held=1)]
    events: list[Any] = []
    with pytest.raises(StepError, match=r"^step .*Sorry\.") as caught:
        await take(await create(client, steps, stream=True), events, server)
    assert (caught.value.category, len(events)) == (category, 4)
    assert 0 < steps.used[0].tokens < 100
    server.script += [Says(events=[message_events([])[0], error]), Says(events=message_events(text_deltas("fine")))]
    steps.used.clear()
    stream = await create(client, steps, stream=True, max_tokens=99)
    if category == "transient":
        assert (await stream.final()).content[0].text == "fine "
    else:
        with pytest.raises(StepError, match="Sorry"):
            await stream.final()
    assert steps.used[0] == Usage(steps=1)


async def test_leaving_early_is_charged_by_what_was_reported_and_by_estimate(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """The prompt is known from the first event, the answer from its text; replay ends where it was left."""
    begin = {**CACHED, "output_tokens": 1}
    server.script.append(Says(events=message_events(text_deltas("one two three"), begin=begin)[:5], end="stalled"))
    with anyio.fail_after(5):
        async with await create(client, steps, stream=True) as stream:
            live = [await anext(stream) for _ in range(4)]
    assert stream.cut
    assert 7_000 < steps.total.tokens < 7_020
    facts = steps.calls[0].facts
    assert facts is not None
    (record,) = steps.records.values()
    assert facts(steps.calls[0].codec.decode(record))["input_tokens"] == 7_000
    again = await replayed(client, steps, stream=True)
    assert [await anext(again) for _ in range(4)] == live
    with pytest.raises(StepError, match="StreamCut"):
        await anext(again)


@pytest.mark.parametrize("end", ["stalled", "disconnected", "garbled"])
async def test_a_stream_is_whole_with_its_last_event(
    end: Any, monkeypatch: pytest.MonkeyPatch, server: ModelServer, client: Any, steps: FakeSteps
) -> None:
    """Whatever becomes of the connection then: the answer is there, and paid."""
    monkeypatch.setattr("holdfast.calls.models.streams.USAGE_GRACE_S", 0.05)
    server.script.append(Says(events=message_events(text_deltas("one two"), end=CACHED), end=end))
    with anyio.fail_after(5):
        async with await create(client, steps, stream=True) as stream:
            events = [event async for event in stream]
    assert (stream.cut, len(events), (await stream.final()).content[0].text) == (False, 7, "one two ")
    assert (steps.faults, [used.tokens for used in steps.used]) == ([], [7_500])


async def test_leaving_after_the_reason_to_stop_is_not_leaving_early(server: ModelServer, client: Any, steps: FakeSteps) -> None:
    """A loop that breaks there still keeps the whole."""
    server.script.append(Says(events=message_events(text_deltas("one two"), end=CACHED)))
    async with await create(client, steps, stream=True) as stream:
        async for event in stream:
            if event.type == "message_delta":
                break
    assert not stream.cut
    assert (await stream.final()).content[0].text == "one two "
    assert steps.total.tokens == 7_500
