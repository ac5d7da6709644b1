"""What answers of providers tell, whatever is in them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.calls.models.anthropic_messages import AnthropicMessages
from holdfast.calls.models.dialect import Dialect, Fields, Tokens, text_size
from holdfast.calls.models.facts import facts_of
from holdfast.calls.models.metering import MOST, Contexts, Meter, estimate_prompt
from holdfast.calls.models.openai_chat import OpenAIChat
from holdfast.calls.models.openai_responses import OpenAIResponses
from holdfast.calls.models.prices import Prices
from holdfast.calls.models.replies import EmptyReply, ReportedError, UnreadableReply, reported
from holdfast.codec import canonical, codec_for
from holdfast.policies.budget import Usage

CHAT, RESPONSES, MESSAGES = OpenAIChat(), OpenAIResponses(), AnthropicMessages()
EACH = pytest.mark.parametrize("dialect", [CHAT, RESPONSES, MESSAGES], ids=lambda each: each.path)

NAMES = """
    choices message delta content tool_calls function arguments function_call index finish_reason logprobs usage prompt_tokens
    completion_tokens total_tokens prompt_tokens_details cached_tokens input_tokens output_tokens input_tokens_details response
    output item status error code type text refusal id model incomplete_details reason content_block partial_json stop_reason
    cache_read_input_tokens cache_creation server_tool_use tool_usage web_search
"""
VALUES = """
    message text tool_use output_text response.completed response.failed response.output_item.done message_start
    content_block_start content_block_delta message_delta message_stop text_delta input_json_delta thinking_delta citations_delta
    error failed end_turn
