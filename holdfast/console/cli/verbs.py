"""The commands about one session, and about the process: clients of the control API."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from holdfast.console.cli.options import Db, Json, SessionId, Socket, Store, ask_node, ask_source, one_line, print_json

MessageId = Annotated[str | None, typer.Option("--id", metavar="ID", help="Of the message: sent again with it, nothing happens twice.")]
Text = Annotated[bool, typer.Option("--text", help="Send it as text, also where it is JSON.")]
Body = Annotated[str, typer.Argument(metavar="BODY", help="JSON, or any other text; - reads it from standard input.")]
Steps = Annotated[int | None, typer.Option("--steps", min=0, metavar="N", help="Attempts of steps.")]
Tokens = Annotated[int | None, typer.Option("--tokens", min=0, metavar="N", help="Tokens in and out.")]
Usd = Annotated[str | None, typer.Option("--usd", metavar="AMOUNT", help="Dollars.")]
Seconds = Annotated[float | None, typer.Option("--seconds", min=0, metavar="S", help="Active time in seconds.")]
ToolCalls = Annotated[int | None, typer.Option("--tool-calls", min=0, metavar="N", help="Calls of tools.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the log of the process.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (tree, timeline, mailbox, tail, spawn, send, ask, budget, rewind, breakers, doctor, top):
        app.command()(command)


def value_of(body: str, text: bool) -> Any:
    """The value of a person's text: decoded if it is JSON, else the text itself."""
    import msgspec

    if body == "-":
        body = sys.stdin.read()
    if text:
        return body
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return body


def _limits(steps: int | None, tokens: int | None, usd: str | None, seconds: float | None, tool_calls: int | None) -> Any:
    from holdfast.policies.budget import Budget

    return Budget(steps=steps, tokens=tokens, usd=usd, seconds=seconds, tool_calls=tool_calls)  # type: ignore[arg-type]


# ---------------------------------------------------------------- look


def tree(db: Db = None, store: Store = None, socket: Socket = None, json: Json = False) -> None:
    """The supervision tree of the process."""
    with one_line():
        from holdfast.supervisors.view import SupervisorView

        view = ask_node(db, store, socket, lambda node: node.get("/tree", SupervisorView))
        if json:
            return print_json(view)
        from holdfast.console.cli import words

        words.tree(view)


def timeline(
    session: SessionId,
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    first: Annotated[int, typer.Option("--first", min=1, metavar="N", help="The turn to begin with.")] = 1,
    turns: Annotated[int, typer.Option("--turns", min=1, max=1000, metavar="N", help="How many turns at most.")] = 1000,
) -> None:
    """Every turn of a session with its steps, in order of time."""
    with one_line():
        view = ask_source(db, store, socket, lambda source: source.timeline(session, first=first, turns=turns))
        if json:
            return print_json(view)
        from holdfast.console.cli import words

        words.timeline(view)


def mailbox(session: SessionId, db: Db = None, store: Store = None, socket: Socket = None, json: Json = False) -> None:
    """What waits in the mailbox of a session."""
    with one_line():
        view = ask_source(db, store, socket, lambda source: source.mailbox(session))
        if json:
            return print_json(view)
        from holdfast.console.cli import words

        words.mailbox(view)


def tail(
    session: Annotated[str | None, typer.Argument(metavar="[SESSION]", help="Only what happens to this session.")] = None,
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, one event on each line.")] = False,
    kind: Annotated[list[str] | None, typer.Option("--kind", metavar="NAME", help="Only events of this kind. Can be repeated.")] = None,
) -> None:
    """What happens, as it happens, until Ctrl-C or the end of the process."""
    with one_line():
        from holdfast.console.cli import words
        from holdfast.console.client.node import Node

        async def follow(node: Node) -> None:
            async with node.watch(session, kinds=tuple(kind or ())) as events:
                async for event in events:
                    words.event(event, json=json)
                    if events.dropped:
                        typer.echo(f"holdfast: {events.dropped} events were dropped: they came faster than they were read", err=True)
                        events.dropped = 0
            typer.echo("holdfast: the process has ended", err=True)

        ask_node(db, store, socket, follow)


def breakers(db: Db = None, store: Store = None, socket: Socket = None, json: Json = False) -> None:
    """The breakers of what tools and model calls depend on."""
    with one_line():
        from holdfast.policies.breaker import BreakerView

        view = ask_node(db, store, socket, lambda node: node.get("/breakers", dict[str, BreakerView]))
        if json:
            return print_json(view)
        from holdfast.console.cli import words

        words.breakers(view)


def doctor(db: Db = None, store: Store = None, socket: Socket = None, json: Json = False) -> None:
    """Is the process healthy? One line for each check.

    Exit code 1 if a check fails: the process or its store is not healthy, or a person has to act on it (make room, restart it).
    Sessions that failed or are parked for a person, and dependencies that are down, are warnings: the process is healthy all the same.
    """
    with one_line():
        from holdfast.console.wire.answers import Diagnosis

        view = ask_node(db, store, socket, lambda node: node.get("/doctor", Diagnosis))
        if json:
            print_json(view)
        else:
            from holdfast.console.cli import words

            words.doctor(view)
    raise typer.Exit(0 if view.healthy else 1)


