"""The `holdfast` command. Each command imports what it needs when it runs: `--help` needs none of it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from holdfast import __version__, redact
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.console.target import Source

T = TypeVar("T")

WRONG = 2
"""The exit code where what was asked for cannot be done: a wrong name, a database that is missing, locked or newer."""

app = typer.Typer(
    name="holdfast",
    help="Durable, supervised sessions for AI agents: run them, and see what each one is doing and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Db = Annotated[str | None, typer.Option("--db", metavar="PATH", help="The SQLite file; default the only one in this folder.")]
Store = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="The same as a URL: sqlite:///path.db, postgresql://host/database.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: every field, nothing shortened.")]


def main() -> None:
    """Run the command line."""
    app()


@contextmanager
def _one_line() -> Iterator[None]:
    """Whatever holdfast refuses is one line on stderr and exit code 2."""
    try:
        yield
    except HoldfastError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        # Before the process has its own handlers, or while a table is printed.
        raise typer.Exit(130) from None


def _refuse(text: str) -> NoReturn:
    typer.echo(f"holdfast: {redact.text(' '.join(text.split()))}", err=True)
    raise typer.Exit(WRONG)


def _ask(db: str | None, store: str | None, question: Callable[[Source], Awaitable[T]]) -> T:
    """The answer to a question about the store that is meant, from whoever `target.source` chooses."""
    import asyncio

    from holdfast.console import target

    async def answer() -> T:
        async with target.source(target.store_url(db, store)) as source:
            return await question(source)

    return asyncio.run(answer())


def _print_json(value: Any) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


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
        typer.Option("--with", metavar="MODULE:ATTR", help="An async function to run besides, given the Runtime. Can be repeated."),
    ] = None,
) -> None:
    """Run a Runtime until SIGTERM or SIGINT, which drain it; a second signal exits at once. SIGHUP reads the limits again.

    Exit code 0 when drained, 1 when a supervisor gave up, 2 when it could not start.
    """
    with _one_line():
        from holdfast.console import process

        code = process.run(target, store=store, drain_s=drain_s, feeds=feeds or (), config=config)
    raise typer.Exit(code)


@app.command()
def ps(
    db: Db = None,
    store: Store = None,
    json: Json = False,
    all: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    status: Annotated[
        str | None, typer.Option("--status", help="Only these: failed, parked, working, unfinished, idle, finished, cancelled, killed.")
    ] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only sessions of this agent.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only sessions of this tenant.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 200,
) -> None:
    """What every session is doing and why; those that need a person first."""
    with _one_line():
        view = _ask(db, store, lambda source: source.overview(ended=all, status=status, agent=agent, tenant=tenant, limit=limit))
        if json:
            return _print_json(view)
        from holdfast.console import render

        render.ps(view, limit=limit, all=all or status is not None)


@app.command()
def show(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The id of the session.")],
    db: Db = None,
    store: Store = None,
    json: Json = False,
    turn: Annotated[int | None, typer.Option("--turn", metavar="N", min=1, help="Only this turn; default the last ten.")] = None,
) -> None:
    """What a session did, what it cost, and why it stopped."""
    with _one_line():
        view = _ask(db, store, lambda source: source.detail(session, turn=turn))
        if json:
            return _print_json(view)
        from holdfast.console import render

        render.show(view)


@app.command()
def demo(
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="How many sessions run.")] = 50,
    kills: Annotated[int, typer.Option("--kills", min=0, help="How often their process is killed.")] = 3,
    seed: Annotated[int | None, typer.Option("--seed", help="Makes it the same demo every time.")] = None,
) -> None:
    """See sessions die in the middle of their work and go on, with nothing done twice."""
    with _one_line():
        try:
            demonstration = import_module("holdfast.console.demo")
        except ModuleNotFoundError as error:
            _refuse(f"the demo is not installed here ({error.name} is missing): install holdfast with its extra, holdfast[demo]")
        code: int = demonstration.main(sessions=sessions, kills=kills, seed=seed)
    raise typer.Exit(code)
