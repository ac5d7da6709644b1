"""The users: each sends the recorded messages, one after the other, and waits for each answer. They run next to the Runtime:

    holdfast run benchmarks.airline.app:desk_runtime --with benchmarks.airline.feed:talk

Accepted and answered messages are recorded, synced, so that the process after a kill can continue each conversation.
"""

from __future__ import annotations

from pathlib import Path

import anyio

from benchmarks.airline import recordings, settings
from benchmarks.airline.app import Conversation, desk
from benchmarks.airline.books import WITNESS, Book, read
from holdfast import Handle, Runtime
from holdfast.errors import SessionError
from holdfast.events import Event, MaybePaid, StepReplayed

_PATIENCE_S = 300.0


async def talk(runtime: Runtime) -> None:
    """All conversations, as many at once as the settings allow."""
    conversations = recordings.load(settings.conversations(), run=settings.run(), first=settings.first())
    first = Conversation(policy=(settings.data() / "policy.md").read_text())
    said = _Said(settings.folder() / WITNESS)
    places = anyio.CapacityLimiter(settings.concurrency())

    async def converse(conversation: recordings.Conversation) -> None:
        async with places:
            texts = {f"{conversation.id}/{number}": turn.text for number, turn in enumerate(conversation.turns, 1)}
            left = {id: text for id, text in texts.items() if id not in said.answered}
            if left:
                await said.all(runtime, await runtime.spawn(desk, id=conversation.id, tenant="airline", state=first), left)

    runtime.observe(said.note)
    async with anyio.create_task_group() as group:
        for conversation in conversations:
            group.start_soon(converse, conversation)


class _Said:
    """The messages that this process and those before it have sent."""

    def __init__(self, path: Path) -> None:
        lines = list(read(path))
        self.accepted = {line["message"] for line in lines if line["what"] == "accepted"}
        self.answered = {line["message"] for line in lines if line["what"] == "answered"}
        self._book = Book(path)

    async def all(self, runtime: Runtime, session: Handle, texts: dict[str, str]) -> None:
        """Send the rest of a conversation. It ends where a message gets no answer: the next one would be out of place."""
        for id, text in texts.items():
            if id not in self.accepted:
                await session.tell(text, id=id)
                self._book.append(sync=True, what="accepted", session=session.id, message=id)
            elif await runtime.store.message(session.id, id) is None:
                # To ask under the id of a lost message would send it anew and hide the loss.
                self._book.append(what="lost", session=session.id, message=id)
            try:
                answer = await session.ask(text, id=id, timeout_s=_PATIENCE_S)
            except SessionError as error:
                self._book.append(what="failed", session=session.id, message=id, text=f"{type(error).__name__}: {error}")
                return
            self._book.append(sync=True, what="answered", session=session.id, message=id, text=answer.text, outputs=answer.outputs)

    def note(self, event: Event) -> None:
        """Record what a recovery did."""
        if isinstance(event, StepReplayed | MaybePaid):
            self._book.append(what="replayed" if isinstance(event, StepReplayed) else "maybe paid", session=event.session, name=event.name)
