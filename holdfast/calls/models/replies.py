"""The answers of models, and the errors that come in place of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from holdfast.given import LONGEST, brief, text_of
from holdfast.policies.classify import MESSAGE_MAX


class EmptyReply(Exception):
    """The model's answer is empty: no text, no tool call, no refusal. The answer is paid for; a retry often helps.

    The provider answered, so this does not count against its health, and is not bought without end.
    """

    holdfast_failure = "empty_answer"


class BrokenStream(ConnectionError):
    """A streamed answer that ended, or became unreadable, before its end mark."""


class BrokenReply(ConnectionError):
    """The body of an answer was cut short."""


class UnreadableReply(Exception):
    """The provider sent a whole answer that is no JSON."""

    holdfast_failure = "unreadable_answer"


class NoReply(Exception):
    """The response is not an answer of the API but, say, a web page: most likely the client's `base_url` is wrong."""

    holdfast_failure = "request"


class ReportedError(Exception):
    """The provider accepted the request, then reported a failure in its answer. Classified like the HTTP error of the same meaning.

    Attributes:
        status_code: the HTTP status of the same meaning.
        code: the provider's code for it.
        body: the whole error that the provider sent.
    """

    def __init__(self, message: str, status_code: int, code: str, body: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status_code, self.code, self.body = status_code, code, body
        if code in _KINDS:
            self.holdfast_failure = _KINDS[code]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.status_code, self.code, self.body)


_STATUSES = {
    # Anthropic: docs, "Errors"
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    # OpenAI: openai.types.responses.ResponseError, and the codes of its HTTP errors
    "bio_policy": 403,
    "billing_hard_limit_reached": 429,
    "content_filter": 400,
    "content_policy_violation": 400,
    "context_length_exceeded": 400,
    "data_residency_mismatch": 403,
    "empty_image_file": 400,
    "failed_to_download_image": 400,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "invalid_prompt": 400,
    "misalignment_policy_violation": 403,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "unsupported_image_media_type": 400,
    "vector_store_timeout": 504,
}
_KINDS = {
    "bio_policy": "request",
    "content_filter": "refused_answer",
    "content_policy_violation": "refused_answer",
    "misalignment_policy_violation": "request",
}
"""The kinds of failure of these codes, whose status would mislead: a filter of the answer may let another answer pass, a policy against the
prompt does not, and neither is about the credentials."""

_INPUT = ("invalid_", "image_", "unsupported_")
"""The beginnings of the codes for a wrong request."""

UNNAMED = 500
"""The status of an error that has no known name: the provider had accepted the request, so the error is the provider's."""


def reported(error: Mapping[str, Any], otherwise: str = "the provider reported an error") -> ReportedError:
    """The exception for an error that a provider reports as data, either bare or in the field `error`."""
    inner = error.get("error")
    about = inner if isinstance(inner, Mapping) else error
    codes = [code for name in ("code", "type") if (code := _code(about.get(name)))]
    status = next((found for code in codes if (found := _status(code)) is not None), UNNAMED)
    message = about.get("message")
    text = message[:MESSAGE_MAX] if isinstance(message, str) else "" if message is None else brief(message)
    return ReportedError(text or otherwise, status, codes[0] if codes else "", about)


def unreadable(error: ValueError) -> Exception:
    """The exception for the body of a whole answer that does not decode: blank, cut short, or no JSON."""
    text = error.doc.strip() if isinstance(error, json.JSONDecodeError) else ""
    if isinstance(error, json.JSONDecodeError) and not text:
        return EmptyReply("the model answered with a blank body")
    if text[:1] in ("{", "[") and text[-1:] not in ("}", "]"):
        return BrokenReply(f"the answer was cut short after {len(text):,} characters")
    return UnreadableReply(f"the answer is no JSON: {text_of(error, MESSAGE_MAX)}")


def _code(value: Any) -> str:
    if isinstance(value, int) and 400 <= value < 600:
        return str(value)  # proxies send the status itself
    return value if isinstance(value, str) and value != "error" and len(value) <= LONGEST else ""


def _status(code: str) -> int | None:
    if len(code) == 3 and code.isascii() and code.isdigit() and code[0] in "45":
        return int(code)
    return _STATUSES.get(code) or (400 if code.startswith(_INPUT) else None)


def reported_by(error: Exception) -> ReportedError | None:
    """The error inside a stream for which an SDK raised this exception; None if it is another exception."""
    body, status = getattr(error, "body", None), getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        return None
    return reported(body) if isinstance(body, Mapping) else None


def fields_of(reply: Any) -> dict[str, Any]:
    """The fields that the provider sent, as plain data, under the provider's names.

    Raises:
        NoReply: it is not an answer.
        EmptyReply: it is blank, or null.
    """
    if isinstance(reply, dict):
        return reply
    if reply is None or (isinstance(reply, str) and not reply.strip()):
        raise EmptyReply("the model answered with a blank body")
    if isinstance(reply, list) and len(reply) == 1:
        return fields_of(reply[0])
    dump = getattr(reply, "model_dump", None)
    if dump is None:
        raise NoReply(f"the server answered with a {type(reply).__name__}, not with JSON: is the client's base_url right?")
    fields: dict[str, Any] = dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    return fields
