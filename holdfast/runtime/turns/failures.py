"""Errors to records and back: the same error, with the same fields, live and on every replay."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from types import TracebackType

import msgspec

from holdfast import redact
from holdfast.errors import AskCycle, AskTimeout, BudgetExhausted, RepetitionDetected, StepError
from holdfast.given import text_of
from holdfast.policies.classify import Fault
from holdfast.policies.failures import TABLE, Answers
from holdfast.stores.records import Failure, Outcome, Park, StepState

_BY_NAME: dict[str, type[StepError]] = {cls.__name__: cls for cls in (StepError, BudgetExhausted, RepetitionDetected, AskCycle, AskTimeout)}
_MAX_TEXT = 2_000
_FRAMES, _CAUSES = 30, 4
CUT = Failure("StepError", "", "CancelledError", "cancelled by its caller")
"""The failure of a step that was cancelled before it had a result."""

NOT_KEPT = "ResultNotKept"
"""The failure type of an effect that was done but whose result cannot be stored; its record is still closed as done."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def redacted(fault: Fault) -> Fault:
    """The fault without secrets: its text goes not only into the final failure, but also into notes, events and texts for people."""
    return msgspec.structs.replace(fault, message=redact.text(fault.message)[:_MAX_TEXT])


def failure_of(step: str, fault: Fault, so: Answers | None = None, *, of: str = "", until: float | None = None) -> Failure:
    """The record of a final failure.

    Args:
        so: what it means; default what the table says.
        of: the dependency, or else the step, that failed.
        until: the store time to which the dependency asked to wait; None if it did not say.
    """
    so, inner = so or TABLE[fault.kind], fault.of
    error, down = "StepError", so.health == "dependency" and so.then == "park"
    if inner is not None:
        error = "BudgetExhausted" if isinstance(inner, BudgetExhausted) else error
        down, of, until = inner.dependency, inner.of, inner.until
    message = redact.text(fault.message)[:_MAX_TEXT]
    return Failure(
        error, step, fault.type, message, so.category, dependency=down, kind=fault.kind, status=fault.status, of=of, then=so.then,
        until=until,
    )  # fmt: skip


STATE_S = 60.0
"""The pause before a session that parked as "state" is tried again, in seconds; each message and each start also tries it."""


def refused(cause: str, now: float) -> Park:
    """The park of a session a write of which was refused: it is at fault itself."""
    return Park(
        "state", f"a write of the session was refused: {cause}; it is tried again, or drop the turn, or cancel the session", now + STATE_S
    )


_CLOSED, _FAILED = StepState.CLOSED, StepState.FAILED


def state_of(outcome: Outcome) -> StepState:
    """The state of a step with this outcome."""
    return _CLOSED if outcome.failure is None or outcome.failure.type == NOT_KEPT else _FAILED


def error_of(failure: Failure) -> StepError:
    """The error that a failure on record raises."""
    about = {
        "dependency": failure.dependency, "kind": failure.kind, "status": failure.status, "of": failure.of, "then": failure.then,
        "until": failure.until,
    }  # fmt: skip
    if failure.error == AskTimeout.__name__:
        about["message_id"] = failure.message_id
    return _BY_NAME.get(failure.error, StepError)(failure.step, failure.type, failure.message, failure.category, **about)  # type: ignore[arg-type] # by the name of each


def describe(error: BaseException) -> str:
    """One redacted line about an exception, fit for every store, also where its `__str__` fails."""
    text = text_of(error, 2 * _MAX_TEXT).strip().replace("\n", " ")
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return redact.text(line)[:_MAX_TEXT]  # redact before the cut: half a secret would not be recognised


def trace(error: BaseException) -> str:
    """The redacted traceback of an error and its causes. Only the last frames and the beginning of each text: a recursion has a thousand
    frames, a text can have a gigabyte, and the loop formats them."""
    return redact.text("\n".join(_trace(error, _CAUSES)))


def _trace(error: BaseException, most: int) -> Iterator[str]:
    chain = [error]
    while len(chain) < most and (cause := chain[-1].__cause__ or (None if chain[-1].__suppress_context__ else chain[-1].__context__)):
        chain.append(cause)
    for each in reversed(chain):
        yield "".join(traceback.format_tb(_end_of(each.__traceback__))) + describe(each)
        notes = getattr(each, "__notes__", None)
        if isinstance(notes, list):
            yield from (redact.text(note[: 2 * _MAX_TEXT])[:_MAX_TEXT] for note in notes[:most] if isinstance(note, str))
        if isinstance(each, BaseExceptionGroup) and most > 1:
            for inner in each.exceptions[:most]:
                yield from _trace(inner, most // 2)


def _end_of(frames: TracebackType | None) -> TracebackType | None:
    """The last frames of a traceback. A negative limit of `traceback` reads the position of every frame before it leaves most out: 2 ms of
    a recursion."""
    ahead = frames
    for _ in range(_FRAMES):
        if ahead is None:
            return frames
        ahead = ahead.tb_next
    while ahead is not None and frames is not None:
        ahead, frames = ahead.tb_next, frames.tb_next
    return frames


def where(error: BaseException) -> str:
    """The last frame of the traceback in the user's own code, as "file.py:12 in function"; "" if there is none."""
    frames = [f for f in traceback.extract_tb(_end_of(error.__traceback__)) if not f.filename.startswith(_PACKAGE)]
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
