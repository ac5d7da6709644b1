"""The knowledge of a provider's API that holdfast needs: one dialect each, as pure functions of plain data.

These functions read a provider's answers, which are paid for and may be odd: compatible servers leave fields out and have values of their
own. So no function raises because of an answer; a missing field counts as empty.
"""

from __future__ import annotations

import hashlib
import json
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec

from holdfast.calls.models.ends import Ending

Fields = dict[str, Any]


class Tokens(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """The tokens of an answer, as they are billed.

    Attributes:
        input: all tokens of the prompt, those of the provider's cache included.
        output: all tokens of the answer, reasoning included.
        cached: those of `input` that were read from the cache.
        written: those of `input` that were written to it.
        written_1h: those of `written` that are kept for an hour, which costs more.
        reasoning: those of `output` that are hidden reasoning.
        searches: web searches that the provider made; each has a price.
        file_searches: searches of files that the provider keeps; each has a price.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    reasoning: int = 0
    searches: int = 0
    file_searches: int = 0


class Answer(msgspec.Struct, frozen=True):
    """The facts that an answer gives about itself.

    Attributes:
        model: the model that gave it.
        id: its id at the provider.
        finish: the reasons why it ended, in the provider's words, one for each choice.
    """

    model: str | None = None
    id: str | None = None
    finish: tuple[str, ...] = ()


class Asked(msgspec.Struct, frozen=True):
    """The parts of a request that decide how much it can cost.

    Attributes:
        limit: the most tokens that it allows for one answer; None if it sets no limit.
        answers: how many answers it asks for.
        elsewhere: None if the whole prompt is in the request; else the id of the earlier answer that the provider puts before it, or "" for
            a part without such an id, such as a document that it fetches.
        uses: by name, how often the provider may use each of its own tools that has a price per use; None if there is no limit.
    """

    limit: int | None = None
    answers: int = 1
    elsewhere: str | None = None
    uses: Mapping[str, int | None] = {}


class Billed(Protocol):
    """An API of a provider, as far as its costs are concerned: a part of `Dialect`, which documents it."""

    path: str
    provider: str
    use_limit: str

    def worst(self, args: bytes, prompt: int, limit: int) -> Tokens: ...
    def tokens(self, reply: Fields) -> Tokens | None: ...
    def text_bytes(self, reply: Fields) -> int: ...
    def answer(self, reply: Fields) -> Answer: ...


class Dialect(Protocol):
    """One API of a provider. Requests are the keyword arguments of a handler; answers and chunks are the plain data of the SDK's types.

    Attributes:
        path: the place of its `create` on the client, as in "chat.completions".
        provider: "openai" or "anthropic"; the package of its SDK has the same name.
        use_limit: the name of the setting that limits how often the provider uses its own tools; empty if there is none.
    """

    path: str
    provider: str
    use_limit: str

    # ---- requests

    def asked(self, request: Fields) -> Asked:
        """The parts of the request that decide its cost. Raises ValueError if its answer could not be a step."""
        ...

    def limited(self, tokens: int, host: str, model: str, capped: bool) -> Fields:
        """The fields to add to a request that has no limit; `capped` is whether the session's money or tokens are limited."""
        ...

    def streamed(self, request: Fields) -> Fields:
        """The fields to add to a request for a streamed answer, so that it reports its usage."""
        ...

    def worst(self, args: bytes, prompt: int, limit: int) -> Tokens:
        """The most expensive way to bill `prompt` tokens in and `limit` out; `args` is the request as MessagePack."""
        ...

    # ---- answers

    def mended(self, reply: Fields) -> Fields:
        """The answer with the fields of tool calls that a server has left out, or has in another form, so that each call can be made."""
        ...

    def reply_type(self) -> Any:
        """The SDK's type of a whole answer."""
        ...

    def check(self, reply: Fields, request: Fields) -> None:
        """Raises EmptyReply if an answer is empty, ReportedError if it reports that the request failed."""
        ...

    def tokens(self, reply: Fields) -> Tokens | None:
        """The tokens that the provider reports; None if it reports none."""
        ...

    def text_bytes(self, reply: Fields) -> int:
        """Bytes of all text in it."""
        ...

    def answer(self, reply: Fields) -> Answer:
        """The facts that it gives about itself."""
        ...

    def message(self, reply: Any) -> Any:
        """The part of it (as the SDK's type) that the conversation continues with."""
        ...

    # ---- chunks

    def chunk(self, chunk: Fields) -> Any:
        """The chunk as the SDK's type."""
        ...

    def for_consumer(self, chunk: Fields, request: Fields) -> bool:
        """Whether the consumer gets the chunk: the stream also has chunks that the consumer did not ask for."""
        ...

    def error(self, chunk: Fields) -> Fields | None:
        """The error in the chunk; None if it has none."""
        ...

    def chunks(self, event: Fields) -> list[Fields]:
        """The chunks of an event: itself, or those of a whole answer that came where a stream was asked for."""
        ...

    def ending(self, request: Fields) -> Ending:
        """Follows the answer to this request to its end."""
        ...

    def heard(self, chunks: list[Fields]) -> int:
        """Bytes of all text in them."""
        ...

    def assemble(self, chunks: list[Fields]) -> Fields:
        """The whole answer of the chunks; of a broken stream, the part that arrived."""
        ...


# ---------------------------------------------------------------- reading what may be odd


def mapped(value: Any) -> Fields:
    """`value` if it is a dict, else an empty one."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Fields]:
    """The dicts in `value`, if it is a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list | tuple) else []


