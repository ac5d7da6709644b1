"""The commands that act on one session, or on all that match a filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from holdfast.console.cli.options import Db, Json, Socket, Store, ask_node, one_line, print_json, refuse
from holdfast.console.cli.verbs import Reason, value_of
from holdfast.console.wire.verbs import MORE, SIMPLE

if TYPE_CHECKING:
    from holdfast.console.client.node import Node

T = TypeVar("T")

Target = Annotated[str | None, typer.Argument(metavar="[SESSION]", help="The id of the session; else filters say which.")]
Status = Annotated[str | None, typer.Option("--status", help="Every session of this status.")]
Agent = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Every session of this agent.")]
Tenant = Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Every session of this tenant.")]
Why = Annotated[
    str | None,
    typer.Option(
        "--where-reason",
        metavar="REASON",
        help="Every session parked for this, such as doubt (outcome unknown); resolve also finds failed and ended ones in doubt.",
    ),
]
Dependency = Annotated[
    str | None, typer.Option("--dependency", metavar="NAME", help="Every session parked for this dependency, such as a client.")
]
All = Annotated[bool, typer.Option("--all", help="Every session that the verb is for.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With filters: list the sessions that match, and change nothing.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, max=100_000, metavar="N", help="How many at most; default 1000, or all of a dependency.")
]

_WORD_S = 2.0
"""After so long, in seconds, the command prints what it waits for."""


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for verb, summary in SIMPLE.items():
        app.command(verb, help=summary)(_command(verb))
    app.command("drop", help=MORE["drop"])(drop)
    app.command("interrupt", help=MORE["interrupt"])(interrupt)
    app.command("resolve")(resolve)


def _command(verb: str) -> Callable[..., None]:
    def command(
        session: Target = None,
        db: Db = None,
        store: Store = None,
        socket: Socket = None,
        json: Json = False,
        status: Status = None,
        agent: Agent = None,
        tenant: Tenant = None,
        where_reason: Why = None,
        dependency: Dependency = None,
        all: All = False,
        dry_run: DryRun = False,
        reason: Reason = "",
        limit: Limit = None,
    ) -> None:
        filters = {"status": status, "agent": agent, "tenant": tenant, "why": where_reason, "dependency": dependency}
        _do(verb, session, (db, store, socket), json, filters, all, dry_run, limit, {"reason": reason})

    return command


def drop(
    session: Target = None,
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    status: Status = None,
    agent: Agent = None,
    tenant: Tenant = None,
    where_reason: Why = None,
    dependency: Dependency = None,
    all: All = False,
    dry_run: DryRun = False,
    reason: Reason = "",
    limit: Limit = None,
    keep_letter: Annotated[bool, typer.Option("--keep-letter", help="Keep the message as a dead letter, which can be retried.")] = False,
) -> None:
    filters = {"status": status, "agent": agent, "tenant": tenant, "why": where_reason, "dependency": dependency}
    _do("drop", session, (db, store, socket), json, filters, all, dry_run, limit, {"reason": reason, "keep_letter": keep_letter})


def interrupt(
    session: Target = None,
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    status: Status = None,
    agent: Agent = None,
    tenant: Tenant = None,
    where_reason: Why = None,
    dependency: Dependency = None,
    all: All = False,
    dry_run: DryRun = False,
    reason: Reason = "",
    limit: Limit = None,
    step: Annotated[str | None, typer.Option("--step", metavar="NAME", help="Only attempts of the step of this name.")] = None,
) -> None:
    filters = {"status": status, "agent": agent, "tenant": tenant, "why": where_reason, "dependency": dependency}
    _do("interrupt", session, (db, store, socket), json, filters, all, dry_run, limit, {"reason": reason, "step": step})


def resolve(
    words: Annotated[
        list[str], typer.Argument(metavar="[SESSION] done|retry|fail", help="The session, or filters; then what became of the effect.")
    ],
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    status: Status = None,
    agent: Agent = None,
    tenant: Tenant = None,
    where_reason: Why = None,
    dependency: Dependency = None,
    all: All = False,
    dry_run: DryRun = False,
    reason: Reason = "",
    limit: Limit = None,
    step: Annotated[
        str | None, typer.Option("--step", metavar="NAME|KEY", help="Only effects of this name, or the one of this key (show).")
    ] = None,
    result: Annotated[str | None, typer.Option("--result", metavar="JSON", help="With done: what the effect returned.")] = None,
) -> None:
    """Resolve effects whose outcome is unknown. done: it happened. retry: it did not, run it. fail: it did not, the handler fails.

    A session that has ended runs nothing: there, retry and fail both mean that the effect did not happen.
    """
    *sessions, verdict = words
    if verdict not in ("done", "retry", "fail") or len(sessions) > 1:
        refuse("give the outcome: holdfast resolve SESSION done|retry|fail")
    filters = {"status": status, "agent": agent, "tenant": tenant, "why": where_reason, "dependency": dependency}
    given = {"verdict": verdict, "step": step, "result": None if result is None else value_of(result, False), "reason": reason}
    _do("resolve", sessions[0] if sessions else None, (db, store, socket), json, filters, all, dry_run, limit, given)


def _do(
    verb: str,
    session: str | None,
    where: tuple[str | None, str | None, str | None],
    json: bool,
    filters: dict[str, str | None],
    all: bool,
    dry_run: bool,
    limit: int | None,
    given: dict[str, Any],
) -> None:
    """Act on one session or on many, and print the outcome; exit code 1 if it failed for some."""
    with one_line():
        filtered = all or any(value is not None for value in filters.values())
        if session is not None and filtered:
            refuse("give a session or filters, not both")
        if session is not None and dry_run:
            refuse(f"--dry-run lists the sessions that filters match: for one session, holdfast show {session} prints what there is")
        if session is None and not filtered:
            refuse(f"give a session or a filter: holdfast {verb} SESSION, or --agent, --status, --dependency, or --all")
        from holdfast.console.cli import words
        from holdfast.console.client.node import path_of
        from holdfast.console.wire.answers import Did, DidMany

        if session is not None:
            one = ask_node(*where, lambda node: _patient(node, verb, f"{path_of(session)}/{verb}", given, Did))
            return print_json(one) if json else words.did(one, letter_kept=given.get("keep_letter", False))
        body = {**filters, "all": all, "dry_run": dry_run, "limit": limit, **given}
        many = ask_node(*where, lambda node: _patient(node, verb, f"/{verb}", body, DidMany))
        if json:
            print_json(many)
        else:
            words.did_many(many)
        if any(one.problem is not None for one in many.sessions):
            raise typer.Exit(1)


async def _patient(node: Node, verb: str, path: str, body: dict[str, Any], kind: type[T]) -> T:
    """The answer to a verb, however long it takes; while steps are in flight, the command prints that it waits for them."""
    import asyncio

    from holdfast.console.wire.bodies import WAIT_S

    waiting = f"holdfast: {verb} waits until the steps in flight have ended; Ctrl-C stops waiting; the {verb} request stays"
    timer = asyncio.get_running_loop().call_later(_WORD_S, lambda: typer.echo(waiting, err=True))
    try:
        return await node.post(path, body, kind, wait_s=WAIT_S)
    finally:
        timer.cancel()
