"""What kind of failure an exception is."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError, MailboxFull, NotDone, StepError
from holdfast.policies import Fault, classify
from holdfast.policies.classify import MESSAGE_MAX, answers
from holdfast.policies.failures import TABLE

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


def _kind(error: BaseException) -> str:
    return classify(error, NOW).kind


def _named(name: str, *bases: type[BaseException]) -> BaseException:
    error: BaseException = type(name, bases or (Exception,), {})("it failed")
    return error


# ---------------------------------------------------------------- HTTP


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "request"),
        (401, "access"),
        (403, "access"),
        (402, "request"),
        (404, "request"),
        (407, "access"),
        (408, "unavailable"),
        (409, "busy"),
        (413, "request"),
        (422, "request"),
        (425, "busy"),
        (429, "rate_limit"),
        (500, "unavailable"),
        (502, "unavailable"),
        (503, "unavailable"),
        (504, "unavailable"),
        (529, "unavailable"),
    ],
)
def test_an_http_status_decides(status: int, kind: str) -> None:
    """On the exception, or on its response only."""
    assert _kind(ProviderError(status)) == kind
    only_response = Exception("it failed")
    only_response.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    assert _kind(only_response) == kind


@pytest.mark.parametrize("attribute", ["status", "code"])
def test_a_status_is_found_under_the_names_that_other_clients_use(attribute: str) -> None:
    """aiohttp says `status`, urllib and google-genai say `code`."""
    error = Exception("it failed")
    setattr(error, attribute, 503)
    assert _kind(error) == "unavailable"


@pytest.mark.parametrize("status", ["503", 3, 10_503, True, None])
def test_what_is_no_status_decides_nothing(status: Any) -> None:
    """Other attributes of these names are left alone."""
    assert _kind(ProviderError(status)) == "bug"


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
    assert _kind(ProviderError(429, body=body)) == "quota"


def test_a_402_of_a_models_provider_is_final_and_one_of_a_shop_is_not() -> None:
    """The first is about the account, which a person fills; the second about a customer's card, which the handler hears of."""
    model = type("APIStatusError", (Exception,), {"status_code": 402})("insufficient credits")
    shop = type("CardError", (Exception,), {"http_status": 402, "code": "card_declined"})("declined")
    assert (_kind(model), _kind(shop)) == ("quota", "request")
    assert "code:card_declined" in classify(shop, NOW).keys


class Grpc(Exception):
    """Shaped as grpc.aio.AioRpcError is."""

    def __init__(self, name: Any) -> None:
        super().__init__("it failed")
        self._name = name

    def code(self) -> Any:
        return SimpleNamespace(name=self._name)

    def details(self) -> str:
        return "it failed"


def aws(status: int, code: str, **headers: str) -> BaseException:
    """Shaped as botocore.exceptions.ClientError is."""
    error: Any = Exception("it failed")
    error.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aws(503, "ServiceUnavailable"), "unavailable"),
        (aws(400, "ThrottlingException"), "rate_limit"),
        (aws(400, "ValidationException"), "request"),
        (aws(403, "AccessDeniedException"), "access"),
        (Grpc("UNAVAILABLE"), "unavailable"),
        (Grpc("RESOURCE_EXHAUSTED"), "rate_limit"),
        (Grpc("DEADLINE_EXCEEDED"), "timeout"),
        (Grpc("PERMISSION_DENIED"), "access"),
        (Grpc("INVALID_ARGUMENT"), "request"),
        (Grpc("CANCELLED"), "bug"),
        (Grpc(3), "bug"),
        (type("ApiError", (Exception,), {"meta": SimpleNamespace(status=429)})(), "rate_limit"),
    ],
)
def test_the_errors_of_other_services_are_known_by_their_shape(error: BaseException, kind: str) -> None:
    """Of AWS, gRPC and Elasticsearch: a tool raises whatever its client does."""
    assert _kind(error) == kind


def test_a_retry_after_of_aws_is_found() -> None:
    """Among the headers of its metadata."""
    assert classify(aws(429, "TooManyRequestsException", **{"retry-after": "9"}), NOW).retry_after_s == 9.0


