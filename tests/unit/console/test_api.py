"""The control API without a socket: its document, its lists of sessions, what it keeps of who did what, and how it fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import msgspec
import pytest
from jsonschema_rs import meta
from typer.testing import CliRunner

from holdfast import Runtime, Session, StoreError, agent, events, tool
from holdfast.clock import SystemClock
from holdfast.console.api import doctor
from holdfast.console.api.app import application, build
from holdfast.console.api.control import Control, Gone
from holdfast.console.api.events import Entry, Feed, Hub, happened, name_of
from holdfast.console.cli import render
from holdfast.console.cli.app import app as command
from holdfast.console.reading.inspect import overview
from holdfast.console.wire.answers import Happened
from holdfast.console.wire.problems import MSGPACK, Problem
from holdfast.console.wire.verbs import HELP
from holdfast.policies.breaker import BreakerView
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.records import SessionStatus


@tool(effect="once")
async def wire(order: str) -> str:
    if order.startswith("hang"):
        await anyio.sleep_forever()
    raise ConnectionError("cut")


@agent(tools=[wire], park_after_s=0.0)
async def payer(session: Session[None], order: str) -> str:
    return str([reply.content for reply in await session.gather(*(session.call_tool("wire", {"order": each}) for each in order.split()))])


@agent(mailbox=2)
async def echo(session: Session[None], message: object) -> object:
    if message == "boom":
        raise ValueError("Bearer abcdefghijkl")
    return message


class Api:
    """A Runtime in memory and the app that answers about it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.control = runtime, Control(runtime, "memory:")
        transport = httpx.ASGITransport(build(self.control), raise_app_exceptions=False, client=("uid=7", 42))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://holdfast")

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(f"/v1{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, expected: int = 200, /, **body: Any) -> Any:
        answer = await self.http.post(f"/v1{path}", json=body)
        assert answer.status_code == expected, answer.text
        return answer.json()

    async def pay(self, id: str, order: str, status: SessionStatus = "parked") -> None:
        """A session that tries to pay these orders: once it has that status and each "hang" of them is in flight."""
        await self.post("/sessions", 201, agent="payer", id=id)
        await self.post(f"/sessions/{id}/messages", 202, message=order, id="m1")
        await self.until(id, status, in_flight=order.count("hang"))

    async def until(self, id: str, status: SessionStatus, *, in_flight: int = 0) -> None:
        """Wait until a session has that status, and so many steps in flight."""
        with anyio.fail_after(10):
            while (await self.runtime.session(id).row()).status != status or self.steps(id) != in_flight:  # noqa: ASYNC110
                await anyio.sleep(0.001)

    def steps(self, id: str) -> int:
        found = self.runtime.live([id]).get(id)
        return 0 if found is None else len(found.steps)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with Runtime("memory:", agents=[echo, payer]) as runtime:
        yield Api(runtime)


# ---------------------------------------------------------------- the document


def test_the_document_says_what_every_route_takes_and_gives() -> None:
    """Every reference in it leads somewhere, every struct is valid JSON Schema, and every route names its errors."""
    document = application(Control(Runtime("memory:", agents=[echo]), "memory:")).openapi()
    schemas = document["components"]["schemas"]
    assert all(name in schemas for name in _references(document))
    for schema in schemas.values():
        meta.validate(schema)
    routes = [route for path in document["paths"].values() for route in path.values()]
    assert len(routes) > 30
    assert all({"403", "422", "500", "503"} <= route["responses"].keys() for route in routes)
    assert all(route["summary"] and route["description"] for route in routes)
    assert len({route["operationId"] for route in routes}) == len(routes)


def test_the_document_tells_of_both_encodings_and_of_what_a_stream_of_events_holds() -> None:
    """JSON and MessagePack for what is sent and answered; beside the events themselves that some were dropped."""
    document = application(Control(Runtime("memory:", agents=[echo]), "memory:")).openapi()
    ask = document["paths"]["/v1/sessions/{id}/ask"]["post"]
    assert set(ask["requestBody"]["content"]) == set(ask["responses"]["200"]["content"]) == {"application/json", MSGPACK}
    told = document["paths"]["/v1/events"]["get"]["responses"]["200"]
    assert "`dropped`" in told["description"]
    kinds = {kind["$ref"].rpartition("/")[2] for kind in told["content"]["text/event-stream"]["schema"]["anyOf"]}
    assert kinds == {"Happened", "Dropped"}


def test_the_command_line_and_the_document_describe_a_verb_alike() -> None:
    """Each verb in one place."""
    document = application(Control(Runtime("memory:", agents=[echo]), "memory:")).openapi()
    for verb, text in HELP.items():
        assert document["paths"][f"/v1/sessions/{{id}}/{verb}"]["post"]["description"] == text
        assert " ".join(text.split()[:4]) in CliRunner().invoke(command, [verb, "--help"]).stdout


def _references(found: Any) -> set[str]:
    if isinstance(found, dict):
        return {found["$ref"].rpartition("/")[2]} if "$ref" in found else set().union(*map(_references, found.values()))
    return set().union(*map(_references, found)) if isinstance(found, list) else set()


# ---------------------------------------------------------------- lists


async def test_a_list_of_sessions_is_filtered_and_limited(api: Api) -> None:
    """The counts are those of all; how long it took is in a header."""
    for number in range(5):
        await api.post("/sessions", 201, agent="echo", id=f"s{number}", tenant=f"t{number % 2}")
    assert len((await api.get("/sessions", tenant="t1"))["sessions"]) == 2
    view = await api.get("/sessions", limit=3)
    assert (len(view["sessions"]), view["counts"]) == (3, {"idle": 5})
    answer = await api.http.get("/v1/sessions")
    assert answer.headers["server-timing"].startswith("app;dur=")


async def test_a_line_says_what_its_actor_does(api: Api) -> None:
    """What is under way for longest, and how many more; without an actor it stays as it is."""
    await api.post("/sessions", 201, agent="echo", id="s")
    (line,) = (await overview(api.runtime.store)).sessions
    assert (line.live, line.why, line.queued) == (None, "", 0)
    await api.post("/sessions/s/ask", message="hi")
    (live,) = api.runtime.live(["s"]).values()
    from holdfast.runtime.live import Running

    steps = [Running("tool", "quick", "", "read", 1, 0.5, 9.0), Running("tool", "slow", "", "read", 2, 3.0, 9.0)]
    busy = msgspec.structs.replace(live, steps=steps, queued=4)
    (seen,) = (await overview(api.runtime.store, live=lambda ids: dict.fromkeys(ids, busy))).sessions
    assert seen.live is busy
    assert (seen.why, seen.queued) == ("slow is under way for 3.0 s, attempt 2, and 1 more", 4)


async def test_a_timeline_comes_in_pages(api: Api) -> None:
    """Each page says where the next one begins; the last one does not."""
    await api.post("/sessions", 201, agent="echo", id="s")
    for number in range(5):
        await api.post("/sessions/s/ask", message=number)
    first = await api.get("/sessions/s/timeline", turns=2)
    assert [entry["what"] for entry in first["entries"]] == ["spawned", "message", "turn", "message", "turn"]
    second = await api.get("/sessions/s/timeline", first=first["next"], turns=2)
    assert ({entry["turn"] for entry in second["entries"]}, second["next"]) == ({3, 4}, 5)
    assert (await api.get("/sessions/s/timeline", first=5))["next"] is None


# ---------------------------------------------------------------- verbs


async def test_a_session_that_was_made_is_told_from_one_that_was_got(api: Api) -> None:
    """201 and 200, and in the body."""
    assert (await api.post("/sessions", 201, agent="echo", id="s"))["created"]
    assert not (await api.post("/sessions", 200, agent="echo", id="s"))["created"]
    assert (await api.post("/sessions", 201, agent="echo"))["created"]


async def test_a_path_with_a_slash_too_many_is_not_found(api: Api) -> None:
    """In the body that every error has, as the document says."""
    await api.post("/sessions", 201, agent="echo", id="s")
    answer = await api.http.get("/v1/sessions/s/")
    assert (answer.status_code, msgspec.json.decode(answer.content, type=Problem).error) == (404, "ConfigError")


async def test_a_reply_that_json_cannot_hold_is_no_fault(api: Api) -> None:
    """It was handled and recorded; who takes MessagePack gets it as it is."""
    await api.post("/sessions", 201, agent="echo", id="s")
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    content, headers = msgspec.msgpack.encode({"message": deep, "id": "m1"}), {"content-type": MSGPACK}
    answer = await api.http.post("/v1/sessions/s/ask", content=content, headers=headers)
    assert (answer.status_code, answer.json()["reply"]) == (200, "(nested too deeply for JSON)")
    answer = await api.http.post("/v1/sessions/s/ask", content=content, headers={**headers, "accept": MSGPACK})
    assert msgspec.msgpack.decode(answer.content)["reply"] == deep


async def test_who_did_what_and_why_is_kept(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """A line for each verb, without secrets; of a dry run nothing, since nothing was done."""
    caplog.set_level(logging.INFO, "holdfast.audit")
    for number in range(2):
        await api.post("/sessions", 201, agent="echo", id=f"s{number}")
    await api.post("/cancel", agent="echo", dry_run=True, reason="only looking")
    await api.post("/sessions/s0/pause", reason="Bearer abcdefghijkl")
    await api.post("/kill", agent="echo", reason="clean\nup")
    assert [record.message for record in caplog.records] == [
        "pause by uid=7 pid=42 of 's0': [redacted]",
        "kill by uid=7 pid=42 of 's0', 's1': clean up",
    ]
    assert vars(caplog.records[1])["sessions"] == ["s0", "s1"]
    assert (await api.get("/sessions/s1"))["line"]["why"] == "clean\nup".replace("\n", " ")


async def test_a_verb_on_many_acts_only_on_those_it_is_for(api: Api) -> None:
    """Those that failed are retried or dropped, those that are parked run again, and nothing is done to all unasked."""
    for id in ("calm", "held", "failed"):
        await api.post("/sessions", 201, agent="echo", id=id)
    await api.post("/sessions/held/pause")
    answer = await api.http.post("/v1/sessions/failed/ask", json={"message": "boom"})
    assert (answer.status_code, answer.json()["error"], "abcdef" in answer.text) == (409, "TurnFailed", False)
    for verb, only in (("resume", "held"), ("drop", "failed"), ("retry", "failed")):
        done = await api.post(f"/{verb}", all=True, dry_run=True)
        assert [one["session"] for one in done["sessions"]] == [only]
    assert (await api.post("/resolve", all=True, verdict="done"))["sessions"] == []
    assert "give at least one of" in (await api.post("/cancel", 422))["message"]
    assert "failed, parked" in (await api.post("/cancel", 422, status="dead"))["message"]


async def test_interrupt_and_drop_take_more_than_a_reason_and_are_kept_with_it(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Also a drop that was refused, since it gave the turn up; what is not known in a body is refused, and changes nothing."""
    caplog.set_level(logging.INFO, "holdfast.audit")
    await api.pay("p", "hang-1 hang-2", "idle")
    assert "unknown field" in (await api.post("/sessions/p/interrupt", 422, name="wire"))["message"]
    did = await api.post("/sessions/p/interrupt", step="Bearer abcdefghijkl")
    assert (did["verb"], did["changed"], did["count"]) == ("interrupt", False, 0)
    assert (await api.post("/sessions/p/interrupt", step="wire", reason="too slow"))["count"] == 2
    await api.until("p", "parked")
    refused = await api.post("/sessions/p/drop", 409, reason="typo")
    assert (refused["error"], "the outcome of wire is unknown" in refused["message"]) == ("SessionError", True)
    assert (await api.post("/sessions/p/resolve", verdict="fail"))["count"] == 2
    await api.post("/sessions/p/retry")
    await api.until("p", "idle")
    await api.post("/sessions", 201, agent="echo", id="e")
    await api.post("/sessions/e/pause")
    await api.post("/sessions/e/messages", 202, message="x")
    assert (await api.post("/sessions/e/drop", keep_letter=True, reason="later"))["changed"]
    assert (await api.runtime.session("e").row()).status == "failed"
    who = "by uid=7 pid=42 of"
    assert [record.message for record in caplog.records] == [
        f"interrupt ([redacted]) {who} 'p': (no reason given)",
        f"interrupt (wire) {who} 'p': too slow",
        f"drop (refused) {who} 'p': typo",
        f"resolve as fail {who} 'p': (no reason given)",
        f"retry {who} 'p': (no reason given)",
        f"pause {who} 'e': (no reason given)",
        f"drop (letter kept) {who} 'e': later",
    ]


async def test_a_rewind_is_kept_with_its_turn_and_a_dry_run_is_not(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holdfast.audit")
    await api.post("/sessions", 201, agent="echo", id="e")
    for number in range(2):
        await api.post("/sessions/e/ask", message=number)
    planned = await api.post("/sessions/e/rewind", turn=1, dry_run=True)
    assert planned == {"session": "e", "turn": 1, "as_turn": 3, "effects": [], "changed": False}
    assert (await api.post("/sessions/e/rewind", turn=1, reason="typo"))["changed"]
    assert "give an earlier one" in (await api.post("/sessions/e/rewind", 409, turn=9))["message"]
    await api.post("/sessions/e/rewind", 422, turn=-1)
    assert [record.message for record in caplog.records] == ["rewind to turn 1 by uid=7 pid=42 of 'e': typo"]


async def test_resolve_on_many_finds_every_effect_of_unknown_outcome(api: Api) -> None:
    """Of parked sessions, of failed ones, and of those that have ended; other verbs take those that are parked."""
    for id in ("parked", "failed", "over", "fine"):
        await api.pay(id, "now")
    await api.post("/sessions/failed/drop", 409)
    await api.post("/sessions/over/kill")
    await api.post("/sessions/fine/kill")
    await api.post("/sessions/fine/resolve", verdict="fail")
    await api.post("/sessions", 201, agent="echo", id="calm")

    async def chosen(verb: str, **given: Any) -> dict[str, Any]:
        return {one["session"]: one["why"] for one in (await api.post(f"/{verb}", dry_run=True, **given))["sessions"]}

    doubts = {"parked": "doubt", "failed": None, "over": "doubt"}
    assert await chosen("resolve", all=True, verdict="fail") == doubts
    assert await chosen("resolve", why="doubt", verdict="fail") == doubts
    assert await chosen("resolve", status="killed", verdict="fail") == {"over": "doubt"}
    assert await chosen("resolve", status="failed", verdict="fail") == {"failed": None}
    assert await chosen("resolve", agent="echo", verdict="fail") == {}
    assert await chosen("cancel", why="doubt") == {"parked": "doubt"}
    unknown = await api.post("/cancel", 422, why="outcome unknown", dry_run=True)
    assert "use one of doubt, budget, drift" in str(unknown)
    limited = await api.post("/resolve", all=True, verdict="fail", dry_run=True, limit=2)
    assert (len(limited["sessions"]), limited["more"]) == (2, True)
    done = await api.post("/resolve", all=True, verdict="retry", step="wire")
    assert {one["session"] for one in done["sessions"] if one["changed"]} == set(doubts)
    assert await chosen("resolve", status="killed", verdict="fail") == {}


class Refused(Exception):
    status_code = 401


async def test_sessions_that_wait_for_the_repair_of_a_dependency_are_one_line_and_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Of ps, of the doctor, and of resume; those of another dependency stay parked."""
    keys: set[str] = set()

    @tool(dependency="open ai")
    async def model(text: str) -> str:
        if text not in keys:
            raise Refused("invalid key")
        return text

    @tool(dependency="shop")
    async def order(text: str) -> str:
        raise Refused("invalid key")

    @agent(tools=[model, order], park_after_s=0.0)
    async def worker(session: Session[None], text: str) -> str:
        return await session.step(order if text == "order" else model, text)

    async with Runtime("memory:", [worker], telemetry=False) as runtime:
        api = Api(runtime)
        for id in ("a", "b", "c", "shopper"):
            await api.post("/sessions", 201, agent="worker", id=id)
            await api.post(f"/sessions/{id}/messages", 202, message="order" if id == "shopper" else "hello", id="m")
            await api.until(id, "parked")
        command = "holdfast resume --dependency 'open ai'"
        lines = [check["text"] for check in (await api.get("/doctor"))["checks"] if check["name"] == "repair"]
        assert lines == [
            f"3 sessions wait for open ai: model: HTTP 401 Refused: invalid key: repair it, then {command}",
            "1 session waits for shop: order: HTTP 401 Refused: invalid key: repair it, then holdfast resume --dependency shop",
        ]
        render.ps(await overview(runtime.store, now=runtime.time()), all=False)
        listed = capsys.readouterr().out
        assert f"open ai: 3 sessions wait for its repair; do: repair 'open ai', then {command}" in listed
        assert listed.count("parked (repair)") == 4
        keys.add("hello")
        assert await api.post("/resume", 422) is not None
        done = await api.post("/resume", dependency="open ai")
        assert {one["session"]: one["changed"] for one in done["sessions"]} == {"a": True, "b": True, "c": True}
        for id in ("a", "b", "c"):
            assert await runtime.session(id).ask("hello", id="m") == "hello"
        assert (await runtime.session("shopper").row()).status == "parked"


async def test_many_turns_are_given_up_and_many_attempts_interrupted(api: Api) -> None:
    """A drop is for failed sessions unless a filter says otherwise, an interruption for running ones."""
    for id in ("a", "b"):
        await api.pay(id, "hang", "idle")
    for id in ("held", "bug"):
        await api.post("/sessions", 201, agent="echo", id=id, tenant="acme")
    await api.post("/sessions/held/pause")
    await api.post("/sessions/held/messages", 202, message="x")
    await api.post("/sessions/bug/ask", 409, message="boom")
    assert [one["session"] for one in (await api.post("/drop", tenant="acme", dry_run=True))["sessions"]] == ["bug"]
    done = await api.post("/drop", tenant="acme", status="parked", keep_letter=True)
    assert [(one["session"], one["changed"]) for one in done["sessions"]] == [("held", True)]
    assert await api.runtime.store.counts() == {"working": 2, "failed": 2}
    done = await api.post("/drop", tenant="acme")
    assert {one["session"] for one in done["sessions"]} == {"held", "bug"}
    done = await api.post("/interrupt", all=True, step="wire", reason="too slow")
    assert {one["session"] for one in done["sessions"] if one["changed"]} == {"a", "b"}


async def test_a_message_carries_the_trace_of_its_sender(api: Api) -> None:
    """As it would inside the process; what is no trace is ignored."""
    import opentelemetry.trace  # noqa: F401 — a process without it carries nothing

    sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await api.post("/sessions", 201, agent="echo", id="s")
    for id, header in (("m1", sent), ("m2", "nonsense")):
        await api.http.post("/v1/sessions/s/messages", json={"message": 1, "id": id}, headers={"traceparent": header})
    found = [await api.runtime.store.message("s", id) for id in ("m1", "m2")]
    assert [message.context for message in found if message is not None] == [sent, ""]


# ---------------------------------------------------------------- faults


async def test_a_fault_of_the_servers_own_is_logged_and_tells_the_asker_nothing(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 with a body of the usual form; the log has the rest."""

    def broken() -> None:
        raise KeyError("Bearer abcdefghijkl")

    monkeypatch.setattr(api.runtime, "tree", broken)
    answer = await api.http.get("/v1/tree")
    assert answer.status_code == 500
    assert msgspec.json.decode(answer.content, type=Problem).error == "InternalError"
    assert "abcdef" not in answer.text
    assert "failed at GET /v1/tree" in caplog.text
    assert "KeyError: '[redacted]'" in caplog.text


async def test_a_runtime_that_drains_says_so(api: Api) -> None:
    """503 for what it does not take any more; what only reads is still answered."""
    await api.post("/sessions", 201, agent="echo", id="s")
    await api.runtime.drain(0.0)
    assert (await api.post("/sessions/s/messages", 503, message=1))["error"] == "RuntimeStopped"
    assert len((await api.get("/sessions"))["sessions"]) == 1
    checks = {check["name"]: check["level"] for check in (await api.get("/doctor"))["checks"]}
    assert checks["ready"] == "fail"


async def test_a_doctor_finds_what_is_wrong(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that does not answer, stuck handlers and threads; dependencies that are down are a note; what is fine comes last."""

    async def silent(deadline_s: float = 5.0) -> None:
        raise StoreError("the database has not answered within 5 s")

    counts = api.runtime.statistics() | {
        "stuck": 1, "threads_abandoned": 202, "threads_lost": 2, "recovering": 3, "held": 2, "delayed": 1
    }  # fmt: skip
    monkeypatch.setattr(api.runtime, "check_health", silent)
    monkeypatch.setattr(api.runtime, "statistics", lambda: counts)
    monkeypatch.setattr(
        api.runtime, "breakers", lambda: {"openai": BreakerView("half_open", 1, None, "9 of 10 failed", "APIStatusError: down", 503)}
    )
    found = await doctor.diagnose(api.control)
    assert not found.healthy
    wrong = [check.name for check in found.checks if check.level == "fail"]
    assert set(wrong) == {"database", "stuck", "threads"}
    assert [check.name for check in found.checks[: len(wrong)]] == wrong
    assert "half-open: 9 of 10 failed" in next(check.text for check in found.checks if check.name == "breaker")
    assert {check.name for check in found.checks if check.level == "warning"} >= {"recovering", "breaker"}
    said = {check.name: check.text for check in found.checks}
    assert said["recovering"] == (
        "3 sessions are still replaying; 2 of them are held back, since the process died: others are tried first; "
        "1 session waits outside a step before the end of its records"
    )
    assert said["stuck"] == "1 attempt did not end at its timeout or cancellation: restart the process to be rid of it"
    assert said["threads"] == (
        "202 threads of plain functions run past their deadline, and 2 places are lost to them: restart the process to be rid of them"
    )


@pytest.mark.parametrize("by_s", [-86_400.0, 86_400.0])
async def test_a_clock_that_is_set_makes_no_session_look_old(by_s: float) -> None:
    """Ages are those of stored times, which do not move with it; here it was wrong at first."""

    class Wall(SystemClock):
        ahead_s = -by_s

        def time(self) -> float:
            return SystemClock.time() + self.ahead_s

    clock = Wall()
    async with Runtime("memory:", agents=[payer], clock=clock, drain_s=0) as runtime:
        api = Api(runtime)
        await api.pay("s", "hang", "idle")
        clock.ahead_s = 0.0
        levels = {check["name"]: check["level"] for check in (await api.get("/doctor"))["checks"]}
        assert levels["oldest"] == "ok"
        (line,) = (await api.get("/sessions"))["sessions"]
        assert 0 <= line["age_s"] < 60
        found = await api.get("/statistics")
        assert 0 <= found["at"] - found["started"] < 60


async def test_a_doctor_names_agents_that_are_gone_and_ended_sessions_in_doubt() -> None:
    """As warnings: the process itself works. `ps` says it, too, and such a session can be ended."""
    store = MemoryStore()
    async with Runtime(store, agents=[echo, payer]) as before:
        api = Api(before)
        for id in ("over", "unsure"):
            await api.pay(id, "now")
        await api.post("/sessions/over/kill")
        for id in ("idle", "waiting"):
            await api.post("/sessions", 201, agent="echo", id=id)
        await api.post("/sessions/waiting/pause")
        await api.post("/sessions/waiting/messages", 202, message="x")
    async with Runtime(store, agents=[payer]) as runtime:
        api = Api(runtime)
        found = {check["name"]: (check["level"], check["text"]) for check in (await api.get("/doctor"))["checks"]}
        assert found["agents"] == (
            "warning",
            "agents in the database that this process does not have: echo (2 sessions): add them to agents=, or cancel the sessions",
        )
        assert found["unresolved"] == ("warning", "1 ended session has effects whose outcome is unknown: holdfast ps")
        lines = {line["session"]: line for line in (await api.get("/sessions"))["sessions"]}
        assert set(lines) == {"over", "unsure", "idle", "waiting"}
        assert lines["waiting"]["why"] == "paused; this process does not have agent 'echo'"
        assert lines["waiting"]["next"] == "add it to agents=, or holdfast cancel waiting"
        assert "does not have" not in lines["unsure"]["why"]
        assert "does not have" in (await api.get("/sessions/idle"))["line"]["why"]
        done = await api.post("/cancel", agent="echo")
        assert all(one["changed"] for one in done["sessions"])
        await api.post("/sessions/over/resolve", verdict="retry")
        levels = {check["name"]: check["level"] for check in (await api.get("/doctor"))["checks"]}
        assert (levels["agents"], levels["unresolved"]) == ("ok", "ok")


async def test_a_list_of_sessions_tells_of_stuck_attempts(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its head, with the command that says more."""
    assert (await api.get("/sessions"))["stuck"] == 0
    counts = api.runtime.statistics() | {"stuck": 2}
    monkeypatch.setattr(api.runtime, "statistics", lambda: counts)
    assert (await api.get("/sessions"))["stuck"] == 2


# ---------------------------------------------------------------- waiting


class Asker:
    """Whoever asked; `leave` has them go away."""

    def __init__(self) -> None:
        self.gone = anyio.Event()

    async def receive(self) -> dict[str, str]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def test_a_wait_ends_with_whoever_waits(api: Api) -> None:
    """What was waited for is cancelled: nothing goes on for nobody."""
    asker, cancelled = Asker(), anyio.Event()

    async def work() -> None:
        asker.gone.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    with pytest.raises(Gone):
        await api.control.wait(asker, work, "")  # type: ignore[arg-type]
    assert cancelled.is_set()


async def test_a_wait_gives_back_what_it_waited_for(api: Api) -> None:
    """Its value, or its error as it was raised."""

    async def value() -> int:
        return 5

    async def failing() -> int:
        raise StoreError("as it was")

    assert await api.control.wait(Asker(), value, "") == 5  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="as it was"):
        await api.control.wait(Asker(), failing, "")  # type: ignore[arg-type]


# ---------------------------------------------------------------- events


def test_a_reader_that_is_too_slow_loses_the_oldest_events_and_is_told_how_many() -> None:
    """Nothing waits for it."""
    feed = Feed(size=2)
    for number in range(5):
        feed.offer(Entry(events.Spawned(f"s{number}", "echo")))
    told = feed.take().decode().split("\n\n")
    assert told[0] == 'event: dropped\ndata: {"dropped":3}'
    assert ['"s3"' in told[1], '"s4"' in told[2], told[3]] == [True, True, ""]
    assert feed.take() == b""


def test_a_feed_takes_only_what_was_asked_for() -> None:
    """By session, and by the name of the event."""
    feed = Feed(session="a", kinds=frozenset({"SessionEnded"}))
    for event in (events.Spawned("a", "echo"), events.SessionEndedEvent("b", "killed"), events.SessionEndedEvent("a", "killed")):
        feed.offer(Entry(event))
    assert feed.take().decode().count("data:") == 1
    assert name_of(events.SessionEndedEvent("a", "killed")) == "SessionEnded"


def test_an_event_goes_out_without_secrets() -> None:
    """Its fields as plain data; keys of steps in hexadecimal."""
    event = events.StepEnded("s", 1, "tool", "refund", "once", False, 1, 0.5, key=b"\x01\xff", cause="Bearer abcdefghijkl", facts={"a": 1})
    found = happened(event, 12.5)
    assert (found.event, found.at, found.session) == ("StepEnded", 12.5, "s")
    assert (found.fields["key"], found.fields["cause"], found.fields["facts"]) == ("01ff", "[redacted]", {"a": 1})
    assert msgspec.json.encode(found)


def test_an_event_is_written_out_once_however_many_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at all where nobody asks for it, or where it was dropped."""
    written: list[str] = []

    def write(event: events.Event, at: float) -> Happened:
        written.append(event.session)
        return happened(event, at)

    monkeypatch.setattr("holdfast.console.api.events.happened", write)
    observers, every, one, none = events.Observers(), Feed(size=2), Feed(session="a"), Feed(kinds=frozenset({"SessionEnded"}))
    hub = Hub(observers)
    with hub.reading(every), hub.reading(one), hub.reading(none):
        assert observers.all == [hub]
        for session in "dab":
            observers.emit(events.Spawned(session, "echo"))
        assert one.take() in every.take()
        assert (one.take(), every.take(), none.take()) == (b"", b"", b"")
    assert written == ["a", "b"]
    assert not observers
