"""A process from outside: `async with holdfast.connect() as node`, and the same `Handle` as inside it."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from holdfast import codec
from holdfast.console.client import reach
from holdfast.console.client.stream import Events
from holdfast.console.wire.answers import HEARTBEAT_S, Accepted, Did, Finished, Replied, Spawned
from holdfast.console.wire.bodies import WAIT_S
from holdfast.console.wire.problems import MSGPACK, Problem, error_of
from holdfast.errors import ConfigError, HoldfastError, MailboxFull, NodeUnreachable, ReplyTimeout
from holdfast.policies.budget import Budget
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.agents.ids import check_id, check_timeout
from holdfast.runtime.handle import Handle
from holdfast.runtime.live import Live
from holdfast.runtime.sessions.rewinding import Rewound
from holdfast.stores.records import Session
from holdfast.telemetry.context import carried

T = TypeVar("T")
_JSON = "application/json"


@asynccontextmanager
async def connect(target: str | os.PathLike[str] | None = None, *, timeout_s: float = 30.0) -> AsyncIterator[Node]:
    """The process that runs a store, from another process of the same user on the same machine.

    Args:
        target: the path of its control socket, or the URL or file of its store; default: the store that `holdfast ps` chooses in this
            folder.
        timeout_s: how long it may take to answer a request that does not wait for a session, in seconds.

    Raises:
        NodeUnreachable: no process listens there.
        ConfigError: `target` and this folder do not name one store or socket.
    If cancelled, the connections are closed; earlier requests may still take effect.
    """
    check_timeout(timeout_s)
    if not timeout_s:
        raise ConfigError(f"timeout_s is {timeout_s!r}: nothing can be answered in no time")
    path = reach.of_target(target)
    async with open_node(path, timeout_s=timeout_s) as node:
        yield node


@asynccontextmanager
async def open_node(path: str, *, timeout_s: float = 30.0) -> AsyncIterator[Node]:
    """The process that listens at a socket. Raises NodeUnreachable if none does."""
    transport = httpx.AsyncHTTPTransport(uds=path, limits=httpx.Limits(max_connections=None, max_keepalive_connections=8))
    async with httpx.AsyncClient(transport=transport, base_url="http://holdfast", timeout=timeout_s, trust_env=False) as http:
        node = Node(http, path, timeout_s)
        await node.get("/agents", list[Any])  # raises now if no process answers
        yield node


class Node:
    """A running process. Use `connect` to get one.

    Attributes:
        address: the path of its socket.
    """

    def __init__(self, http: httpx.AsyncClient, address: str, timeout_s: float) -> None:
        self._http, self.address, self._timeout_s = http, address, timeout_s
        self._gateway = HttpGateway(self)

    async def spawn(
        self,
        agent: Agent | str,
        *,
        id: str | None = None,
        tenant: str = "default",
        user: str = "",
        state: Any = None,
        budget: Budget | None = None,
    ) -> Handle:
        """Get or create a session of an agent of that process, as Runtime.spawn.

        Args:
            agent: the agent or its name.

        Raises:
            ConfigError: the process has no such agent.
            SessionConflict: the id belongs to a session of another agent or tenant.
        If cancelled, the session may have been created; spawn it again with the same id.
        """
        name = agent if isinstance(agent, str) else agent.name
        given = {"agent": name, "id": id, "tenant": tenant, "user": user, "state": _plain(state), "budget": limits_of(budget)}
        found = await self.post("/sessions", given, Spawned)
        return self.session(found.session)

    def session(self, id: str) -> Handle:
        """A handle on an existing session; its methods raise SessionNotFound if there is none.

        It is the Handle of Runtime.session and raises the same, with two differences: the reply of `ask` is plain data, since only the
        agent's process has its types; and every method may raise NodeUnreachable, whose `sent` is True if the request may have taken
        effect.
        """
        return Handle(self._gateway, id)

    @asynccontextmanager
    async def watch(self, session: str | None = None, *, kinds: tuple[str, ...] = ()) -> AsyncIterator[Events]:
        """The events from now on, to iterate over: one struct for each event, until the process ends.

        Args:
            session: only events of this session.
            kinds: only events of these classes, by name (see holdfast.events).

        Raises:
            SessionNotFound: there is no such session.
            NodeUnreachable: during the iteration, the process ended or sends no heartbeat.
        If cancelled, it stops listening; sessions are not affected. Events that were not read yet are lost.
        """
        path = "/events" if session is None else f"{path_of(session)}/events"
        for kind in kinds:
            check_id("kind", kind)
        limits = httpx.Timeout(self._timeout_s, read=max(self._timeout_s, 3 * HEARTBEAT_S))
        params = {"kind": list(kinds)}
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(self._http.stream("GET", f"/v1{path}", params=params, timeout=limits))
                if response.status_code != 200:
                    raise _error(response, await response.aread())
            except httpx.TransportError as error:
                raise self._unreachable(error) from error
            # Outside of `try`: an error of the caller's code is the caller's own.
            yield await stack.enter_async_context(aclosing(Events(response, self.address)))

    async def get(self, path: str, kind: type[T], *, wait_s: float = 0.0, **query: Any) -> T:
        """The answer to a GET of the control API.

        Args:
            path: without the version, such as "/doctor".
            kind: the type of the answer.
            wait_s: how much longer than other requests it may take, in seconds.
            query: the parameters; a parameter that is None is left out.

        Raises:
            NodeUnreachable: the process does not answer.
            HoldfastError: the error with which the process refused the request, of the same class.
        If cancelled, the request may have been sent. It changes nothing.
        """
        return await self._call("GET", path, None, kind, wait_s, {key: _text(value) for key, value in query.items() if value is not None})

    async def post(self, path: str, body: Any, kind: type[T], *, wait_s: float = 0.0) -> T:
        """The answer to a POST of the control API; as `get`, with `body`, which is plain data.

        If cancelled, the request may have taken effect.
        """
        return await self._call("POST", path, body, kind, wait_s, {})

    async def _call(self, method: str, path: str, body: Any, kind: type[T], wait_s: float, query: Mapping[str, str]) -> T:
        headers = {"accept": f"{MSGPACK}, {_JSON};q=0.5"}
        if trace := carried():
            headers["traceparent"] = trace
        content = None
        if method == "POST":
            headers["content-type"] = MSGPACK
            content = _packed({key: value for key, value in body.items() if value is not None or key == "message"})
        limits = httpx.Timeout(self._timeout_s, read=self._timeout_s + wait_s)
        for name, value in query.items():
            check_id(name, value)
        try:
            response = await self._http.request(method, f"/v1{path}", params=query, content=content, headers=headers, timeout=limits)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.status_code >= 300:
            raise _error(response, response.content)
        decode: Any = codec.unpack if response.headers.get("content-type") == MSGPACK else msgspec.json.decode
        try:
            found: T = decode(response.content, type=kind)
        except msgspec.MsgspecError as error:
            raise HoldfastError(f"{self.address} runs another version of holdfast, whose answer is not understood: {error}") from error
        return found

    def _unreachable(self, error: httpx.TransportError) -> NodeUnreachable:
        if isinstance(error, httpx.ConnectError):
            return NodeUnreachable(
                self.address, f"no process listens on {self.address}: start it with holdfast run, or name another socket"
            )
        if isinstance(error, httpx.TimeoutException):
            text = f"{self.address} did not answer in time: its process may be blocked, and its log names what blocks it"
            return NodeUnreachable(self.address, text, sent=not isinstance(error, httpx.ConnectTimeout))
        else:
            text = f"the process at {self.address} went away before it answered: see whether it was done before you repeat it"
        return NodeUnreachable(self.address, text, sent=True)


class HttpGateway:
    """Implements Gateway over the control API of another process."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def tell(self, session: str, message: Any, id: str | None) -> str:
        with _carrying(message):
            given = {"message": _plain(message), "id": uuid.uuid4().hex if id is None else id}
            return (await self._node.post(f"{path_of(session)}/messages", given, Accepted)).id

    async def ask(self, session: str, message: Any, id: str | None, timeout_s: float) -> Any:
        given = {"message": _plain(message), "id": uuid.uuid4().hex if id is None else id}
        left_s = timeout_s
        with _carrying(message):
            while True:
                this_s = min(max(left_s, 0.0), WAIT_S)
                try:
                    path = f"{path_of(session)}/ask"
                    return (await self._node.post(path, {**given, "timeout_s": this_s}, Replied, wait_s=this_s)).reply
                except ReplyTimeout as error:
                    left_s -= this_s
                    if left_s <= 0:
                        raise _late(error, timeout_s) from None

    async def result(self, session: str, timeout_s: float | None) -> Any:
        left_s = float("inf") if timeout_s is None else max(timeout_s, 0.0)
        while True:
            this_s = min(left_s, WAIT_S)
            try:
                return (await self._node.get(f"{path_of(session)}/result", Finished, wait_s=this_s, timeout_s=this_s)).result
            except ReplyTimeout as error:
                left_s -= this_s
                if left_s <= 0:
                    raise _late(error, timeout_s or 0.0) from None

    async def end(self, session: str, status: str, reason: str) -> bool:
        return (await self._do(session, "cancel" if status == "cancelled" else "kill", WAIT_S, reason=reason)).changed

    async def row(self, session: str) -> Session:
        return await self._node.get(f"{path_of(session)}/row", Session)

    async def live(self, session: str) -> Live | None:
        return await self._node.get(f"{path_of(session)}/live", Live | None)  # type: ignore[arg-type]

    async def pause(self, session: str, reason: str) -> None:
        await self._do(session, "pause", WAIT_S, reason=reason)

    async def resume(self, session: str) -> None:
        await self._do(session, "resume")

    async def raise_budget(self, session: str, by: Budget) -> None:
        await self._do(session, "budget", by=limits_of(by))

    async def resolve(self, session: str, verdict: str, step: str | None, result: Any) -> int:
        return (await self._do(session, "resolve", verdict=verdict, step=step, result=_plain(result))).count or 0

    async def retry(self, session: str) -> None:
        await self._do(session, "retry")

    async def drop(self, session: str, reason: str, keep_letter: bool) -> None:
        await self._do(session, "drop", WAIT_S, reason=reason, keep_letter=keep_letter)

    async def interrupt(self, session: str, step: str | None) -> int:
        return (await self._do(session, "interrupt", step=step)).count or 0

    async def rewind(self, session: str, turn: int, reason: str, dry_run: bool) -> Rewound:
        given = {"turn": turn, "reason": reason, "dry_run": dry_run}
        return await self._node.post(f"{path_of(session)}/rewind", given, Rewound)

    async def _do(self, session: str, verb: str, wait_s: float = 0.0, **given: Any) -> Did:
        """`wait_s` is for verbs that wait for the session's running steps."""
        return await self._node.post(f"{path_of(session)}/{verb}", given, Did, wait_s=wait_s)


