"""The airline's tools, on tables made here: what they answer, what they change, and for whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.airline import arithmetic, reads, tools, writes
from benchmarks.airline.books import LEDGER, Book, read
from benchmarks.airline.tables import MissingData, Row, Tables, View
from benchmarks.airline.world import LedgerMismatch, World, attempt
from benchmarks.airline.writes import Refused
from holdfast import Runtime, Session, agent

CABINS = ("basic_economy", "economy", "business")


def flight(number: str, origin: str, destination: str, leaves: str, lands: str, **dates: Any) -> Row:
    times = {"scheduled_departure_time_est": leaves, "scheduled_arrival_time_est": lands}
    days = {f"2024-05-{day[1:]}": offer for day, offer in dates.items()}
    return {"flight_number": number, "origin": origin, "destination": destination, **times, "dates": days}


def free(economy: int, seats: int = 9) -> Row:
    prices = dict(zip(CABINS, (economy // 2, economy, economy * 3), strict=True))
    return {"status": "available", "available_seats": dict.fromkeys(CABINS, seats), "prices": prices}


def tables() -> Tables:
    """Three airports, one user with every kind of payment, one reservation."""
    flights = [
        flight("HAT001", "AAA", "BBB", "08:00:00", "10:00:00", d20=free(100), d21={"status": "delayed"}),
        flight("HAT002", "BBB", "CCC", "12:00:00", "14:00:00", d20=free(200), d21=free(250)),
        flight("HAT003", "BBB", "CCC", "09:00:00", "11:00:00", d20=free(150, seats=1)),
        flight("HAT004", "AAA", "BBB", "11:00:00", "01:00:00+1", d20=free(70)),
    ]
    methods: list[Row] = [
        {"source": "credit_card", "brand": "visa", "last_four": "1234", "id": "card"},
        {"source": "gift_card", "amount": 120, "id": "gift"},
        {"source": "certificate", "amount": 150, "id": "paper"},
    ]
    user = {"name": {"first_name": "Ann"}, "payment_methods": {each["id"]: each for each in methods}, "reservations": ["OLD123"]}
    old = {
        "reservation_id": "OLD123",
        "user_id": "ann",
        "cabin": "economy",
        "flights": [{"origin": "AAA", "destination": "BBB", "flight_number": "HAT001", "date": "2024-05-20", "price": 80}],
        "passengers": [{"first_name": "Ann"}, {"first_name": "Bob"}],
        "payment_history": [{"payment_id": "card", "amount": 160}],
        "total_baggages": 1,
        "nonfree_baggages": 0,
    }
    return Tables({each["flight_number"]: each for each in flights}, {"OLD123": old}, {"ann": user})


def booking(*payments: tuple[str, int], **other: Any) -> Row:
    return {
        "user_id": "ann",
        "origin": "AAA",
        "destination": "BBB",
        "flight_type": "one_way",
        "cabin": "economy",
        "flights": [{"flight_number": "HAT001", "date": "2024-05-20"}],
        "passengers": [{"first_name": "Ann"}],
        "payment_methods": [{"payment_id": id, "amount": amount} for id, amount in payments],
        "total_baggages": 0,
        "nonfree_baggages": 0,
        "insurance": "no",
        **other,
    }


def new_flights(number: str = "HAT001", day: str = "2024-05-20", cabin: str = "economy", payment: str = "card") -> Row:
    flights = [{"flight_number": number, "date": day}]
    return {"reservation_id": "OLD123", "cabin": cabin, "flights": flights, "payment_id": payment}


def make(view: View, tool: str, arguments: Row) -> Row:
    """A write that succeeds, seen afterwards; what it answered."""
    change = attempt(view, tool, arguments)
    view.apply(change)
    answer: Row = json.loads(change.result)
    return answer


def user_of(view: View) -> Row:
    user = view.user("ann")
    assert user is not None
    return user


@pytest.fixture
def view() -> View:
    return View(tables())


# ---------------------------------------------------------------- reads


def test_details_are_the_rows_and_an_unknown_id_is_an_error_for_the_model(view: View) -> None:
    """Nothing is raised at a model."""
    assert json.loads(reads.get_user_details(view, "ann"))["reservations"] == ["OLD123"]
    assert json.loads(reads.get_reservation_details(view, "OLD123"))["user_id"] == "ann"
    assert reads.get_user_details(view, "eve") == "Error: user not found"
    assert reads.get_reservation_details(view, "NONE") == "Error: reservation not found"


def test_a_direct_search_offers_what_is_available_that_day(view: View) -> None:
    """A flight that is delayed cannot be booked; one that flies on another day is not shown."""
    found = json.loads(reads.search_direct_flight(view, "AAA", "BBB", "2024-05-20"))
    assert [each["flight_number"] for each in found] == ["HAT001", "HAT004"]
    assert found[0]["prices"]["economy"] == 100
    assert "dates" not in found[0]
    assert reads.search_direct_flight(view, "AAA", "BBB", "2024-05-21") == "[]"


def test_a_search_with_a_change_leaves_time_for_it_and_knows_the_next_day(view: View) -> None:
    """HAT003 leaves before HAT001 lands; HAT004 lands the day after, so its connection is one day later."""
    found = json.loads(reads.search_onestop_flight(view, "AAA", "CCC", "2024-05-20"))
    assert [[(leg["flight_number"], leg["date"]) for leg in pair] for pair in found] == [
        [("HAT001", "2024-05-20"), ("HAT002", "2024-05-20")],
        [("HAT004", "2024-05-20"), ("HAT002", "2024-05-21")],
    ]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("152 + 103", "255.0"),
        (" (350 - 122) * 2 + (499 - 127) * 2", "1200.0"),
        ("-10 / 3", "-3.33"),
        ("498 * 1.5", "747.0"),
        ("1 / 0", "Error: division by zero"),
        ("2 ** 9", "Error: only + - * / and brackets are known"),
        ("price * 2", "Error: invalid characters in expression"),
    ],
)
def test_sums_are_calculated_and_nothing_else_is_run(expression: str, value: str) -> None:
    """Two decimal places; whatever is no sum is an error in words."""
    assert arithmetic.calculate(expression) == value


def test_an_unfinished_sum_is_an_error_in_words() -> None:
    """A model may well leave a bracket open."""
    assert arithmetic.calculate("(1 + 2").startswith("Error: ")


# ---------------------------------------------------------------- writes


def test_a_booking_is_paid_and_is_in_the_user_s_list(view: View) -> None:
    """The gift card loses what it paid; the certificate is used up, whatever was left on it."""
    booked = make(view, "book_reservation", booking(("paper", 60), ("gift", 90), insurance="no", nonfree_baggages=1))
    user = user_of(view)
    assert (booked["reservation_id"], booked["flights"][0]["price"]) == ("HATHAT", 100)
    assert user["reservations"] == ["OLD123", "HATHAT"]
    assert user["payment_methods"]["gift"]["amount"] == 30
    assert "paper" not in user["payment_methods"]
    assert make(view, "book_reservation", booking(("card", 130), insurance="yes"))["reservation_id"] == "HATHAU"


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (booking(("card", 99)), "Error: payment amount does not add up, total price is 100, but paid 99"),
        (booking(("cash", 100)), "Error: payment method cash not found"),
        (booking(("gift", 200)), "Error: not enough balance in payment method gift"),
        (booking(("card", 100), user_id="eve"), "Error: user not found"),
        (booking(flights=[{"flight_number": "HAT009", "date": "2024-05-20"}]), "Error: flight HAT009 not found"),
        (booking(flights=[{"flight_number": "HAT001", "date": "2024-06-01"}]), "Error: flight HAT001 not found on date 2024-06-01"),
        (booking(flights=[{"flight_number": "HAT001", "date": "2024-05-21"}]), "Error: flight HAT001 not available on date 2024-05-21"),
        (booking(cabin="first"), "Error: there is no cabin first"),
        (booking(flights=[{"date": "2024-05-20"}]), "Error: KeyError: 'flight_number'"),
    ],
)
def test_a_booking_that_cannot_be_is_refused_in_words_and_changes_nothing(view: View, arguments: Row, answer: str) -> None:
    """The recorded texts, and words for what no model was recorded to do."""
    with pytest.raises(Refused) as refused:
        attempt(view, "book_reservation", arguments)
    assert str(refused.value) == answer
    assert view.changed() == {"reservations": {}, "users": {}}


def test_a_flight_that_stays_keeps_its_price_and_a_new_one_costs_that_of_today(view: View) -> None:
    """Only the difference is paid, for each passenger; another cabin is another price."""
    assert make(view, "update_reservation_flights", new_flights())["payment_history"] == [{"payment_id": "card", "amount": 160}]
    changed = make(view, "update_reservation_flights", new_flights("HAT004"))
    assert changed["payment_history"][-1] == {"payment_id": "card", "amount": -20}
    assert make(view, "update_reservation_flights", new_flights(cabin="business"))["payment_history"][-1]["amount"] == (300 - 70) * 2


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (new_flights("HAT003"), "Error: not enough seats on flight HAT003"),
        (new_flights("HAT002", payment="gift"), "Error: gift card balance is not enough"),
        (new_flights("HAT002", payment="paper"), "Error: certificate cannot be used to update reservation"),
        (new_flights("HAT002", payment="cash"), "Error: payment method not found"),
        (new_flights() | {"reservation_id": "NONE"}, "Error: reservation not found"),
    ],
)
def test_a_change_of_flights_that_cannot_be_is_refused_in_words(view: View, arguments: Row, answer: str) -> None:
    """The recorded texts."""
    with pytest.raises(Refused, match=f"^{answer}$"):
        attempt(view, "update_reservation_flights", arguments)


def test_only_bags_that_are_new_are_paid(view: View) -> None:
    """Two more at 50 dollars each; fewer cost nothing and bring nothing back."""
    bags = {"reservation_id": "OLD123", "total_baggages": 3, "nonfree_baggages": 2, "payment_id": "gift"}
    assert make(view, "update_reservation_baggages", bags)["payment_history"][-1] == {"payment_id": "gift", "amount": 100}
    assert user_of(view)["payment_methods"]["gift"]["amount"] == 20
    assert len(make(view, "update_reservation_baggages", bags | {"nonfree_baggages": 0})["payment_history"]) == 2


def test_passengers_are_changed_one_for_one(view: View) -> None:
    """Their number stays."""
    two = [{"first_name": "Cem"}, {"first_name": "Dag"}]
    assert make(view, "update_reservation_passengers", {"reservation_id": "OLD123", "passengers": two})["passengers"] == two
    with pytest.raises(Refused, match="number of passengers does not match"):
        attempt(view, "update_reservation_passengers", {"reservation_id": "OLD123", "passengers": two[:1]})


def test_a_cancelled_reservation_is_paid_back(view: View) -> None:
    """Each payment is reversed."""
    cancelled = make(view, "cancel_reservation", {"reservation_id": "OLD123"})
    assert (cancelled["status"], [paid["amount"] for paid in cancelled["payment_history"]]) == ("cancelled", [160, -160])


def test_certificates_have_ids_of_their_own_and_there_are_three(view: View) -> None:
    """A fourth one is refused."""
    for number in (2, 3, 4):
        change = writes.send_certificate(view, "ann", 50)
        assert change.result == f"Certificate certificate_322132{number} added to user ann with amount 50."
        view.apply(change)
    with pytest.raises(Refused):
        writes.send_certificate(view, "ann", 50)


# ---------------------------------------------------------------- the world of a session


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tables(), tmp_path)
    yield world
    world.close()


def test_sessions_do_not_see_each_other_s_writes(world: World) -> None:
    """Each has its own copy of what was changed; the shared tables stay as they are."""
    world.write("a", "k1", "cancel_reservation", {"reservation_id": "OLD123"})
    assert json.loads(reads.get_reservation_details(world.view("a"), "OLD123"))["status"] == "cancelled"
    assert "status" not in json.loads(reads.get_reservation_details(world.view("b"), "OLD123"))


def test_a_new_process_finds_the_world_as_it_was_left(world: World, tmp_path: Path) -> None:
    """From the ledger alone; a line that was cut off by a kill was never answered, and is none."""
    world.write("a", "k1", "book_reservation", booking(("gift", 100)))
    world.write("a", "k2", "update_reservation_flights", new_flights("HAT004"))
    with (tmp_path / LEDGER).open("ab") as file:
        file.write(b'{"session": "a", "key": "k3"')
    again = World(tables(), tmp_path)
    assert again.view("a").changed() == world.view("a").changed()
    assert again.made("a", "k2") is not None
    assert again.made("a", "k3") is None
    again.write("a", "k3", "cancel_reservation", {"reservation_id": "OLD123"})
    assert [line["key"] for line in read(tmp_path / LEDGER)] == ["k1", "k2", "k3"]
    again.close()


def test_a_refused_write_is_not_in_the_ledger(world: World, tmp_path: Path) -> None:
    """Only what was made counts."""
    with pytest.raises(Refused):
        world.write("a", "k1", "book_reservation", booking(("card", 1)))
    assert list(read(tmp_path / LEDGER)) == []


def test_a_ledger_does_not_fit_other_tables(world: World, tmp_path: Path) -> None:
    """The state would be another one, and nobody would notice."""
    world.write("a", "k1", "book_reservation", booking(("card", 100)))
    dearer = tables()
    dearer.flights["HAT001"]["dates"]["2024-05-20"]["prices"]["economy"] = 100.5
    with pytest.raises((LedgerMismatch, Refused)):
        World(dearer, tmp_path)


def test_tables_that_are_missing_are_named(tmp_path: Path) -> None:
    """With the option that says where they are."""
    with pytest.raises(MissingData, match=r"flights\.json\.gz is not there: name .* with --data"):
        Tables.load(tmp_path)


# ---------------------------------------------------------------- as tools of an agent


@agent(tools=tools.TOOLS)
async def caller(session: Session[Any], calls: list[tuple[str, Any]]) -> list[str]:
    results = [await session.call_tool(name, arguments) for name, arguments in calls]
    return [result.content if result.error else result.value for result in results]


async def test_a_session_reads_what_it_wrote_and_what_is_wrong_is_data(world: World, tmp_path: Path) -> None:
    """Through holdfast: one line in the ledger a write, none for what was refused, and every run in the witness book."""
    witness = Book(tmp_path / "witness.jsonl")
    tools.connect(world, witness)
    async with Runtime("memory:", [caller]) as runtime:
        ann = await runtime.spawn(caller, id="ann")
        passengers = {"reservation_id": "OLD123", "passengers": [{"first_name": "Cem"}, {"first_name": "Dag"}]}
        calls: list[tuple[str, Any]] = [
            ("book_reservation", json.dumps(booking(("card", 1)))),
            ("book_reservation", json.dumps(booking(("card", 100)))),
            ("update_reservation_passengers", passengers),
            ("get_reservation_details", {"reservation_id": "HATHAT"}),
            ("get_reservation_details", "{not json"),
            ("calculate", {"expression": "1 + 1"}),
            ("think", {"thought": "hm"}),
            ("transfer_to_human_agents", {"summary": "hard"}),
        ]
        answers = await ann.ask(calls)
    tools.connect(world)
    witness.close()
    assert answers[0] == "Error: payment amount does not add up, total price is 100, but paid 1"
    assert json.loads(answers[1]) == json.loads(answers[3])
    assert json.loads(answers[4])["error"] == "ToolArgumentError"
    assert answers[5:] == ["2.0", "", "Transfer successful"]
    assert [line["tool"] for line in read(tmp_path / LEDGER)] == ["book_reservation", "update_reservation_passengers"]
    runs = [(line["what"], line["tool"]) for line in read(tmp_path / "witness.jsonl")]
    assert runs == [(what, name) for name, arguments in calls if arguments != "{not json" for what in ("begin", "end")]


def test_what_changes_something_is_made_once_or_by_its_key() -> None:
    """Nothing that writes may be run again freely."""
    assert {tool.name for tool in tools.CHANGES} == set(writes.WRITES)
    assert {tool.name: tool.effect for tool in tools.CHANGES if tool.reconcile is None} == {"update_reservation_passengers": "idempotent"}
    assert {tool.effect for tool in tools.CHANGES if tool.reconcile is not None} == {"once"}
    assert len(tools.TOOLS) == 14
