"""The control API: HTTP and JSON about the sessions of one process, described at /openapi.json.

The id of a session in a path is percent-encoded, "/" as %2F: `curl --unix-socket S http://holdfast/v1/sessions/a%2Fb`.
"""

from __future__ import annotations

import time

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast import __version__, redact
from holdfast.console.api import events as api_events
from holdfast.console.api import many as api_many
from holdfast.console.api import node as api_node
from holdfast.console.api import read as api_read
from holdfast.console.api import verbs as api_verbs
from holdfast.console.api.control import Control, Gone, TooLarge, problem
from holdfast.console.api.routes import RawPaths, describe
from holdfast.console.wire.problems import INTERNAL, Problem, problem_of, status_of
from holdfast.errors import HoldfastError
from holdfast.events import log
from holdfast.runtime.turns.failures import trace

_GONE = 499
"""The status of an answer whose client has gone."""


def build(control: Control) -> ASGIApp:
    """The app that serves `control`."""
    return Timed(RawPaths(application(control)))


def application(control: Control) -> FastAPI:
    """The app without its wrappers: this one has the OpenAPI document."""
    about = (__doc__ or "").strip()
    # No redirects: the answer for an unknown path is an error, with the body of every error.
    app = FastAPI(title="holdfast", version=__version__, description=about, docs_url=None, redoc_url=None, redirect_slashes=False)
    groups = [module.routes(control) for module in (api_read, api_verbs, api_many, api_events, api_node)]
    for group in groups:
        app.include_router(group.router)
    describe(app, groups)
    app.add_exception_handler(HoldfastError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _no_such_route)
    app.add_exception_handler(Gone, _gone)
    app.add_exception_handler(Exception, _failed)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HoldfastError)
    return problem(413 if isinstance(error, TooLarge) else status_of(error), problem_of(error))


async def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    return problem(422, Problem(error="ConfigError", message=redact.text("; ".join(faults))))


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = problem(error.status_code, Problem(error="ConfigError", message=f"{error.detail}: /openapi.json lists what there is"))
    answer.headers.update(error.headers or {})
    return answer


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_GONE)


async def _failed(request: Request, error: Exception) -> Response:
    return problem(500, Problem(error=INTERNAL, message="a fault of the server's own: its log says more"))


class Timed:
    """Adds to each answer how long the server took for it, and logs the server's own faults.

    Args:
        app: the app that answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                took_ms = (time.perf_counter() - began) * 1000
                message["headers"] = [*message.get("headers", ()), (b"server-timing", f"app;dur={took_ms:.2f}".encode())]
            await send(message)

        try:
            await self._app(scope, receive, timed)
        except Exception as error:
            # The answer with status 500 was sent already; the log gets the details, without secrets.
            log.error("the control API failed at %s %s\n%s", scope["method"], redact.text(scope["path"]), trace(error))
