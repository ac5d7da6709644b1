"""The form of chat completions: usage, reasoning, empty answers, odd events and bodies."""

from __future__ import annotations

import json

from tests.integration.quirks.chat_shapes import HELLO, STOP, USAGE, answer, chunk, chunks_of, says, usage
from tests.integration.quirks.play import DONE, Body, Fails, Gets, Quirk, Stream

AGAIN = (Stream(HELLO),)
TEXT = json.dumps(HELLO[0])

FORMS = [
    # ------------------------------------------------------------ usage
    Quirk("no usage", "baptisteArno/typebot.io#1872", (Stream(HELLO[:-1]),), (Body(answer(usage=None)),)),
    Quirk("usage is null in each chunk", "Alex2772/kuni#64", (Stream([{**each, "usage": each.get("usage")} for each in HELLO]),), tokens=7),
    Quirk(
        "the counts are null",
        "openai/openai-agents-python#1179",
        (Stream([*HELLO[:-1], usage(prompt_tokens=None, completion_tokens=None, total_tokens=None)]),),
        (Body(answer(usage={"prompt_tokens": None, "completion_tokens": None})),),
    ),
    Quirk(
        "one count is null",
        "livekit/agents#6596",
        (Stream([*HELLO[:-1], usage(prompt_tokens=5, completion_tokens=None, total_tokens=7)]),),
        tokens=7,
    ),
    Quirk(
        "usage in each chunk",
        "theopenco/llmgateway#2861",
        (
            Stream(
                [
                    {**each, "usage": {"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n}}
                    for n, each in enumerate(HELLO[:-1])
                ]
            ),
        ),
        tokens=7,
    ),
    Quirk(
        "usage of a chunk without the counts",
        "theopenco/llmgateway#2861",
        (Stream([HELLO[0], {**HELLO[1], "usage": {"prompt_tokens_details": {"cached_tokens": 0}}}, *HELLO[2:]]),),
        tokens=7,
    ),
    Quirk(
        "zeros after the usage",
        "",
        (Stream([*HELLO, usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)]),),
        tokens=7,
    ),
    Quirk("usage before the answer", "", (Stream([usage(), *HELLO[:-1]]),), tokens=7),
    Quirk(
        "usage in the choice",
        "earendil-works/pi#2017",
        (Stream([*HELLO[:2], chunks_of({"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE})]),),
        tokens=7,
    ),
    Quirk("usage in x_groq", "vercel/ai#1651", (Stream([*HELLO[:2], chunk({}, "stop", x_groq={"usage": USAGE})]),), tokens=7),
    Quirk(
        "counts that are floats",
        "philschmid/easyllm#40",
        (Stream([*HELLO[:-1], usage(prompt_tokens=5.0, completion_tokens=2.0)]),),
        (Body(answer(usage={"prompt_tokens": 5.0, "completion_tokens": 2.0})),),
        tokens=7,
    ),
    Quirk("the usage, then an empty chunk", "BerriAI/litellm#17136", (Stream([*HELLO[:-1], chunk(usage=USAGE), chunks_of()]),), tokens=7),
    Quirk(
        "counts with fractions",
        "philschmid/easyllm#40",
        (Stream([*HELLO[:-1], usage(prompt_tokens=4.25, completion_tokens=1.5)]),),
        (Body(answer(usage={"prompt_tokens": 4.25, "completion_tokens": 1.5})),),
        tokens=7,
    ),
    # ------------------------------------------------------------ reasoning, and nothing
    Quirk(
        "only reasoning_content",
        "vllm-project/vllm#17349",
        (Stream([chunk({"reasoning_content": "hm, "}), chunk({"reasoning_content": "hello"}), STOP]),),
        (Body(answer(None, message={"reasoning_content": "hello"})),),
        gets=Gets("", thinks=True),
    ),
    Quirk(
        "only reasoning",
        "PrimeIntellect-ai/verifiers#1767",
        (Stream([chunk({"reasoning": "hm"}), STOP]),),
        (Body(answer("", message={"reasoning": "hm"})),),
        gets=Gets("", thinks=True),
    ),
    Quirk(
        "only reasoning, cut by the limit",
        "heshengtao/super-agent-party#283",
        (Stream([chunk({"reasoning_content": "hm"}), chunk({}, "length")]),),
        (Body(answer("", "length", message={"reasoning_content": "hm"})),),
        gets=Gets("", (), "length", thinks=True),
    ),
    Quirk(
        "content in parts, with thinking",
        "symfony/ai#2422",
        (Stream([chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}), *says("hel", "lo"), STOP]),),
        (Body(answer([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hello"}])),),
        gets=Gets(thinks=True),
    ),
    Quirk(
        "empty after a tool's result",
        "0xPlaygrounds/rig#1642",
        (Stream([chunk({"role": "assistant", "content": ""}), STOP]),),
        (Body(answer("")),),
        gets=Gets(""),
        after_tool=True,
    ),
    Quirk(
        "null after a tool's result", "spacedriveapp/spacebot#171", (Stream([STOP]),), (Body(answer(None)),), gets=Gets(""), after_tool=True
    ),
    Quirk("empty", "su-kaka/gcli2api#406", (Stream([STOP]),), (Body(answer("")),), gets=Fails("empty_answer"), paid=3),
    Quirk("empty, once", "QwenLM/Qwen3.8#216", (Stream([STOP]), *AGAIN), (Body(answer("")), Body(answer())), paid=2),
    Quirk(
        "no choices",
        "langchain-ai/langchain#35236",
        (Stream([chunks_of()]),),
        (Body({**answer(), "choices": None}),),
        gets=Fails("empty_answer"),
        paid=3,
    ),
    # ------------------------------------------------------------ events
    Quirk("a chunk without choices first", "pydantic/pydantic-ai#164", (Stream([chunks_of(prompt_filter_results=[]), *HELLO]),), tokens=7),
    Quirk(
        "a chunk whose delta is null",
        "microsoft/autogen#7355",
        (Stream([*HELLO[:2], {**STOP, "choices": [{"index": 0, "delta": None, "finish_reason": None}]}, *HELLO[2:]]),),
        tokens=7,
    ),
    Quirk("events that are null", "microsoft/autogen#7355", (Stream(["null", *HELLO, "null"]),), tokens=7),
    Quirk("an event with retry only", "openai/openai-python#2722", (Stream(["raw:retry: 3000\n\n", *HELLO]),), tokens=7),
    Quirk(
        "ids and comments between the events",
        "theopenco/llmgateway#2334",
        (Stream(["raw:id: 1\n\n", HELLO[0], "raw:: ping\n\n", *HELLO[1:]]),),
        tokens=7,
    ),
    Quirk("events without data", "omnigent-ai/omnigent#1474", (Stream([HELLO[0], "raw:data:\n\n", *HELLO[1:]]),), tokens=7),
    Quirk("a word that is no JSON", "anomalyco/opencode#43765", (Stream([HELLO[0], "keep-alive", *HELLO[1:]]),), tokens=7),
    Quirk(
        "events of the server's own",
        "anomalyco/opencode#38106",
        (Stream([HELLO[0], 'raw:event: tool.progress\ndata: {"tool": "web_search"}\n\n', *HELLO[1:]]),),
        tokens=7,
    ),
    Quirk(
        "an event that is JSON in a text",
        "TheR1D/shell_gpt#353",
        (Stream([json.dumps(json.dumps({"rate_limit_usage": {}})), *HELLO]),),
        tokens=7,
    ),
    Quirk(
        "one event in several data lines",
        "SamSaffron/term-llm#454",
        (Stream(["raw:" + "".join(f"data: {line}\n" for line in json.dumps(HELLO[0], indent=1).splitlines()) + "\n", *HELLO[1:]]),),
        tokens=7,
    ),
    Quirk("three line ends between events", "Mintplex-Labs/anything-llm#1475", (Stream(HELLO, between="\n\n\n"),), tokens=7),
    Quirk("carriage returns", "vllm-project/agentic-api#290", (Stream(HELLO, between="\r\n\r\n"),), tokens=7),
    Quirk("no space after data:", "dataelement/Clawith#106", (Stream([f"raw:data:{json.dumps(each)}\n\n" for each in HELLO]),), tokens=7),
    Quirk("one line end between events", "anomalyco/opencode#27365", (Stream(HELLO, between="\n"),), tokens=7),
    Quirk(
        "the last event without an empty line",
        "openai/openai-node#2725",
        (Stream([*HELLO[:-1], f"raw:data: {json.dumps(HELLO[-1])}"], done=False),),
        tokens=7,
    ),
    Quirk(
        "half an event at the end",
        "Dstack-TEE/private-ai-gateway#114",
        (Stream([HELLO[0], f"raw:data: {TEXT[:40]}"], done=False), *AGAIN),
        paid=2,
        counted="BrokenStream",
    ),
    Quirk(
        "half an event after the reason",
        "Dstack-TEE/private-ai-gateway#114",
        (Stream([*HELLO[:-1], f"raw:data: {TEXT[:40]}"], done=False),),
    ),
    Quirk(
        "other ids in each chunk", "BerriAI/litellm#1571", (Stream([{**each, "id": f"c{n}"} for n, each in enumerate(HELLO)]),), tokens=7
    ),
    # ------------------------------------------------------------ bodies
    Quirk("a whole answer in place of a stream", "ant-design/pro-chat#165", (Body(answer()),), tokens=7),
    Quirk("a stream in place of a whole answer", "kaito-project/kaito#1880", whole=(Stream(HELLO),), tokens=7),
    Quirk(
        "a stream that was cut in place of a whole answer",
        "QuantumNous/new-api#5230",
        whole=(Stream(HELLO[:1], done=False), Body(answer())),
        paid=2,
        tokens=None,
        counted="BrokenReply",
    ),
    Quirk(
        "a whole answer with [DONE] behind it",
        "decolua/9router#3492",
        whole=(Body(f"{json.dumps(answer())}\n\ndata: {DONE}\n\n", kind="text/event-stream"),),
        tokens=7,
    ),
    Quirk(
        "an error in a list",
        "coreply/coreply#18",
        whole=(Body([{"error": {"code": 429, "message": "quota"}}]),),
        gets=Fails("rate_limit"),
        paid=4,
        counted="ReportedError",
        tokens=0,
    ),
    Quirk(
        "an error in a list, with its status",
        "coreply/coreply#18",
        (Body([{"error": {"code": 429, "message": "quota"}}], 429), *AGAIN),
        (Body([{"error": {"code": 429, "message": "quota"}}], 429), Body(answer())),
        counted="RateLimitError",
        tokens=7,
    ),
    Quirk(
        "stream_options is refused",
        "avante-corp/avante.nvim#2347",
        (
            Body({"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}}, 422),
            Stream(HELLO[:-1]),
        ),
    ),
    Quirk(
        "a blank body", "gonka-ai/gonka#130", (Body("  \n", kind="text/event-stream"),), (Body("  \n"),), gets=Fails("empty_answer"), paid=3
    ),
    Quirk(
        "a blank body that is no JSON by its type",
        "",
        whole=(Body("", kind="text/plain"),),
        gets=Fails("empty_answer"),
        paid=3,
    ),
    Quirk("a body that is null", "", whole=(Body("null"),), gets=Fails("empty_answer"), paid=3),
    Quirk(
        "half a body, of the announced length",
        "bolna-ai/bolna#464",
        whole=(Body(json.dumps(answer())[:60]), Body(answer())),
        paid=2,
        counted="BrokenReply",
    ),
    Quirk(
        "half a body, less than announced",
        "BerriAI/litellm#28474",
        whole=(Body(answer(), missing=20), Body(answer())),
        paid=2,
        counted="APIConnectionError",
    ),
    Quirk(
        "a web page",
        "neavo/LinguaGacha#137",
        (Body("<html>Sign in</html>", kind="text/html"),),
        (Body("<html>Sign in</html>", kind="text/html"),),
        gets=Fails("request"),
        tokens=0,
    ),
    Quirk("the answer in a list", "", whole=(Body([answer()]),), tokens=7),
]
