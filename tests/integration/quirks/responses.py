"""Quirks of responses."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.model_server import calls_function, response, response_usage, says_text
from tests.integration.quirks.play import Body, Event, Fails, Gets, Quirk, Stream

Fields = dict[str, Any]
USAGE = response_usage(5, 2)
TEXT = says_text("hello")
ROME = json.dumps({"city": "Rome"})
PARIS = json.dumps({"city": "Paris"})
CALL = {**calls_function("get_weather", ROME), "id": "fc_1", "call_id": "a"}
OTHER = {**calls_function("get_weather", PARIS), "id": "fc_2", "call_id": "b"}
ONE = Gets("", (("get_weather", {"city": "Rome"}),), "completed")
TWO = Gets("", (("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Paris"})), "completed")
HELLO = Gets("hello", (), "completed")
THOUGHT: Fields = {"type": "reasoning", "id": "rs_1", "summary": []}
WORDS: Fields = {**THOUGHT, "content": [{"type": "reasoning_text", "text": "hello"}]}


def request(client: Any, after_tool: bool) -> tuple[Any, Fields]:
    """The call that a handler makes, and its arguments."""
    items: list[Fields] = [{"role": "user", "content": "hello"}]
    if after_tool:
        items += [{**CALL, "arguments": "{}"}, {"type": "function_call_output", "call_id": "a", "output": "sunny"}]
    return client.responses.create, {"model": "gpt-4o-mini", "input": items}


def gets(reply: Any) -> Gets:
    """What the handler reads in the answer."""
    items = [item if isinstance(item, dict) else item.model_dump() for item in reply.output or []]
    parts = [part for item in items if item.get("type") == "message" for part in item.get("content") or []]
    text = "".join(part.get("text") or part.get("refusal") or "" for part in parts)
    calls = [item for item in items if item.get("type") == "function_call"]
    assert len({call["call_id"] for call in calls}) == len(calls)
    thinks = any(item.get("content") or item.get("summary") for item in items if item.get("type") == "reasoning")
    return Gets(text, tuple((call["name"], json.loads(call["arguments"] or "{}")) for call in calls), reply.status, bool(thinks))


def done(*items: Fields, index: int | None = None) -> list[Event]:
    """The events of whole items; `index` is that of each of them."""
    return [
        {"type": "response.output_item.done", "output_index": n if index is None else index, "item": item} for n, item in enumerate(items)
    ]


def text(*deltas: str) -> list[Event]:
    """The events of the text of the first item."""
    place = {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0}
    return [{**place, "delta": delta} for delta in deltas]


def added(item: Fields, index: int) -> Event:
    """The event of an item that begins."""
    return {"type": "response.output_item.added", "output_index": index, "item": {**item, "arguments": ""}}


def arguments(index: int, delta: str) -> Event:
    """The event of a part of the arguments of a call."""
    return {"type": "response.function_call_arguments.delta", "item_id": f"fc_{index}", "output_index": index, "delta": delta}


def last(*items: Fields, status: str = "completed", usage: Any = USAGE, **more: Any) -> Event:
    """The last event."""
    return {"type": f"response.{status}", "response": response(*items, status=status, usage=usage, **more)}


CREATED: Event = {"type": "response.created", "response": response(status="in_progress")}


def stream(*events: Event, **more: Any) -> tuple[Stream, ...]:
    """A stream, without `[DONE]`."""
    return (Stream([CREATED, *events], **{"done": False, "named": True, **more}),)


def body(*items: Fields, usage: Any = USAGE, **more: Any) -> tuple[Body, ...]:
    """A whole response."""
    return (Body(response(*items, usage=usage, **more)),)


GOOD = stream(*text("hel", "lo"), *done(TEXT), last(TEXT))
AGAIN = body(TEXT)
FAILED = {"error": {"code": "server_error", "message": "sorry"}}

QUIRKS = [
    Quirk("as OpenAI sends it (responses)", "", GOOD, AGAIN, gets=HELLO, tokens=7),
    # ------------------------------------------------------------ the end
    Quirk(
        "no last event",
        "ollama/ollama#17118",
        stream(*text("hel", "lo"), *done(TEXT)),
        gets=Fails("broken"),
        paid=4,
        counted="BrokenStream",
    ),
    Quirk(
        "no last event, once",
        "ollama/ollama#17118",
        (*stream({"type": "response.reasoning_summary_text.delta", "delta": "hm"}), *GOOD),
        gets=HELLO,
        paid=2,
        counted="BrokenStream",
    ),
    Quirk(
        "no last event, but [DONE]",
        "",
        stream(*text("hel", "lo"), *done(TEXT), done=True),
        gets=Gets("hello", (), "in_progress"),
    ),
    Quirk("text only, then [DONE]", "", stream(*text("hel", "lo"), done=True), gets=Gets("hello", (), "in_progress")),
    Quirk(
        "response.done is the last event",
        "can1357/oh-my-pi#4692",
        stream(*text("hel", "lo"), {"type": "response.done", "response": response(TEXT, usage=USAGE)}),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "the connection stays open after the last event",
        "caidaoli/ccLoad#81",
        stream(*text("hel", "lo"), last(TEXT), end="open"),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "the connection breaks after the last event",
        "openai/openai-agents-python#4077",
        stream(*text("hel", "lo"), last(TEXT), end="cut"),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "the connection breaks before the last event",
        "BerriAI/litellm#28474",
        stream(*text("hel"), end="cut"),
        gets=Fails("broken"),
        paid=4,
        counted="RemoteProtocolError",
    ),
    Quirk(
        "incomplete at the limit",
        "openai/openai-python#2546",
        stream(last(THOUGHT, status="incomplete", incomplete_details={"reason": "max_output_tokens"})),
        body(THOUGHT, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        gets=Gets("", (), "incomplete"),
    ),
    Quirk(
        "incomplete by the filter",
        "mnfst/llm-gateway#2231",
        stream(*text("hel"), last(says_text("hel"), status="incomplete", incomplete_details={"reason": "content_filter"})),
        body(says_text("hel"), status="incomplete", incomplete_details={"reason": "content_filter"}),
        gets=Gets("hel", (), "incomplete"),
    ),
    Quirk(
        "failed",
        "BerriAI/litellm#29223",
        stream(*text("hel"), last(status="failed", usage=None, **FAILED)),
        gets=Fails("unavailable"),
        paid=4,
        counted="ReportedError",
    ),
    Quirk(
        "failed (whole)",
        "BerriAI/litellm#29223",
        whole=body(status="failed", usage=None, **FAILED),
        gets=Fails("unavailable"),
        paid=4,
        counted="ReportedError",
        tokens=0,
    ),
    Quirk(
        "failed, as the prompt is too long",
        "BerriAI/litellm#29223",
        stream(last(status="failed", usage=None, error={"code": "context_length_exceeded", "message": "too long"})),
        body(status="failed", usage=None, error={"code": "context_length_exceeded", "message": "too long"}),
        gets=Fails("request"),
        tokens=0,
    ),
    Quirk(
        "an error event",
        "",
        stream({"type": "error", "code": "server_error", "message": "sorry"}),
        gets=Fails("unavailable"),
        paid=4,
        counted="ReportedError",
        tokens=0,
    ),
    Quirk(
        "an error that is no event of the API",
        "mnfst/llm-gateway#2231",
        (Stream([{"error": {"message": "sorry", "code": 502}}]),),
        gets=Fails("unavailable"),
        paid=4,
        counted="ReportedError",
        tokens=0,
    ),
    # ------------------------------------------------------------ the output
    Quirk(
        "the last event has no output", "QuantumNous/new-api#4362", stream(*text("hel", "lo"), *done(TEXT), last()), gets=HELLO, tokens=7
    ),
    Quirk(
        "the last event has no output, and no item is done",
        "agentgateway/agentgateway#2281",
        stream(*text("hel", "lo"), last()),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "the output of the last event is null",
        "ENTERPILOT/GoModel#831",
        stream(*done(TEXT), {"type": "response.completed", "response": {**response(usage=USAGE), "output": None}}),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "the item that is done has no content",
        "agentgateway/agentgateway#2281",
        stream(*text("hel", "lo"), *done({**TEXT, "content": []}), last()),
        gets=HELLO,
        tokens=7,
    ),
    Quirk("calls in items only", "BerriAI/litellm#26075", stream(*done(CALL, OTHER), last()), gets=TWO, tokens=7),
    Quirk("index 0 for each item", "teabranch/open-responses-server#63", stream(*done(CALL, OTHER, index=0), last()), gets=TWO, tokens=7),
    Quirk(
        "parts of two calls in turn, without done items",
        "decolua/9router#2713",
        stream(
            added(CALL, 0),
            added(OTHER, 1),
            arguments(0, ROME[:5]),
            arguments(1, PARIS[:5]),
            arguments(0, ROME[5:]),
            arguments(1, PARIS[5:]),
            last(),
        ),
        gets=TWO,
        tokens=7,
    ),
    Quirk(
        "the arguments only in the event that they are done",
        "lidge-jun/opencodex#4652",
        stream(
            added(CALL, 0),
            {"type": "response.function_call_arguments.done", "item_id": "fc_0", "output_index": 0, "arguments": ROME},
            last(),
        ),
        gets=ONE,
        tokens=7,
    ),
    Quirk(
        "calls without call_id",
        "",
        stream(*done({**CALL, "call_id": None}), last({**CALL, "call_id": None})),
        body({**CALL, "call_id": None}),
        gets=ONE,
        tokens=7,
    ),
    Quirk(
        "calls without any id",
        "",
        whole=body(
            {"type": "function_call", "name": "get_weather", "arguments": ROME},
            {"type": "function_call", "name": "get_weather", "arguments": PARIS},
        ),
        gets=TWO,
    ),
    Quirk(
        "arguments that are an object (responses)",
        "",
        stream(last({**CALL, "arguments": {"city": "Rome"}})),
        body({**CALL, "arguments": {"city": "Rome"}}),
        gets=ONE,
    ),
    Quirk(
        "events that no client knows",
        "anomalyco/opencode#43765",
        stream({"type": "response.notice", "x": 1}, *text("hello"), {"type": "keepalive"}, last(TEXT)),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "no name of the event",
        "",
        (Stream([CREATED, *text("hel", "lo"), last(TEXT)], done=False),),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "the type only as the name of the event",
        "",
        (Stream([f"raw:event: response.completed\ndata: {json.dumps({'response': response(TEXT, usage=USAGE)})}\n\n"], done=False),),
        gets=HELLO,
        tokens=7,
    ),
    # ------------------------------------------------------------ usage
    Quirk(
        "usage is null in the last event",
        "vercel/ai#20102",
        stream(*text("hello"), last(TEXT, usage=None)),
        body(TEXT, usage=None),
        gets=HELLO,
    ),
    Quirk(
        "usage is null in the first events",
        "OpenRouterTeam/ai-sdk-provider#452",
        stream({"type": "response.in_progress", "response": response(status="in_progress", usage=None)}, *text("hello"), last(TEXT)),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "usage only in the first event",
        "",
        (Stream([{"type": "response.created", "response": response(usage=USAGE)}, *text("hello"), last(TEXT, usage=None)], done=False),),
        gets=HELLO,
        tokens=7,
    ),
    # ------------------------------------------------------------ reasoning, and nothing
    Quirk(
        "a reasoning item alone",
        "openai/openai-agents-python#1517",
        stream(last(THOUGHT)),
        body(THOUGHT),
        gets=Fails("empty_answer"),
        paid=3,
    ),
    Quirk(
        "a reasoning item alone, once",
        "openai/openai-agents-python#1517",
        (*stream(last(THOUGHT)), *GOOD),
        (*body(THOUGHT), *AGAIN),
        gets=HELLO,
        paid=2,
    ),
    Quirk(
        "a reasoning item alone, with the model's words",
        "PrimeIntellect-ai/verifiers#1767",
        stream(last(WORDS)),
        body(WORDS),
        gets=Gets("", (), "completed", thinks=True),
    ),
    Quirk("no output", "BerriAI/litellm#26075", stream(last()), body(), gets=Fails("empty_answer"), paid=3),
    Quirk("no output after a tool's result", "", stream(last()), body(), gets=Gets("", (), "completed"), after_tool=True),
    Quirk(
        "a refusal",
        "genkit-ai/genkit#6259",
        stream(last(says_text("no", "refusal"))),
        body(says_text("no", "refusal")),
        gets=Gets("no", (), "completed"),
    ),
    # ------------------------------------------------------------ bodies
    Quirk("a whole response in place of a stream", "lobehub/lobehub#9360", body(TEXT), gets=HELLO, tokens=7),
    Quirk(
        "a stream in place of a whole response",
        "BerriAI/litellm#34095",
        whole=stream(*text("hel", "lo"), *done(TEXT), last(TEXT), done=True),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "a blank body (responses)",
        "gonka-ai/gonka#130",
        (Body("", kind="text/event-stream"),),
        (Body(""),),
        gets=Fails("empty_answer"),
        paid=3,
    ),
    Quirk(
        "half a body (responses)",
        "bolna-ai/bolna#464",
        whole=(Body(json.dumps(response(TEXT))[:80]), *AGAIN),
        gets=HELLO,
        paid=2,
        counted="BrokenReply",
    ),
]