def path_of(session: str) -> str:
    """The path of a session in the control API. Raises ConfigError if the id is not valid."""
    check_id("id", session)
    # A segment of dots only would mean the folder above.
    return f"/sessions/{quote(session, safe='').replace('.', '%2E') if set(session) == {'.'} else quote(session, safe='')}"


@contextmanager
def _carrying(message: Any) -> Iterator[None]:
    """Put the caller's message into a MailboxFull, as inside the process."""
    try:
        yield
    except MailboxFull as error:
        error.message = message
        raise


def _late(error: ReplyTimeout, timeout_s: float) -> ReplyTimeout:
    """The error with the whole time waited, over all requests."""
    return ReplyTimeout(error.session, error.message_id, timeout_s, getattr(error, "why", ""))


def _plain(value: Any) -> Any:
    """The value as the journal would hold it. Raises NotJournalable."""
    return codec.decode(codec.encode(value))


def limits_of(budget: Budget | None) -> dict[str, Any] | None:
    if budget is None:
        return None
    given = msgspec.structs.asdict(budget)
    return {key: value for key, value in {**given, "usd": None, "microusd": budget.microusd}.items() if value is not None}


def _packed(body: dict[str, Any]) -> bytes:
    try:
        return codec.pack(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"the request is not valid: {error}") from error


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _error(response: httpx.Response, content: bytes) -> HoldfastError:
    decode: Any = codec.unpack if response.headers.get("content-type") == MSGPACK else msgspec.json.decode
    try:
        return error_of(decode(content, type=Problem))
    except msgspec.MsgspecError:
        return HoldfastError(f"the answer had status {response.status_code} and no problem in its body")
