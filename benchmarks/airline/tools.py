"""The fourteen tools of the agent. Those that change data are made once; an attempt of unknown outcome is looked up in the ledger.

Each returns the text of the airline's system. A refusal is a text for the model, too; then no data were changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.airline import arithmetic, reads
from benchmarks.airline.books import Book
from benchmarks.airline.tables import Row, View
from benchmarks.airline.world import World
from benchmarks.airline.writes import Refused
from holdfast import NotDone, StepContext, tool

_WAY_S = 0.02
"""How long a write and its answer take each, in seconds."""

ANSWERS_WITHIN_S = 2.0
"""After a crash a write is looked up once its attempt can no longer arrive: so long after it began, in seconds."""


class _System:
    """The airline's system, as the tools of this process use it."""

    world: World
    witness: Book | None = None
    way_s: float = 0.0


_system = _System()


def connect(world: World, witness: Book | None = None, pace: float = 0.0) -> None:
    """Connect the tools with `world`, with the book `witness` of their begins and ends, and with the pace of a write."""
    _system.world, _system.witness, _system.way_s = world, witness, _WAY_S * pace


@contextmanager
def _seen(name: str, context: StepContext) -> Iterator[View]:
    """A run of a tool, in the witness book."""
    if _system.witness is not None:
        _system.witness.append(what="begin", tool=name, session=context.session, key=context.key)
    yield _system.world.view(context.session)
    if _system.witness is not None:
        _system.witness.append(what="end", tool=name, session=context.session, key=context.key)


def _write(name: str, context: StepContext, **arguments: Any) -> str:
    """A process that dies while this runs cannot know whether the write was made."""
    with _seen(name, context):
        time.sleep(_system.way_s)
        try:
            answer = _system.world.write(context.session, context.key, name, arguments)
        except Refused as error:
            answer = str(error)
        time.sleep(_system.way_s)
        return answer


async def _was_made(context: StepContext) -> str:
    """The answer of the write, if the ledger has it."""
    answer = _system.world.made(context.session, context.key)
    if _system.witness is not None:
        _system.witness.append(what="reconcile", session=context.session, key=context.key, made=answer is not None)
    if answer is None:
        raise NotDone
    return answer


# ---------------------------------------------------------------- looking up


@tool
async def get_user_details(user_id: str, context: StepContext) -> str:
    """Get the details of a user: profile, payment methods and the ids of the reservations."""
    with _seen("get_user_details", context) as view:
        return reads.get_user_details(view, user_id)


@tool
async def get_reservation_details(reservation_id: str, context: StepContext) -> str:
    """Get the details of a reservation."""
    with _seen("get_reservation_details", context) as view:
        return reads.get_reservation_details(view, reservation_id)


@tool
async def list_all_airports(context: StepContext) -> str:
    """List the airports and their cities."""
    with _seen("list_all_airports", context) as view:
        return reads.list_all_airports(view)


@tool
async def search_direct_flight(origin: str, destination: str, date: str, context: StepContext) -> str:
    """Search direct flights between two airports.

    Args:
        origin: the airport, as three letters.
        destination: the airport, as three letters.
        date: the day, as YYYY-MM-DD.
    """
    with _seen("search_direct_flight", context) as view:
        return reads.search_direct_flight(view, origin, destination, date)


@tool
async def search_onestop_flight(origin: str, destination: str, date: str, context: StepContext) -> str:
    """Search flights with one change between two airports.

    Args:
        origin: the airport, as three letters.
        destination: the airport, as three letters.
        date: the day, as YYYY-MM-DD.
    """
    with _seen("search_onestop_flight", context) as view:
        return reads.search_onestop_flight(view, origin, destination, date)


@tool
async def calculate(expression: str, context: StepContext) -> str:
    """Calculate the value of an expression of numbers, + - * / and brackets."""
    with _seen("calculate", context):
        return arithmetic.calculate(expression)


@tool
async def think(thought: str, context: StepContext) -> str:
    """Think about something. It looks nothing up and changes nothing; the thought is kept."""
    with _seen("think", context):
        return ""


@tool
async def transfer_to_human_agents(summary: str, context: StepContext) -> str:
    """Give the user over to a person, with a summary. It changes no table, so a second run does no harm."""
    with _seen("transfer_to_human_agents", context):
        return "Transfer successful"


# ---------------------------------------------------------------- changing something


