"""The model provider: llmock's OpenAI server with a script, and a log of its own. Run: python -m examples.support.model_server

Prints its port. Each line of `model.jsonl` is about one request: `asked`, then `answered` just before the last byte is sent, or `left` if
the caller closed the connection before that.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections import Counter
from contextvars import ContextVar
from typing import Any

import anyio
import uvicorn
from llmock.chaos import ChaosSettings, StreamChaos
from llmock.journal import fingerprint
from llmock.main import create_app
from llmock.middleware import ASGIApp, Message, Receive, Scope, Send
from llmock.ratelimit import LimitSettings
from llmock.scenarios import Delay, Fail, Plan, Reply, RequestInfo, ScenarioQueue, SlowFirstToken, StreamFault, StreamFaultKind, ToolCall
from llmock.simulation import MockResponseSettings

from examples.support import script
from examples.support.settings import FOLDER, PACE, SEED

_PATH = "/v1/chat/completions"
_CALL_ID = re.compile(rb'"id": ?"(call_\w+)"')
_TOKENS = re.compile(rb'"(prompt|completion)_tokens": ?(\d+)')

_request: ContextVar[dict[str, Any]] = ContextVar("request")


class Script(ScenarioQueue):
    """Computes each answer from the request, not from a queue: sessions send requests in any order, and again after a crash."""

    def __init__(self) -> None:
        super().__init__()
        self._attempts: Counter[str] = Counter()

    def plan_for(self, info: RequestInfo) -> Plan:
        body = _request.get()
        messages = body["messages"]
        where = f"{script.order_of(messages)}/{script.position_of(messages)}"
        self._attempts[where] += 1
        manner = script.manner(messages, attempt=self._attempts[where], streamed=info.stream, seed=SEED, pace=PACE)
        if manner.fault in ("429", "503"):
            return Plan(delay=Delay(0.05), fail=Fail(int(manner.fault), retry_after=1.0 if manner.fault == "429" else None))
        line = script.answer(messages)
        reply = Reply(line.text, tuple(ToolCall(name, arguments) for name, arguments in line.calls))
        if not info.stream:
            return Plan(reply=reply, delay=Delay(script.STALL_S if manner.fault == "stall" else manner.wait_s))
        first = SlowFirstToken(manner.wait_s)
        if manner.fault == "stall":
            return Plan(reply=reply, slow_first_token=first, stream_fault=StreamFault("stall", 2, script.STALL_S))
        if manner.fault == "cut":
            # The connection is dropped, or the stream ends as if it were complete: clients have to notice both.
            kind: StreamFaultKind = "disconnect" if script.position_of(messages) % 2 else "truncate"
            return Plan(reply=reply, slow_first_token=first, stream_fault=StreamFault(kind, 2))
        return Plan(reply=reply, slow_first_token=first)


class Logged:
    """The log, around the whole app: it has what the caller really got, and when."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = os.open(FOLDER / "model.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _PATH:
            return await self._app(scope, receive, send)
        body = await _read(receive)
        self._number += 1
        await _Exchange(self, self._number, json.loads(body)).run(self._app, scope, body, receive, send)

    def write(self, what: str, number: int, **facts: Any) -> None:
        os.write(self._log, (json.dumps({"what": what, "number": number, "at": time.time(), **facts}) + "\n").encode())


class _Exchange:
    """One request and its answer."""

    def __init__(self, log: Logged, number: int, body: dict[str, Any]) -> None:
        self._log, self._number, self._body = log, number, body
        self._status, self._sent, self._ended = 0, b"", False
        self._gone = anyio.Event()

    async def run(self, app: ASGIApp, scope: Scope, raw: bytes, receive: Receive, send: Send) -> None:
        messages = self._body["messages"]
        self._log.write(
            "asked",
            self._number,
            fingerprint=fingerprint("POST", _PATH, self._body),
            order=script.order_of(messages),
            position=script.position_of(messages),
            heard=[call["id"] for message in messages for call in message.get("tool_calls") or ()],
        )
        _request.set(self._body)
        given = False

        async def read() -> Message:
            nonlocal given
            if given:
                await self._gone.wait()
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": raw, "more_body": False}

        async def write(message: Message) -> None:
            self._look_at(message)
            await send(message)

        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, receive)
            await app(scope, read, write)
            if not self._ended:
                self._end(cut=True)
            group.cancel_scope.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        if not self._ended:
            self._ended = True
            self._log.write("left", self._number)

    def _look_at(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._sent += message.get("body", b"")
        if not message.get("more_body", False) and not self._ended:
            self._end()

    def _end(self, *, cut: bool = False) -> None:
        self._ended = True
        tokens = {name.decode(): int(count) for name, count in _TOKENS.findall(self._sent)}
        line = script.answer(self._body["messages"])
        self._log.write(
            "answered",
            self._number,
            order=script.order_of(self._body["messages"]),
            status=self._status,
            # A stream is whole once its end mark was sent, a plain answer once its body was.
            whole=self._status == 200 and not cut and (b"[DONE]" in self._sent or not self._body.get("stream")),
            tokens_in=tokens.get("prompt", 0),
            tokens_out=tokens.get("completion", 0),
            call_ids=[id.decode() for id in _CALL_ID.findall(self._sent)],
            calls=[[name, arguments] for name, arguments in line.calls],
        )


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def main() -> None:
    """Serve on a free port of this machine, until killed."""
    app = create_app(ChaosSettings(), MockResponseSettings(), LimitSettings(), StreamChaos())
    app.state.llmock.scenarios = Script()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(Logged(app), log_level="warning", lifespan="off")).run(sockets=[listener])


if __name__ == "__main__":
    main()
