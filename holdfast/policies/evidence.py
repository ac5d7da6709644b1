"""What an exception says about the answer behind it: its status, the error codes, and how long to wait. It imports no SDK.

Every attribute of a foreign exception is read so that nothing in it can raise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from holdfast.given import LONGEST, brief, is_number

_HEADER_MAX = 200
"""The most characters of a header that are read."""

_LONGEST_S = 10 * 366 * 86_400.0
"""The longest Retry-After, in seconds: a longer one would be a time that no calendar has."""


def get(holder: Any, name: str) -> Any:
    """An attribute; None if there is none, or if reading it raises."""
    try:
        return getattr(holder, name, None)
    except Exception:  # a property of a foreign exception (httpx has one) can raise anything: treat it as absent
        return None


def status(error: BaseException) -> int | None:
    """The HTTP status; None if there is none."""
    response = get(error, "response")
    for holder, attribute in (
        (error, "status_code"),
        (response, "status_code"),
        (error, "status"),
        (response, "status"),
        (error, "http_status"),  # stripe
        (error, "code"),
        (get(error, "meta"), "status"),  # elasticsearch
    ):
        value = get(holder, attribute)
        if isinstance(value, int) and 100 <= value <= 599:
            return int(value)
    # botocore
    about = _item(response, "ResponseMetadata")
    value = _item(about, "HTTPStatusCode")
    return value if type(value) is int and 100 <= value <= 599 else None


def grpc_status(error: BaseException) -> str:
    """The name of the status of a gRPC call; "" if it is none."""
    code = get(error, "code")
    if not callable(code) or not callable(get(error, "details")):
        return ""
    try:
        name = get(code(), "name")
    except Exception:  # a method of a foreign exception can raise anything
        return ""
    return name if _is_code(name) else ""


def codes(error: BaseException) -> set[str]:
    """The error codes and types in its body."""
    body, response = get(error, "body"), get(error, "response")
    inner = _item(body, "error")
    parts = (body, inner, _item(inner, "details"))
    found = {value for part in parts for key in ("code", "type", "error_code") if _is_code(value := _item(part, key))}
    found.update(value for value in (get(error, "code"), _item(_item(response, "Error"), "Code")) if _is_code(value))
    return found


def header(headers: Any, name: str) -> str | None:
    """A header as text; None if it is not there."""
    find = get(headers, "get")
    if find is None:
        return None
    try:
        # Clients' own header types ignore case; a plain dict does not.
        value = find(name) or find(name.title())
    except Exception:  # as in `get`
        return None
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value[:_HEADER_MAX].strip() if isinstance(value, str) else brief(value) if is_number(value) else None


def retry_after_s(error: BaseException, now: float) -> float | None:
    """How long the answer asks to wait, in seconds; None if it does not say.

    Args:
        now: seconds since the epoch, for a date.
    """
    response = get(error, "response")
    for headers in (get(response, "headers"), get(error, "headers"), _item(_item(response, "ResponseMetadata"), "HTTPHeaders")):
        for name in ("retry-after-ms", "x-ms-retry-after-ms"):
            wait = _number(header(headers, name))
            if wait is not None:
                return min(max(wait / 1000, 0.0), _LONGEST_S)
        text = header(headers, "retry-after")
        if text is not None:
            wait = _number(text)
            wait = max(wait, 0.0) if wait is not None else _until_date(text, now)
            return None if wait is None else min(wait, _LONGEST_S)
    return None


def _item(part: Any, key: str) -> Any:
    try:
        return part.get(key) if isinstance(part, Mapping) else None
    except Exception:  # as in `get`
        return None


def _is_code(value: object) -> TypeGuard[str]:
    # Not a subclass: its own methods could raise.
    return type(value) is str and len(value) <= LONGEST


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