def parts(messages: Any) -> Iterator[Fields]:
    """The parts of messages, including those in the results of tools."""
    for message in listed(messages):
        for part in listed(message.get("content")):
            yield part
            yield from listed(part.get("content"))


def text(value: Any) -> str | None:
    """`value` if it is a non-empty text."""
    return value if isinstance(value, str) and value else None


def whole(value: Any) -> int | None:
    """`value` if it is a whole number, 0 or more, that can be journaled."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None


def reported_error(reply: Fields) -> Fields | None:
    """The error in place of an answer: a proxy may send it with status 200, since the proxy itself succeeded."""
    error = reply.get("error")
    if text(error):
        return {"message": error}
    return mapped(error) or None


def count(fields: Fields, *path: str) -> int:
    """The whole number at that path, 0 or more; 0 if there is none. Some servers count in floats, and in fractions."""
    *outer, last = path
    for name in outer:
        fields = mapped(fields.get(name))
    value = fields.get(last)
    if isinstance(value, float) and math.isfinite(value):
        value = math.ceil(value)
    return whole(value) or 0


def reporting(before: Fields, more: Any) -> Fields:
    """The usage after another report of it: a missing count, null or 0 changes nothing."""
    return {**before, **{name: value for name, value in mapped(more).items() if value or name not in before}}


def joined(before: Any, more: Any) -> Any:
    """The value after a fragment: texts and lists grow, other values are replaced; an empty fragment changes no value."""
    if isinstance(before, str) and isinstance(more, str):
        return before + more
    if isinstance(before, list) and isinstance(more, list):
        return before + more
    if isinstance(before, list | str) and isinstance(more, list | str) and before and more:
        # Some servers send text first and then lists of parts, or the other way round.
        return _as_parts(before) + _as_parts(more)
    return before if more is None or (more == "" and before) else more


def _as_parts(value: list[Any] | str) -> list[Any]:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def call_id(reply: Fields, number: int, call: Fields) -> str:
    """An id for a tool call that came without one: the same for the same answer, and another in every answer."""
    seed = msgspec.msgpack.encode([str(reply.get("id")), str(reply.get("created")), number, str(call)])
    return f"call_{hashlib.blake2b(seed, digest_size=12).hexdigest()}"


def as_json(value: Any) -> str:
    """The arguments of a tool call as JSON: some servers send them as they are. Anything but an object is an empty text."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else ""


def text_size(value: Any) -> int:
    """Bytes of all text in plain data."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        return sum(map(text_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(text_size, value))
    return 0


# ---------------------------------------------------------------- the SDK's types


def variants(union: Any) -> dict[str, Any]:
    """The SDK's classes of a union of events, by the value of their `type`."""
    found: dict[str, Any] = {}
    members = typing.get_args(union)
    if members and not hasattr(members[0], "model_fields"):  # Annotated[Union[...], ...]
        members = typing.get_args(members[0])
    for member in members:
        for name in typing.get_args(member.model_fields["type"].annotation):
            found[name] = member
    return found