"""
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(VALUES.split()) | st.text(max_size=5)
ODD: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=6), max_leaves=25
)
ANSWERS = st.dictionaries(st.sampled_from(NAMES.split()), ODD, max_size=8)


@EACH
@settings(max_examples=25)
@given(reply=ANSWERS)
def test_no_answer_is_too_odd_to_be_charged_and_told_about(dialect: Dialect, reply: Fields) -> None:
    """It is paid: at worst it is called empty, and its facts are those of the request."""
    facts = facts_of(dialect, "my-model", reply)
    assert facts["provider"] == dialect.provider
    assert facts["model"] == "my-model"
    assert all(facts.get(name, 0) in range(1 << 53) for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"))
    usage = meter().of_reply(dialect, reply)
    assert usage.steps == 1
    if dialect.tokens(reply) is None:
        assert usage.tokens >= 10, "the estimate has the prompt, also where the answer tells nothing"
        assert usage.microusd > 0
    else:
        assert usage.tokens == min(facts["input_tokens"] + facts["output_tokens"], MOST)
    assert usage.microusd in range(MOST + 1)
    with suppress(EmptyReply, ReportedError, UnreadableReply):
        dialect.check(reply, {})


@EACH
@settings(max_examples=25)
@given(reply=ANSWERS)
def test_a_handler_can_read_every_answer(dialect: Dialect, reply: Fields) -> None:
    """The parts that a loop over tools reads are there, of the type that the SDK promises; an answer is mended only once."""
    mended = dialect.mended(reply)
    assert dialect.mended(mended) == mended
    for choice in mended.get("choices", []) if dialect is CHAT else []:
        assert "content" in choice["message"]
        for call in choice["message"].get("tool_calls") or []:
            assert call["id"]
            assert call["type"] != "function" or isinstance(call["function"]["arguments"], str)
    for part in mended["output"] if dialect is RESPONSES else mended["content"] if dialect is MESSAGES else []:
        assert isinstance(part["type"], str)
        assert part["type"] not in ("tool_use", "function_call") or part.get("id") or part.get("call_id")


@EACH
@settings(max_examples=25)
@given(chunks=st.lists(ANSWERS, max_size=4))
def test_no_stream_is_too_odd_to_be_put_together(dialect: Dialect, chunks: list[Fields]) -> None:
    """Its text is counted once, the same chunks give the same answer on replay, and the answer tells which model it is charged for."""
    before = repr(chunks)
    whole = dialect.assemble(chunks)
    assert repr(dialect.assemble(chunks)) == repr(whole)
    assert repr(chunks) == before
    assert facts_of(dialect, "my-model", whole)["model"] == "my-model"
    assert dialect.heard(chunks) in range(text_size(chunks) + 1)
    assert dialect.text_bytes(whole) in range(text_size(whole) + 1)
    ending = dialect.ending({})
    for chunk in chunks:
        for part in dialect.chunks(chunk):
            ending.add(part)
        error = dialect.error(chunk)
        assert error is None or reported(error).status_code >= 400


def meter(model: str = "gpt-4o-mini", most: Tokens = Tokens()) -> Meter:  # noqa: B008 # it is frozen
    return Meter(Prices(), model, None, Contexts(), prompt=10, worst=most)


@pytest.mark.parametrize(
    ("dialect", "reply", "tokens"),
    [
        (
            CHAT,
            {
                "usage": {
                    "prompt_tokens": 100,
                    "completion_tokens": 50,
                    "total_tokens": 150,
                    "prompt_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 5},
                    "completion_tokens_details": {"reasoning_tokens": 30},
                }
            },
            Tokens(100, 50, cached=80, written=5, reasoning=30),
        ),
        # As xAI and Gemini count: reasoning is in the total alone.
        (CHAT, {"usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 250}}, Tokens(100, 150)),
        (CHAT, {"usage": {"prompt_tokens": None}}, None),
        (RESPONSES, {"usage": {"input_tokens": 7, "output_tokens": 3}}, Tokens(7, 3)),
        (RESPONSES, {"usage": {"input_tokens": 7}, "tool_usage": {"web_search": {"num_requests": 2}}}, Tokens(7, 0, searches=2)),
        (
            RESPONSES,
            {"usage": {"input_tokens": 7}, "output": [{"type": "file_search_call"}, {"type": "message"}, {"type": "file_search_call"}]},
            Tokens(7, 0, file_searches=2),
        ),
        (RESPONSES, {"usage": None, "status": "completed"}, None),
        (RESPONSES, {"usage": None, "status": "failed"}, Tokens()),
        (MESSAGES, {"usage": {"input_tokens": 7, "cache_read_input_tokens": None, "output_tokens": 3}}, Tokens(7, 3)),
        (MESSAGES, {"usage": {"input_tokens": 7, "cache_read_input_tokens": 20, "output_tokens": 3}}, Tokens(27, 3, cached=20)),
        (
            MESSAGES,
            {"usage": {"cache_creation_input_tokens": 20, "cache_creation": {"ephemeral_1h_input_tokens": 15}, "output_tokens": 3}},
            Tokens(20, 3, written=20, written_1h=15),
        ),
    ],
)
def test_usage_is_read_as_the_provider_means_it(dialect: Dialect, reply: Fields, tokens: Tokens | None) -> None:
    """What is part of what differs between them."""
    assert dialect.tokens(reply) == tokens


@pytest.mark.parametrize(
    ("dialect", "reply", "status", "code", "message"),
    [
        (CHAT, {"error": {"message": "boom", "type": "server_error", "code": None}}, 500, "server_error", "boom"),
        (CHAT, {"error": {"message": "slow down", "code": 429}, "choices": []}, 429, "429", "slow down"),
        (CHAT, {"error": "out of memory"}, 500, "", "out of memory"),
        (CHAT, {"error": {"message": "too long", "code": "context_length_exceeded"}}, 400, "context_length_exceeded", "too long"),
        (RESPONSES, {"error": {"message": "none left", "code": "insufficient_quota"}}, 429, "insufficient_quota", "none left"),
        (RESPONSES, {"error": {"message": "boom", "type": "server_error"}, "status": "completed"}, 500, "server_error", "boom"),
        (MESSAGES, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, 529, "overloaded_error", "busy"),
        (MESSAGES, {"error": {"message": "boom", "code": 401}}, 401, "401", "boom"),
        (MESSAGES, {"type": "error"}, 500, "", "the provider reported an error"),
    ],
)
def test_an_error_in_an_answers_place_is_told_as_it_is_and_costs_nothing(
    dialect: Dialect, reply: Fields, status: int, code: str, message: str
) -> None:
    """Proxies send it with status 200: it is no empty answer, which would be asked for again and charged."""
    with pytest.raises(ReportedError) as caught:
        dialect.check(reply, {})
    assert (caught.value.status_code, caught.value.code, str(caught.value)) == (status, code, message)
    assert meter().of_reply(dialect, reply) == Usage(steps=1)


def test_an_error_in_a_choices_place_is_told_and_charged_by_estimate() -> None:
    """Such a model had begun."""
    reply = {"choices": [{"error": {"code": 502, "message": "cut"}, "message": {"content": ""}, "finish_reason": "error"}]}
    with pytest.raises(ReportedError, match="cut") as caught:
        CHAT.check(reply, {})
    assert caught.value.status_code == 502
    assert meter().of_reply(CHAT, reply).tokens >= 10


@pytest.mark.parametrize(
    ("dialect", "reply"),
    [
        (CHAT, {"error": {"message": "odd"}, "choices": [{"message": {"content": "Here."}}]}),
        (RESPONSES, {"error": {"message": "odd"}, "output": [{"type": "function_call"}], "status": "completed"}),
        (MESSAGES, {"error": {"message": "odd"}, "content": [{"type": "text", "text": "Here."}]}),
    ],
)
def test_an_error_beside_an_answer_does_not_take_it_away(dialect: Dialect, reply: Fields) -> None:
    """The answer is paid."""
    dialect.check(reply, {})


def test_an_answer_without_usage_is_estimated_from_its_text() -> None:
    """Half its bytes, beside the prompt."""
    reply = {"content": [{"type": "text", "text": "x" * 100}], "usage": None}
    assert meter().of_reply(MESSAGES, reply).tokens == 10 + 52


def test_the_dearest_way_to_be_billed_is_reserved() -> None:
    """A provider that writes to its cache unasked charges for it where the price list says so."""
    worst = CHAT.worst(b"", 1_000_000, 0)
    assert meter("gpt-5.6", worst).most_microusd == 5_000_000 * 2  # a prompt of more than 272,000 tokens costs twice as much
    assert meter("gpt-4o-mini", worst).most == Usage(1, 1_000_000, 150_000)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}},
        {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}},
    ],
)
def test_an_image_counts_the_same_in_every_api(part: Fields) -> None:
    """By a flat figure, not by its bytes."""
    assert 2_000 < estimate_prompt(canonical({"messages": [{"role": "user", "content": [part]}]})) < 2_100


def said(part: Fields) -> Fields:
    return {"messages": [{"role": "user", "content": "Read this."}, {"role": "user", "content": [part]}]}


def asked(item: Fields) -> Fields:
    return {"input": [{"role": "user", "content": "Read this."}, item]}


@pytest.mark.parametrize(
    ("dialect", "request_", "elsewhere"),
    [
        (CHAT, {}, None),
        (RESPONSES, {"tools": [{"type": "function"}]}, None),
        (RESPONSES, {"previous_response_id": "r-1"}, "r-1"),
        (RESPONSES, {"previous_response_id": "r-1", "tools": [{"type": "file_search"}]}, ""),
        (RESPONSES, {"conversation": "c-1"}, ""),
        (RESPONSES, {"prompt": {"id": "p-1"}}, ""),
        (MESSAGES, {"tools": [{"name": "find"}, {"type": "custom"}, {"type": "bash_20250124"}]}, None),
        (MESSAGES, {"tools": [{"type": "web_fetch_20250910"}]}, ""),
        (MESSAGES, {"container": "c-1"}, ""),
        (CHAT, said({"type": "file", "file": {"file_id": "f-1"}}), ""),
        (CHAT, said({"type": "file", "file": {"file_data": "https://example.com/a.pdf"}}), ""),
        (CHAT, said({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}), ""),
        (CHAT, said({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}), None),
        (CHAT, said({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}), None),
        (CHAT, said({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}), None),
        (RESPONSES, asked({"role": "user", "content": [{"type": "input_file", "file_id": "f-1"}]}), ""),
        (RESPONSES, asked({"role": "user", "content": [{"type": "input_file", "file_url": "https://example.com/a.pdf"}]}), ""),
        (RESPONSES, asked({"type": "function_call_output", "output": [{"type": "input_file", "file_id": "f-1"}]}), ""),
        (RESPONSES, asked({"type": "item_reference", "id": "i-1"}), ""),
        (RESPONSES, {**asked({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}), "previous_response_id": "r-1"}, ""),
        (RESPONSES, asked({"role": "user", "content": [{"type": "input_file", "file_data": "AAAA"}]}), None),
        (RESPONSES, asked({"role": "user", "content": [{"type": "input_image", "file_id": "f-1"}]}), None),
        (MESSAGES, said({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}), ""),
        (MESSAGES, said({"type": "document", "source": {"type": "file", "file_id": "f-1"}}), ""),
        (MESSAGES, said({"type": "tool_result", "content": [{"type": "document", "source": {"type": "file", "file_id": "f-1"}}]}), ""),
        (MESSAGES, said({"type": "document", "source": {"type": "base64", "data": "AAAA"}}), None),
        (MESSAGES, said({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}), None),
    ],
)
def test_what_is_not_in_the_request_is_noticed(dialect: Dialect, request_: Fields, elsewhere: str | None) -> None:
    """What the provider keeps, finds or fetches is part of what a call can cost; an image counts the same wherever it is."""
    assert dialect.asked(request_).elsewhere == elsewhere


@pytest.mark.parametrize(
    ("dialect", "request_", "uses"),
    [
        (MESSAGES, {"tools": [{"name": "find"}, {"type": "web_fetch_20250910"}]}, {}),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "max_uses": 3}]}, {"web_search": 3}),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "max_uses": 3}, {"type": "web_search_20260209"}]}, {"web_search": None}),
        (MESSAGES, {"tools": [{"type": "code_execution_20250825"}]}, {"code_execution": None}),
        (RESPONSES, {"tools": [{"type": "function"}, {"type": "mcp"}, {"type": "shell"}], "max_tool_calls": 3}, {}),
        (RESPONSES, {"tools": [{"type": "web_search_preview"}]}, {"web_search": None}),
        (
            RESPONSES,
            {"tools": [{"type": "web_search"}, {"type": "file_search"}], "max_tool_calls": 3},
            {"web_search": 3, "file_search": 3},
        ),
        (RESPONSES, {"tools": [{"type": "code_interpreter"}]}, {"code_interpreter": None}),
        (RESPONSES, {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}, {"shell": None}),
        (CHAT, {"model": "gpt-4o-mini"}, {}),
        (CHAT, {"model": "gpt-4o-mini", "web_search_options": {}}, {"web search": None}),
        (CHAT, {"model": "gpt-4o-search-preview"}, {"web search": None}),
    ],
)
def test_what_costs_by_use_is_noticed_with_its_limit(dialect: Dialect, request_: Fields, uses: dict[str, int | None]) -> None:
    """Of the provider's own tools; those that cost no more than their tokens are none."""
    assert dialect.asked(request_).uses == uses


@EACH
def test_absurd_counts_are_charged_as_far_as_they_can_be_recorded(dialect: Dialect) -> None:
    """What is paid is not lost for them, and the sums of thousands of such fit into 64 bits."""
    absurd = (1 << 53) - 1
    usage = dict.fromkeys(("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "cache_read_input_tokens"), absurd)
    searches = {"server_tool_use": {"web_search_requests": absurd}}
    reply = {"usage": {**usage, **searches}, "tool_usage": {"web_search": {"num_requests": absurd}}}
    cost = meter().of_reply(dialect, reply)
    assert codec_for(Usage).round_trip(cost)[1] == cost
    assert 1 << 49 < cost.tokens < 1 << 51
    assert 1 << 40 < cost.microusd < 1 << 51
    assert meter("gpt-4o-mini", Tokens(absurd, absurd * absurd)).most.tokens < 1 << 51


def test_only_the_latest_contexts_are_remembered() -> None:
    """A client lives for weeks."""
    contexts = Contexts()
    for number in range(Contexts.MOST + 1):
        contexts.note(str(number), number)
    assert (contexts.get("0"), contexts.get("1"), contexts.get(str(Contexts.MOST))) == (None, 1, Contexts.MOST)