def test_a_403_about_the_prompt_is_not_about_the_credentials() -> None:
    """A gateway's moderation answers with 403, too: no person can repair that prompt."""
    flagged = ProviderError(403, body={"message": "flagged", "metadata": {"reasons": ["violence"], "flagged_input": "..."}})
    assert (_kind(flagged), _kind(ProviderError(403, body={"message": "no"}))) == ("request", "access")


def test_an_ordinary_429_is_transient() -> None:
    """Its body has a code, too."""
    assert _kind(ProviderError(429, body={"code": "rate_limit_exceeded"})) == "rate_limit"


@pytest.mark.parametrize(
    ("status", "advice", "kind"),
    [(500, "false", "declined"), (429, "false", "declined"), (409, "false", "request"), (403, "true", "busy"), (429, "true", "rate_limit")],
)
def test_a_server_that_says_whether_to_retry_is_believed(status: int, advice: str, kind: str) -> None:
    """OpenAI and Anthropic send x-should-retry, and their own clients obey it."""
    assert _kind(ProviderError(status, {"x-should-retry": advice})) == kind


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
    assert _kind(ProviderError(status, body=body)) == "unavailable"


# ---------------------------------------------------------------- exceptions by type and name


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "broken"),
        (BrokenPipeError(), "broken"),
        (socket.gaierror(-3, "no name"), "unreached"),
        (OSError(errno.EHOSTUNREACH, "no route"), "broken"),
        (EOFError(), "broken"),
        (asyncio.IncompleteReadError(b"", 4), "broken"),
        (ssl.SSLError("handshake"), "broken"),
        (ssl.SSLCertVerificationError("self-signed"), "access"),
        (ValueError(), "input"),
        (TypeError(), "input"),
        (KeyError("x"), "input"),
        (msgspec.ValidationError("x"), "input"),
        (json.JSONDecodeError("x", "", 0), "input"),
        (FileNotFoundError(errno.ENOENT, "x"), "bug"),
        (OSError(errno.ENOSPC, "full"), "bug"),
        (MemoryError(), "bug"),
        (RecursionError(), "bug"),
        (AttributeError(), "bug"),
        (RuntimeError(), "bug"),
        (SystemExit(500), "bug"),
        (asyncio.CancelledError(), "cancelled"),
        (NotDone("sold out"), "not_done"),
        (ConfigError("x"), "bug"),
        (MailboxFull("s", "m", 1), "busy"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_exception_of_python_or_holdfast_is_known(error: BaseException, kind: str) -> None:
    """The network is worth another attempt, a wrong value is told to whoever gave it, a bug is final."""
    assert _kind(error) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("APIConnectionError", "broken"),
        ("TransportError", "broken"),
        ("RemoteProtocolError", "broken"),
        ("ReadTimeout", "timeout"),
        ("ConnectTimeout", "unreached"),
        ("NeverHeardOfError", "bug"),
        ("PoolTimeout", "busy"),
        ("LocalProtocolError", "input"),
        ("ValidationError", "input"),
    ],
)
def test_a_clients_exception_is_known_by_the_name_of_its_class(name: str, kind: str) -> None:
    """Nothing is imported for it."""
    assert _kind(_named(name)) == kind


def test_the_most_derived_name_that_is_known_decides() -> None:
    """A subclass can be of another kind than its base."""
    transport = type("TransportError", (Exception,), {})
    assert _kind(_named("MyTransportError", transport)) == "broken"
    assert _kind(_named("UnsupportedProtocol", transport)) == "input"


