"""What a handler gets of odd answers, how many requests are paid, and what the breaker counts: with the real SDKs, streamed and whole."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from holdfast import Retry, Runtime, Session, StepError, agent
from holdfast.calls import ModelClient
from tests.integration.fake_steps import FakeSteps, models
from tests.integration.quirks import chat, messages, responses
from tests.integration.quirks.chat_shapes import HELLO
from tests.integration.quirks.play import Fails, Gets, PlayServer, Quirk, playing

KEY = "sk-very-secret"
QUICK = Retry(base_s=0.001, max_s=0.002)
APIS = {"chat": chat, "responses": responses, "messages": messages}
ROWS = [
    pytest.param(api, quirk, streamed, id=f"{name}, {'streamed' if streamed else 'whole'}: {quirk.name}")
    for name, api in APIS.items()
    for quirk in api.QUIRKS
    for streamed in (True, False)
    if (quirk.streamed if streamed else quirk.whole)
]


@pytest.mark.parametrize(("api", "quirk", "streamed"), ROWS)
async def test_an_odd_answer(api: Any, quirk: Quirk, streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its row says."""
    monkeypatch.setattr("holdfast.calls.models.streams.USAGE_GRACE_S", 0.05)
    monkeypatch.setattr("holdfast.calls.models.streams.LIKELY_S", 0.1)
    async with playing(quirk.streamed if streamed else quirk.whole) as server:
        got, tokens, counted = await asked(api, quirk, streamed, server)
    assert got == ({"fails": quirk.gets.kind} if isinstance(quirk.gets, Fails) else as_data(quirk.gets))
    assert server.paid == quirk.paid
    assert counted == quirk.counted
    assert tokens == quirk.tokens if quirk.tokens is not None else tokens > 0


async def asked(api: Any, quirk: Quirk, streamed: bool, server: PlayServer) -> tuple[Any, int, str]:
    sdk: Any = anthropic.AsyncAnthropic if api is messages else openai.AsyncOpenAI

    @agent(name="asker")
    async def asker(session: Session[Any], question: str) -> Any:
        create, request = api.request(session.clients.model, quirk.after_tool)
        try:
            if not streamed:
                return as_data(api.gets(await create(**request)))
            async with await create(**request, stream=True) as stream:
                # The end first: an attempt of which the handler took no chunk is made again.
                whole = await stream.final()
                assert [chunk async for chunk in stream]
            return as_data(api.gets(whole))
        except StepError as error:
            return {"fails": error.kind}

    async with sdk(base_url=server.base_url, api_key=KEY) as client:
        provider = ModelClient("model", client, retry=QUICK)
        async with Runtime("memory:", agents=[asker], clients={"model": provider}) as runtime:
            session = await runtime.spawn(asker, id="s")
            got = await session.ask("hello", timeout_s=20)
            view = runtime.breakers().get("model")
            return got, (await session.row()).usage.tokens, "" if view is None else view.error.partition(":")[0]


class Piece(httpx2.AsyncByteStream):
    """A body of one piece."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data


async def test_a_compressed_stream_that_does_not_decode_is_a_broken_connection() -> None:
    """As with the SDK's own reader: another attempt follows."""
    steps = FakeSteps()
    good = "".join(f"data: {json.dumps(event)}\n\n" for event in HELLO).encode()
    answers = [(b"no gzip", {"content-encoding": "gzip"}), (good, {})]

    def answer(_: httpx2.Request) -> httpx2.Response:
        data, headers = answers.pop(0)
        return httpx2.Response(200, stream=Piece(data), headers=headers)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        create, request = chat.request(models(openai.AsyncOpenAI(api_key=KEY, http_client=http), steps), False)
        stream = await create(**request, stream=True)
        assert (await stream.final()).choices[0].message.content == "hello"
    assert steps.faults == ["BrokenStream"]


def as_data(gets: Gets) -> Any:
    return [gets.text, [[name, arguments] for name, arguments in gets.calls], gets.reason, gets.thinks]


def test_the_quirks_are_those_of_public_issues() -> None:
    """Each with its repository and number, but for shapes of our own, which have none; no name stands for two."""
    quirks = [quirk for api in APIS.values() for quirk in api.QUIRKS]
    assert len({quirk.name for quirk in quirks}) == len(quirks)
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+|", quirk.source) for quirk in quirks)
    assert sum(bool(quirk.source) for quirk in quirks) >= 120
