"""What a handler's client has in addition to the `create` of its APIs, so that frameworks and code written for the SDK's client take it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from holdfast.calls.models.dialect import Fields
from holdfast.calls.models.proxy import Proxy
from holdfast.calls.models.structured import PARSERS

Send = Callable[[str, Fields], Awaitable[Any]]
"""Makes one durable step of a request to the API at a path."""

_OPTIONS = ("with_options", "copy")


def left_out(value: Any) -> bool:
    """Whether it is the SDK's mark for an argument that is not given."""
    return type(value).__name__ in ("NotGiven", "Omit")


def facts_about(client: Any, timeout_s: float) -> Fields:
    """What people and frameworks may know of the SDK's client, without its credentials."""
    # pydantic-ai hands `_client`, the SDK's transport, from a client to its copy: here there is none.
    return {"base_url": _address(getattr(client, "base_url", "")), "timeout": timeout_s, "max_retries": 0, "_client": None}


def names_of(paths: Iterable[str]) -> tuple[str, ...]:
    """The names that the client of APIs at these paths has."""
    methods = [[f"{path}.create", *([f"{path}.parse"] if path in PARSERS else [])] for path in paths]
    return (*(name for each in methods for name in each), *_OPTIONS, "base_url", "timeout", "max_retries", "_client")


def proxy_of(name: str, names: tuple[str, ...], facts: Fields, send: Send, options: Fields) -> Proxy:
    """The client for one session's turn.

    Args:
        name: of the client.
        names: as `names_of` gives them.
        facts: as `facts_about` gives them.
        send: makes a step of a request.
        options: the arguments that each request has unless it gives its own.
    """

    def get(path: str) -> Any:
        if path in facts:
            return facts[path]
        if path in _OPTIONS:
            return with_options
        place, _, method = path.rpartition(".")
        return _parse(place, send, options) if method == "parse" else _create(place, send, options)

    def with_options(**given: Any) -> Proxy:
        """The same client with another `timeout`, in seconds. `max_retries` changes nothing: the step is what is tried again, by the
        Runtime's own settings. Raises TypeError for any other option: it could lead to another account or server."""
        asked = {option: value for option, value in given.items() if value is not None and not left_out(value) and value != {}}
        refused = sorted(asked.keys() - {"timeout", "max_retries"})
        if refused:
            raise TypeError(
                f"client {name!r}: with_options({', '.join(refused)}) is not available to a handler: "
                "give the Runtime another client in clients="
            )
        timeout = {"timeout": asked["timeout"]} if "timeout" in asked else {}
        return proxy_of(name, names, facts | timeout, send, options | timeout)

    return Proxy(name, "", names, get)


def _create(place: str, send: Send, options: Mapping[str, Any]) -> Callable[..., Awaitable[Any]]:
    async def create(**given: Any) -> Any:
        """One durable, metered step. Takes the arguments of the client's own `create`."""
        if place in PARSERS and isinstance(given.get("response_format"), type):
            raise TypeError(f"{place}.create takes response_format as a dict: give a class to {place}.parse")
        return await send(place, {**options, **given})

    return create


def _parse(place: str, send: Send, options: Mapping[str, Any]) -> Callable[..., Awaitable[Any]]:
    async def parse(**given: Any) -> Any:
        """One durable, metered step whose answer is read as the class that was asked for. Takes the arguments of the client's own
        `parse`, and raises what that raises for an answer of another form: by then the answer is recorded."""
        if given.get("stream"):
            raise TypeError(f"{place}.parse has no stream: use {place}.create with stream=True")
        request, read = PARSERS[place]({name: value for name, value in given.items() if not left_out(value)})
        return read(await send(place, {**options, **request}))

    return parse


def _address(url: Any) -> Any:
    """The URL without what can be a secret: user, password and query."""
    if callable(getattr(url, "copy_with", None)):  # as the SDK has it
        return url.copy_with(username="", password="", query=None)
    parts = urlsplit(str(url))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
