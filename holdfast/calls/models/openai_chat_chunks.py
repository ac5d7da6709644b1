"""The chunks of OpenAI's chat completions, also those of compatible servers: the end of their stream, and the answer that they make.

Tool calls in fragments. An id identifies a call; indexes only order the calls, and tell to which call a fragment without an id belongs:

| a fragment has | it belongs to |
| --- | --- |
| the id of a call | that call |
| a new id, the index of a call, and no name, or its name while its arguments are incomplete | that call: each fragment has its own id |
| another new id | a new call |
| no id, and the index of a call, but another name after arguments, or an object after another object | a new call |
| no id, and the index of a call | the last call that had this index |
| no id, a new index | a new call |
| neither id nor index | a new call if it has a name, else the last call |

A name that is repeated in each fragment is taken once. Arguments that are an object are taken as JSON. Arguments after `{}`, or after
the same complete object, replace it: together they would be no JSON.
"""

from __future__ import annotations

import json
from typing import Any

from holdfast.calls.models.dialect import Fields, as_json, call_id, joined, listed, mapped, reporting, text, whole
from holdfast.calls.models.ends import Reason, Stage

REASONS: dict[str, Reason] = {
    "null": "none",
    "none": "none",
    "length": "limit",
    "max_tokens": "limit",
    "max_output_tokens": "limit",
    "model_length": "limit",
    "model_context_window_exceeded": "limit",
    "content_filter": "filtered",
    "content_filtered": "filtered",
    "guardrail_intervened": "filtered",
    "sensitive": "filtered",
    "safety": "filtered",
    "recitation": "filtered",
    "blocklist": "filtered",
    "prohibited_content": "filtered",
    "spii": "filtered",
    "refusal": "filtered",
    "malformed_function_call": "malformed",
    "unexpected_tool_call": "malformed",
    "error": "broken",
    "abort": "broken",
    "aborted": "broken",
    "cancelled": "broken",
    "network_error": "broken",
    "insufficient_system_resource": "broken",
    "engine_overloaded": "broken",
    "timeout": "broken",
}
"""What finish reasons mean, in lower case; every other one, and there are many, is `ended`."""

SPEECH = ("content", "tool_calls", "refusal", "function_call", "audio")
"""The parts of a message that are its answer."""

REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
"""The parts in which compatible servers send the model's reasoning, and now and then by mistake its answer."""


def meaning(reason: Any) -> Reason:
    """What a finish reason means; None and an empty one are none."""
    return REASONS.get(reason.strip().lower(), "ended") if isinstance(reason, str) and reason.strip() else "none"


# ---------------------------------------------------------------- the end of a stream


class ChatEnding:
    """Follows a stream to its end."""

    __slots__ = ("_choices", "_doubted", "_marked", "_reported", "_wanted")

    def __init__(self, wanted: int) -> None:
        """Takes the number of choices that were asked for."""
        self._wanted = wanted
        self._choices: dict[int, _Choice] = {}
        self._doubted = self._reported = self._marked = False

    @property
    def stage(self) -> Stage:
        """How near its end the stream is."""
        if self._marked:
            return Stage.MARKED
        if self._doubted:
            return Stage.DOUBTFUL if self._reported or self._all(lambda choice: choice.reason) else Stage.OPEN
        if self._reported:
            return Stage.DONE
        if not self._all(lambda choice: choice.reason):
            return Stage.OPEN
        if not self._all(lambda choice: choice.explains):
            return Stage.DOUBTFUL
        sure = len(self._choices) >= self._wanted and self._all(lambda choice: choice.sure)
        return Stage.DONE if sure else Stage.LIKELY

    def add(self, chunk: Fields) -> None:
        """Take the next chunk."""
        choices = listed(chunk.get("choices"))
        if not choices and self._choices and any(mapped(chunk.get("usage")).values()):
            self._reported = True
        for part in choices:
            choice = self._choices.setdefault(whole(part.get("index")) or 0, _Choice())
            speaks = says_something(mapped(part.get("delta")))
            if speaks and (choice.reason or self._reported):
                # Content after the last word: it was not the last one, and in this stream no other such word is trusted.
                self._doubted, self._reported, choice.reason = True, False, False
            means = meaning(part.get("finish_reason"))
            choice.explains = choice.explains or speaks or means in ("limit", "filtered")
            if means != "none":
                choice.reason, choice.sure = True, choice.spoke
            choice.spoke = choice.spoke or (speaks and not choice.reason)

    def mark(self) -> None:
        """The end mark `[DONE]` came."""
        self._marked = True

    def _all(self, test: Any) -> bool:
        return bool(self._choices) and all(map(test, self._choices.values()))


