"""What kind of failure an exception is."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import AskTimeout, ConfigError, MailboxFull, NotDone, StepError
from holdfast.policies import Category, Fault, classify
from holdfast.policies.classify import MESSAGE_MAX

NOW = 1_800_000_000.0


class ProviderError(Exception):
    """Shaped as the status errors of openai, anthropic and httpx are."""

    def __init__(self, status: Any = None, headers: Any = None, body: object = None, **more: object) -> None:
        super().__init__("it failed")
        self.body = body
        if status is not None:
            self.status_code = status
        self.response = SimpleNamespace(status_code=status, headers={} if headers is None else headers)
        self.__dict__.update(more)


def _verdict(error: BaseException) -> tuple[str, bool]:
    fault = classify(error, NOW)
    return fault.category, fault.dependency


def _named(name: str, *bases: type[BaseException]) -> BaseException:
    error: BaseException = type(name, bases or (Exception,), {})("it failed")
    return error


# ---------------------------------------------------------------- HTTP


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (400, ("semantic", False)),
        (401, ("permanent", False)),
        (403, ("permanent", False)),
        (404, ("permanent", False)),
        (408, ("transient", True)),
        (409, ("transient", False)),
        (413, ("permanent", False)),
        (422, ("semantic", False)),
        (425, ("transient", False)),
        (429, ("transient", True)),
        (500, ("transient", True)),
        (502, ("transient", True)),
        (503, ("transient", True)),
        (504, ("transient", True)),
        (529, ("transient", True)),
    ],
)
def test_an_http_status_decides(status: int, verdict: tuple[str, bool]) -> None:
    """On the exception, or on its response only."""
    assert _verdict(ProviderError(status)) == verdict
    only_response = Exception("it failed")
    only_response.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    assert _verdict(only_response) == verdict


@pytest.mark.parametrize("attribute", ["status", "code"])
def test_a_status_is_found_under_the_names_that_other_clients_use(attribute: str) -> None:
    """aiohttp says `status`, urllib and google-genai say `code`."""
    error = Exception("it failed")
    setattr(error, attribute, 503)
    assert _verdict(error) == ("transient", True)


@pytest.mark.parametrize("status", ["503", 3, 10_503, True, None])
def test_what_is_no_status_decides_nothing(status: Any) -> None:
    """Other attributes of these names are left alone."""
    assert _verdict(ProviderError(status)) == ("permanent", False)


@pytest.mark.parametrize(
    "body",
    [
        {"code": "insufficient_quota", "type": "insufficient_quota"},
        {"error": {"code": "insufficient_quota"}},
        {"code": "credit_balance_exhausted"},
        {"type": "error", "error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}},
    ],
)
def test_a_429_that_says_out_of_money_is_final(body: object) -> None:
    """Waiting does not fill an account; for everybody else who calls, the dependency is down."""
    assert _verdict(ProviderError(429, body=body)) == ("permanent", True)


def test_an_ordinary_429_is_transient() -> None:
    """Its body has a code, too."""
    assert _verdict(ProviderError(429, body={"code": "rate_limit_exceeded"})) == ("transient", True)


@pytest.mark.parametrize(
    ("status", "advice", "category"),
    [(500, "false", "permanent"), (429, "false", "permanent"), (403, "true", "transient"), (400, "false", "semantic")],
)
def test_a_server_that_says_whether_to_retry_is_believed(status: int, advice: str, category: str) -> None:
    """OpenAI and Anthropic send x-should-retry, and their own clients obey it."""
    assert classify(ProviderError(status, {"x-should-retry": advice}), NOW).category == category


@pytest.mark.parametrize(
    "body",
    [
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"type": "server_error", "code": None, "message": "it failed"},
        {"code": "rate_limit_exceeded"},
    ],
)
@pytest.mark.parametrize("status", [200, None])
def test_a_stream_that_fails_half_way_is_judged_by_its_body(status: int | None, body: object) -> None:
    """Its status was sent before anything went wrong."""
    assert _verdict(ProviderError(status, body=body)) == ("transient", True)


# ---------------------------------------------------------------- exceptions by type and name


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (TimeoutError(), ("transient", True)),
        (ConnectionResetError(), ("transient", True)),
        (BrokenPipeError(), ("transient", True)),
        (socket.gaierror(-3, "no name"), ("transient", True)),
        (OSError(errno.EHOSTUNREACH, "no route"), ("transient", True)),
        (EOFError(), ("transient", True)),
        (asyncio.IncompleteReadError(b"", 4), ("transient", True)),
        (ssl.SSLError("handshake"), ("transient", True)),
        (ssl.SSLCertVerificationError("self-signed"), ("permanent", False)),
        (ValueError(), ("semantic", False)),
        (TypeError(), ("semantic", False)),
        (KeyError("x"), ("semantic", False)),
        (msgspec.ValidationError("x"), ("semantic", False)),
        (json.JSONDecodeError("x", "", 0), ("semantic", False)),
        (FileNotFoundError(errno.ENOENT, "x"), ("permanent", False)),
        (OSError(errno.ENOSPC, "full"), ("permanent", False)),
        (MemoryError(), ("permanent", False)),
        (RecursionError(), ("permanent", False)),
        (AttributeError(), ("permanent", False)),
        (RuntimeError(), ("permanent", False)),
        (SystemExit(500), ("permanent", False)),
        (asyncio.CancelledError(), ("cancelled", False)),
        (NotDone("sold out"), ("not_done", False)),
        (ConfigError("x"), ("permanent", False)),
        (MailboxFull("s", "m", 1), ("transient", False)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_exception_of_python_or_holdfast_is_known(error: BaseException, verdict: tuple[str, bool]) -> None:
    """The network is worth another attempt, a wrong value is told to whoever gave it, a bug is final."""
    assert _verdict(error) == verdict


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("APIConnectionError", ("transient", True)),
        ("TransportError", ("transient", True)),
        ("RemoteProtocolError", ("transient", True)),
        ("ReadTimeout", ("transient", True)),
        ("NeverHeardOfError", ("permanent", False)),
        ("PoolTimeout", ("transient", False)),
        ("LocalProtocolError", ("semantic", False)),
        ("ValidationError", ("semantic", False)),
    ],
)
def test_a_clients_exception_is_known_by_the_name_of_its_class(name: str, verdict: tuple[str, bool]) -> None:
    """Nothing is imported for it."""
    assert _verdict(_named(name)) == verdict


def test_the_most_derived_name_that_is_known_decides() -> None:
    """A subclass can be of another kind than its base."""
    transport = type("TransportError", (Exception,), {})
    assert _verdict(_named("MyTransportError", transport)) == ("transient", True)
    assert _verdict(_named("UnsupportedProtocol", transport)) == ("semantic", False)


def test_the_exceptions_of_httpx_are_known() -> None:
    """The real classes, so that a renamed one is noticed."""
    httpx = pytest.importorskip("httpx")
    request = httpx.Request("GET", "http://localhost")
    for name in ("ConnectError", "ConnectTimeout", "ReadTimeout", "ReadError", "RemoteProtocolError", "ProxyError"):
        assert _verdict(getattr(httpx, name)("it failed")) == ("transient", True), name
    assert _verdict(httpx.UnsupportedProtocol("it failed")) == ("semantic", False)
    response = httpx.Response(503, headers={"Retry-After": "7"}, request=request)
    error = httpx.HTTPStatusError("it failed", request=request, response=response)
    assert classify(error, NOW) == Fault("transient", "HTTPStatusError", "it failed", 7.0, True, status=503)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_the_exceptions_of_the_providers_clients_are_known(provider: str) -> None:
    """The real classes, with the response types that they come with."""
    sdk = pytest.importorskip(provider)
    http = pytest.importorskip("httpx2")
    request = http.Request("POST", "http://localhost")
    assert _verdict(sdk.APIConnectionError(request=request)) == ("transient", True)
    assert _verdict(sdk.APITimeoutError(request=request)) == ("transient", True)

    def failed(cls: str, status: int, **headers: str) -> Any:
        response = http.Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()}, request=request)
        return getattr(sdk, cls)("it failed", response=response, body=None)

    assert classify(failed("RateLimitError", 429, Retry_After_Ms="1500"), NOW).retry_after_s == 1.5
    assert _verdict(failed("InternalServerError", 500)) == ("transient", True)
    assert _verdict(failed("BadRequestError", 400)) == ("semantic", False)
    assert _verdict(failed("AuthenticationError", 401)) == ("permanent", False)


def test_a_validation_error_of_pydantic_is_semantic() -> None:
    """The real class."""
    pydantic = pytest.importorskip("pydantic")
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(int).validate_python("x")
    assert _verdict(caught.value) == ("semantic", False)


@pytest.mark.parametrize(("category", "expected"), [("transient", "permanent"), ("semantic", "semantic"), ("permanent", "permanent")])
def test_a_step_that_failed_for_good_is_not_retried_by_the_one_around_it(category: str, expected: str) -> None:
    """Its own retries are used up; type and message stay those of the first cause."""
    fault = classify(StepError("inner", "ReadTimeout", "too slow", category), NOW)
    assert fault == Fault(expected, "ReadTimeout", "too slow")  # type: ignore[arg-type]
    assert classify(AskTimeout("ask", "T", "m"), NOW).category == "permanent"


# ---------------------------------------------------------------- the user's own word


@pytest.mark.parametrize("category", get_args(Category))
def test_an_exception_can_say_what_it_is(category: str) -> None:
    """On the class or on the instance, against everything else that speaks of it."""
    error = ProviderError(500, holdfast_category=category)
    assert _verdict(error) == (category, category == "transient")
    assert classify(type("Own", (ValueError,), {"holdfast_category": category})(), NOW).category == category


@pytest.mark.parametrize("category", ["transcient", 3, ["transient"]])
def test_a_category_that_does_not_exist_is_final(category: object) -> None:
    """A slip of the pen repeats no effect."""
    assert _verdict(ProviderError(500, holdfast_category=category)) == ("permanent", False)


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize(
    ("errors", "category"),
    [
        ([TimeoutError(), ConnectionError()], "transient"),
        ([TimeoutError(), RuntimeError()], "permanent"),
        ([ValueError(), TimeoutError()], "semantic"),
        ([NotDone(), NotDone()], "not_done"),
        ([NotDone(), TimeoutError()], "transient"),
        ([asyncio.CancelledError(), TimeoutError()], "transient"),
        ([asyncio.CancelledError()], "cancelled"),
        ([ExceptionGroup("", [ValueError()]), TimeoutError()], "semantic"),
    ],
)
def test_a_group_is_what_is_worst_in_it(errors: list[BaseException], category: str) -> None:
    """One effect in doubt among many that were not done is a doubt."""
    assert classify(BaseExceptionGroup("", errors), NOW).category == category


def test_a_group_waits_for_the_longest_retry_after() -> None:
    """To come back sooner would fail again."""
    group = ExceptionGroup("", [ProviderError(429, {"retry-after": wait}) for wait in ("3", "9", "5")])
    assert classify(group, NOW).retry_after_s == 9.0


# ---------------------------------------------------------------- Retry-After


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"Retry-After": "2.5"}, 2.5),
        ({"retry-after": 20}, 20.0),
        ({"retry-after": b" 20 "}, 20.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:01:00 GMT"}, 60.0),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 99 Jan 99999 99:99:99 GMT"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
        ("no headers", None),
    ],
)
def test_retry_after_is_understood_in_every_form(headers: Any, seconds: float | None) -> None:
    """Seconds, a date, or milliseconds, never negative; what cannot be read is as good as none."""
    assert classify(ProviderError(429, headers), NOW).retry_after_s == seconds


def test_retry_after_is_found_on_the_exception_itself() -> None:
    """aiohttp and urllib have the headers there."""
    error = Exception("it failed")
    error.status, error.headers = 503, {"Retry-After": "4"}  # type: ignore[attr-defined]
    assert classify(error, NOW).retry_after_s == 4.0


def test_a_failure_that_is_not_transient_has_no_retry_after() -> None:
    """There is nothing to wait for."""
    assert classify(ProviderError(401, {"retry-after": "4"}), NOW).retry_after_s is None


@given(st.text(st.characters(codec="latin-1")) | st.floats().map(str) | st.binary())
def test_no_header_makes_it_raise(value: object) -> None:
    """Whatever a server sends, the result is a wait of 0 or more, or none."""
    wait = classify(ProviderError(503, {"retry-after": value}), NOW).retry_after_s
    assert wait is None or wait >= 0


# ---------------------------------------------------------------- what it carries


def test_a_fault_has_the_name_and_the_text_of_the_exception() -> None:
    """What the record of the step will say."""
    assert classify(ValueError("no such order"), NOW) == Fault("semantic", "ValueError", "no such order")


def test_a_long_text_is_cut() -> None:
    """A response of a megabyte does not go into the journal."""
    message = classify(ValueError("x" * 1_000_000), NOW).message
    assert len(message) == MESSAGE_MAX
    assert message.endswith("…")


def test_an_exception_that_breaks_when_looked_at_is_still_classified() -> None:
    """Neither its text nor its attributes can stop the step from failing in order."""

    class Nasty(TimeoutError):
        def __str__(self) -> str:
            raise RuntimeError

        @property
        def response(self) -> object:
            raise RuntimeError("not set")

    assert classify(Nasty(), NOW) == Fault("transient", "Nasty", "(its text cannot be read)", None, True)


def test_a_fault_survives_encoding() -> None:
    """It goes into records."""
    fault = Fault("transient", "RateLimitError", "slow down", 1.5, True)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(fault), type=Fault) == fault
