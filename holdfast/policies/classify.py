"""The kind of failure that an exception is: transient, the caller's mistake, or permanent.

This module imports no SDK. It looks, in this order, at: the exception's own `holdfast_category`, holdfast's own errors, an HTTP status
(`status_code`, `status`, `code` or that of `response`), then the names of its classes, the most derived first.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from holdfast.errors import MailboxFull, NotDone, StepError
from holdfast.given import brief, is_number, text_of

Category = Literal["transient", "semantic", "permanent", "cancelled", "not_done"]

_HEADER_MAX = 200
"""The most characters of a header that are read."""

MESSAGE_MAX = 4_000
"""The longest message of a fault, in characters: some clients put the whole response into it. The record keeps half: a secret where that
ends has to be whole when it is redacted."""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """The failure of an attempt.

    Attributes:
        category: "transient" (another attempt may succeed), "semantic" (the input was wrong: its author gets the error), "permanent",
            "cancelled", or "not_done" (the effect certainly did not happen).
        type: name of the exception's class.
        message: its text, not redacted yet, cut to `MESSAGE_MAX` characters.
        retry_after_s: how long the dependency asked to wait, in seconds.
        dependency: whether it counts against the breaker of the dependency.
        raised_as: name of the class in holdfast.errors that the handler gets.
        status: the HTTP status of the answer; None if there is none, or if it does not count against the dependency.
    """

    category: Category
    type: str
    message: str
    retry_after_s: float | None = None
    dependency: bool = False
    raised_as: str = "StepError"
    status: int | None = None


def classify(error: BaseException, now: float) -> Fault:
    """Classify `error`. Never raises.

    An exception group has the category of the worst exception in it. An exception can carry its category in the attribute
    `holdfast_category`; a transient one counts against the dependency unless its attribute `holdfast_dependency` is False.

    Args:
        error: what an attempt raised.
        now: seconds since the epoch, for a Retry-After that is a date.
    """
    if isinstance(error, BaseExceptionGroup) and _get(error, "holdfast_category") is None:
        return max((classify(each, now) for each in error.exceptions), key=_gravity)
    name, message = type(error).__name__, text_of(error, MESSAGE_MAX)
    if isinstance(error, StepError):
        # The retries of a failed step are used up: another retry here would multiply them.
        own = "semantic" if error.category == "semantic" else "permanent"
        return Fault(_category(own), error.type, error.message)
    category, dependency = _judge(error)
    retry_after_s = _retry_after_s(error, now) if category == "transient" else None
    status = _status(error, _get(error, "response")) if dependency else None
    return Fault(category, name, message, retry_after_s, dependency, status=status)


_UNREACHED = frozenset({"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "gaierror", "ClientConnectorError"})


def refused(error: BaseException) -> bool:
    """Whether the dependency certainly did not execute the request: it answered with an error status, or no connection was made."""
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            return False
        status = _get(cause, "status_code")
        if isinstance(status, int) and status >= 400:
            return True
        if any(cls.__name__ in _UNREACHED for cls in type(cause).__mro__):
            return True
        cause = cause.__cause__
    return False


# ---------------------------------------------------------------- by its attributes

_SEVERITY: tuple[Category, ...] = ("cancelled", "not_done", "transient", "semantic", "permanent")

_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
_SEMANTIC_STATUSES = frozenset({400, 422})

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


def _gravity(fault: Fault) -> tuple[int, bool, float]:
    return _SEVERITY.index(fault.category), fault.dependency, fault.retry_after_s or 0.0


def _judge(error: BaseException) -> tuple[Category, bool]:
    own = _get(error, "holdfast_category")
    if own is not None:
        category = _category(own)
        return category, category == "transient" and _get(error, "holdfast_dependency") is not False
    if isinstance(error, NotDone):
        return "not_done", False
    if isinstance(error, MailboxFull):
        return "transient", False
    return _by_status(error) or _by_name(error)


def _category(own: object) -> Category:
    for category in _SEVERITY:
        if own == category:
            return category
    # The category is misspelt: take the one that repeats no effect.
    return "permanent"


def _by_status(error: BaseException) -> tuple[Category, bool] | None:
    if not isinstance(error, Exception):
        return None
    response = _get(error, "response")
    status, codes = _status(error, response), _codes(error)
    if status is None or status < 400:
        return ("transient", True) if codes & _TRANSIENT_TYPES else None
    dependency = status >= 500 or status in (408, 429)
    if codes & _OUT_OF_MONEY:
        return "permanent", dependency
    # OpenAI and Anthropic send this header where the status is misleading; their own clients obey it first.
    advice = _header(_get(response, "headers"), "x-should-retry")
    if advice == "true" or (advice != "false" and (status >= 500 or status in _TRANSIENT_STATUSES)):
        return "transient", dependency
    return ("semantic" if status in _SEMANTIC_STATUSES else "permanent"), dependency


def _status(error: BaseException, response: object) -> int | None:
    for holder, attribute in (
        (error, "status_code"),
        (response, "status_code"),
        (error, "status"),
        (response, "status"),
        (error, "code"),
    ):
        value = _get(holder, attribute)
        if isinstance(value, int) and 100 <= value <= 599:
            return int(value)
    return None


def _codes(error: BaseException) -> set[str]:
    body = _get(error, "body")
    inner = body.get("error") if isinstance(body, Mapping) else None
    details = inner.get("details") if isinstance(inner, Mapping) else None
    found: set[str] = set()
    for part in (body, inner, details):
        if isinstance(part, Mapping):
            found.update(value for key in ("code", "type", "error_code") if isinstance(value := part.get(key), str))
    code = _get(error, "code")
    if isinstance(code, str):
        found.add(code)
    return found


# ---------------------------------------------------------------- by the name of its class

_KINDS: dict[str, tuple[Category, bool]] = {
    **dict.fromkeys(("CancelledError", "Cancelled"), ("cancelled", False)),
    # Of the dependency, or of the connection to it.
    **dict.fromkeys(
        (
            # Python, anyio, websockets
            "TimeoutError",
            "ConnectionError",
            "EOFError",
            "gaierror",
            "herror",
            "SSLError",
            "EndOfStream",
            "BrokenResourceError",
            "ConnectionClosed",
            "WebSocketConnectionClosedError",
            # httpx and httpcore
            "TransportError",
            "TimeoutException",
            "NetworkError",
            "RemoteProtocolError",
            "ConnectError",
            "ConnectTimeout",
            "ReadError",
            "ReadTimeout",
            "WriteError",
            "WriteTimeout",
            "ProxyError",
            # openai and anthropic
            "APIConnectionError",
            "APITimeoutError",
            "RetryableError",
            # aiohttp, requests, urllib3, botocore
            "ClientConnectionError",
            "ClientPayloadError",
            "Timeout",
            "ChunkedEncodingError",
            "MaxRetryError",
            "NewConnectionError",
            "ProtocolError",
            "ReadTimeoutError",
            "URLError",
            "ConnectTimeoutError",
            "ConnectionClosedError",
            "EndpointConnectionError",
            # asyncpg
            "CannotConnectNowError",
            "ConnectionDoesNotExistError",
            "TooManyConnectionsError",
        ),
        ("transient", True),
    ),
    # Transient, but the dependency is healthy.
    **dict.fromkeys(("PoolTimeout", "SerializationError", "DeadlockDetectedError"), ("transient", False)),
    **dict.fromkeys(
        ("ValueError", "TypeError", "KeyError", "ValidationError", "LocalProtocolError", "UnsupportedProtocol", "InvalidURL"),
        ("semantic", False),
    ),
    "SSLCertVerificationError": ("permanent", False),
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


def _by_name(error: BaseException) -> tuple[Category, bool]:
    for cls in type(error).__mro__:
        kind = _KINDS.get(cls.__name__)
        if kind is not None:
            return kind
    if isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS:
        return "transient", True
    return "permanent", False


# ---------------------------------------------------------------- Retry-After


def _retry_after_s(error: BaseException, now: float) -> float | None:
    for holder in (_get(error, "response"), error):
        headers = _get(holder, "headers")
        for name in ("retry-after-ms", "x-ms-retry-after-ms"):
            wait = _number(_header(headers, name))
            if wait is not None:
                return max(wait / 1000, 0.0)
        wait_text = _header(headers, "retry-after")
        if wait_text is not None:
            wait = _number(wait_text)
            return max(wait, 0.0) if wait is not None else _until_date(wait_text, now)
    return None


def _header(headers: Any, name: str) -> str | None:
    get = _get(headers, "get")
    if get is None:
        return None
    try:
        # Clients' own header types ignore case; a plain dict does not.
        value = get(name) or get(name.title())
    except Exception:  # as in `_get`
        return None
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value[:_HEADER_MAX].strip() if isinstance(value, str) else brief(value) if is_number(value) else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _until_date(text: str, now: float) -> float | None:
    # Imported late: it imports much of `email`, for a rare header.
    from email.utils import mktime_tz, parsedate_tz

    try:
        parsed = parsedate_tz(text)
        return None if parsed is None else max(mktime_tz(parsed) - now, 0.0)
    except (ValueError, OverflowError, IndexError, TypeError):
        # It is no date: without a Retry-After the backoff decides.
        return None


def _get(holder: Any, name: str) -> Any:
    try:
        return getattr(holder, name, None)
    except Exception:  # a property of a foreign exception (httpx has one) can raise anything: treat it as absent
        return None
