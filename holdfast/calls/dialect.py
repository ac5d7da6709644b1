"""What holdfast has to know of a provider's API: one dialect each, as pure functions of plain data.

Everything here reads what a provider sent, which is paid for and may be odd: compatible servers leave fields out and have values of
their own. So nothing raises of what it reads; what is not there counts as nothing.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec

Fields = dict[str, Any]


class Tokens(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What an answer took, in tokens, as it is billed.

    Attributes:
        input: all that went in, those of the provider's cache included.
        output: all that came out, reasoning included.
        cached: those of `input` that were read from the cache.
        written: those of `input` that were written to it.
        written_1h: those of `written` that are kept for an hour, which costs more.
        reasoning: those of `output` that were not shown.
        searches: searches of the web that the provider made, which cost by number.
        file_searches: searches of files that it keeps, which do so too.
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
    """What an answer tells about itself.

    Attributes:
        model: that gave it.
        id: that the provider knows it by.
        finish: why it ended, in the provider's own words, one for each choice.
    """

    model: str | None = None
    id: str | None = None
    finish: tuple[str, ...] = ()


class Asked(msgspec.Struct, frozen=True):
    """What a request asks for, as far as it matters for what it can cost.

    Attributes:
        limit: the most tokens that it allows for one answer; None where it does not say.
        answers: how many it wants.
        elsewhere: None where the whole prompt is in the request; else the id of the answer that the provider puts before it, or ""
            for what has no such id, such as a document that it fetches.
        uses: how often it lets the provider use each of its own tools that cost by use, by name; None where it sets no limit.
    """

    limit: int | None = None
    answers: int = 1
    elsewhere: str | None = None
    uses: Mapping[str, int | None] = {}


class Dialect(Protocol):
    """One API of a provider. Requests are what a handler gives by name, answers and chunks the plain data of the SDK's types.

    Attributes:
        path: where its `create` is on the client, as in "chat.completions".
        provider: "openai" or "anthropic"; the package of its SDK is called the same.
        use_limit: what limits how often the provider uses its own tools, in words; empty if nothing does.
    """

    path: str
    provider: str
    use_limit: str

    # ---- requests

    def asked(self, request: Fields) -> Asked:
        """What it asks for. Raises ValueError where its answer could not be a step."""
        ...

    def limited(self, tokens: int, host: str, capped: bool) -> Fields:
        """What to add to a request that has no limit; `capped` is whether the session's money or tokens are limited."""
        ...

    def streamed(self, request: Fields) -> Fields:
        """The request as it is sent to have the answer streamed, with its usage."""
        ...

    def worst(self, args: bytes, prompt: int, limit: int) -> Tokens:
        """The dearest that `prompt` tokens in and `limit` out can be billed as; `args` is the request as MessagePack."""
        ...

    # ---- answers

    def reply_type(self) -> Any:
        """The SDK's type of a whole answer."""
        ...

    def check(self, reply: Fields, request: Fields) -> None:
        """Raises EmptyReply where an answer holds nothing, ReportedError where it says that the request failed."""
        ...

    def tokens(self, reply: Fields) -> Tokens | None:
        """What the provider reports that it took; None if it reports nothing."""
        ...

    def said(self, reply: Fields) -> int:
        """Bytes of all text in it."""
        ...

    def answer(self, reply: Fields) -> Answer:
        """What it tells about itself."""
        ...

    def message(self, reply: Any) -> Any:
        """The part of it (as the SDK's type) that a conversation goes on with."""
        ...

    # ---- chunks

    def chunk(self, chunk: Fields) -> Any:
        """It as the SDK's type."""
        ...

    def shown(self, chunk: Fields, request: Fields) -> bool:
        """Whether the consumer is to see it, who did not ask for all that is sent along."""
        ...

    def error(self, chunk: Fields) -> Fields | None:
        """The error that it stands for, if it does."""
        ...

    def finished(self, chunks: list[Fields]) -> bool:
        """Whether the last word has been said, and what still comes is about it."""
        ...

    def complete(self, chunks: list[Fields]) -> bool:
        """Whether the stream is whole."""
        ...

    def last(self, chunk: Fields, request: Fields) -> bool:
        """Whether it can be the last of a stream that is whole, so that a connection that stays open afterwards says no more."""
        ...

    def heard(self, chunks: list[Fields]) -> int:
        """Bytes of all text in them."""
        ...

    def assemble(self, chunks: list[Fields]) -> Fields:
        """The whole answer that they come to; of a stream that broke, what is known of it."""
        ...


# ---------------------------------------------------------------- reading what may be odd


def mapped(value: Any) -> Fields:
    """`value` if it is a dict, else an empty one."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Fields]:
    """The dicts in `value`, if it is a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list | tuple) else []


def parts(messages: Any) -> Iterator[Fields]:
    """What messages consist of, the results of tools in them included."""
    for message in listed(messages):
        for part in listed(message.get("content")):
            yield part
            yield from listed(part.get("content"))


def text(value: Any) -> str | None:
    """`value` if it is a text that is not empty."""
    return value if isinstance(value, str) and value else None


def whole(value: Any) -> int | None:
    """`value` if it is a whole number, 0 or more, that can be journaled."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None


def told_error(reply: Fields) -> Fields | None:
    """The error that is in an answer's place: a proxy in between may send it with status 200, since its own part went well."""
    error = reply.get("error")
    if text(error):
        return {"message": error}
    return mapped(error) or None


def count(fields: Fields, *path: str) -> int:
    """The whole number that the names lead to; 0 where there is none."""
    *outer, last = path
    for name in outer:
        fields = mapped(fields.get(name))
    return whole(fields.get(last)) or 0


def joined(before: Any, more: Any) -> Any:
    """What a fragment makes of what came before it: texts and lists grow; anything else is replaced, but not by nothing."""
    if isinstance(before, str) and isinstance(more, str):
        return before + more
    if isinstance(before, list) and isinstance(more, list):
        return before + more
    return before if more is None else more


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
