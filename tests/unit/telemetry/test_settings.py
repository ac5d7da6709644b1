"""Where spans go: what arguments and the environment may say."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
from opentelemetry.sdk.trace import TracerProvider

from holdfast import ConfigError
from holdfast.telemetry import Telemetry
from holdfast.telemetry.settings import from_environment, traces_url

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def test_without_an_endpoint_there_is_no_telemetry() -> None:
    """Not configured means that nothing is observed: no observer, no process, no import of OpenTelemetry."""
    code = (
        "import sys; from holdfast.telemetry import Telemetry; assert Telemetry.from_environment({}) is None;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://example.com/otlp", "https://example.com/otlp/v1/traces"),
        ("https://example.com/otlp/v1/traces", "https://example.com/otlp/v1/traces"),
        ("https://example.com/otlp/v1/traces/", "https://example.com/otlp/v1/traces"),
        ("http://127.0.0.1:4318?x=1", "http://127.0.0.1:4318/v1/traces?x=1"),
    ],
)
def test_an_endpoint_is_a_base_or_the_whole(endpoint: str, url: str) -> None:
    """Both forms that collectors document lead to the same place."""
    assert traces_url(endpoint) == url


def test_the_variables_of_opentelemetry_are_honoured() -> None:
    """What the environment says for any OpenTelemetry program holds for this one."""
    found = from_environment(
        {
            **ENDPOINT,
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=prod,service.name=other,team=a%20b",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=k%3D1, x-other=2",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
        }
    )
    assert found is not None
    assert found.url == "http://collector:4318/v1/traces"
    assert (found.headers, found.timeout_s, found.gzip) == ({"x-key": "k=1", "x-other": "2"}, 3.0, True)
    assert (found.resource["service.name"], found.resource["deployment.environment"], found.resource["team"]) == ("shop", "prod", "a b")
    assert (found.honour_parent, found.ratio) == (True, 0.25)


def test_an_endpoint_for_traces_goes_before_the_general_one_and_is_taken_as_it_is() -> None:
    """As OpenTelemetry's specification says."""
    found = from_environment({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:9/in"})
    assert found is not None
    assert found.url == "http://traces:9/in"


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_switched_off_is_off(off: dict[str, str]) -> None:
    """Also where an endpoint is named."""
    assert from_environment({**ENDPOINT, **off}) is None


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "jaeger_remote"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "much"}, "much"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, "ratio"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "soon"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "nan"}, "timeout_s"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, "zstd"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a=1,nothing"}, "headers: part 2"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team"}, "OTEL_RESOURCE_ATTRIBUTES: part 1"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "endpoint"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector :4318"}, "endpoint"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector\x00:4318"}, "endpoint"),
    ],
)
def test_what_the_environment_gets_wrong_is_said_at_the_start(wrong: dict[str, str], named: str) -> None:
    """One clear line, when it is loaded and not at the first span."""
    with pytest.raises(ConfigError, match=named):
        from_environment({**ENDPOINT, **wrong})


def test_words_are_read_in_whatever_case() -> None:
    """As OpenTelemetry's specification says."""
    found = from_environment({**ENDPOINT, "OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP", "OTEL_TRACES_EXPORTER": "OTLP"})
    assert found is not None
    assert found.gzip


def test_what_is_not_read_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A certificate of one's own that is silently left out costs an afternoon."""
    assert from_environment({**ENDPOINT, "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem"}) is not None
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE is not read by holdfast's exporter: set SSL_CERT_FILE" in caplog.text


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://ada:hunter2hunter2@collector:4318", "http://ada:hunter2hunter2@collector:99999", "ftp://ada:hunter2hunter2@collector",
        "http://ada:hunter2/hunter2@collector", "ada:hunter2hunter2@collector", "http://ada:hunter2hunter2@[::1",
    ],
)  # fmt: skip
def test_a_password_in_an_endpoint_is_refused_and_not_shown(endpoint: str) -> None:
    """It would not be sent; and the error that says so goes to terminals and logs."""
    for wrong in (partial(Telemetry, endpoint=endpoint), partial(from_environment, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})):
        with pytest.raises(ConfigError, match=r"endpoint is .*redacted") as raised:
            wrong()
        assert "hunter2" not in str(raised.value)


def test_what_arguments_get_wrong_is_said_all_at_once() -> None:
    """Every fault of one definition, in one error."""
    with pytest.raises(ConfigError) as raised:
        Telemetry(endpoint="nowhere", ratio=1.5, timeout_s=0, headers={"a b": "c"})
    assert all(word in str(raised.value) for word in ("endpoint", "ratio", "timeout_s", "'a b'"))


def test_an_endpoint_or_a_provider_but_not_both() -> None:
    """With a provider all else is the provider's: silently ignoring it would mislead."""
    provider = TracerProvider()
    for wrong in (Telemetry, partial(Telemetry, endpoint="http://a", provider=provider), partial(Telemetry, provider=provider, ratio=0.5)):
        with pytest.raises(ConfigError, match="provider"):
            wrong()
    provider.shutdown()
