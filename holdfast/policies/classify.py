"""The kind of failure that an exception is: a row of the table in `holdfast.policies.failures`.

This module imports no SDK. It looks, in this order, at: the exception's own `holdfast_failure`, holdfast's own errors, an HTTP status
or one of gRPC (`holdfast.policies.evidence`), then the names of its classes, the most derived first.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from holdfast.errors import MailboxFull, NotDone, StepError
from holdfast.given import text_of
from holdfast.policies import evidence, failures
from holdfast.policies.breaker import in_a_line
from holdfast.policies.failures import TABLE, Answers, Rules

MESSAGE_MAX = 4_000
"""The longest message of a fault, in characters: some clients put the whole response into it. The record keeps half: a secret where that
ends has to be whole when it is redacted."""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """The failure of an attempt.

    Attributes:
        kind: its row in `holdfast.policies.failures.TABLE`.
        type: name of the exception's class.
        message: its text, not redacted yet, cut to `MESSAGE_MAX` characters.
        retry_after_s: how long the dependency asked to wait, in seconds.
        status: the HTTP status of the answer; None if there is none.
        keys: the keys by which rules of users find it, the most specific first; its kind is the last.
        of: the error of a step inside that failed for good: its attempts are used up and counted, so nothing is tried or counted again.
        blameless: its caller or a person ended the attempt, so that it counts against no breaker.
        refused: the dependency certainly did not execute the request, though it is of a kind whose cost is unknown.
    """

    kind: str
    type: str
    message: str
    retry_after_s: float | None = None
    status: int | None = None
    keys: tuple[str, ...] = ()
    of: StepError | None = None
    blameless: bool = False
    refused: bool = False

    @property
    def line(self) -> str:
        """Status, type and message, for people."""
        return in_a_line(self.status, f"{self.type}: {self.message}")


def classify(error: BaseException, now: float) -> Fault:
    """Classify `error`. Never raises.

    An exception group is of the kind of the worst exception in it. An exception can name its kind in the attribute `holdfast_failure`.

    Args:
        error: what an attempt raised.
        now: seconds since the epoch, for a Retry-After that is a date.
    """
    if isinstance(error, BaseExceptionGroup) and evidence.get(error, "holdfast_failure") is None:
        return max((classify(each, now) for each in error.exceptions), key=_gravity)
    if isinstance(error, StepError):
        kind = error.kind if error.kind in TABLE else "bug"
        return Fault(kind, error.type, error.message, status=error.status, of=error)
    name, message = type(error).__name__, text_of(error, MESSAGE_MAX)
    kind = _kind(error)
    retry_after_s = evidence.retry_after_s(error, now) if TABLE[kind].category == "transient" else None
    status = evidence.status(error)
    unpaid = TABLE[kind].charge == "most" and refused(error)
    return Fault(kind, name, message, retry_after_s, status, tuple(_keys(error, kind, status)), refused=unpaid)


def answers(fault: Fault, tables: Iterable[Rules], attempts: int) -> Answers:
    """What a failure means; the arguments are those of `holdfast.policies.failures.answers`."""
    if fault.of is None:
        found = failures.answers(fault.kind, fault.keys or (fault.kind,), tables, attempts)
        return msgspec.structs.replace(found, health="none") if fault.blameless else found
    inner: Any = fault.of.then
    category: Any = fault.of.category
    return Answers(TABLE[fault.kind].what, category, 1, "none", "most", inner)


def _keys(error: BaseException, kind: str, status: int | None) -> Iterator[str]:
    yield from (cls.__name__ for cls in type(error).__mro__ if cls not in (Exception, BaseException, object))
    yield from (f"code:{code}" for code in sorted(evidence.codes(error)))
    if status is not None:
        yield str(status)
    yield kind


def refused(error: BaseException) -> bool:
    """Whether the dependency certainly did not execute the request: it answered with an error status, or no connection was made."""
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            return False
        status = evidence.get(cause, "status_code")
        if isinstance(status, int) and status >= 400:
            return True
        if any(_KINDS.get(cls.__name__) == "unreached" for cls in type(cause).__mro__):
            return True
        cause = cause.__cause__
    return False


# ---------------------------------------------------------------- by its attributes

_SEVERITY = ("cancelled", "not_done", "transient", "semantic", "permanent")

_KIND_OF_STATUS = {
    401: "access",
    402: "quota",
    403: "access",
    407: "access",
    408: "unavailable",
    409: "busy",
    425: "busy",
    429: "rate_limit",
}

# A 429 that means "out of money", not "slow down": OpenAI's `error.code` and Anthropic's `error.details.error_code`.
_OUT_OF_MONEY = frozenset(
    {
        "billing_hard_limit_reached",
        "contract_spend_limit_reached",
        "credit_balance_exhausted",
        "enforced_spend_limit_reached",
        "insufficient_quota",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
        "usage_limit_exceeded",
    }
)

# A stream that fails half-way arrives with status 200 or none; only its body has the error.
_TRANSIENT_TYPES = frozenset({"api_error", "overloaded_error", "rate_limit_error", "rate_limit_exceeded", "server_error", "timeout_error"})


# What AWS sends with a 400.
_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "RequestLimitExceeded", "ProvisionedThroughputExceededException"}
)

_OF_GRPC = {
    **dict.fromkeys(("UNAVAILABLE", "INTERNAL", "UNKNOWN"), "unavailable"),
    **dict.fromkeys(("UNAUTHENTICATED", "PERMISSION_DENIED"), "access"),
    **dict.fromkeys(("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED"), "request"),
    "DATA_LOSS": "broken",
    "DEADLINE_EXCEEDED": "timeout",
    "RESOURCE_EXHAUSTED": "rate_limit",
    "ABORTED": "busy",
}


def _gravity(fault: Fault) -> tuple[int, bool, float]:
    row = TABLE[fault.kind]
    severity = fault.kind if fault.kind in _SEVERITY else row.category
    return _SEVERITY.index(severity), row.health == "dependency", fault.retry_after_s or 0.0


def _kind(error: BaseException) -> str:
    own = evidence.get(error, "holdfast_failure")
    if own is not None:
        # The kind is misspelt: take the one that repeats no effect.
        return own if type(own) is str and own in TABLE else "bug"
    if isinstance(error, NotDone):
        return "not_done"
    if isinstance(error, MailboxFull):
        return "busy"
    return _by_status(error) or _by_name(error)


def _by_status(error: BaseException) -> str | None:
    if not isinstance(error, Exception):
        return None
    status, codes = evidence.status(error), evidence.codes(error)
    if status is None or status < 400:
        return _OF_GRPC.get(evidence.grpc_status(error)) or ("unavailable" if codes & _TRANSIENT_TYPES else None)
    if codes & _OUT_OF_MONEY:
        return "quota"
    if codes & _THROTTLED:
        return "rate_limit"
    if (status == 403 and _is_flagged(error)) or (status == 402 and not _is_of_a_model(error)):
        return "request"
    kind = _KIND_OF_STATUS.get(status) or ("unavailable" if status >= 500 else "request")
    # OpenAI and Anthropic send this header where the status is misleading; their own clients obey it first.
    advice = evidence.header(evidence.get(evidence.get(error, "response"), "headers"), "x-should-retry")
    if advice == "true":
        return kind if TABLE[kind].category == "transient" else "busy"
    if advice == "false" and TABLE[kind].category == "transient":
        return "declined" if TABLE[kind].health == "dependency" else "request"
    return kind


def _is_of_a_model(error: BaseException) -> bool:
    """Whether a client of a model's provider raised it: a 402 of another service is about a customer's payment, as Stripe's are."""
    return any(cls.__name__ in ("APIStatusError", "ReportedError") for cls in type(error).__mro__)


