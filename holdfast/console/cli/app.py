"""The `holdfast` command. Each command imports its modules when it runs: `--help` needs none of them."""

from __future__ import annotations

import io
import signal
import sys
from importlib import import_module
from typing import Annotated, Literal

import typer

from holdfast import __version__
from holdfast.console.cli import many as verbs_many
from holdfast.console.cli import verbs
from holdfast.console.cli.options import Db, Json, Socket, Store, ask_source, one_line, print_json, refuse

app = typer.Typer(
    name="holdfast",
    help="Durable, supervised sessions for AI agents: run them, and see what each one is doing and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)  # a letter that the terminal lacks must not hide the rest
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Durable, supervised sessions for AI agents: run them, and see what each one is doing and why."""


@app.command()
def run(
    target: Annotated[str, typer.Argument(metavar="MODULE:ATTR", help="A Runtime, or a function without arguments that returns one.")],
    store: Annotated[str | None, typer.Option("--store", metavar="URL", help="A store to use instead of the Runtime's own.")] = None,
    drain_s: Annotated[
        float | None,
        typer.Option("--drain-s", min=0.0, help="Seconds that steps in flight may take at the end; default the Runtime's own."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="PATH", help="The file of limits; default ./holdfast.toml, if it is there.")
    ] = None,
    feeds: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="MODULE:ATTR", help="An async function to run next to the sessions; it gets the Runtime. Can be repeated."
        ),
    ] = None,
    socket: Annotated[
        str | None,
        typer.Option("--socket", metavar="PATH", help="Where it listens for the other commands; default follows from the store."),
    ] = None,
    no_socket: Annotated[bool, typer.Option("--no-socket", help="Do not listen for the other commands.")] = False,
    log: Annotated[
        Literal["text", "json"], typer.Option("--log", help="How to log to stderr: warnings as text, or what happens as JSON.")
    ] = "text",
) -> None:
    """Run a Runtime until SIGTERM or SIGINT, which drain it; a second signal exits at once. SIGHUP reads the limits again.

    Exit codes: 0 drained, 1 a supervisor gave up, 2 configuration error, 3 the store could not be opened: try again.
    """
    # A SIGHUP during the start changes nothing: the limits will be read later. This is a handler, since child processes would inherit
    # "ignored".
    signal.signal(signal.SIGHUP, lambda number, frame: None)
    with one_line():
        from holdfast.console.process import main as process

        options = process.Options(
            store=store, drain_s=drain_s, feeds=feeds or (), config=config, socket=socket, control=not no_socket, log=log
        )
        code = process.run(target, options)
    raise typer.Exit(code)


@app.command()
def ps(
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    all: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    status: Annotated[
        str | None, typer.Option("--status", help="Only these: failed, parked, working, unfinished, idle, finished, cancelled, killed.")
    ] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only sessions of this agent.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only sessions of this tenant.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 200,
    after: Annotated[str | None, typer.Option("--after", metavar="PLACE", help="The next ones after a page, as that page says.")] = None,
) -> None:
    """What every session is doing and why; those that need a person first."""
    with one_line():
        view = ask_source(
            db,
            store,
            socket,
            lambda source: source.overview(ended=all, status=status, agent=agent, tenant=tenant, limit=limit, after=after),
        )
        if json:
            return print_json(view)
        from holdfast.console.cli import render

        render.ps(view, all=all or status is not None)


@app.command()
def show(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The id of the session.")],
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    turn: Annotated[int | None, typer.Option("--turn", metavar="N", min=1, help="Only this turn; default the last ten.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Leave no step and no large value of the turn out.")] = False,
) -> None:
    """What a session did, what it cost, and why it stopped."""
    with one_line():
        view = ask_source(db, store, socket, lambda source: source.detail(session, turn=turn, whole=whole))
        if json:
            return print_json(view)
        from holdfast.console.cli import render

        render.show(view)


verbs.register(app)
verbs_many.register(app)


@app.command()
def demo(
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="How many sessions run.")] = 50,
    kills: Annotated[int, typer.Option("--kills", min=0, help="How often their process is killed.")] = 3,
    seed: Annotated[int | None, typer.Option("--seed", help="Makes it the same demo every time.")] = None,
) -> None:
    """See sessions die in the middle of their work and resume, with nothing done twice."""
    with one_line():
        try:
            demonstration = import_module("holdfast.console.demo.main")
        except ModuleNotFoundError as error:
            refuse(f"the demo is not installed here ({error.name} is missing): install holdfast with its extra, holdfast[demo]")
        code: int = demonstration.main(sessions=sessions, kills=kills, seed=seed)
    raise typer.Exit(code)
