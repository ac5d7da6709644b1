"""Spans read back from a collector on loopback: a real socket, a real exporter process, OTLP read with its own generated messages."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from holdfast import Runtime, Session, StepError, Usage, agent, tool
from holdfast.console.api import doctor
from holdfast.console.api.control import Control
from holdfast.telemetry import Telemetry, otlp, posting, wire
from tests.unit.telemetry.support import Read, read

ROOT = Path(__file__).parents[2]
SECRET = "abcdefghijklmnop"
WITHIN_S = 20.0

Answers: TypeAlias = Callable[[int], tuple[int, bytes] | None]


class Collector:
    """Takes OTLP over HTTP; what `answers` gives for the nth post is its status and body, None is no answer at all."""

    def __init__(self, answers: Answers, reason: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.posts: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.accepted: list[bytes] = []
        self._changed = threading.Condition()
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(200, b"fine")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                with outer._changed:
                    outer.posts.append(body)
                    outer.headers.append(dict(self.headers))
                    answer = answers(len(outer.posts))
                    if answer is not None and answer[0] == 200:
                        outer.accepted.append(body)
                    outer._changed.notify_all()
                if answer is None:
                    outer._over.wait()
                    self.close_connection = True
                else:
                    self._answer(*answer)

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status, reason)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def spans(self) -> list[Read]:
        """All spans that were accepted."""
        with self._changed:
            return [span for post in self.accepted for span in read(post)]

    def wait(self, ready: Callable[[], bool]) -> None:
        """Until it is so, looked at after each post."""
        with self._changed:
            assert self._changed.wait_for(ready, WITHIN_S)

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def collecting(answers: Answers = lambda nth: (200, b""), **more: Any) -> Iterator[Collector]:
    collector = Collector(answers, **more)
    try:
        yield collector
    finally:
        collector.close()


@asynccontextmanager
async def running(telemetry: Telemetry, *agents: Any) -> AsyncIterator[Runtime]:
    async with Runtime("memory:", agents, telemetry=telemetry) as runtime:
        yield runtime


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def until(ready: Callable[[], bool]) -> None:
    """Until it is so."""
    for _ in range(int(WITHIN_S / 0.01)):
        if ready():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be")


def visible(pid: int) -> bytes:
    """What any user of the machine, or whoever may read its environment, can see of a process; nothing where there is no /proc."""
    files = [Path(f"/proc/{pid}/{name}") for name in ("cmdline", "environ")]
    return b"".join(file.read_bytes() for file in files if file.exists())


async def exporter_of(telemetry: Telemetry, other_than: int | None = None) -> int:
    """The pid of its exporter, once it runs."""
    await until(lambda: telemetry.exporter_pid not in (None, other_than))
    assert telemetry.exporter_pid is not None
    return telemetry.exporter_pid


async def look(n: int) -> int:
    return n


@agent
async def looker(session: Session[None], steps: int) -> int:
    for n in range(steps):
        await session.step(look, n)
    return steps


# ---------------------------------------------------------------- what arrives


async def test_a_turn_its_steps_and_what_they_called_are_one_trace() -> None:
    """Read back: nested by ids, httpx under its step and with its own exporter, right session, tokens, cost, error; no secret anywhere."""

    @tool(cost=Usage(tokens=15, microusd=1250))
    async def fetch(url: str) -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(url)).text

    @tool(effect="read")
    async def fail() -> None:
        raise PermissionError(f"401 for Bearer {SECRET}")

    @agent
    async def support(session: Session[None], url: str) -> str:
        got = await session.gather(session.step(fetch, url), session.step(fetch, url + "?2"))
        try:
            await session.step(fail)
        except StepError:
            return str(got[0])
        return "no error"

    with collecting() as collector:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(collector.url + "/v1/traces")))
        HTTPXClientInstrumentor().instrument(tracer_provider=provider)
        try:
            telemetry = Telemetry(endpoint=collector.url, service_name="shop", interval_s=0.05)
            async with running(telemetry, support) as runtime:
                handle = await runtime.spawn(support, id="ticket-1", tenant="acme", user="ada")
                assert await handle.ask(collector.url) == "fine"
                await handle.ask(collector.url)
        finally:
            HTTPXClientInstrumentor().uninstrument()
            provider.shutdown()
        spans = collector.spans()
        raw = b"".join(collector.posts)

    turns = [span for span in spans if span.name == "invoke_agent support"]
    assert len({turn.trace for turn in turns}) == 2
    for turn in turns:
        own = [span for span in spans if span.trace == turn.trace]
        steps = [span for span in own if span.parent == turn.id]
        calls = [span for span in own if span.name == "GET"]
        assert sorted(span.name for span in steps) == ["step fail", "step fetch", "step fetch"]
        assert sorted(call.parent for call in calls) == sorted(span.id for span in steps if span.name == "step fetch")
        assert len(own) == 1 + len(steps) + len(calls)
        assert all(span.attributes["session.id"] == "ticket-1" for span in (turn, *steps))
        assert (turn.attributes["holdfast.tokens"], turn.attributes["holdfast.microusd"]) == (30, 2500)
        assert sum(span.attributes.get("gen_ai.usage.cost", 0.0) for span in own) == 0.0025
        assert {span.attributes.get("holdfast.tokens") for span in steps} == {15, None}
        [failed] = [span for span in steps if span.name == "step fail"]
        assert (failed.status, failed.error, failed.attributes["error.type"]) == (2, "401 for [redacted]", "PermissionError")
        assert all(turn.began_s <= span.began_s <= span.ended_s <= turn.ended_s + 0.001 for span in steps)
        for call in calls:
            [above] = [span for span in steps if span.id == call.parent]
            assert above.began_s <= call.began_s <= call.ended_s <= above.ended_s
    assert SECRET.encode() not in raw
    assert telemetry.statistics() == {"spans_delivered": 8, "spans_dropped": 0}


async def test_a_callers_trace_goes_on_in_the_session() -> None:
    """The span that was current where the message was sent is the parent of the turn's."""
    provider = TracerProvider()
    with collecting() as collector:
        telemetry = Telemetry(endpoint=collector.url)
        async with running(telemetry, looker) as runtime:
            handle = await runtime.spawn(looker, id="s")
            with provider.get_tracer("web").start_as_current_span("POST /chat") as above:
                await handle.ask(1)
        spans = collector.spans()
    provider.shutdown()
    [turn] = [span for span in spans if span.name == "invoke_agent looker"]
    context = above.get_span_context()
    assert (turn.trace, turn.parent) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_the_environment_alone_switches_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Runtime that says nothing about telemetry does what OpenTelemetry's variables say; one that says False does not."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        for telemetry in (None, False):
            async with Runtime("memory:", [looker], telemetry=telemetry) as runtime:
                await (await runtime.spawn(looker, id="s")).ask(2)
        assert len(collector.spans()) == 3


