"""Durable steps a second with telemetry off, on, and on with a collector that accepts connections and never answers.

The collector is a process of its own, on loopback. It keeps the posts and counts the spans in them afterwards.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple

from benchmarks import raw
from benchmarks.report import Figure, compared
from benchmarks.throughput import looker, sample
from holdfast import Runtime
from holdfast.telemetry.telemetry import Telemetry

SESSIONS = 256
Mode = Literal["off", "answers", "hangs"]


class Run(NamedTuple):
    """Steps a second, and the counts of spans: made, accepted by the collector, dropped."""

    rate: float
    spans: int = 0
    delivered: int = 0
    dropped: int = 0


def ours(each: int, mode: Mode) -> Run:
    """`each` free steps in each of the sessions, all at once; delivery and commit are in the time, the exporter's start is not."""

    async def measure(telemetry: Telemetry | None) -> Run:
        with raw.scratch() as directory:
            async with Runtime(f"sqlite:///{directory}/ours.db", [looker], telemetry=telemetry or False) as runtime:
                handles = await asyncio.gather(*(runtime.spawn(looker, id=f"s-{n}") for n in range(SESSIONS)))
                await asyncio.gather(*(handle.ask(1) for handle in handles))
                if telemetry is not None:
                    await _warm(telemetry, answers=mode == "answers")
                gc.collect()
                began = time.perf_counter()
                await asyncio.gather(*(handle.ask(each, timeout_s=600) for handle in handles))
                took_s = time.perf_counter() - began
            rate, spans = SESSIONS * each / took_s, SESSIONS * (each + 3)  # two turns, and the one step of the first
            return Run(rate) if telemetry is None else Run(rate, spans, *telemetry.statistics().values())

    if mode == "off":
        return asyncio.run(measure(None))
    with collector(mode) as url:
        found = asyncio.run(measure(Telemetry(endpoint=url)))
        return found._replace(delivered=_counted(url)) if mode == "answers" else found


async def _warm(telemetry: Telemetry, *, answers: bool) -> None:
    """Wait until the exporter is ready, and has posted the first spans if the collector accepts them."""
    for _ in range(200):
        await asyncio.sleep(0.1)
        if telemetry.exporter_pid is not None and (not answers or telemetry.statistics()["spans_delivered"] >= 2 * SESSIONS):
            break
    await asyncio.sleep(1.0)


def run(quick: bool) -> list[Figure]:
    """Off and on against bare; a collector that hangs against one that answers."""
    each, pairs, body = (40, 1, sample(paid=False)) if quick else (240, 5, sample(paid=False))
    bare: list[float] = []
    runs: dict[Mode, list[Run]] = {"off": [], "answers": [], "hangs": []}
    for _ in range(pairs):
        bare.append(raw.step_rate(SESSIONS, each, body, paid=False))
        for mode, found in runs.items():
            found.append(ours(each, mode))
    rates = {mode: [one.rate for one in found] for mode, found in runs.items()}
    name = f"free read steps, {SESSIONS} sessions, telemetry"
    bare_name = "bare group commit of the same rows"
    return [
        compared(f"{name} off", "/s", bare, rates["off"], raw_name=bare_name),
        compared(f"{name} on", "/s", bare, rates["answers"], raw_name=bare_name, least=0.35, notes=_notes(runs["answers"])),
        compared(
            f"{name} on, collector hangs", "/s", rates["answers"], rates["hangs"], raw_name="telemetry on", least=0.9,
            notes=_notes(runs["hangs"]),
        ),
    ]  # fmt: skip


def _notes(runs: list[Run]) -> str:
    spans, delivered, dropped = (sum(one[column] for one in runs) for column in (1, 2, 3))
    return f"spans: {spans} made, {delivered} in the collector, {dropped} dropped"


# ---------------------------------------------------------------- the collector


class _Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    posts: list[bytes] = []  # noqa: RUF012 - of the whole server

    def do_POST(self) -> None:
        self.posts.append(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"")

    def do_GET(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        requests = map(ExportTraceServiceRequest.FromString, self.posts)
        self._answer(
            str(sum(len(scope.spans) for request in requests for of in request.resource_spans for scope in of.scope_spans)).encode()
        )

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def collector(mode: Mode) -> Iterator[str]:
    """The URL of a collector process."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.telemetry", mode], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def _counted(url: str) -> int:
    with urllib.request.urlopen(url, timeout=60) as response:
        return int(response.read())


def serve(mode: str) -> None:
    """Run the collector: print the port, then accept posts, or let them wait for ever."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    print(server.server_address[1], flush=True)
    if mode == "answers":
        server.serve_forever()
    kept = []
    while True:
        kept.append(server.socket.accept())


if __name__ == "__main__":
    serve(sys.argv[1])
