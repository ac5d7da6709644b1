"""The destination of spans, from arguments or from the environment variables of OpenTelemetry, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from holdfast import events, redact
from holdfast.errors import ConfigError
from holdfast.policies._faults import Faults
from holdfast.telemetry import wire

TRACES_PATH = "/v1/traces"
_CREDENTIALS = re.compile(r"\A([^/@]*//)?.*@", re.DOTALL)  # up to the last @: a password that is not encoded may hold anything
_UNREAD = {"CERTIFICATE": "set SSL_CERT_FILE", "CLIENT_CERTIFICATE": "it has none", "CLIENT_KEY": "it has none"}
_SAMPLERS: Mapping[str, tuple[bool, float | None]] = {
    "always_on": (False, 1.0),
    "always_off": (False, 0.0),
    "traceidratio": (False, None),
    "parentbased_always_on": (True, 1.0),
    "parentbased_always_off": (True, 0.0),
    "parentbased_traceidratio": (True, None),
}


class Settings(msgspec.Struct, frozen=True):
    """The arguments of Telemetry; see there."""

    url: str
    headers: dict[str, str]
    resource: dict[str, str]
    ratio: float = 1.0
    honour_parent: bool = True
    timeout_s: float = 10.0
    interval_s: float = 0.5
    flush_s: float = 3.0
    queue_bytes: int = 32 * 1024 * 1024
    gzip: bool = False

    def config(self, version: str) -> wire.Config:
        """The settings that the exporter gets."""
        return wire.Config(
            self.url, self.headers, self.resource, version, self.timeout_s, self.interval_s, self.flush_s, self.queue_bytes, self.gzip
        )


def checked(settings: Settings) -> Settings:
    """The same settings.

    Raises:
        ConfigError: a setting is wrong; the message names every fault.
    """
    faults = Faults("Telemetry")
    faults.number("ratio", settings.ratio)
    if not faults.found and settings.ratio > 1.0:
        faults.add(f"ratio is {settings.ratio!r}: give a share from 0 to 1")
    _check_url(settings.url, faults)
    faults.number("timeout_s", settings.timeout_s, positive=True)
    faults.number("interval_s", settings.interval_s, positive=True)
    faults.number("flush_s", settings.flush_s)
    for name, value in settings.headers.items():
        redact.remember_named(name, value)
        if not name.isascii() or not (name + value).isprintable() or not name or " " in name or ":" in name:
            faults.add(f"the header {name!r} cannot be sent: names and values are printable, names without spaces and colons")
    faults.check()
    return settings


def _check_url(url: str, faults: Faults) -> None:
    named = repr(redact.text(_CREDENTIALS.sub(r"\1[redacted]@", url)))
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not url.isascii() or not url.isprintable() or " " in url:
        faults.add(f"endpoint is {named}: give a URL such as http://127.0.0.1:4318")
    elif "@" in parts.netloc:
        faults.add(f"endpoint is {named}: a user and password are not sent from there; give them as a header (authorization)")


def traces_url(endpoint: str, *, base: bool = False) -> str:
    """The traces endpoint of an OTLP base URL. A URL of the traces endpoint stays as it is, unless `base` is True."""
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return endpoint  # `checked` reports the fault
    path = parts.path.rstrip("/")
    if not endpoint.isprintable():
        return endpoint  # reported by `checked`, too
    return urlunsplit(parts._replace(path=path if path.endswith(TRACES_PATH) and not base else path + TRACES_PATH))


def resource_of(environment: Mapping[str, str], service_name: str = "", more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The attributes of this process as a source of spans."""
    found = {"service.name": "holdfast", "telemetry.sdk.language": "python", "telemetry.sdk.name": "holdfast"}
    found |= _pairs("OTEL_RESOURCE_ATTRIBUTES", environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    if name := service_name or environment.get("OTEL_SERVICE_NAME", ""):
        found["service.name"] = name
    return found | dict(more or {})


def from_environment(environment: Mapping[str, str]) -> Settings | None:
    """The settings in the environment; None if it names no endpoint, or switches the SDK off.

    Raises:
        ConfigError: a variable is wrong, or asks for an exporter, protocol, compression or sampler that holdfast does not have.
    """
    if disabled(environment):
        return None

    def of(name: str) -> str:
        return environment.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environment.get(f"OTEL_EXPORTER_OTLP_{name}", "")

    url = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or ""
    if not url and (base := environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        url = traces_url(base, base=True)
    exporter = _word(environment.get("OTEL_TRACES_EXPORTER")) or "otlp"
    if not url or exporter == "none":
        return None
    faults = Faults("the OTEL_ variables of the environment")
    if exporter != "otlp":
        faults.add(f"OTEL_TRACES_EXPORTER is {exporter!r}: holdfast has otlp and none; give the SDK's provider to Telemetry for another")
    if (compression := _word(of("COMPRESSION")) or "none") not in ("none", "gzip"):
        faults.add(f"the OTLP compression is {compression!r}: use gzip or none")
    if (protocol := _word(of("PROTOCOL")) or "http/protobuf") != "http/protobuf":
        faults.add(f"the OTLP protocol is {protocol!r}: holdfast speaks http/protobuf; give the SDK's provider to Telemetry for another")
    honour_parent, ratio = _sampler(environment, faults)
    timeout_s = 10.0
    try:
        timeout_s = float(of("TIMEOUT") or timeout_s)
    except ValueError:
        faults.add(f"the OTLP timeout is {of('TIMEOUT')!r}: give seconds")
    faults.check()
    headers = _pairs("the OTLP headers", of("HEADERS"))
    found = checked(Settings(url, headers, resource_of(environment), ratio, honour_parent, timeout_s, gzip=compression == "gzip"))
    for name, instead in _UNREAD.items():
        if of(name):
            events.log.warning("telemetry: OTEL_EXPORTER_OTLP_%s is not read by holdfast's exporter: %s", name, instead)
    return found


def disabled(environment: Mapping[str, str]) -> bool:
    """Whether the SDK is switched off."""
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _sampler(environment: Mapping[str, str], faults: Faults) -> tuple[bool, float]:
    name = _word(environment.get("OTEL_TRACES_SAMPLER")) or "parentbased_always_on"
    argument = environment.get("OTEL_TRACES_SAMPLER_ARG") or "1"
    honour_parent, ratio = _SAMPLERS.get(name, (True, -1.0))
    if ratio == -1.0:
        faults.add(f"OTEL_TRACES_SAMPLER is {name!r}: use one of {', '.join(_SAMPLERS)}")
    if ratio is not None:
        return honour_parent, ratio
    try:
        return honour_parent, float(argument)
    except ValueError:
        faults.add(f"OTEL_TRACES_SAMPLER_ARG is {argument!r}: give a share from 0 to 1")
        return honour_parent, 1.0


def _word(value: str | None) -> str:
    """One of a few words, in lower case."""
    return (value or "").strip().lower()


def _pairs(source: str, text: str) -> dict[str, str]:
    """`a=1,b=2` with percent-encoded values.

    Raises:
        ConfigError: a part is not of that form; the message does not contain it, as it may be a credential.
    """
    found = {}
    for nth, pair in enumerate(text.split(","), 1):
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            found[unquote(name.strip())] = unquote(value.strip())
        elif pair.strip():
            raise ConfigError(f"{source}: part {nth} is not name=value; a comma in a value is %2C")
    return found