def top(
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    every_s: Annotated[float, typer.Option("--every-s", min=0.1, metavar="S", help="Seconds between frames.")] = 1.0,
) -> None:
    """What every session does right now, what needs a person first, until Ctrl-C."""
    with one_line():
        from holdfast.console.cli import top as screen

        ask_node(db, store, socket, lambda node: screen.run(node, once=once, every_s=every_s))


# ---------------------------------------------------------------- talk


def spawn(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The name of an agent of the process.")],
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Of the session; default a new one.")] = None,
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME")] = "default",
    user: Annotated[str, typer.Option("--user", metavar="NAME")] = "",
    state: Annotated[str | None, typer.Option("--state", metavar="JSON", help="What it starts with; default the agent's own.")] = None,
    steps: Steps = None,
    tokens: Tokens = None,
    usd: Usd = None,
    seconds: Seconds = None,
    tool_calls: ToolCalls = None,
) -> None:
    """Get or create a session; its id is printed."""
    with one_line():
        limits = _limits(steps, tokens, usd, seconds, tool_calls)
        budget = None if (steps, tokens, usd, seconds, tool_calls) == (None,) * 5 else limits
        first = None if state is None else value_of(state, False)
        handle = ask_node(db, store, socket, lambda node: node.spawn(agent, id=id, tenant=tenant, user=user, state=first, budget=budget))
        if json:
            return print_json({"session": handle.id})
        typer.echo(handle.id)


def send(
    session: SessionId,
    body: Body,
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    id: MessageId = None,
    text: Text = False,
) -> None:
    """Put a message into the mailbox of a session; its id is printed once it is durable."""
    with one_line():
        message = value_of(body, text)
        with _hint(message):
            sent = ask_node(db, store, socket, lambda node: node.session(session).tell(message, id=id))
        if json:
            return print_json({"session": session, "id": sent})
        typer.echo(sent)


def ask(
    session: SessionId,
    body: Body,
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    id: MessageId = None,
    text: Text = False,
    timeout_s: Annotated[float, typer.Option("--timeout-s", min=0, metavar="S", help="How long to wait, in seconds.")] = 60.0,
) -> None:
    """Put a message into the mailbox of a session and print the reply."""
    with one_line():
        message = value_of(body, text)
        with _hint(message):
            reply = ask_node(db, store, socket, lambda node: node.session(session).ask(message, id=id, timeout_s=timeout_s))
        from holdfast.console.cli import words
        from holdfast.console.wire.problems import portable

        if json:
            return print_json({"session": session, "reply": portable(reply)})
        words.reply(portable(reply))


def budget(
    session: SessionId,
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    steps: Steps = None,
    tokens: Tokens = None,
    usd: Usd = None,
    seconds: Seconds = None,
    tool_calls: ToolCalls = None,
    reason: Reason = "",
) -> None:
    """Add to the limits of a session; one that is parked on its budget resumes."""
    with one_line():
        from holdfast.console.client.node import limits_of, path_of
        from holdfast.console.wire.answers import Did
        from holdfast.errors import ConfigError

        by = limits_of(_limits(steps, tokens, usd, seconds, tool_calls))
        if not by:
            raise ConfigError("give at least one of --steps, --tokens, --usd, --seconds and --tool-calls")
        did = ask_node(db, store, socket, lambda node: node.post(f"{path_of(session)}/budget", {"by": by, "reason": reason}, Did))
        if json:
            return print_json(did)
        typer.echo(f"{session}: limits raised")


def rewind(
    session: SessionId,
    turn: Annotated[int, typer.Option("--turn", min=0, metavar="N", help="The turn whose state comes back; 0 is the first state.")],
    db: Db = None,
    store: Store = None,
    socket: Socket = None,
    json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the effects since then, and change nothing.")] = False,
    reason: Reason = "",
) -> None:
    """Bring the state of a session after an earlier turn back.

    Messages handled since stay done, as do their effects: the command lists them, and the next turn reads their names. A session with an
    open turn, or an effect of unknown outcome, is refused: drop the turn first.
    """
    with one_line():
        from holdfast.console.client.node import path_of
        from holdfast.runtime.sessions.rewinding import Rewound

        body = {"turn": turn, "dry_run": dry_run, "reason": reason}
        done = ask_node(db, store, socket, lambda node: node.post(f"{path_of(session)}/rewind", body, Rewound))
        if json:
            return print_json(done)
        from holdfast.console.cli import words

        words.rewound(done)


class _hint:
    """If a message was decoded as JSON but its agent takes text, add to the error how to send it as text."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        from holdfast.errors import MessageRefused

        if isinstance(error, MessageRefused) and not isinstance(self._message, str):
            raise MessageRefused(error.session, f"{error}; --text sends it as text") from error
