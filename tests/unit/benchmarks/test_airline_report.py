"""The counting of a run of the airline: it has to notice a promise that was not kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.airline import differences, direct, recordings, report
from benchmarks.airline.app import GIVEN_OVER
from benchmarks.airline.books import LEDGER, MODEL, WITNESS, Book
from benchmarks.airline.model_server import THE_END, Misplaced, next_message
from benchmarks.airline.tables import MissingData, Tables
from benchmarks.airline.tools import TOOLS
from benchmarks.airline.world import World
from holdfast import Runtime, Session, agent

TABLES = Tables({}, {}, {"ann": {"state": "TX", "payment_methods": {}, "reservations": []}})
CERTIFICATE = ("send_certificate", {"user_id": "ann", "amount": 50})
SENT = "Certificate certificate_3221322 added to user ann with amount 50."


def call(id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": id, "function": {"name": name, "arguments": json.dumps(arguments)}}],
    }


def output(id: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": text}


MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "I am ann."},
    call("c1", "get_user_details", {"user_id": "ann"}),
    output("c1", json.dumps({"province": "TX", "payment_methods": {}, "reservations": []})),
    {"role": "assistant", "content": "Hello Ann."},
    {"role": "user", "content": "You are late."},
    call("c2", *CERTIFICATE),
    output("c2", SENT),
    call("c2", "transfer_to_human_agents", {"summary": "late"}),
    output("c2", "Transfer successful"),
]


@pytest.fixture
def conversations(tmp_path: Path) -> list[recordings.Conversation]:
    """One recording, of two turns; its answers have been given and its write has been made."""
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([{"messages": MESSAGES}]))
    loaded = recordings.load(path, run="run")
    answers = [
        ("Hello Ann.", [json.dumps(TABLES.users["ann"])]),
        (GIVEN_OVER, [SENT, "Transfer successful"]),
    ]
    for number, (text, outputs) in enumerate(answers, 1):
        witness(tmp_path, what="accepted", message=f"run-c000/{number}")
        witness(tmp_path, what="answered", message=f"run-c000/{number}", text=text, outputs=outputs)
    for place in (1, 3, 5, 7):
        book(tmp_path / MODEL, what="asked", session="run-c000", place=place, number=place)
    world = World(TABLES, tmp_path)
    world.write("run-c000", "k1", *CERTIFICATE)
    world.close()
    return loaded


def book(path: Path, **facts: Any) -> None:
    lines = Book(path)
    lines.append(**facts)
    lines.close()


def witness(folder: Path, **facts: Any) -> None:
    book(folder / WITNESS, **facts)


def count(folder: Path, conversations: list[recordings.Conversation], kills: list[list[str]] | None = None) -> report.Report:
    return report.count(folder, TABLES, conversations, kills=kills or [], seconds=1.0)


def test_a_recording_is_read_as_turns(conversations: list[recordings.Conversation]) -> None:
    """A turn that ends with a tool has no recorded answer; ids of calls may come again."""
    first, second = conversations[0].turns
    assert (first.text, first.answer, [used.tool for used in first.used]) == ("I am ann.", "Hello Ann.", ["get_user_details"])
    assert (second.answer, [used.output for used in second.used]) == (None, [SENT, "Transfer successful"])


def test_a_goodbye_that_nobody_answered_is_no_turn() -> None:
    """There is nothing that it could be answered with."""
    said = recordings.Conversation(
        "c", ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Bye"})
    )
    assert [turn.text for turn in said.turns] == ["Hi"]


@pytest.mark.parametrize("text", ["[]", "[1]", '[{"no": "messages"}]', "{"])
def test_a_file_without_conversations_is_refused_by_name(tmp_path: Path, text: str) -> None:
    """Rather than run nothing and call it a success."""
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(MissingData, match=r"c\.json"):
        recordings.load(tmp_path / "c.json", run="run")


def test_the_model_says_what_was_recorded_next_whatever_the_tools_answered(conversations: list[recordings.Conversation]) -> None:
    """The place is the number of messages; what users and the assistant said has to be the recorded."""
    recorded = MESSAGES[1:]
    assert next_message(conversations[0], recorded[:3]) == recorded[3]
    assert next_message(conversations[0], [*recorded[:2], output("c1", "something else")]) == recorded[3]
    assert next_message(conversations[0], recorded)["content"] == THE_END
    for wrong in ([{"role": "user", "content": "I am bob."}], recorded[:2], [*recorded, recorded[0]]):
        with pytest.raises(Misplaced):
            next_message(conversations[0], wrong)


def test_a_run_that_kept_everything_has_no_faults(tmp_path: Path, conversations: list[recordings.Conversation]) -> None:
    """And says what differs from the recording by the names of the fields."""
    kept = count(tmp_path, conversations, [["model"]])
    assert (kept.turns, kept.model_calls, kept.tool_calls, kept.outputs_identical, kept.writes_made) == (2, 4, 3, 2, 1)
    assert kept.differing == {"get_user_details: province is called state now": 1}
    assert kept.faults(kills_wanted=1) == ["only 2 of 3 outputs are the recorded ones"]
    assert json.loads(kept.as_json())["ledger"] == str(tmp_path / LEDGER)


def test_a_write_made_twice_is_counted(tmp_path: Path, conversations: list[recordings.Conversation]) -> None:
    """Under another key as well: the conversation asks for it only once."""
    world = World(TABLES, tmp_path)
    world.write("run-c000", "k2", *CERTIFICATE)
    world.close()
    twice = count(tmp_path, conversations)
    assert (twice.writes_made, twice.writes_expected, twice.writes_twice, twice.worlds_differing) == (2, 1, 1, 1)
    assert "writes twice: 1, expected 0" in twice.faults(kills_wanted=0)


def test_a_write_that_is_missing_is_counted(tmp_path: Path, conversations: list[recordings.Conversation]) -> None:
    """An effect that was promised and never made is as bad as one made twice."""
    (tmp_path / LEDGER).write_text("")
    assert count(tmp_path, conversations).writes_missing == 1


def test_a_message_without_an_answer_is_lost(tmp_path: Path, conversations: list[recordings.Conversation]) -> None:
    """And so is one that the store did not have any more, though it was answered when it was said again."""
    witness(tmp_path, what="accepted", message="run-c000/3")
    witness(tmp_path, what="lost", message="run-c000/1")
    assert count(tmp_path, conversations).messages_lost == 2


def test_an_answer_that_is_another_is_a_fault(tmp_path: Path, conversations: list[recordings.Conversation]) -> None:
    """Also an output that is right by the recording and not what the tables give."""
    recorded = MESSAGES[3]["content"]
    witness(tmp_path, what="answered", message="run-c000/1", text="Hello Bob.", outputs=[recorded])
    other = count(tmp_path, conversations)
    assert (other.answers_differing, other.outputs_identical, other.outputs_as_uninterrupted) == (1, 3, 2)


def test_an_answer_that_was_used_and_asked_for_again_was_bought_twice(tmp_path: Path, conversations: list[recordings.Conversation]) -> None:
    """The same place asked again is a call that was cut off; an earlier one is not."""
    book(tmp_path / MODEL, what="asked", session="run-c000", place=7, number=10)
    assert count(tmp_path, conversations).answers_bought_twice == 0
    book(tmp_path / MODEL, what="asked", session="run-c000", place=3, number=11)
    again = count(tmp_path, conversations)
    assert (again.model_calls, again.model_calls_repeated, again.answers_bought_twice) == (4, 2, 1)


def test_kills_and_turns_that_are_missing_are_faults(tmp_path: Path, conversations: list[recordings.Conversation]) -> None:
    """A kill of a process that did nothing proves nothing."""
    (tmp_path / WITNESS).write_text("")
    faults = count(tmp_path, conversations, [[]]).faults(kills_wanted=2)
    assert "only 0 of 2 turns were answered" in faults
    assert "only 1 of 2 kills" in faults
    assert "only 0 of 1 kills met an open step" in faults


def test_a_tool_that_does_not_exist_gives_nothing_by_itself() -> None:
    """What comes of it is what the session tells the model."""
    said = recordings.Conversation("c", ({"role": "user", "content": "Hi"}, call("1", "fly", {}), output("1", "Error")))
    assert direct.run(said, TABLES).outputs == [None]


async def test_what_comes_of_a_tool_that_does_not_exist_is_what_a_session_tells(tmp_path: Path) -> None:
    """And anything else is noticed."""
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([{"messages": [{"role": "user", "content": "Hi"}, call("1", "fly", {}), output("1", "Error")]}]))
    loaded = recordings.load(path, run="run")

    @agent(version=1, tools=TOOLS)
    async def flier(session: Session[None], text: str) -> str:
        return (await session.call_tool("fly", "{}")).content

    async with Runtime("memory:", agents=[flier]) as runtime:
        told = await (await runtime.spawn(flier, id="f")).ask("go")
    for ours, alike in ((told, 1), ("Error", 0)):
        witness(tmp_path, what="answered", message="run-c000/1", text=THE_END, outputs=[ours])
        assert count(tmp_path, loaded).outputs_as_uninterrupted == alike


@pytest.mark.parametrize(
    ("ours", "recorded", "why"),
    [
        ('{"a": {"c": 1}}', '{"a": {"b": 1}}', "a.b is called c now"),
        ('{"a": 1, "b": 2}', '{"a": 2}', "a has another value; b is new"),
        ('[{"a": 1}]', '[{"a": 2}]', "[].a has another value"),
        ("[1]", "[1, 2]", "the list has another length"),
        ("Error: no", '{"a": 1}', "the text has another value"),
    ],
)
def test_a_difference_is_said_by_the_fields(ours: str, recorded: str, why: str) -> None:
    """So that all of one kind are counted together."""
    assert not differences.same(ours, recorded)
    assert differences.difference(ours, recorded) == why


def test_the_same_data_in_another_order_is_the_same() -> None:
    """JSON is compared as data, all else letter for letter."""
    assert differences.same('{"a": 1, "b": 2}', '{"b": 2, "a": 1}')
    assert differences.same("Error", "Error")