async def test_credentials_are_sent_but_are_nowhere_else_and_posts_can_be_compressed(caplog: pytest.LogCaptureFixture) -> None:
    """Headers are with each post, and not where other users of the machine can read them."""
    with collecting() as collector:
        telemetry = Telemetry(endpoint=collector.url, headers={"authorization": f"Bearer {SECRET}"}, gzip=True, interval_s=0.05)
        async with running(telemetry, looker) as runtime:
            pid = await exporter_of(telemetry)
            seen = visible(pid)
            await (await runtime.spawn(looker, id="s")).ask(3)
        assert collector.headers[0]["authorization"] == f"Bearer {SECRET}"
        assert len(collector.spans()) == 4
    assert SECRET.encode() not in seen
    assert SECRET not in caplog.text


# ---------------------------------------------------------------- collectors in trouble


async def test_a_post_that_may_be_accepted_later_is_sent_again_and_a_refused_one_is_counted() -> None:
    """503 is tried again; 400 is not; what a partial success rejects is counted as dropped. Every span is accounted for."""
    answers = iter([(503, b""), (200, b""), (400, b"no"), (200, b"\x0a\x02\x08\x02")])
    with collecting(lambda nth: next(answers)) as collector:
        telemetry = Telemetry(endpoint=collector.url, interval_s=0.05)
        async with running(telemetry, looker) as runtime:
            handle = await runtime.spawn(looker, id="s")
            expected = {"spans_delivered": 0, "spans_dropped": 0}
            for posts, delivered, dropped, trouble in ((2, 4, 0, ""), (3, 0, 4, "400"), (4, 2, 2, "rejected 2")):
                await handle.ask(3)
                expected["spans_delivered"] += delivered
                expected["spans_dropped"] += dropped
                await until(lambda: telemetry.statistics() == expected)
                assert len(collector.posts) == posts
                assert trouble in telemetry.trouble
                assert bool(trouble) == bool(telemetry.trouble)


