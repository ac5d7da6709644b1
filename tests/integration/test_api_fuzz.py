"""The control API, tried with whatever its own OpenAPI document allows, and with what it does not: no answer is a fault of the server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, "-c", "from holdfast.console.cli.app import main; main()"]
KNOWN = ("calm", "parked", "a/b", "ticket ünï", "ended")
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
SHORT_S = 0.02

APP = """
import asyncio
from holdfast import Runtime, Session, agent, tool

@tool(effect="once")
async def wire(order: str) -> dict:
    raise ConnectionError("cut")

@agent(tools=[wire], park_after_s=0.0, mailbox=5)
async def echo(session: Session[dict], message: object) -> object:
    if message == "doubt":
        await session.call_tool("wire", '{"order": "o1"}')
    if message == "end":
        session.finish({"bye": b"\\xff"})
    return message

runtime = Runtime("sqlite:///sessions.db", agents=[echo])

async def feed(runtime):
    for id in ("calm", "parked", "a/b", "ticket ünï", "ended"):
        await runtime.spawn(echo, id=id)
    await runtime.session("parked").tell("doubt")
    await runtime.session("ended").ask("end")
    print("fed", flush=True)
    await asyncio.Event().wait()
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A real process, over its real socket."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "app.py").write_text(APP)
    arguments = ["run", "app:runtime", "--with", "app:feed", "--drain-s", "0.1"]
    with subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=ENV, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        path = ""
        while not (line := process.stdout.readline()).startswith("fed"):
            assert line
            path = line.strip().removeprefix("control socket: ") if line.startswith("control socket") else path
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://holdfast", timeout=30) as http:
                yield http
        finally:
            process.terminate()
            assert process.wait(timeout=20) == 0


def document(client: httpx.Client) -> Any:
    """The API's own document, with ids that are there and waits that are short."""
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())

    @schema.hook
    def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        if not path_parameters or "id" not in path_parameters:
            return path_parameters
        given = str(path_parameters["id"])
        return {**path_parameters, "id": KNOWN[len(given) // 2 % len(KNOWN)]} if len(given) % 2 else path_parameters

    @schema.hook
    def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
        return _shorter(query or {}) if context.operation.path.endswith("/result") else query

    @schema.hook
    def map_body(context: Any, body: Any) -> Any:
        return _shorter(body) if context.operation.path.endswith("/ask") else body

    return schema


def _shorter(given: Any) -> Any:
    """With a wait that is short, unless it is one that is refused."""
    if not isinstance(given, dict):
        return given
    wait_s = given.get("timeout_s", SHORT_S)
    valid = isinstance(wait_s, int | float) and not isinstance(wait_s, bool) and SHORT_S < wait_s <= 3600
    return {**given, "timeout_s": SHORT_S if valid else wait_s}


def tried(client: httpx.Client, case: Any) -> None:
    """Send one case; the answer has to be what the document says, and no fault."""
    sent = case.as_transport_kwargs(base_url="http://holdfast")
    content = sent.pop("data", None)
    sent.pop("cookies", None)
    headers = {name: value for name, value in dict(sent.pop("headers") or {}).items() if value is not None}
    with client.stream(**sent, content=content, headers=headers) as answer:
        if answer.headers["content-type"].startswith("text/event-stream"):
            assert answer.status_code == 200
            return
        answer.read()
    late = answer.status_code == 504 and answer.json()["error"] == "ReplyTimeout"
    assert answer.status_code < 500 or late, (case, answer.text)
    case.validate_response(answer, checks=CHECKS)


def fuzz(client: httpx.Client, examples: int) -> int:
    """Try every operation so often; how many there are."""

    def every(case: Any) -> None:
        tried(client, case)

    tries = settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    operations = [found.ok() for found in document(client).get_all_operations()]
    for operation in operations:
        modes = [schemathesis.GenerationMode.POSITIVE]
        if len(operation.query) or len(operation.body):  # else there is nothing that could be wrong about it
            modes.append(schemathesis.GenerationMode.NEGATIVE)
        for mode in modes:
            tries(given(case=operation.as_strategy(generation_mode=mode))(every))()
    return len(operations)


def test_no_request_that_its_document_describes_is_a_fault_of_the_server(client: httpx.Client) -> None:
    """Every path and method, a few examples each: the status and the body are as the document says."""
    assert fuzz(client, 5) >= 30


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_requests_find_no_fault_either(client: httpx.Client) -> None:
    """The same with many examples."""
    fuzz(client, 100)