def _is_flagged(error: BaseException) -> bool:
    """Whether a 403 is about the prompt, as OpenRouter's moderation says it, and not about the credentials."""
    body = evidence.get(error, "body")
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    about = inner.get("metadata") if isinstance(inner, Mapping) else None
    return isinstance(about, Mapping) and "flagged_input" in about


# ---------------------------------------------------------------- by the name of its class

_KINDS: dict[str, str] = {
    **dict.fromkeys(("CancelledError", "Cancelled"), "cancelled"),
    **dict.fromkeys(
        (
            # Python; httpx and aiohttp; urllib3 and botocore
            "ConnectionRefusedError",
            "gaierror",
            "herror",
            "ConnectError",
            "ConnectTimeout",
            "ClientConnectorError",
            "NewConnectionError",
            "ConnectTimeoutError",
            "EndpointConnectionError",
            # asyncpg
            "CannotConnectNowError",
            "TooManyConnectionsError",
        ),
        "unreached",
    ),
    # Of httpx, openai, requests, urllib3
    **dict.fromkeys(
        ("TimeoutError", "TimeoutException", "APITimeoutError", "ReadTimeout", "WriteTimeout", "Timeout", "ReadTimeoutError"), "timeout"
    ),
    **dict.fromkeys(
        (
            # Python, anyio, websockets
            "ConnectionError",
            "EOFError",
            "SSLError",
            "EndOfStream",
            "BrokenResourceError",
            "ConnectionClosed",
            "WebSocketConnectionClosedError",
            # httpx and httpcore
            "TransportError",
            "NetworkError",
            "RemoteProtocolError",
            "ReadError",
            "WriteError",
            "ProxyError",
            # openai and anthropic
            "APIConnectionError",
            "RetryableError",
            # pymongo
            "AutoReconnect",
            # aiohttp, requests, urllib3, botocore
            "ClientConnectionError",
            "ClientPayloadError",
            "ChunkedEncodingError",
            "MaxRetryError",
            "ProtocolError",
            "URLError",
            "ConnectionClosedError",
            # asyncpg
            "ConnectionDoesNotExistError",
        ),
        "broken",
    ),
    # Transient, but the dependency is healthy.
    **dict.fromkeys(("PoolTimeout", "SerializationError", "DeadlockDetectedError"), "busy"),
    **dict.fromkeys(
        ("ValueError", "TypeError", "KeyError", "ValidationError", "LocalProtocolError", "UnsupportedProtocol", "InvalidURL"), "input"
    ),
    "SSLCertVerificationError": "access",
}

# `OSError` alone is ambiguous: these are network errors, the others are file errors.
_NETWORK_ERRNOS = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)


def _by_name(error: BaseException) -> str:
    for cls in type(error).__mro__:
        kind = _KINDS.get(cls.__name__)
        if kind is not None:
            return "unreached" if kind == "broken" and refused(error) else kind
    if isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS:
        return "broken"
    return "bug"