def test_the_exceptions_of_httpx_are_known() -> None:
    """The real classes, so that a renamed one is noticed."""
    httpx = pytest.importorskip("httpx")
    request = httpx.Request("GET", "http://localhost")
    unreached, broken = ("ConnectError", "ConnectTimeout"), ("ReadError", "RemoteProtocolError", "ProxyError")
    for name, kind in {**dict.fromkeys(unreached, "unreached"), **dict.fromkeys(broken, "broken"), "ReadTimeout": "timeout"}.items():
        assert _kind(getattr(httpx, name)("it failed")) == kind, name
    assert _kind(httpx.UnsupportedProtocol("it failed")) == "input"
    response = httpx.Response(503, headers={"Retry-After": "7"}, request=request)
    error = httpx.HTTPStatusError("it failed", request=request, response=response)
    keys = ("HTTPStatusError", "HTTPError", "503", "unavailable")
    assert classify(error, NOW) == Fault("unavailable", "HTTPStatusError", "it failed", 7.0, 503, keys)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_the_exceptions_of_the_providers_clients_are_known(provider: str) -> None:
    """The real classes, with the response types that they come with."""
    sdk = pytest.importorskip(provider)
    http = pytest.importorskip("httpx2")
    request = http.Request("POST", "http://localhost")
    unreached = sdk.APIConnectionError(request=request)
    assert _kind(unreached) == "broken"
    unreached.__cause__ = http.ConnectError("refused")
    assert _kind(unreached) == "unreached"
    assert _kind(sdk.APITimeoutError(request=request)) == "timeout"

    def failed(cls: str, status: int, **headers: str) -> Any:
        response = http.Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()}, request=request)
        return getattr(sdk, cls)("it failed", response=response, body=None)

    assert classify(failed("RateLimitError", 429, Retry_After_Ms="1500"), NOW).retry_after_s == 1.5
    assert _kind(failed("InternalServerError", 500)) == "unavailable"
    assert _kind(failed("BadRequestError", 400)) == "request"
    assert _kind(failed("AuthenticationError", 401)) == "access"


def test_a_validation_error_of_pydantic_is_semantic() -> None:
    """The real class."""
    pydantic = pytest.importorskip("pydantic")
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(int).validate_python("x")
    assert _kind(caught.value) == "input"


def test_a_step_that_failed_for_good_is_not_tried_again_by_the_one_around_it() -> None:
    """Its attempts are used up and counted; what follows is what follows it."""
    error = StepError("inner", "InternalServerError", "down", "transient", kind="unavailable", status=503, of="shop")
    fault = classify(error, NOW)
    assert fault == Fault("unavailable", "InternalServerError", "down", status=503, of=error)
    so = answers(fault, (), 4)
    assert (so.attempts, so.health, so.then, so.category) == (1, "none", "park", "transient")
    so = answers(classify(StepError("inner", "E", "m"), NOW), (), 4)
    assert (so.attempts, so.then, so.category) == (1, "handler", "permanent")


# ---------------------------------------------------------------- the user's own word


@pytest.mark.parametrize("kind", TABLE)
def test_an_exception_can_name_its_kind(kind: str) -> None:
    """On the class or on the instance, against everything else that speaks of it."""
    assert _kind(ProviderError(500, holdfast_failure=kind)) == kind
    assert _kind(type("Own", (ValueError,), {"holdfast_failure": kind})()) == kind


@pytest.mark.parametrize("kind", ["unavailabel", 3, ["busy"]])
def test_a_kind_that_does_not_exist_is_final(kind: object) -> None:
    """A slip of the pen repeats no effect."""
    assert _kind(ProviderError(500, holdfast_failure=kind)) == "bug"


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([TimeoutError(), ConnectionError()], "timeout"),
        ([TimeoutError(), RuntimeError()], "bug"),
        ([ValueError(), TimeoutError()], "input"),
        ([NotDone(), NotDone()], "not_done"),
        ([NotDone(), TimeoutError()], "timeout"),
        ([asyncio.CancelledError(), TimeoutError()], "timeout"),
        ([asyncio.CancelledError()], "cancelled"),
        ([ExceptionGroup("", [ValueError()]), TimeoutError()], "input"),
    ],
)
def test_a_group_is_what_is_worst_in_it(errors: list[BaseException], kind: str) -> None:
    """One effect in doubt among many that were not done is a doubt."""
    assert _kind(BaseExceptionGroup("", errors)) == kind


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
        ({"retry-after": "604800"}, 604_800.0),
        ({"retry-after": "1e300"}, 316_224_000.0),
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
    assert classify(ValueError("no such order"), NOW) == Fault("input", "ValueError", "no such order", keys=("ValueError", "input"))


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

    keys = ("Nasty", "TimeoutError", "OSError", "timeout")
    assert classify(Nasty(), NOW) == Fault("timeout", "Nasty", "(its text cannot be read)", keys=keys)
