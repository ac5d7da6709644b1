"""OpenAI's embeddings, also those of compatible servers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

from holdfast.calls.call import StepContext
from holdfast.calls.models.additions import requested
from holdfast.calls.models.dialect import Answer, Asked, Fields, Tokens, count, listed, mapped, reported_error, text, whole
from holdfast.calls.models.replies import EmptyReply, fields_of, reported, unreadable
from holdfast.codec.answers import AnswerCodec


class OpenAIEmbeddings:
    """The API of `embeddings`. It has no streams, and its answers take no tokens out."""

    path = "embeddings"
    provider = "openai"
    use_limit = ""
    asked = Asked(limit=0)
    """The parts of a request that decide how much it can cost: its answer takes no tokens."""

    def worst(self, args: bytes, prompt: int, limit: int) -> Tokens:
        return Tokens(prompt, limit)

    def reply_type(self) -> Any:
        from openai.types import CreateEmbeddingResponse

        return CreateEmbeddingResponse

    def check(self, reply: Fields) -> None:
        error = reported_error(reply)
        if error is not None:
            raise reported(error)
        if not any(each.get("embedding") for each in listed(reply.get("data"))):
            raise EmptyReply("the model answered without an embedding")

    def tokens(self, reply: Fields) -> Tokens | None:
        usage = mapped(reply.get("usage"))
        billed = count(usage, "prompt_tokens") or count(usage, "total_tokens")
        return Tokens(billed) if billed or whole(usage.get("prompt_tokens")) is not None else None

    def text_bytes(self, reply: Fields) -> int:
        return 0

    def answer(self, reply: Fields) -> Answer:
        return Answer(text(reply.get("model")))


EMBEDDINGS = OpenAIEmbeddings()


def embeddings_of(client: Any) -> Any:
    """The client's `embeddings.create`, and the codec of its answers; None if the client has none that is async."""
    create = getattr(getattr(client, EMBEDDINGS.path, None), "create", None)
    if create is None or not inspect.iscoroutinefunction(inspect.unwrap(create)):
        return None
    return create, AnswerCodec(EMBEDDINGS.reply_type(), fields_of)


async def embedded(create: Callable[..., Any], request: Fields, step: StepContext) -> Fields:
    """Makes the request: one attempt of the step."""
    try:
        return fields_of(await requested(create, request, {}, set()))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise unreadable(error) from error
