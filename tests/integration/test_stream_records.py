"""The record of a streamed answer, with the real SDKs: small, and replayed chunk by chunk as it came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from holdfast.errors import StepError
from tests.integration.fake_steps import FakeSteps, models
from tests.integration.model_server import (
    ModelServer,
    Says,
    calls_function,
    chat_chunks,
    message_events,
    model_server,
    response,
    response_events,
    response_usage,
    says_text,
    text_deltas,
)

WORDS = 2_000
TEXT = " ".join(f"word{number % 97}" for number in range(WORDS))
ASK = [{"role": "user", "content": "Tell me."}]
Events = list[dict[str, Any]]


def chat(text: str, odd: bool) -> Events:
    events = chat_chunks(text)
    for event in events:
        event |= {"system_fingerprint": "fp_0f03d4f0ee", "service_tier": "default", "obfuscation": "x" * 12}
    if odd:
        calls: list[Any] = [[{"index": 0, "id": "c0", "type": "function", "function": {"name": "find", "arguments": ""}}]]
        calls += [[{"index": index, "function": {"arguments": part}}] for part in ('{"a":', "1}") for index in (0, 1)]
        first = events[0]
        events[2:2] = [{**first, "choices": [{"index": 0, "delta": {"tool_calls": call}, "finish_reason": None}]} for call in calls]
        events.insert(1, {**first, "object": "chat.completion.notice", "choices": [{"index": 0, "delta": {"new": {"x": [1]}}}]})
    last = {**events[0], "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {**events[0], "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": WORDS, "total_tokens": WORDS + 5}}
    return [*events, last, usage]


def responses(text: str, odd: bool) -> Events:
    item = says_text("".join(f"{word} " for word in text.split()))
    events = response_events(text, response(item, *[calls_function("find", "{}")] * odd, usage=response_usage(5, WORDS)))
    place = {"item_id": "msg_1", "output_index": 0}
    events[-1:-1] = [
        {"type": "response.output_text.done", **place, "content_index": 0, "text": item["content"][0]["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "content_index": 0, "part": item["content"][0]},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    ]
    if odd:
        events.insert(3, {"type": "response.notice.delta", "what": {"x": [1, None, True]}})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def messages(text: str, odd: bool) -> Events:
    events = message_events(text_deltas(text), end={"output_tokens": WORDS})
    if odd:
        events.insert(3, {"type": "ping"})
        events.insert(5, {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta", "x": [1]}})
        block = {"type": "tool_use", "id": "t1", "name": "find", "input": {}}
        call: Events = [{"type": "content_block_start", "index": 1, "content_block": block}]
        call += [
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": part}}
            for part in ('{"a"', ":1}")
        ]
        events[-2:-2] = [*call, {"type": "content_block_stop", "index": 1}]
    return events


@dataclass(frozen=True)
class Api:
    name: str
    events: Callable[[str, bool], Events]

    async def stream(self, client: Any, steps: FakeSteps) -> Any:
        models_ = models(client, steps, name=self.name)
        if self.events is messages:
            return await models_.messages.create(model="claude-sonnet-4-6", messages=ASK, max_tokens=9_000, stream=True)
        if self.events is responses:
            return await models_.responses.create(model="gpt-4o-mini", input=ASK, stream=True)
        return await models_.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True, stream_options={"include_usage": True})


APIS = [Api("openai", chat), Api("openai", responses), Api("anthropic", messages)]


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as serving:
        yield serving


@pytest.fixture(params=APIS, ids=["chat", "responses", "messages"])
def api(request: pytest.FixtureRequest) -> Api:
    found: Api = request.param
    return found


@pytest.fixture
async def client(api: Api, server: ModelServer) -> AsyncIterator[Any]:
    kind: Any = anthropic.AsyncAnthropic if api.name == "anthropic" else openai.AsyncOpenAI
    async with kind(base_url=server.base_url, api_key="sk-very-secret") as client:
        yield client


async def test_a_record_takes_the_bytes_of_its_text(api: Api, client: Any, server: ModelServer) -> None:
    """And a few for each token, whatever the provider sends with each."""
    events = api.events(TEXT, False)
    server.script.append(Says(events=events))
    steps = FakeSteps()
    async with await api.stream(client, steps) as stream:
        live = [chunk async for chunk in stream]
        whole = await stream.final()
    (record,) = steps.records.values()
    assert len(live) == len(events)
    assert len(record) < len(TEXT) + 3 * WORDS + 2_500
    assert b"obfuscation" not in record
    assert "word1 word2 word3 " in record.decode(errors="replace"), "the answer in one piece, for people who read it"
    again = FakeSteps(steps.records)
    async with await api.stream(client, again) as stream:
        assert [chunk async for chunk in stream] == live
        assert await stream.final() == whole


@pytest.mark.parametrize("leave_after", [None, 4])
async def test_tool_calls_and_events_that_no_dialect_knows_are_replayed_in_their_order(
    api: Api, client: Any, server: ModelServer, leave_after: int | None
) -> None:
    """Also of a stream that is left early: the handler leaves it at the same chunk again."""
    events = api.events("one two three four five", True)
    server.script.append(Says(events=events) if leave_after is None else Says(events=events[:8], end="stalled"))
    steps = FakeSteps()

    async def consumed(stream: Any) -> tuple[list[Any], Any]:
        found: list[Any] = []
        async with stream:
            async for chunk in stream:
                found.append(chunk)
                if len(found) == leave_after:
                    break
        try:
            return found, await stream.final()
        except StepError as error:
            return found, error.message

    live = await consumed(await api.stream(client, steps))
    server.released.set()
    pings = sum(event.get("type") == "ping" for event in events)  # the SDK keeps these to itself
    assert len(live[0]) == (leave_after or len(events) - pings)
    assert await consumed(await api.stream(client, FakeSteps(steps.records))) == live


async def test_a_record_of_an_earlier_version_is_replayed(api: Api, client: Any, server: ModelServer) -> None:
    """It holds the chunks as they came."""
    server.script.append(Says(events=api.events("one two three", True)))
    steps = FakeSteps()
    stream = await api.stream(client, steps)
    whole = await stream.final()
    ((key, record),) = steps.records.items()
    fields = msgspec.msgpack.decode(record)
    assert not fields.get("chunks")
    chunks = [{name: value for name, value in event.items() if name != "obfuscation"} for event in api.events("one two three", True)]
    old = {"chunks": chunks, "cut": False, "tokens": None}
    again = FakeSteps({key: msgspec.msgpack.encode(old)})
    async with await api.stream(client, again) as stream:
        assert len([chunk async for chunk in stream]) == len(chunks)
        assert await stream.final() == whole
