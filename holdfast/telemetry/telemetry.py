"""Telemetry: makes spans of the turns and steps of a Runtime."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from holdfast import events
from holdfast.clock import Clock, SystemClock
from holdfast.errors import ConfigError
from holdfast.telemetry import settings as _settings
from holdfast.telemetry.conventions import version
from holdfast.telemetry.ids import within

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from holdfast.telemetry.link import Link
    from holdfast.telemetry.plain import Plain
    from holdfast.telemetry.recorder import Recorder

PACK_EVERY_S = 0.1

_SYSTEM_CLOCK = SystemClock()


class Telemetry:
    """One span for each turn and each step, in OpenTelemetry's terms.

    Records go to an exporter process that encodes and posts them as OTLP over HTTP; or, with `provider`, to the SDK in this process,
    which costs some tens of microseconds of the event loop a span.

    Args:
        endpoint: the collector's OTLP base URL, such as "http://127.0.0.1:4318", or its traces endpoint (".../v1/traces").
        headers: sent with each post; kept out of logs and of the exporter's command line and environment.
        service_name: default OTEL_SERVICE_NAME, else "holdfast".
        resource: more attributes of this process as a source of spans.
        ratio: the share of the traces that begin here which is recorded. A trace that began elsewhere is recorded if its sender records it.
        gzip: whether posts are compressed.
        timeout_s: the longest time of one post, in seconds.
        interval_s: how long the exporter gathers spans for one post, in seconds.
        flush_s: how long, in seconds, the exporter may take to post its last spans when the runtime ends.
        provider: the SDK's TracerProvider to make ordinary spans with; then no other argument is allowed.
        clock: the clock of the events' times, for tests in virtual time.

    Raises:
        ConfigError: an argument is wrong; the message names every fault.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        headers: Mapping[str, str] | None = None,
        service_name: str = "",
        resource: Mapping[str, str] | None = None,
        ratio: float = 1.0,
        gzip: bool = False,
        timeout_s: float = 10.0,
        interval_s: float = 0.5,
        flush_s: float = 3.0,
        provider: TracerProvider | None = None,
        clock: Clock = _SYSTEM_CLOCK,
    ) -> None:
        if (endpoint is None) == (provider is None):
            raise ConfigError("Telemetry: give either endpoint= or provider=")
        self._provider, self._clock = provider, clock
        self._settings: _settings.Settings | None = None
        if endpoint is not None:
            self._settings = _settings.checked(
                _settings.Settings(
                    _settings.traces_url(endpoint), dict(headers or {}), _settings.resource_of(os.environ, service_name, resource), ratio,
                    True, timeout_s, interval_s, flush_s, gzip=gzip,
                )
            )  # fmt: skip
        elif headers or service_name or resource or ratio != 1.0 or gzip:
            raise ConfigError("Telemetry: with provider= all else is the provider's own: its resource, sampler and exporter")
        self._begin()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self | None:
        """Telemetry by the OTEL_ variables, or with the SDK's TracerProvider if this program has set one; None if there is neither.

        Raises:
            ConfigError: a variable is wrong.
        """
        environment = os.environ if environment is None else environment
        found = _settings.from_environment(environment)
        if found is not None:
            telemetry = cls.__new__(cls)
            telemetry._provider, telemetry._clock, telemetry._settings = None, _SYSTEM_CLOCK, found
            telemetry._begin()
            return telemetry
        provider = None if _settings.disabled(environment) else _provider_that_is_set()
        return None if provider is None else cls(provider=provider)

    def _begin(self) -> None:
        self._link: Link | None = None
        self._recorder: Recorder | None = None
        self._plain: Plain | None = None
        if self._settings is None:
            from holdfast.telemetry.plain import Plain

            assert self._provider is not None
            self._plain = Plain(self._provider, self._clock)
            self.observer: Callable[[events.Event], None] = self._plain
            return
        from holdfast.telemetry.link import Link
        from holdfast.telemetry.recorder import Recorder

        self._link = Link(self._settings.config(version()))
        sampled = partial(within, ratio=self._settings.ratio)
        self._recorder = Recorder(self._link.send, self._clock, sampled, self._settings.honour_parent)
        self._link.last = self._recorder.pack
        self.observer = self._recorder

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Send records until cancelled; run it as a child of the supervision tree. It raises no errors of its own.

        If cancelled, it sends its last records and gives the exporter `flush_s` seconds to post them.
        """
        task_status.started()
        link, recorder = self._link, self._recorder
        if link is None or recorder is None:
            return await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(link.run)
            while True:
                await anyio.sleep(PACK_EVERY_S)
                recorder.pack()
                link.log_drops(anyio.current_time())

    async def flush(self, deadline_s: float = 10.0) -> bool:
        """Wait until every span that has ended is posted, or dropped and counted. Returns False if some are still in flight after
        `deadline_s` seconds. Spans that end later are exported as usual. If cancelled, the spans are exported all the same.
        """
        if self._link is not None:
            return await self._link.flush(deadline_s)
        force: Callable[[int], bool] | None = getattr(self._provider, "force_flush", None)
        if force is None:
            return True
        return bool(await anyio.to_thread.run_sync(force, round(deadline_s * 1000), abandon_on_cancel=True))

    @property
    def stop_s(self) -> float:
        """How long `run` may take to end once it is cancelled, in seconds."""
        return 1.0 if self._settings is None else self._settings.flush_s + 5.0

    def statistics(self) -> dict[str, int]:
        """Spans so far: `spans_delivered` were accepted by the collector, `spans_dropped` are lost; only those of the exporter process."""
        if self._link is None:
            return {}
        refused = 0 if self._recorder is None else self._recorder.refused
        return {"spans_delivered": self._link.delivered, "spans_dropped": self._link.dropped + refused}

    @property
    def trouble(self) -> str:
        """The known fault of the collector or the exporter, for people and without secrets; "" if there is none."""
        return "" if self._link is None else self._link.trouble

    @property
    def exporter_pid(self) -> int | None:
        """The exporter process, while there is one."""
        return None if self._link is None else self._link.pid


def _provider_that_is_set() -> Any:
    """The SDK's TracerProvider that this program has set globally; None if there is none. It imports nothing."""
    sdk, api = sys.modules.get("opentelemetry.sdk.trace"), sys.modules.get("opentelemetry.trace")
    if sdk is None or api is None:
        return None
    provider = api.get_tracer_provider()
    return provider if isinstance(provider, sdk.TracerProvider) else None
