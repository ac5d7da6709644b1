"""The tool calls of chat completions: their ids, indexes, names and arguments."""

from __future__ import annotations

from tests.integration.quirks.chat_shapes import BOTH, CALLED, PARIS, ROME, WEATHER, answer, call, chunk, fragment
from tests.integration.quirks.play import Body, Gets, Quirk, Stream

ONE = Gets("", (WEATHER,), "tool_calls")
TWO = Gets("", BOTH, "tool_calls")


def made(*calls: object, reason: str = "tool_calls") -> tuple[Body]:
    """A whole answer with these calls."""
    return (Body(answer(None, reason, message={"tool_calls": list(calls)})),)


def sent(*chunks: object) -> tuple[Stream]:
    """A stream of these fragments."""
    return (Stream([*chunks, CALLED]),)  # type: ignore[list-item] # they are chunks


CALLS = [
    Quirk(
        "in fragments",
        "vllm-project/vllm#18412",
        sent(fragment(0, "a", "get_weather"), fragment(0, arguments='{"city"'), fragment(0, arguments=': "Rome"}')),
        made(call("a", "get_weather", ROME)),
        gets=ONE,
    ),
    Quirk(
        "index 0 for each of several calls",
        "ollama/ollama#15457",
        sent(fragment(0, "a", "get_weather", ROME), fragment(0, "b", "get_weather", PARIS)),
        made(call("a", "get_weather", ROME, index=0), call("b", "get_weather", PARIS, index=0)),
        gets=TWO,
    ),
    Quirk(
        "index 0 for each of several calls, in fragments",
        "ai-dynamo/dynamo#4723",
        sent(
            fragment(0, "a", "get_weather", ""),
            fragment(0, arguments=ROME[:5]),
            fragment(0, arguments=ROME[5:]),
            fragment(0, "b", "get_weather", ""),
            fragment(0, arguments=PARIS[:5]),
            fragment(0, arguments=PARIS[5:]),
        ),
        gets=TWO,
    ),
    Quirk(
        "index 0 for each, with empty ids in the fragments that follow",
        "InternLM/lmdeploy#3412",
        sent(
            fragment(0, "a", "get_weather", ""),
            fragment(0, "", arguments=ROME),
            fragment(0, "b", "get_weather", ""),
            fragment(0, "", arguments=PARIS),
        ),
        gets=TWO,
    ),
    Quirk(
        "no index",
        "ollama/ollama#7881",
        sent(fragment(None, "a", "get_weather", ROME), fragment(None, "b", "get_weather", PARIS)),
        gets=TWO,
    ),
    Quirk(
        "no index, in fragments",
        "LibreChat-AI/agents#260",
        sent(fragment(None, "a", "get_weather", ROME[:5]), fragment(None, arguments=ROME[5:]), fragment(None, "b", "get_weather", PARIS)),
        gets=TWO,
    ),
    Quirk(
        "indexes that begin at 1",
        "BerriAI/litellm#11407",
        sent(fragment(1, "a", "get_weather", ROME), fragment(2, "b", "get_weather", PARIS)),
        gets=TWO,
    ),
    Quirk(
        "indexes far apart",
        "mcowger/plexus#694",
        sent(fragment(3, "a", "get_weather", ROME), fragment(700, "b", "get_weather", PARIS)),
        gets=TWO,
    ),
    Quirk(
        "an absurd index",
        "",
        sent(fragment(0, "a", "get_weather", ROME), fragment(1 << 40, "b", "get_weather", PARIS)),
        gets=TWO,
    ),
    Quirk(
        "an index below 0, and one that is a text",
        "",
        sent(fragment(-1, "a", "get_weather", ROME), fragment("1", "b", "get_weather", PARIS)),
        gets=TWO,
    ),
    Quirk(
        "fragments of two calls in turn",
        "decolua/9router#2713",
        sent(
            fragment(0, "a", "get_weather", ""),
            fragment(1, "b", "get_weather", ""),
            fragment(0, arguments=ROME[:5]),
            fragment(1, arguments=PARIS[:5]),
            fragment(0, arguments=ROME[5:]),
            fragment(1, arguments=PARIS[5:]),
        ),
        gets=TWO,
    ),
    Quirk(
        "the second call first",
        "",
        sent(fragment(1, "b", "get_weather", PARIS), fragment(0, "a", "get_weather", ROME)),
        gets=TWO,
    ),
    Quirk(
        "the id in each fragment",
        "SillyTavern/SillyTavern#5948",
        sent(fragment(0, "a", "get_weather", ""), fragment(0, "a", "get_weather", ROME[:5]), fragment(0, "a", "get_weather", ROME[5:])),
        gets=ONE,
    ),
    Quirk(
        "another id in each fragment, without a name",
        "poolsideai/pool#9",
        sent(fragment(0, "a", "get_weather", ""), fragment(0, "b", arguments=ROME[:5]), fragment(0, "b", arguments=ROME[5:])),
        gets=ONE,
    ),
    Quirk(
        "another id in each fragment, with the name",
        "vllm-project/vllm#23522",
        sent(
            fragment(0, "a", "get_weather", ROME[:3]), fragment(0, "b", "get_weather", ROME[3:6]), fragment(0, "c", "get_weather", ROME[6:])
        ),
        gets=ONE,
    ),
    Quirk(
        "no id", "vllm-project/vllm#18412", sent(fragment(0, None, "get_weather", ROME)), made(call(None, "get_weather", ROME)), gets=ONE
    ),
    Quirk(
        "no ids, in several calls with one index",
        "iOfficeAI/aionrs#99",
        sent(fragment(0, None, "get_weather", ROME), fragment(0, None, "get_weather", PARIS)),
        made(call(None, "get_weather", ROME), call(None, "get_weather", PARIS)),
        gets=TWO,
    ),
    Quirk(
        "an empty id",
        "lmstudio-ai/lmstudio-bug-tracker#830",
        sent(fragment(0, "", "get_weather", ROME)),
        made(call("", "get_weather", ROME)),
        gets=ONE,
    ),
    Quirk(
        "an id for the first call only",
        "sgl-project/sglang#7048",
        sent(fragment(0, "a", "get_weather", ROME), fragment(1, None, "get_weather", PARIS)),
        made(call("a", "get_weather", ROME), call(None, "get_weather", PARIS)),
        gets=TWO,
    ),
    Quirk(
        "the id after the name",
        "",
        sent(fragment(0, None, "get_weather"), fragment(0, "a", arguments=ROME)),
        gets=ONE,
    ),
    Quirk(
        "the name in each fragment",
        "NousResearch/hermes-agent#11984",
        sent(
            fragment(0, "a", "get_weather", ROME[:4]),
            fragment(0, None, "get_weather", ROME[4:8]),
            fragment(0, None, "get_weather", ROME[8:]),
        ),
        gets=ONE,
    ),
    Quirk(
        "the name in pieces",
        "openclaw/openclaw#130532",
        sent(fragment(0, "a", "get_"), fragment(0, None, "weather"), fragment(0, arguments=ROME)),
        gets=ONE,
    ),
    Quirk(
        "empty names in the fragments that follow",
        "anomalyco/opencode#37841",
        sent(fragment(0, "a", "get_weather", ROME[:4]), fragment(0, "", "", ROME[4:])),
        gets=ONE,
    ),
    Quirk(
        "an empty object before the arguments",
        "openai/openai-agents-js#712",
        sent(fragment(0, "a", "get_weather", "{}"), fragment(0, arguments=ROME)),
        gets=ONE,
    ),
    Quirk(
        "the arguments again, whole",
        "mudler/cogito#66",
        sent(fragment(0, "a", "get_weather", ROME), fragment(0, arguments=ROME)),
        gets=ONE,
    ),
    Quirk(
        "another object with the index of a call, without id and name",
        "open-webui/open-webui#22235",
        sent(fragment(0, "a", "get_weather", ROME), fragment(0, arguments=PARIS)),
        gets=TWO,
    ),
    Quirk(
        "arguments that are an object",
        "ggml-org/llama.cpp#20198",
        sent(fragment(0, "a", "get_weather", {"city": "Rome"})),
        made(call("a", "get_weather", {"city": "Rome"})),
        gets=ONE,
    ),
    Quirk(
        "arguments that are null",
        "vllm-project/vllm#18412",
        sent(chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "now", "arguments": None}}]})),
        made(call("a", "now", None)),
        gets=Gets("", (("now", {}),), "tool_calls"),
    ),
    Quirk(
        "the calls are one object, no list",
        "",
        sent(chunk({"tool_calls": {"index": 0, "id": "a", "function": {"name": "get_weather", "arguments": ROME}}})),
        made(call("a", "get_weather", ROME)),
        gets=ONE,
    ),
    Quirk(
        "no type",
        "iOfficeAI/aionrs#99",
        sent(chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "get_weather", "arguments": ROME}}]})),
        (Body(answer(None, "tool_calls", message={"tool_calls": [{"id": "a", "function": {"name": "get_weather", "arguments": ROME}}]})),),
        gets=ONE,
    ),
]
