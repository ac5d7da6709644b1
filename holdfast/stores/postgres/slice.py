"""The rows that a batch touches: which rows it needs, the interpreter of its ops over them in memory, and the changes.

`stores.tables.Tables` interprets the ops, on tables that hold only the rows that the batch can read. Most ops are step writes of sessions
that no other op of the batch concerns. They need no row, only the session's epoch and open turn: they are written blindly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from holdfast.stores import ops
from holdfast.stores.ops import DONE, FENCED, Op, Result
from holdfast.stores.postgres.rows import (
    Values,
    checkpoint_values,
    letter_of,
    letter_values,
    message_values,
    session_values,
    step_values,
)
from holdfast.stores.records import ENDED, Address, Message, MessageState, Session
from holdfast.stores.rows import checkpoint_of, message_of, session_of
from holdfast.stores.tables import StepRow, Tables
from holdfast.stores.unreadable import read_state


class Needs:
    """The rows that ops can read, as keys.

    Attributes:
        sessions: sessions whose rows are needed.
        open: sessions of which only the epoch and the open turn are needed.
        messages: messages, by session and id.
        queued: sessions whose queued messages are needed.
        letters: sessions whose dead letter is needed, with its message.
        checkpoints: sessions whose last checkpoint is needed.
        journals: sessions whose records of the open turn are needed.
        open_steps: records of the open turn, by session and key.
        steps: records, by session, turn and key.
        ending: sessions that may end: the steps that wait for their messages are needed, too.
        settled: sessions that return budget, with their parents: their ancestors may be needed, too.
        made: sessions that are created, with the parents that give them a share.
    """

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.open: set[str] = set()
        self.messages: set[tuple[str, str]] = set()
        self.queued: set[str] = set()
        self.letters: set[str] = set()
        self.checkpoints: set[str] = set()
        self.journals: set[str] = set()
        self.open_steps: set[tuple[str, bytes]] = set()
        self.steps: set[tuple[str, int, bytes]] = set()
        self.ending: set[str] = set()
        self.settled: dict[str, str] = {}
        self.made: dict[str, str] = {}

    @classmethod
    def of(cls, batch: Iterable[Op], known: Mapping[str, tuple[int, int]]) -> Needs:
        """The needs of a batch, given the sessions whose epoch and open turn are known."""
        needs = cls()
        for op in batch:
            if type(op) is ops.WriteStep and not op.outbox:
                if op.session not in known:
                    needs.open.add(op.session)
            else:
                needs.add(op)
        return needs

    def add(self, op: Op) -> None:
        """Add the needs of one op, and of those in its outbox."""
        match op:
            case ops.CreateSession():
                self.sessions.add(op.id)
            case ops.Reply():
                self._answer(op.to)
            case ops.Touch():
                return  # no row: each batch locks the node's row, which is a write
            case _:
                self.sessions.add(op.session)
        match op:
            case ops.CreateSession() if op.parent is not None and not op.detached:
                self.made[op.id] = op.parent.session
            case ops.ReturnBudget():
                self.sessions.add(op.child)
                self.settled[op.child] = op.session
            case ops.Enqueue():
                self.messages.add((op.session, op.id))
            case ops.Activate():
                self.checkpoints.add(op.session)
                self.queued.add(op.session)
                self.journals.add(op.session)
            case ops.DropSteps():
                self.steps.update((op.session, op.turn, key) for key in op.keys)
            case ops.CommitTurn():
                self.messages.add((op.session, op.message))
                if op.status in ENDED:
                    self._end(op.session)
            case ops.FailTurn():
                self.messages.add((op.session, op.message))
            case ops.RetryLetter():
                self.letters.add(op.session)
            case ops.DropLetter():
                self.letters.add(op.session)
                self.checkpoints.add(op.session)
            case ops.UpdateSession() if op.park is not None:
                self.open_steps.update((op.session, key) for key in op.park.keys)
            case ops.EndSession():
                self._end(op.session)
            case _:
                pass
        for sent in getattr(op, "outbox", ()):
            self.add(sent)

    def _end(self, session: str) -> None:
        self.queued.add(session)
        self.ending.add(session)

    def _answer(self, to: Address) -> None:
        self.sessions.add(to.session)
        self.steps.add((to.session, to.turn, to.key))

    def of_answers(self, batch: Iterable[Op], rows: Slice) -> Needs:
        """The needs beyond `rows`, once `rows` has the messages of the batch: the steps that are answered with one, without the first that
        asked for it (a Reply in the outbox names that one), and those that wait for the sessions that end."""
        sent, known = list(_enqueued(batch)), rows.messages
        there = [known[session][id] for session, id in self.messages if id in known.get(session, ())]
        waiting: list[Address | None] = [to for message in there for to in message.also]
        waiting += [to for session in self.ending for message in rows.queued(session) for to in (message.reply_to, *message.also)]
        again = len({(op.session, op.id) for op in sent}) < len(sent) or any(op.id in known.get(op.session, ()) for op in sent)
        if again or self.ending:
            waiting += [op.reply_to for op in sent]
        more = Needs()
        for to in waiting:
            if to is not None:
                more._answer(to)
        more.sessions -= self.sessions
        more.steps -= self.steps
        more.steps = {key for key in more.steps if key[0] not in self.journals or not rows.holds(*key)}
        return more

    def ancestors(self, rows: Slice) -> Needs:
        """The next sessions beyond `rows` to which a returned budget may pass."""
        more = Needs()
        for above in self.settled.values():
            passed = set[str]()
            while above not in passed:
                passed.add(above)
                row = rows.sessions.get(above)
                if above not in rows.known:
                    more.sessions.add(above)
                parent = self.made.get(above) if row is None else None if row.detached or row.parent is None else row.parent.session
                if parent is None or not (above in self.settled or (row is not None and row.returns.left is not None)):
                    break
                above = parent
        return more


def _enqueued(batch: Iterable[Op]) -> Iterator[ops.Enqueue]:
    for op in batch:
        if isinstance(op, ops.Enqueue):
            yield op
        yield from _enqueued(getattr(op, "outbox", ()))


class Changes:
    """The changes of a batch, as rows for each statement."""

    def __init__(self) -> None:
        self.sessions: list[Values] = []
        self.messages: list[Values] = []
        self.new_steps: list[Values] = []
        self.old_steps: list[Values] = []
        self.dropped_steps: list[Values] = []
        self.turns: list[Values] = []
        self.letters: list[Values] = []
        self.dropped_letters: list[Values] = []

    def lists(self) -> tuple[list[Values], ...]:
        return (
            self.sessions,
            self.messages,
            self.new_steps,
            self.old_steps,
            self.dropped_steps,
            self.turns,
            self.letters,
            self.dropped_letters,
        )


class Slice(Tables):
    """The part of the tables that one batch reads.

    Args:
        arrivals: the `seq` of the last message that arrived.
        firsts: the last number given to a session or a step.
    """

    def __init__(self, arrivals: int, firsts: int) -> None:
        super().__init__()
        self._arrivals, self._firsts = arrivals, firsts
        self.known: set[str] = set()
        self.open: dict[str, tuple[int, int]] = {}
        # Steps written blindly: their old rows are replaced without a read.
        self._blind: dict[tuple[str, int, bytes], StepRow] = {}
        self._before: dict[tuple[Any, ...], Any] = {}
        self._marks: dict[str, int] = {}

    @property
    def counters(self) -> tuple[int, int]:
        """The last `seq` and the last number that were given."""
        return self._arrivals, self._firsts

    # ------------------------------------------------------------ rows before the batch

    def load(self, asked: set[str], row: Sequence[Any]) -> None:
        """Take in the rows that were read for the sessions `asked`: the lists that `Statements.read` gives."""
        sessions, opened, messages, queued, letters, letter_messages, checkpoints, journals, open_steps, steps = row
        self.known |= asked
        for number, mark, *values in sessions:
            del number
            session = session_of(values)
            if session.unreadable:  # no op can apply to it; ops of other sessions in the batch can
                self.unreadable[session.id] = session
            else:
                self._load_session(session, mark)
        for id in asked:
            self.messages.setdefault(id, {})
            self.checkpoints.setdefault(id, {})
        self.open.update((id, (epoch, turn)) for id, epoch, turn in opened)
        arrived = {(m.session, m.id): m for m in map(message_of, (*messages, *queued, *letter_messages))}
        for message in sorted(arrived.values(), key=lambda m: m.seq):
            self._load_message(message)
        for letter in map(letter_of, letters):
            self.letters[letter.session, letter.turn] = self._before["letters", letter.session, letter.turn] = letter
        for owner, *values in checkpoints:
            made = checkpoint_of(values)
            self.checkpoints[owner][made.turn] = self._before["turns", owner, made.turn] = made
        for number, owner, turn, key, state, body in (*journals, *open_steps, *steps):
            if ("steps", owner, turn, key) not in self._before:
                step = StepRow(number, read_state(state), body)
                self.steps.setdefault((owner, turn), {})[key] = self._before["steps", owner, turn, key] = step

    def _load_session(self, session: Session, mark: int | None) -> None:
        self.sessions[session.id] = self._before["sessions", session.id] = session
        if mark is not None:
            self.crash_marks[session.id] = self._marks[session.id] = mark

    def _load_message(self, message: Message) -> None:
        self.messages.setdefault(message.session, {})[message.id] = self._before["messages", message.session, message.id] = message

    def queued(self, session: str) -> list[Message]:
        """The messages that wait in a session's mailbox."""
        return [m for m in self.messages.get(session, {}).values() if m.state is MessageState.QUEUED]

    def holds(self, session: str, turn: int, key: bytes) -> bool:
        """Whether this record was read."""
        return ("steps", session, turn, key) in self._before

    # ------------------------------------------------------------ ops

    def do(self, op: Op) -> Result:
        """Apply one op."""
        if type(op) is ops.WriteStep and op.session not in self.known:
            if self.open.get(op.session) != (op.epoch, op.turn):
                return FENCED
            self.write_blindly(op)
            return DONE
        return self._do(op)

    def write_blindly(self, op: ops.WriteStep) -> None:
        """Write a record of a session whose epoch and open turn were checked."""
        key = (op.session, op.turn, op.key)
        there = self._blind.get(key)
        if there is None:
            self._firsts += 1
        self._blind[key] = StepRow(self._firsts if there is None else there.order, op.state, op.body)

    # ------------------------------------------------------------ changes

    def changes(self) -> Changes:
        """Every row that differs from the one that was read."""
        changes = Changes()
        self._session_changes(changes)
        before = self._before
        changes.messages = [
            message_values(message)
            for session, mailbox in self.messages.items()
            for id, message in mailbox.items()
            if before.get(("messages", session, id)) is not message
        ]
        self._step_changes(changes)
        changes.turns = [
            checkpoint_values(session, made)
            for session, turns in self.checkpoints.items()
            for turn, made in turns.items()
            if before.get(("turns", session, turn)) is not made
        ]
        changes.letters = [letter_values(letter) for key, letter in self.letters.items() if before.get(("letters", *key)) is not letter]
        changes.dropped_letters = [key[1:] for key in before if key[0] == "letters" and key[1:] not in self.letters]
        return changes

    def _session_changes(self, changes: Changes) -> None:
        for id, session in self.sessions.items():
            before = self._before.get(("sessions", id))
            mark = self.crash_marks.get(id)
            if before is None:
                self._firsts += 1  # a new one; where there is a row, its number stays
            if before is not session or mark != self._marks.get(id):
                changes.sessions.append(session_values(session, self._firsts, mark))

    def _step_changes(self, changes: Changes) -> None:
        for (session, turn), rows in self.steps.items():
            for key, row in rows.items():
                before = self._before.get(("steps", session, turn, key))
                if before is None:
                    changes.new_steps.append(step_values(session, turn, key, row))
                elif before is not row:
                    changes.old_steps.append(step_values(session, turn, key, row))
        changes.new_steps += [step_values(*key, row) for key, row in self._blind.items()]
        changes.dropped_steps = [
            (session, turn, key)
            for session, turn, key in (was[1:] for was in self._before if was[0] == "steps")
            if key not in self.steps[session, turn]
        ]