class _Choice:
    __slots__ = ("explains", "reason", "spoke", "sure")

    def __init__(self) -> None:
        # explains: it has content, or a reason that explains why there is none: some servers send "stop" in the first, empty chunk.
        # spoke: it had content in a chunk without a reason: so this server does not send a reason with each chunk.
        self.explains = self.reason = self.sure = self.spoke = False


def says_something(message: Fields) -> bool:
    """Whether a message or a part of it has content or reasoning."""
    return any(message.get(part) for part in SPEECH if part != "tool_calls") or thinks(message) or any(map(_is_call, calls_in(message)))


def thinks(message: Fields) -> bool:
    """Whether it has reasoning that can be read."""
    return any(message.get(part) for part in REASONING)


def calls_in(message: Fields) -> list[Fields]:
    """The tool calls, or fragments of calls, in a message or a delta."""
    calls = message.get("tool_calls")
    return listed([calls] if isinstance(calls, dict) else calls)


def _is_call(fragment: Fields) -> bool:
    function = mapped(fragment.get("function"))
    return bool(fragment.get("id") or function.get("name") or function.get("arguments"))


# ---------------------------------------------------------------- the answer


def assemble(chunks: list[Fields]) -> Fields:
    """The whole answer of the chunks; of a broken stream, the part that arrived."""
    reply: Fields = {}
    usage: Fields = {}
    choices: dict[int, Fields] = {}
    calls: dict[int, _Calls] = {}
    for chunk in chunks:
        reply.update({name: value for name, value in chunk.items() if name != "choices" and value not in (None, "")})
        usage = reporting(usage, usage_in(chunk))
        for part in listed(chunk.get("choices")):
            index = whole(part.get("index")) or 0
            choice = choices.setdefault(index, {"index": index, "message": {"role": "assistant", "content": None}})
            _add_choice(choice, part)
            for fragment in calls_in(mapped(part.get("delta"))):
                calls.setdefault(index, _Calls()).add(fragment)
    for index, found in calls.items():
        choices[index]["message"]["tool_calls"] = found.whole(reply)
    if usage:
        reply["usage"] = usage
    reply["object"] = "chat.completion"
    reply["choices"] = [choices[index] for index in sorted(choices)]
    return reply


def usage_in(reply: Fields) -> Fields:
    """The usage that an answer or a chunk reports: in its own field, in Groq's, or, of Moonshot, in the choice."""
    found = mapped(reply.get("usage")) or mapped(mapped(reply.get("x_groq")).get("usage"))
    return found or next((found for choice in listed(reply.get("choices")) if (found := mapped(choice.get("usage")))), {})


def _add_choice(choice: Fields, part: Fields) -> None:
    for name, value in part.items():
        if name == "delta":
            _add_delta(choice["message"], mapped(value))
        elif name == "logprobs" and isinstance(value, dict):
            logprobs = mapped(choice.get("logprobs"))
            choice["logprobs"] = {**logprobs, **{key: joined(logprobs.get(key), more) for key, more in value.items()}}
        elif name == "finish_reason":
            if name not in choice or meaning(value) != "none":
                choice[name] = value
        elif name != "index" and (value is not None or name not in choice):
            choice[name] = value


def _add_delta(message: Fields, delta: Fields) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            continue
        if value is None:
            message.setdefault(name, None)
        elif name == "function_call":
            call = mapped(message.get(name))
            message[name] = {**call, **{key: joined(call.get(key), more) for key, more in mapped(value).items()}}
        elif name == "role":
            message[name] = value or message.get(name)
        else:
            message[name] = joined(message.get(name), value)


