"""The facts that a model call gives about its answer, for telemetry."""

from __future__ import annotations

from typing import Any

from holdfast.calls.models.dialect import Billed, Fields, Tokens


def facts_of(dialect: Billed, model: str, reply: Fields | None, tokens: Tokens | None = None) -> dict[str, Any]:
    """The facts of one answer (see `holdfast.calls.call.Call.facts`); facts that it does not have are left out.

    Args:
        dialect: the dialect of the answer.
        model: the model of the request.
        reply: the answer; None if there is none.
        tokens: its tokens, if the caller knows them better than the answer does.
    """
    facts: dict[str, Any] = {"provider": dialect.provider, "model": model}
    if reply is None:
        return facts
    answer, took = dialect.answer(reply), tokens or dialect.tokens(reply)
    if answer.model:
        facts["response_model"] = answer.model
    if answer.id:
        facts["response_id"] = answer.id
    if answer.finish:
        facts["finish_reasons"] = list(answer.finish)
    if took is not None:
        facts["input_tokens"], facts["output_tokens"] = took.input, took.output
        facts["cached_tokens"], facts["reasoning_tokens"] = took.cached, took.reasoning
    return facts
