"""Posts encoded spans to a collector, in a thread of the exporter process. Spans that do not fit into the queue are dropped and counted."""

from __future__ import annotations

import gzip
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from holdfast.telemetry import otlp, wire

MAX_SPANS, MAX_BYTES = 4096, 2 * 1024 * 1024
"""The limits of one post."""
TRIES = 4
"""The most tries of one post, the first one included."""
BACKOFF_S, MAX_WAIT_S = 0.5, 10.0
_AGAIN = frozenset({429, 502, 503, 504})


class Refused(Exception):
    """The collector answered with an error. `again`: the same post may be accepted later, after `wait_s` seconds if the answer had a
    Retry-After."""

    def __init__(self, status: int, reason: str, wait_s: float | None) -> None:
        super().__init__(f"the collector answered {status} {reason}")
        self.again, self.wait_s = status in _AGAIN, wait_s


class Connection:
    """A persistent connection to the traces endpoint."""

    def __init__(self, config: wire.Config) -> None:
        url = urlsplit(config.url)
        self._make = HTTPSConnection if url.scheme == "https" else HTTPConnection
        self._host, self._port = url.hostname or "", url.port
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._headers = {**config.headers, "Content-Type": "application/x-protobuf", "User-Agent": f"holdfast/{config.version}"}
        self._gzip = config.gzip
        if config.gzip:
            self._headers["Content-Encoding"] = "gzip"
        self._open: HTTPConnection | None = None

    def post(self, body: bytes, timeout_s: float) -> int:
        """Send a request. Returns how many of its spans the collector rejected while it accepted the others.

        Raises:
            Refused: it answered with an error.
            OSError, HTTPException: no connection was made, or it did not answer in time.
        """
        data = gzip.compress(body, 1) if self._gzip else body
        try:
            connection = self._open = self._open or self._make(self._host, self._port)
            connection.timeout = timeout_s
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            connection.request("POST", self._path, data, self._headers)
            response = connection.getresponse()
            answer = response.read(65_536)
            if not response.isclosed():
                self.close()
        except BaseException:
            self.close()
            raise
        if not 200 <= response.status < 300:
            raise Refused(response.status, response.reason[:100], _seconds(response.getheader("Retry-After")))
        return otlp.rejected(answer)

    def close(self) -> None:
        """Close the connection; the next post opens a new one."""
        if self._open is not None:
            self._open.close()
            self._open = None


def _seconds(retry_after: str | None) -> float | None:
    """How long the collector asks to wait, within limits; None if it does not ask, or gives no number."""
    try:
        seconds = float(retry_after or "nan")
    except ValueError:
        return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_WAIT_S)  # a wait of NaN would never end


class Poster:
    """Takes encoded spans from one thread and posts them in another.

    Args:
        report: called, from either thread, when the counts have changed.
    """

    def __init__(self, config: wire.Config, envelope: otlp.Envelope, report: Callable[[wire.Report], None]) -> None:
        self._config, self._envelope, self._report = config, envelope, report
        self._connection = Connection(config)
        self._waiting: deque[bytes] = deque()
        self._bytes, self._in_hand = 0, 0
        self._delivered, self._dropped, self._trouble = 0, 0, ""
        self._changed = threading.Condition()
        self._until: float | None = None  # set once no more spans come: the time at which posting has to end
        self._thread = threading.Thread(target=self._run, name="poster", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether new spans are dropped now: then they need not be encoded."""
        return self._bytes >= self._config.queue_bytes

    def put(self, spans: list[bytes]) -> None:
        """Queue these spans for a post; those that do not fit are dropped."""
        with self._changed:
            before = self._dropped
            for span in spans:
                if self._bytes >= self._config.queue_bytes:
                    self._dropped += 1
                else:
                    self._waiting.append(span)
                    self._bytes += len(span)
            self._changed.notify()
            dropped = self._dropped != before
        if dropped:
            self._tell()

    def drop(self, count: int) -> None:
        """Count spans that were dropped before they were encoded."""
        with self._changed:
            self._dropped += count
        self._tell()

    def close(self, within_s: float) -> None:
        """Post the queue, then stop, at most `within_s` seconds; the spans that are left count as dropped."""
        with self._changed:
            self._until = time.monotonic() + within_s
            self._changed.notify()
        self._thread.join(within_s)
        with self._changed:
            self._dropped += len(self._waiting) + self._in_hand
            self._waiting.clear()
            self._in_hand = 0
        self._tell()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while (spans := self._next()) is not None:
            if spans:
                self._deliver(self._envelope.request(spans))
                self._tell()
        self._connection.close()

    def _next(self) -> list[bytes] | None:
        """The spans of the next post; None after the last."""
        with self._changed:
            if self._until is None and len(self._waiting) < MAX_SPANS:
                self._changed.wait_for(lambda: self._until is not None or len(self._waiting) >= MAX_SPANS, self._config.interval_s)
            if self._until is not None and (not self._waiting or time.monotonic() >= self._until):
                return None
            spans: list[bytes] = []
            size = 0
            while self._waiting and len(spans) < MAX_SPANS and size < MAX_BYTES:
                span = self._waiting.popleft()
                size += len(span)
                spans.append(span)
            self._bytes -= size
            self._in_hand = len(spans)
            return spans

    def _deliver(self, body: bytes) -> None:
        rejected: int | None = None
        for nth in range(TRIES):
            wait_s = min(BACKOFF_S * 2**nth, MAX_WAIT_S) * random.uniform(0.5, 1.0)
            try:
                rejected = self._connection.post(body, self._time_left())
                self._trouble = "" if not rejected else f"the collector rejected {rejected} spans"
                break
            except Refused as error:
                self._trouble = str(error)
                if not error.again:
                    break
                wait_s = wait_s if error.wait_s is None else error.wait_s
            except (OSError, HTTPException, ValueError) as error:
                self._trouble = f"{type(error).__name__}: {error}"
            self._tell()
            if nth + 1 == TRIES or not self._may_wait(wait_s):
                break
        with self._changed:
            count, self._in_hand = self._in_hand, 0
            lost = count if rejected is None else min(rejected, count)
            self._dropped += lost
            self._delivered += count - lost

    def _time_left(self) -> float:
        if self._until is None:
            return self._config.timeout_s
        return min(self._config.timeout_s, max(self._until - time.monotonic(), 0.05))

    def _may_wait(self, seconds: float) -> bool:
        """Wait before another try; False if there is no time for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._until is not None, seconds)
            if self._until is None:
                return True
            left_s = self._until - time.monotonic()
        time.sleep(min(seconds, max(left_s, 0.0)))
        return time.monotonic() < self._until

    def _tell(self) -> None:
        with self._changed:
            report = wire.Report(self._delivered, self._dropped, self._trouble[:300])
        self._report(report)