async def test_a_collector_that_never_answers_stops_nothing() -> None:
    """Steps go on, spans are dropped and counted, and the end does not wait longer than it may."""
    with collecting(lambda nth: None) as collector:
        telemetry = Telemetry(endpoint=collector.url, interval_s=0.05, flush_s=0.3)
        async with running(telemetry, looker) as runtime:
            pid = await exporter_of(telemetry)
            assert await (await runtime.spawn(looker, id="s")).ask(500) == 500
            await asyncio.to_thread(collector.wait, lambda: len(collector.posts) > 0)
            began = time.monotonic()
        assert time.monotonic() - began < 5.0
    assert telemetry.statistics() == {"spans_delivered": 0, "spans_dropped": 501}
    assert gone(pid)


async def test_no_collector_at_all_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection is a reason that is said, not an error of any session."""
    with collecting() as collector:
        url = collector.url
    telemetry = Telemetry(endpoint=url, flush_s=0.3)
    async with running(telemetry, looker) as runtime:
        assert await (await runtime.spawn(looker, id="s")).ask(5) == 5
    assert telemetry.statistics() == {"spans_delivered": 0, "spans_dropped": 6}
    assert "ConnectionRefusedError" in telemetry.trouble


async def test_flush_waits_until_all_is_posted_and_ends_nothing() -> None:
    """After it the collector has every span that has ended; spans that come later arrive as well."""
    with collecting() as collector:
        telemetry = Telemetry(endpoint=collector.url, interval_s=0.05)
        async with running(telemetry, looker) as runtime:
            handle = await runtime.spawn(looker, id="s")
            for spans in (4, 8):
                await handle.ask(3)
                assert await telemetry.flush(WITHIN_S)
                assert len(collector.spans()) == spans
        assert await telemetry.flush(0.0)


async def test_flush_says_when_it_did_not_come_to_an_end() -> None:
    """A collector that does not answer holds its caller no longer than it may."""
    with collecting(lambda nth: None) as collector:
        telemetry = Telemetry(endpoint=collector.url, interval_s=0.05, flush_s=0.3)
        async with running(telemetry, looker) as runtime:
            await (await runtime.spawn(looker, id="s")).ask(3)
            assert not await telemetry.flush(0.1)


async def test_flush_flushes_the_programs_own_provider() -> None:
    """With the SDK in this process it is the SDK's own."""
    with collecting() as collector:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(collector.url + "/v1/traces"), schedule_delay_millis=60_000))
        telemetry = Telemetry(provider=provider)
        async with running(telemetry, looker) as runtime:
            await (await runtime.spawn(looker, id="s")).ask(3)
            assert await telemetry.flush(WITHIN_S)
            assert len(collector.spans()) == 4
        provider.shutdown()


async def test_what_is_wrong_with_the_collector_is_in_the_diagnosis_without_secrets() -> None:
    """`holdfast doctor` says that no spans arrive, and why; what the collector quotes of the credentials is masked."""
    answers = iter([(200, b""), (403, b"")])
    with collecting(lambda nth: next(answers), reason=f"no {SECRET}") as collector:
        telemetry = Telemetry(endpoint=collector.url, headers={"authorization": f"Token {SECRET}"}, interval_s=0.05)
        async with running(telemetry, looker) as runtime:
            handle, said = await runtime.spawn(looker, id="s"), []
            for _ in range(2):
                await handle.ask(1)
                assert await telemetry.flush(WITHIN_S)
                found = await doctor.diagnose(Control(runtime, "memory:"))
                assert found.healthy
                said += [(check.level, check.text) for check in found.checks if check.name == "telemetry"]
    assert said == [
        ("ok", "2 spans delivered, 0 dropped"),
        ("warning", "2 spans delivered, 2 dropped: the collector answered 403 no [redacted]"),
    ]


