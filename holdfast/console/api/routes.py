"""Declares the routes of the control API, so that its OpenAPI document has exactly their parameters and answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter, FastAPI
from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.console.api.control import Json
from holdfast.console.wire.problems import MSGPACK, Problem
from holdfast.errors import ConfigError
from holdfast.runtime.agents.ids import check_id

Endpoint = Callable[..., Coroutine[Any, Any, Any]]

MEDIA = ("application/json", MSGPACK)
"""The media types of a request and its answer, with the same fields: holdfast's own client uses the second one."""

_REF = "#/components/schemas/{name}"

REASONS = {
    403: "The socket belongs to another user.",
    404: "There is no such session, or nothing at this path.",
    409: "The session is not in a state for it.",
    410: "The session has ended.",
    413: "The body is too large.",
    422: "The request is malformed; the message says where.",
    429: "The mailbox is full.",
    500: "A fault of the server's own; its log says more.",
    503: "The process drains, or its store does not answer.",
    504: "No reply in time; the message was accepted.",
}


class _SessionId(Convertor[str]):
    """One segment of a path, with any characters: "/" is %2F."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        try:
            return check_id("id", unquote(value, errors="strict"))
        except UnicodeDecodeError as error:
            raise ConfigError(f"the id in the path is not UTF-8: {error}") from error

    def to_string(self, value: str) -> str:
        raise NotImplementedError("paths are made by the client")


register_url_convertor("session", _SessionId())


class RawPaths:
    """Matches paths before they are decoded: in a decoded path, a "/" within an id would look like one between segments."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            scope = {**scope, "path": scope["raw_path"].partition(b"?")[0].decode("latin-1")}
        await self._app(scope, receive, send)


class Routes:
    """Routes of one kind, and every struct that they use.

    Args:
        tag: the kind, for the document.
    """

    def __init__(self, tag: str) -> None:
        self.router = APIRouter(tags=[tag])
        self.structs: list[Any] = [Problem]

    def add(
        self,
        method: str,
        path: str,
        endpoint: Endpoint,
        *,
        gives: Any,
        takes: type[msgspec.Struct] | None = None,
        status: int = 200,
        problems: tuple[int, ...] = (),
        media: tuple[str, ...] = MEDIA,
        description: str = "As asked.",
        also: tuple[tuple[int, str], ...] = (),
        other: type[msgspec.Struct] | None = None,
    ) -> None:
        """Declare a route.

        Args:
            gives: the type of its answer.
            takes: the type of its body; None for none.
            status: the status of its answer.
            problems: the statuses of its errors, in addition to those that any route may have.
            media: the types that its answer's content may have.
            description: the description of its answer.
            also: other statuses that it may have, and their descriptions.
            other: another type that an answer may have.
        """
        self.structs += [kind for kind in (gives, takes, other) if kind is not None]
        common = (403, 422, 500, 503) if takes is None else (403, 413, 422, 500, 503)
        answers: dict[int | str, dict[str, Any]] = {code: _answer(REASONS[code], Problem) for code in (*problems, *common)}
        for code, text in ((status, description), *also):
            answers[code] = _answer(text, gives, media, other)
        self.router.add_api_route(
            f"/v1{path}",
            endpoint,
            methods=[method],
            status_code=status,
            response_model=None,
            response_class=Json,
            responses=answers,
            openapi_extra=None if takes is None else {"requestBody": {"required": True, "content": _content(takes)}},
        )


def describe(app: FastAPI, routes: list[Routes]) -> None:
    """Add the schema of every struct of these routes to the app's OpenAPI document."""
    structs = [struct for group in routes for struct in group.structs]
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            _, components = msgspec.json.schema_components(structs, ref_template=_REF)
            document.setdefault("components", {}).setdefault("schemas", {}).update(components)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _answer(description: str, kind: Any, media: tuple[str, ...] = MEDIA, other: Any = None) -> dict[str, Any]:
    return {"description": description, "content": _content(kind, media, other)}


def _content(kind: Any, media: tuple[str, ...] = MEDIA, other: Any = None) -> Mapping[str, Any]:
    schemas, _ = msgspec.json.schema_components([kind] if other is None else [kind, other], ref_template=_REF)
    schema = schemas[0] if other is None else {"anyOf": list(schemas)}
    return {name: {"schema": schema} for name in media}
