"""The common parts of commands: how they find the process or store, how they print, and how they refuse."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.console.client.node import Node
    from holdfast.console.reading.target import Source

T = TypeVar("T")

WRONG = 2
"""The exit code of a command that cannot run: a wrong name, or a process or database that is missing, locked or newer."""

Db = Annotated[str | None, typer.Option("--db", metavar="PATH", help="The SQLite file; default the only one in this folder.")]
Store = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="The same as a URL: sqlite:///path.db, postgresql://host/database.")
]
Socket = Annotated[str | None, typer.Option("--socket", metavar="PATH", help="The control socket of the process to ask.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: every field, nothing shortened.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The id of the session.")]


@contextmanager
def one_line() -> Iterator[None]:
    """Print every error of holdfast as one line on stderr, and exit with code 2."""
    try:
        yield
    except HoldfastError as error:
        refuse(str(error))
    except KeyboardInterrupt:
        # Before the process has its own handlers, or while a table is printed.
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does. The rest of the buffer is dropped.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None
    except OSError as error:
        refuse(f"cannot read or print: {error.strerror or error}")


def refuse(text: str) -> NoReturn:
    """Print the reason on one line, and end with exit code 2."""
    from holdfast.console.reading.values import clean

    typer.echo(f"holdfast: {clean(' '.join(text.split()))}", err=True)
    raise typer.Exit(WRONG)


def ask_source(db: str | None, store: str | None, socket: str | None, question: Callable[[Source], Awaitable[T]]) -> T:
    """The answer to a question about the store that the options name, by `client.source.ask`."""
    import asyncio

    from holdfast.console.client import source

    async def answer() -> T:
        return await source.ask(question, path=db, url=store, socket=socket)

    return asyncio.run(answer())


def ask_node(db: str | None, store: str | None, socket: str | None, question: Callable[[Node], Awaitable[T]]) -> T:
    """The answer of the process that runs the store that the options name. Raises NodeUnreachable if there is none."""
    import asyncio

    from holdfast.console.client import reach

    path = reach.need(db, store, socket)
    from holdfast.console.client.node import open_node

    async def answer() -> T:
        async with open_node(path) as node:
            return await question(node)

    return asyncio.run(answer())


def print_json(value: Any) -> None:
    """Any answer, as JSON that a person can read."""
    import msgspec

    from holdfast.console.reading.values import escaped

    sys.stdout.write(escaped(msgspec.json.format(msgspec.json.encode(value)).decode()) + "\n")