@pytest.mark.parametrize("wait", ["nan", "inf", "-inf", "soon", "-1"])
async def test_an_odd_wish_to_wait_is_bounded(wait: str) -> None:
    """A collector whose Retry-After is no number of seconds gets its post again soon, and once at a time."""
    answers = iter([(503, b""), (200, b"")])
    posting.MAX_WAIT_S, before = 0.1, posting.MAX_WAIT_S
    changed: list[wire.Report] = []
    try:
        with collecting(lambda nth: next(answers), headers={"Retry-After": wait}) as collector:
            config = wire.Config(collector.url + "/v1/traces", {}, {}, "1", 2.0, 0.01, 1.0, 1 << 20, False)
            poster = posting.Poster(config, otlp.Envelope({}, "holdfast", "1"), changed.append)
            poster.put([b""])
            await asyncio.to_thread(collector.wait, lambda: len(collector.accepted) == 1)
            poster.close(WITHIN_S)
    finally:
        posting.MAX_WAIT_S = before
    assert (changed[-1].delivered, changed[-1].dropped) == (1, 0)


# ---------------------------------------------------------------- exporters in trouble


async def test_an_exporter_that_dies_is_started_again() -> None:
    """What it had is counted as dropped at most; what comes later arrives."""
    with collecting() as collector:
        telemetry = Telemetry(endpoint=collector.url, interval_s=0.05)
        async with running(telemetry, looker) as runtime:
            first = await exporter_of(telemetry)
            handle = await runtime.spawn(looker, id="s")
            await handle.ask(3)
            await asyncio.to_thread(collector.wait, lambda: len(collector.accepted) > 0)
            os.kill(first, signal.SIGKILL)
            await handle.ask(3)
            second = await exporter_of(telemetry, other_than=first)
            await handle.ask(3)
        named = [span for span in collector.spans() if span.name == "invoke_agent looker"]
    statistics = telemetry.statistics()
    assert sum(statistics.values()) == 12
    assert len(named) >= 2
    assert gone(first)
    assert gone(second)


async def test_an_exporter_that_stands_still_stops_nothing() -> None:
    """The pipe fills, then memory up to its limit, then spans are dropped; at the end it is killed."""
    with collecting() as collector:
        telemetry = Telemetry(endpoint=collector.url, flush_s=0.2)
        async with running(telemetry, looker) as runtime:
            pid = await exporter_of(telemetry)
            os.kill(pid, signal.SIGSTOP)
            assert await (await runtime.spawn(looker, id="s")).ask(200) == 200
    assert telemetry.statistics() == {"spans_delivered": 0, "spans_dropped": 201}
    assert gone(pid)


PARENT = """
import asyncio, sys
from holdfast import Runtime, Session, agent
from holdfast.telemetry import Telemetry

async def look(n: int) -> int:
    return n

@agent
async def looker(session: Session[None], steps: int) -> int:
    for n in range(steps):
        await session.step(look, n)
    return steps

async def main():
    telemetry = Telemetry(endpoint=sys.argv[1], interval_s=60.0)
    async with Runtime("memory:", [looker], telemetry=telemetry) as runtime:
        await (await runtime.spawn(looker, id="s")).ask(3)
        while telemetry.exporter_pid is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # longer than records are gathered on the loop
        print(telemetry.exporter_pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_an_exporter_whose_parent_is_killed_posts_what_it_has_and_exits(tmp_path: Path) -> None:
    """No orphan, and the spans of the time before the kill are those that one wants to see."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with collecting() as collector:
        with subprocess.Popen([sys.executable, str(script), collector.url], stdout=subprocess.PIPE, text=True, env=env) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            parent.kill()
        collector.wait(lambda: len(collector.accepted) > 0)
        assert len(collector.spans()) == 4
        deadline = time.monotonic() + WITHIN_S
        while not _ended(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert _ended(pid)


def _ended(pid: int) -> bool:
    """Gone, or a zombie that whoever inherited it has still to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
