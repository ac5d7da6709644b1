"""Errors on the wire: what is raised inside is raised outside, and nothing secret goes with it."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

from holdfast import errors
from holdfast.console.cli import words
from holdfast.console.reading.amounts import number
from holdfast.console.wire.answers import Did
from holdfast.console.wire.problems import Problem, error_of, plain, portable, problem_of, status_of

ARGUMENTS: dict[type[errors.HoldfastError], tuple[Any, ...]] = {
    errors.MailboxFull: ("s", {"the": "message"}, 5),
    errors.ReplyTimeout: ("s", "m1", 2.5, "it is parked"),
    errors.TurnFailed: ("s", "m1", "ValueError: no", ("refund", "mail"), ("wire",), ("book", "charge")),
    errors.SupervisorGaveUp: ("root", "writer"),
    errors.NodeUnreachable: ("/run/s", "no process listens", True),
}
CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.HoldfastError)]


def made(kind: type[errors.HoldfastError]) -> errors.HoldfastError:
    if kind in ARGUMENTS:
        return kind(*ARGUMENTS[kind])
    if issubclass(kind, errors.StepError):
        return kind("refund", "ValueError", "no", "semantic")
    if issubclass(kind, errors.SessionError):
        return kind("s", "a text")
    return kind("a text")


def over(error: errors.HoldfastError) -> errors.HoldfastError:
    return error_of(msgspec.json.decode(msgspec.json.encode(problem_of(error)), type=Problem))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_comes_out_as_it_went_in(kind: type[errors.HoldfastError]) -> None:
    """Its class, its text and its attributes, so that `except` works the same; the message a mailbox refused is the sender's to keep."""
    error = made(kind)
    found = over(error)
    assert type(found) is kind
    assert str(found) == str(error)
    expected = vars(error) | ({"message": None} if kind is errors.MailboxFull else {})
    assert vars(found) == expected


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_of_its_kind(kind: type[errors.HoldfastError]) -> None:
    """4xx for what the asker can do something about, 503 and 504 for what passes by itself; never 500."""
    assert status_of(made(kind)) in {403, 404, 409, 410, 422, 429, 503, 504}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.SessionNotFound("s", ""), 404),
        (errors.SessionConflict("s", ""), 409),
        (errors.MessageConflict("s", ""), 409),
        (errors.StateError("s", ""), 409),
        (errors.SessionEnded("s", ""), 410),
        (errors.ConfigError(""), 422),
        (errors.NotJournalable(""), 422),
        (errors.MessageRefused("s", ""), 422),
        (errors.MailboxFull("s", 1, 1), 429),
        (errors.RuntimeStopped(""), 503),
        (errors.NotWritten(""), 503),
        (errors.OutcomeUnknown(""), 503),
        (errors.ReplyTimeout("s", "m", 1.0), 504),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_status_says_what_kind_of_error_it_is(error: errors.HoldfastError, status: int) -> None:
    """As the README has it."""
    assert status_of(error) == status


def test_an_error_of_a_users_own_comes_out_as_the_nearest_of_holdfasts() -> None:
    """The other side need not know the class."""

    class Mine(errors.SessionConflict):
        pass

    assert type(over(Mine("s", "text"))) is errors.SessionConflict


def test_an_error_that_is_not_known_here_is_still_one_of_holdfasts() -> None:
    """Of a newer process, or a fault of the server's own."""
    for name in ("InternalError", "FromTheFuture", "Any", "annotations"):
        error = error_of(Problem(error=name, message="text"))
        assert (type(error), str(error)) == (errors.HoldfastError, "text")


def test_no_secret_goes_with_an_error() -> None:
    """Neither in its text nor in its attributes; an id stays what it was, to ask again with."""
    lists = (("sk-abcdefghijkl",), ("sk-bcdefghijklm", "wire"), ("sk-cdefghijklmn",))
    found = over(errors.TurnFailed("s", "sk-abcdefghijkl", "Bearer abcdefghijkl was refused", *lists))
    assert "Bearer" not in str(found)
    assert "sk-b" not in str(found)
    assert vars(found) == {
        "session": "s",
        "message_id": "sk-abcdefghijkl",
        "cause": "[redacted] was refused",
        "effects": ("[redacted]",),
        "in_doubt": ("[redacted]", "wire"),
        "failed": ("[redacted]",),
    }


def test_values_that_json_cannot_hold_are_shown() -> None:
    """Bytes that are text as that text, others as their size; keys as text. MessagePack takes them all as they are."""
    value = plain({"a": b"text", "b": [b"\xff\xfe"], 3: (1, None)})
    assert value == {"a": b"text", "b": [b"\xff\xfe"], 3: [1, None]}
    assert portable(value) == {"a": "text", "b": ["(2 bytes)"], "3": [1, None]}


@pytest.mark.parametrize(("count", "said"), [(0, "0 effects resolved"), (1, "1 effect resolved"), (2, "2 effects resolved")])
def test_one_and_many_are_told_apart(count: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """People read it."""
    words.did(Did(session="s", verb="resolve", count=count))
    assert capsys.readouterr().out == f"s: {said}\n"
    assert (number(1, "step"), number(3, "step")) == ("1 step", "3 steps")