class _Calls:
    """The tool calls of one choice."""

    __slots__ = ("_by_id", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Open] = []
        self._by_id: dict[str, _Open] = {}
        self._by_index: dict[int, _Open] = {}

    def add(self, fragment: Fields) -> None:
        """Take the next fragment."""
        index, id = whole(fragment.get("index")), text(fragment.get("id"))
        function = mapped(fragment.get("function"))
        name = text(function.get("name"))
        call = self._of(index, id, name, as_json(function.get("arguments")))
        if call is None:
            call = _Open(index if index is not None else len(self._calls), self._by_index.get(index if index is not None else -1))
            self._calls.append(call)
        if id is not None:
            self._by_id[id] = call
        if index is not None:
            self._by_index[index] = call
        call.add(fragment)

    def whole(self, reply: Fields) -> list[Fields]:
        """The calls in their order, each with an id."""
        found = [call.fields for call in sorted(self._calls, key=lambda call: call.index)]
        return [mended_call(reply, number, call) for number, call in enumerate(found)]

    def _of(self, index: int | None, id: str | None, name: str | None, arguments: str) -> _Open | None:
        same = self._by_index.get(index) if index is not None else None
        if id is not None:
            if id in self._by_id:
                return self._by_id[id]
            return same if same is not None and same.takes(name) else None
        if index is not None:
            return None if same is not None and same.is_over(name, arguments) else same
        return None if name is not None or not self._calls else self._calls[-1]


class _Open:
    """A tool call whose fragments come."""

    __slots__ = ("fields", "index", "inherits")

    def __init__(self, index: int, before: _Open | None) -> None:
        # A call without a name is another one of the tool of the call before.
        name = "" if before is None else before.fields["function"]["name"]
        self.index, self.inherits = index, before is not None
        self.fields: Fields = {"id": "", "type": "function", "function": {"name": name, "arguments": ""}}

    @property
    def begun(self) -> bool:
        """Whether it has arguments."""
        return bool(self.fields["function"]["arguments"])

    def takes(self, name: str | None) -> bool:
        """Whether a fragment with this name, and with an id that no call has, can be a part of it."""
        if name is None:
            return True
        function = self.fields["function"]
        if not self.begun:
            return not self.fields["id"]
        return bool(name == function["name"] and not _is_object(function["arguments"]))

    def is_over(self, name: str | None, arguments: str) -> bool:
        """Whether a fragment without an id, with this name and these arguments, begins another call."""
        function = self.fields["function"]
        if name is not None and name != function["name"]:
            return self.begun
        if not arguments.lstrip().startswith("{") or function["arguments"] in ("{}", arguments):
            return False
        return _is_object(function["arguments"])

    def add(self, fragment: Fields) -> None:
        """Take the next fragment."""
        function = self.fields["function"]
        for name, value in fragment.items():
            if name == "function":
                continue
            if name == "id":
                self.fields[name] = self.fields[name] or value or ""
            elif name != "index" and value not in (None, ""):
                self.fields[name] = value
        for name, value in mapped(fragment.get("function")).items():
            if name == "arguments":
                function[name] = _more_arguments(function[name], as_json(value))
            elif name == "name":
                # Repeated whole by some servers, sent in pieces by others.
                if value != function[name] and not self.begun:
                    function[name] = value if self.inherits else joined(function[name], value)
                self.inherits = False
            else:
                function[name] = joined(function.get(name), value)


def _more_arguments(before: str, more: str) -> str:
    begins = more.lstrip().startswith("{")
    return more if begins and (before.strip() == "{}" or (before == more and _is_object(before))) else before + more


def _is_object(arguments: str) -> bool:
    return arguments.strip().startswith("{") and arguments.strip().endswith("}") and _balanced(arguments)


def _balanced(arguments: str) -> bool:
    try:
        json.loads(arguments)
    except ValueError:
        return False
    return True


def mended_call(reply: Fields, number: int, call: Fields) -> Fields:
    """The call with an id, a type, and arguments that are a text."""
    function, kind = mapped(call.get("function")), text(call.get("type")) or "function"
    whole = kind != "function" or (isinstance(function.get("name"), str) and isinstance(function.get("arguments"), str))
    if text(call.get("id")) and call.get("type") == kind and whole:
        return call
    mended = {**call, "id": text(call.get("id")) or call_id(reply, number, call), "type": kind}
    if kind == "function":
        mended["function"] = {**function, "name": text(function.get("name")) or "", "arguments": as_json(function.get("arguments"))}
    return mended
