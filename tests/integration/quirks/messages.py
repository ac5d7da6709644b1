"""Quirks of Anthropic's messages, also of gateways and servers that speak them."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.model_server import message
from tests.integration.quirks.play import Body, Event, Fails, Gets, Quirk, Stream

Fields = dict[str, Any]
USAGE = {"input_tokens": 5, "output_tokens": 2}
TEXT: Fields = {"type": "text", "text": "hello"}
ROME = json.dumps({"city": "Rome"})
CALL: Fields = {"type": "tool_use", "id": "a", "name": "get_weather", "input": {"city": "Rome"}}
OTHER: Fields = {**CALL, "id": "b", "input": {"city": "Paris"}}
ONE = Gets("", (("get_weather", {"city": "Rome"}),), "tool_use")
TWO = Gets("", (("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Paris"})), "tool_use")
HELLO = Gets(reason="end_turn")
SIGNED: Fields = {"type": "thinking", "thinking": "hm", "signature": "s"}
WORDS: Fields = {"type": "thinking", "thinking": "hello"}


def request(client: Any, after_tool: bool) -> tuple[Any, Fields]:
    """The call that a handler makes, and its arguments."""
    messages: list[Fields] = [{"role": "user", "content": "hello"}]
    if after_tool:
        result = {"type": "tool_result", "tool_use_id": "a", "content": "sunny"}
        messages += [{"role": "assistant", "content": [CALL]}, {"role": "user", "content": [result]}]
    return client.messages.create, {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": messages}


def gets(reply: Any) -> Gets:
    """What the handler reads in the answer."""
    blocks = [block if isinstance(block, dict) else block.model_dump() for block in reply.content or []]
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    assert len({call["id"] for call in calls}) == len(calls)
    text = "".join(block["text"] or "" for block in blocks if block.get("type") == "text")
    thinks = any(block.get("type") == "thinking" for block in blocks)
    return Gets(text, tuple((call["name"], call["input"]) for call in calls), reply.stop_reason, thinks)


def start(usage: Any = None, **more: Any) -> Event:
    """The first event."""
    return {"type": "message_start", "message": {**message(stop_reason=None), "usage": USAGE if usage is None else usage, **more}}


def begins(block: Fields, index: int | None = 0) -> Event:
    """The event of a block that begins; without an index if it is None."""
    return {"type": "content_block_start", **({} if index is None else {"index": index}), "content_block": block}


def delta(index: int | None = 0, **fields: Any) -> Event:
    """The event of a part of a block."""
    return {"type": "content_block_delta", **({} if index is None else {"index": index}), "delta": fields}


def words(*texts: str, index: int | None = 0) -> list[Event]:
    """The events of a block of text."""
    return [begins({"type": "text", "text": ""}, index), *(delta(index, type="text_delta", text=text) for text in texts)]


def makes(call: Fields, *parts: str, index: int | None = 0) -> list[Event]:
    """The events of a tool call whose input comes in parts."""
    return [begins({**call, "input": {}}, index), *(delta(index, type="input_json_delta", partial_json=part) for part in parts)]


def ended(reason: str | None = "end_turn", usage: Any = None) -> Fields:
    """The event with the reason to stop."""
    found = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}}
    return {**found, "usage": {"output_tokens": 2} if usage is None else usage}


STOP: Event = {"type": "message_stop"}
STOPPED: Event = {"type": "content_block_stop", "index": 0}


def stream(*events: Event, **more: Any) -> tuple[Stream, ...]:
    """A stream."""
    return (Stream([start(), *events], **{"done": False, "named": True, **more}),)


def body(*content: Fields, reason: str | None = "end_turn", usage: Any = None, **more: Any) -> tuple[Body, ...]:
    """A whole message."""
    return (Body({**message(*content, stop_reason=reason), "usage": USAGE if usage is None else usage, **more}),)


GOOD = stream(*words("hel", "lo"), STOPPED, ended(), STOP)
AGAIN = body(TEXT)
PARIS = json.dumps({"city": "Paris"})
CALLED = (ended("tool_use"), STOP)
OVERLOADED: Event = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}

QUIRKS = [
    Quirk("as Anthropic sends it", "", GOOD, AGAIN, gets=HELLO, tokens=7),
    # ------------------------------------------------------------ the end
    Quirk("a reason without message_stop", "esengine/DeepSeek-Reasonix#8756", stream(*words("hel", "lo"), ended()), gets=HELLO, tokens=7),
    Quirk(
        "a reason without message_stop, and pings for ever",
        "tombii/better-ccflare#307",
        stream(*words("hel", "lo"), ended(), {"type": "ping"}, end="open"),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "a reason, and the connection breaks",
        "esengine/DeepSeek-Reasonix#8756",
        stream(*words("hel", "lo"), ended(), end="cut"),
        gets=HELLO,
        tokens=7,
    ),
    Quirk("message_stop without a reason", "katanemo/plano#898", stream(*words("hel", "lo"), STOP), gets=Gets(reason=None), tokens=7),
    Quirk(
        "neither a reason nor message_stop",
        "tbphp/gpt-load#736",
        stream(*words("hel", "lo")),
        gets=Fails("broken"),
        paid=4,
        counted="BrokenStream",
    ),
    Quirk("[DONE] in place of message_stop", "", stream(*words("hel", "lo"), done=True), gets=Gets(reason=None), tokens=7),
    Quirk("two message_stops", "katanemo/plano#898", stream(*words("hel", "lo"), ended(), STOP, STOP), gets=HELLO, tokens=7),
    Quirk(
        "the connection stays open after message_stop",
        "earendil-works/pi#5592",
        stream(*words("hel", "lo"), ended(), STOP, end="open"),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "content after the reason (messages)",
        "",
        (*stream(*words("hel"), ended(), delta(type="text_delta", text="lo")), *GOOD),
        gets=HELLO,
        paid=2,
        counted="BrokenStream",
    ),
    Quirk(
        "the reason again and again, with content between",
        "",
        stream(*words("hel"), ended(), delta(type="text_delta", text="lo"), ended()),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "the connection breaks in the middle",
        "BerriAI/litellm#28474",
        stream(*words("hel"), end="cut"),
        gets=Fails("broken"),
        paid=4,
        counted="RemoteProtocolError",
    ),
    Quirk(
        "an error event in the middle: once",
        "",
        (*stream(*words("hel"), OVERLOADED), *GOOD),
        gets=HELLO,
        paid=2,
        counted="ReportedError",
    ),
    Quirk(
        "an error without its type",
        "mnfst/llm-gateway#2231",
        (Stream([{"error": {"message": "worker died", "code": 502}}], done=False),),
        gets=Fails("unavailable"),
        paid=4,
        counted="ReportedError",
        tokens=0,
    ),
    Quirk(
        "an error event that is no JSON",
        "",
        (Stream(["raw:event: error\ndata: worker died\n\n"], done=False),),
        gets=Fails("unavailable"),
        paid=4,
        counted="ReportedError",
        tokens=0,
    ),
    Quirk(
        "malformed_model_output: once",
        "",
        (*stream(*words("hel"), ended("malformed_model_output"), STOP), *GOOD),
        (*body(TEXT, reason="malformed_model_output"), *AGAIN),
        gets=HELLO,
        paid=2,
        counted="ReportedError",
    ),
    Quirk(
        "guardrail_intervened, with nothing else",
        "",
        stream(ended("guardrail_intervened"), STOP),
        body(reason="guardrail_intervened"),
        gets=Gets("", (), "guardrail_intervened"),
    ),
    Quirk(
        "refusal, with nothing else",
        "prism-php/prism#1003",
        stream(ended("refusal"), STOP),
        body(reason="refusal"),
        gets=Gets("", (), "refusal"),
    ),
    Quirk(
        "pause_turn, with nothing else",
        "strands-agents/harness-sdk#3568",
        stream(ended("pause_turn"), STOP),
        body(reason="pause_turn"),
        gets=Gets("", (), "pause_turn"),
    ),
    # ------------------------------------------------------------ blocks
    Quirk(
        "calls in parts",
        "",
        stream(*makes(CALL, ROME[:4], ROME[4:]), *CALLED),
        body(CALL, reason="tool_use"),
        gets=ONE,
        tokens=7,
    ),
    Quirk(
        "index 0 for each block",
        "anthropics/anthropic-sdk-typescript#879",
        stream(*makes(CALL, ROME), *makes(OTHER, PARIS), *CALLED),
        body(CALL, OTHER, reason="tool_use"),
        gets=TWO,
    ),
    Quirk(
        "index 0 for text and then for thinking",
        "ollama/ollama#17101",
        stream(*words("hello"), begins({"type": "thinking", "thinking": ""}), delta(type="thinking_delta", thinking="hm"), ended(), STOP),
        gets=Gets(reason="end_turn", thinks=True),
    ),
    Quirk(
        "indexes with gaps",
        "jundot/omlx#1353",
        stream(*words("hel", "lo"), *makes(CALL, ROME, index=2), *CALLED),
        gets=Gets("hello", ONE.calls, "tool_use"),
    ),
    Quirk("a block that ends twice", "BerriAI/litellm#37273", stream(*makes(CALL, ROME), STOPPED, STOPPED, *CALLED), gets=ONE),
    Quirk(
        "no index at all",
        "",
        stream(*makes(CALL, ROME, index=None), *makes(OTHER, PARIS, index=None), *CALLED),
        gets=TWO,
    ),
    Quirk("the input in the start of the block", "", stream(begins(CALL), *CALLED), gets=ONE),
    Quirk(
        "the same block begins twice",
        "",
        stream(*makes(CALL, ROME[:4]), *makes(CALL, ROME[4:]), *CALLED),
        gets=ONE,
    ),
    Quirk(
        "text without the start of its block",
        "katanemo/plano#898",
        stream(delta(type="text_delta", text="hello"), ended(), STOP),
        gets=HELLO,
    ),
    Quirk("an input that is a text (whole)", "openclaw/openclaw#40425", whole=body({**CALL, "input": ROME}, reason="tool_use"), gets=ONE),
    Quirk(
        "an input that is null",
        "",
        whole=body({**CALL, "input": None}, reason="tool_use"),
        gets=Gets("", (("get_weather", {}),), "tool_use"),
    ),
    Quirk(
        "no input at all", "anthropics/claude-code#67765", stream(*makes(CALL), *CALLED), gets=Gets("", (("get_weather", {}),), "tool_use")
    ),
    Quirk(
        "calls without ids (messages)",
        "iOfficeAI/aionrs#99",
        stream(*makes({**CALL, "id": None}, ROME), *makes({**OTHER, "id": None}, PARIS, index=1), *CALLED),
        body({**CALL, "id": None}, {**OTHER, "id": ""}, reason="tool_use"),
        gets=TWO,
    ),
    Quirk("content that is a text", "", whole=(Body({**message(), "content": "hello", "usage": USAGE}),), gets=HELLO),
    # ------------------------------------------------------------ events
    Quirk(
        "no name of the event (messages)",
        "earendil-works/pi#1983",
        (Stream([start(), *words("hel", "lo"), ended(), STOP], done=False),),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "events with a name and without data",
        "NousResearch/hermes-agent#35418",
        stream(*words("hel"), "raw:event: ping\n\n", delta(type="text_delta", text="lo"), ended(), STOP),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "named events that are no JSON",
        "anomalyco/opencode#43765",
        stream("raw:event: notice\ndata: soon\n\n", *words("hello"), ended(), STOP),
        gets=HELLO,
        tokens=7,
    ),
    # ------------------------------------------------------------ usage
    Quirk(
        "zeros in message_start",
        "vercel/ai#17326",
        (Stream([start({"input_tokens": 0, "output_tokens": 0}), *words("hello"), ended(usage=USAGE), STOP], done=False, named=True),),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "zeros in message_delta",
        "",
        stream(*words("hello"), ended(usage={"input_tokens": 0, "output_tokens": 2}), STOP),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "usage is null in message_delta",
        "Alex2772/kuni#64",
        (Stream([start(), *words("hello"), {**ended(), "usage": None}, STOP], done=False, named=True),),
        gets=HELLO,
        tokens=7,
    ),
    Quirk(
        "no usage (messages)",
        "Portkey-AI/gateway#257",
        (Stream([start({}), *words("hello"), ended(usage={}), STOP], done=False, named=True),),
        body(TEXT, usage={}),
        gets=HELLO,
    ),
    # ------------------------------------------------------------ thinking, and nothing
    Quirk("signed thinking alone", "LiveBench/LiveBench#425", whole=body(SIGNED), gets=Fails("empty_answer"), paid=3),
    Quirk(
        "thinking alone, without a signature",
        "NousResearch/hermes-agent#58148",
        stream(begins(WORDS), ended(), STOP),
        body(WORDS),
        gets=Gets("", (), "end_turn", thinks=True),
    ),
    Quirk(
        "thinking alone, cut by the limit",
        "LiveBench/LiveBench#425",
        stream(begins(SIGNED), ended("max_tokens"), STOP),
        body(SIGNED, reason="max_tokens"),
        gets=Gets("", (), "max_tokens", thinks=True),
    ),
    Quirk("no content", "agno-agi/agno#3491", stream(ended(), STOP), body(), gets=Fails("empty_answer"), paid=3),
    Quirk(
        "no content after a tool's result",
        "0xPlaygrounds/rig#1642",
        stream(ended(), STOP),
        body(),
        gets=Gets("", (), "end_turn"),
        after_tool=True,
    ),
    # ------------------------------------------------------------ bodies
    Quirk("a whole message in place of a stream", "", body(TEXT), gets=HELLO, tokens=7),
    Quirk("a call in a whole message in place of a stream", "", body(CALL, reason="tool_use"), gets=ONE, tokens=7),
    Quirk("a stream in place of a whole message", "BYK/loreai#605", whole=GOOD, gets=HELLO, tokens=7),
    Quirk(
        "a blank body (messages)",
        "gonka-ai/gonka#130",
        (Body("", kind="text/event-stream"),),
        (Body(""),),
        gets=Fails("empty_answer"),
        paid=3,
    ),
    Quirk(
        "half a body (messages)",
        "bolna-ai/bolna#464",
        whole=(Body(json.dumps(message(TEXT))[:80]), *AGAIN),
        gets=HELLO,
        paid=2,
        counted="BrokenReply",
    ),
]
