"""The places outside of a handler where a user's value can go: a Handle, the Runtime, the control API, definitions."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from holdfast import BreakerSpec, Budget, Handle, Intensity, RepetitionSpec, Retry, Runtime, Session, Usage, agent, tool
from holdfast.calls import ModelClient, Prices
from holdfast.calls.tools.definition import ToolOptions
from holdfast.runtime.agents.definition import AgentOptions
from tests.chaos.hostile.inside import NotHere, text


class Target(NamedTuple):
    """The session that a case may spoil, and how to reach it."""

    runtime: Runtime
    handle: Handle
    http: httpx.AsyncClient
    agent: Any


Outside = Callable[[Target, Any], Awaitable[Any]]
OUTSIDE: dict[str, Outside] = {}


def _place(name: str, function: Outside) -> None:
    assert name not in OUTSIDE
    OUTSIDE[name] = function


_place("the message of Handle.tell", lambda to, value: to.handle.tell(value))
_place("a field of the message of Handle.tell", lambda to, value: to.handle.tell({"a": [{"b": value}]}))
_place("a key of the message of Handle.tell", lambda to, value: _call(lambda: to.handle.tell({value: 1})))
_place("the message of Handle.ask", lambda to, value: to.handle.ask(value, timeout_s=20.0))
_place("the id of Handle.tell", lambda to, value: to.handle.tell("hello", id=value))
_place("the id of Handle.ask", lambda to, value: to.handle.ask("hello", id=value))
_place("the time limit of Handle.ask", lambda to, value: to.handle.ask("hello", timeout_s=value))
_place("the time limit of Handle.result", lambda to, value: to.handle.result(timeout_s=value))
_place("the id of a session", lambda to, value: to.runtime.spawn(to.agent, id=value))
_place("a handle's id", lambda to, value: to.runtime.session(value).tell("hello"))
_place("a handle's id for its row", lambda to, value: to.runtime.session(value).row())
_place("the tenant of a session", lambda to, value: to.runtime.spawn(to.agent, tenant=value))
_place("the user of a session", lambda to, value: to.runtime.spawn(to.agent, user=value))
_place("the first state of a session", lambda to, value: to.runtime.spawn(to.agent, state={"a": value}))
_place("the agent of a session", lambda to, value: to.runtime.spawn(value))
_place("the budget of a session", lambda to, value: to.runtime.spawn(to.agent, budget=value))
_place("the reason of a pause", lambda to, value: to.handle.pause(value))
_place("the reason of a drop", lambda to, value: to.handle.drop(value))
_place("the reason of a cancel", lambda to, value: to.handle.cancel(value))
_place("the reason of a kill", lambda to, value: to.handle.kill(value))
_place("the verdict of a resolution", lambda to, value: to.handle.resolve(value))
_place("the step of a resolution", lambda to, value: to.handle.resolve("done", step=value))
_place("the result of a resolution", lambda to, value: to.handle.resolve("done", result=value))
_place("the step of an interruption", lambda to, value: to.handle.interrupt(value))
_place("the amount of a raise", lambda to, value: to.handle.raise_budget(value))


async def _call(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


# ---------------------------------------------------------------- definitions


def _defined(name: str, make: Callable[[Any], Any]) -> None:
    async def run(to: Target, value: Any) -> Any:
        return make(value)

    _place(name, run)


async def _function(value: Any) -> int:
    """A tool."""
    return 1


async def _handler(session: Session[Any], message: Any) -> Any: ...


def _documented(value: Any) -> Any:
    async def function(value: Any) -> int:
        return 1

    function.__doc__ = text(value)
    made = tool(function)
    return made.openai(), made.anthropic()


def _each(what: str, fields: Iterable[str], make: Callable[[dict[str, Any]], Any]) -> None:
    """A place for each field: `make` gets the field with the value."""
    for field in fields:
        _defined(f"{what}: {field}", partial(_with, make, field))


def _with(make: Callable[[dict[str, Any]], Any], field: str, value: Any) -> Any:
    return make({field: value})


_each("a budget", ("steps", "tokens", "usd", "seconds", "tool_calls"), lambda given: Budget(**given))
_each("the cost of a tool", Usage.__struct_fields__, lambda given: tool(cost=Usage(**given))(_function))
_each("a tool", ToolOptions.__annotations__, lambda given: tool(**{"effect": "once", **given})(_function).openai())
_each("an agent", AgentOptions.__annotations__, lambda given: agent(**given)(_handler))
_each("a retry", Retry.__struct_fields__, lambda given: Retry(**given))
_each("a breaker", BreakerSpec.__struct_fields__, lambda given: BreakerSpec(**given))
_each("a repetition", RepetitionSpec.__struct_fields__, lambda given: RepetitionSpec(**given))
_defined("an intensity", lambda value: agent(intensity=Intensity(value, value))(_handler))
_defined("the docstring of a tool", _documented)
_defined("a price", lambda value: Prices({"model": (value, value)}))
_defined("a model of a price list", lambda value: Prices({value: (1, 1)}))
_defined("a client", lambda value: ModelClient("client", value))
_defined("the agents of a runtime", lambda value: Runtime("memory:", [value]))
_defined("the store of a runtime", lambda value: Runtime(value, [agent(_handler)]))
_defined("the drain time of a runtime", lambda value: Runtime("memory:", [agent(_handler)], drain_s=value))

# ---------------------------------------------------------------- the control API


def _json(value: Any) -> bytes:
    """`value` as JSON, as far as a client can send it."""
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b"[" * 100_000 + b"]" * 100_000
    except (TypeError, ValueError):
        raise NotHere from None


async def _sent(to: Target, method: str, path: str, content: bytes = b"", **more: Any) -> Any:
    """Send a request. An answer that is an error is raised as one, as the client does."""
    headers = {"content-type": "application/json", **more.pop("headers", {})}
    answer = await to.http.request(method, f"/v1{path}", content=content, headers=headers, **more)
    assert answer.status_code < 500 or answer.status_code in (503, 504), f"{answer.status_code} {answer.text[:200]}"
    if answer.status_code >= 400:
        raise ValueError(answer.json()["message"])


def _posted(name: str, verb: str, field: str, rest: str = "") -> None:
    async def run(to: Target, value: Any) -> Any:
        content = b'{"' + field.encode() + b'": ' + _json(value) + rest.encode() + b"}"
        path = "/sessions" if verb == "spawn" else f"/sessions/{quote(to.handle.id, safe='')}/{verb}"
        await _sent(to, "POST", path, content)

    _place(name, run)


_posted("a message over HTTP", "messages", "message")
_posted("the id of a message over HTTP", "messages", "id", ', "message": 1')
_posted("an ask over HTTP", "ask", "message", ', "timeout_s": 5')
_posted("a time limit over HTTP", "ask", "timeout_s", ', "message": 1')
_posted("a reason over HTTP", "pause", "reason")
_posted("a verdict over HTTP", "resolve", "verdict")
_posted("a result over HTTP", "resolve", "result", ', "verdict": "done"')
_posted("an amount over HTTP", "budget", "by")
_posted("a state over HTTP", "spawn", "state", ', "agent": "hostile"')
_posted("an agent over HTTP", "spawn", "agent")
_posted("a tenant over HTTP", "spawn", "tenant", ', "agent": "hostile"')
_posted("limits over HTTP", "spawn", "budget", ', "agent": "hostile"')


def _wired(value: Any) -> str:
    """The text of a value in a URL."""
    try:
        shown = value if isinstance(value, str) else json.dumps(value)
        if len(shown) > 60_000:
            raise NotHere  # no client sends such a line, and the server's parser refuses it
        return quote(shown.encode("utf-8", "surrogatepass"), safe="")
    except (TypeError, ValueError, RecursionError):
        raise NotHere from None


_place("an id in a path", lambda to, value: _sent(to, "GET", f"/sessions/{_wired(value)}"))
_place("an agent in a query", lambda to, value: _sent(to, "GET", f"/sessions?agent={_wired(value)}"))
_place("a status in a query", lambda to, value: _sent(to, "GET", f"/sessions?status={_wired(value)}"))
_place("a limit in a query", lambda to, value: _sent(to, "GET", f"/sessions?limit={_wired(value)}"))


async def _traced(to: Target, value: Any) -> None:
    shown = text(value)
    if len(shown) > 60_000:
        raise NotHere
    header = {b"traceparent": shown.encode("utf-8", "surrogatepass"), b"content-type": b"application/json"}
    path = f"/v1/sessions/{quote(to.handle.id, safe='')}/messages"
    answer = await to.http.post(path, content=b'{"message": "hello"}', headers=header)
    assert answer.status_code == 202


_place("a trace over HTTP", _traced)