async def _booked(
    user_id: str,
    origin: str,
    destination: str,
    flight_type: str,
    cabin: str,
    flights: list[Row],
    passengers: list[Row],
    payment_methods: list[Row],
    total_baggages: int,
    nonfree_baggages: int,
    insurance: str,
    context: StepContext,
) -> str:
    return await _was_made(context)


@tool(effect="once", reconcile=_booked, timeout_s=ANSWERS_WITHIN_S)
def book_reservation(
    user_id: str,
    origin: str,
    destination: str,
    flight_type: str,
    cabin: str,
    flights: list[Row],
    passengers: list[Row],
    payment_methods: list[Row],
    total_baggages: int,
    nonfree_baggages: int,
    insurance: str,
    context: StepContext,
) -> str:
    """Book a reservation.

    Args:
        flight_type: one_way or round_trip.
        cabin: basic_economy, economy or business.
        flights: each with flight_number and date.
        passengers: each with first_name, last_name and dob.
        payment_methods: each with payment_id and amount.
        insurance: yes or no.
    """
    return _write(
        "book_reservation",
        context,
        user_id=user_id,
        origin=origin,
        destination=destination,
        flight_type=flight_type,
        cabin=cabin,
        flights=flights,
        passengers=passengers,
        payment_methods=payment_methods,
        total_baggages=total_baggages,
        nonfree_baggages=nonfree_baggages,
        insurance=insurance,
    )


async def _flights_updated(reservation_id: str, cabin: str, flights: list[Row], payment_id: str, context: StepContext) -> str:
    return await _was_made(context)


@tool(effect="once", reconcile=_flights_updated, timeout_s=ANSWERS_WITHIN_S)
def update_reservation_flights(reservation_id: str, cabin: str, flights: list[Row], payment_id: str, context: StepContext) -> str:
    """Change the flights of a reservation, or its cabin.

    Args:
        cabin: basic_economy, economy or business.
        flights: all of them, also those that stay, each with flight_number and date.
        payment_id: what pays the difference, or gets it back.
    """
    changes = {"reservation_id": reservation_id, "cabin": cabin, "flights": flights, "payment_id": payment_id}
    return _write("update_reservation_flights", context, **changes)


async def _baggages_updated(reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str, context: StepContext) -> str:
    return await _was_made(context)


@tool(effect="once", reconcile=_baggages_updated, timeout_s=ANSWERS_WITHIN_S)
def update_reservation_baggages(
    reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str, context: StepContext
) -> str:
    """Change the number of checked bags of a reservation."""
    bags = {"total_baggages": total_baggages, "nonfree_baggages": nonfree_baggages}
    return _write("update_reservation_baggages", context, reservation_id=reservation_id, **bags, payment_id=payment_id)


async def _cancelled(reservation_id: str, context: StepContext) -> str:
    return await _was_made(context)


@tool(effect="once", reconcile=_cancelled, timeout_s=ANSWERS_WITHIN_S)
def cancel_reservation(reservation_id: str, context: StepContext) -> str:
    """Cancel a whole reservation; all payments are paid back."""
    return _write("cancel_reservation", context, reservation_id=reservation_id)


async def _certificate_sent(user_id: str, amount: int | float, context: StepContext) -> str:
    return await _was_made(context)


@tool(effect="once", reconcile=_certificate_sent, timeout_s=ANSWERS_WITHIN_S)
def send_certificate(user_id: str, amount: int | float, context: StepContext) -> str:
    """Send a certificate of an amount of dollars to a user."""
    return _write("send_certificate", context, user_id=user_id, amount=amount)


@tool(effect="idempotent")
def update_reservation_passengers(reservation_id: str, passengers: list[Row], context: StepContext) -> str:
    """Change who flies; there have to be as many as before.

    Args:
        passengers: each with first_name, last_name and dob.
    """
    # As a service with idempotency keys: a second write with the same key gets the first answer.
    before = _system.world.made(context.session, context.key)
    if before is not None:
        return before
    return _write("update_reservation_passengers", context, reservation_id=reservation_id, passengers=passengers)


READS = (
    get_user_details,
    get_reservation_details,
    list_all_airports,
    search_direct_flight,
    search_onestop_flight,
    calculate,
    think,
    transfer_to_human_agents,
)
CHANGES = (
    book_reservation,
    update_reservation_flights,
    update_reservation_baggages,
    update_reservation_passengers,
    cancel_reservation,
    send_certificate,
)
TOOLS = (*READS, *CHANGES)
