"""The changes that the desk can make. Pure functions: each returns a `Change` of the session's view, or raises Refused.

The system checks little: the policy of the agent decides who may change what, and the recorded answers depend on it. A changed booking
keeps the name of its old cabin, and its flights keep their seats.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks.airline.tables import Change, Row, View

BAGGAGE = 50
INSURANCE = 30
NOW = "2024-05-15T15:00:00"
_BOOKED_IDS = ("HATHAT", "HATHAU", "HATHAV")
"""The ids of new reservations: at most three of them are made in a conversation."""

_CERTIFICATE_IDS = ("certificate_3221322", "certificate_3221323", "certificate_3221324")


class Refused(Exception):
    """The system refuses the write, and no row has changed. The text is its answer."""


def book_reservation(
    view: View,
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
) -> Change:
    """A new reservation, paid with the user's payment methods; the sum has to be exact."""
    user = _user(view, user_id)
    seats = len(passengers)
    booked = [_seated(view, flight, cabin, seats) for flight in flights]
    price = sum(flight["price"] for flight in booked) * seats + BAGGAGE * nonfree_baggages + INSURANCE * seats * (insurance == "yes")
    _pay_exactly(user, payment_methods, price)
    id = next((id for id in _BOOKED_IDS[:-1] if view.reservation(id) is None), _BOOKED_IDS[-1])
    reservation = {
        "reservation_id": id,
        "user_id": user_id,
        "origin": origin,
        "destination": destination,
        "flight_type": flight_type,
        "cabin": cabin,
        "flights": booked,
        "passengers": passengers,
        "payment_history": payment_methods,
        "created_at": NOW,
        "total_baggages": total_baggages,
        "nonfree_baggages": nonfree_baggages,
        "insurance": insurance,
    }
    user["reservations"].append(id)
    return Change(json.dumps(reservation), reservations={id: reservation}, users={user_id: user})


def update_reservation_flights(view: View, reservation_id: str, cabin: str, flights: list[Row], payment_id: str) -> Change:
    """Other flights or another cabin; the difference in price is paid, or paid back, for each passenger."""
    reservation = _reservation(view, reservation_id)
    seats = len(reservation["passengers"])
    new = [_kept(reservation, flight, cabin) or _seated(view, flight, cabin, seats) for flight in flights]
    price = (sum(flight["price"] for flight in new) - sum(flight["price"] for flight in reservation["flights"])) * seats
    user = _charged(view, reservation, payment_id, price)
    reservation["flights"] = new
    return _changed(reservation, user)


def update_reservation_baggages(view: View, reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str) -> Change:
    """Another number of bags; new bags that are not free are paid."""
    reservation = _reservation(view, reservation_id)
    price = BAGGAGE * max(0, nonfree_baggages - reservation["nonfree_baggages"])
    user = _charged(view, reservation, payment_id, price)
    reservation["total_baggages"], reservation["nonfree_baggages"] = total_baggages, nonfree_baggages
    return _changed(reservation, user)


def update_reservation_passengers(view: View, reservation_id: str, passengers: list[Row]) -> Change:
    """Other people in the place of those before."""
    reservation = _reservation(view, reservation_id)
    if len(passengers) != len(reservation["passengers"]):
        raise Refused("Error: number of passengers does not match")
    reservation["passengers"] = passengers
    return _changed(reservation)


def cancel_reservation(view: View, reservation_id: str) -> Change:
    """Every payment is reversed; the reservation stays, as cancelled."""
    reservation = _reservation(view, reservation_id)
    back = [{"payment_id": paid["payment_id"], "amount": -paid["amount"]} for paid in reservation["payment_history"]]
    reservation["payment_history"] += back
    reservation["status"] = "cancelled"
    return _changed(reservation)


def send_certificate(view: View, user_id: str, amount: int) -> Change:
    """A new certificate among the user's payment methods."""
    user = _user(view, user_id)
    id = next((id for id in _CERTIFICATE_IDS if id not in user["payment_methods"]), None)
    if id is None:
        raise Refused("Error: no more certificates can be added")
    user["payment_methods"][id] = {"source": "certificate", "amount": amount, "id": id}
    return Change(f"Certificate {id} added to user {user_id} with amount {amount}.", users={user_id: user})


WRITES: dict[str, Callable[..., Change]] = {
    write.__name__: write
    for write in (
        book_reservation,
        update_reservation_flights,
        update_reservation_baggages,
        update_reservation_passengers,
        cancel_reservation,
        send_certificate,
    )
}


# ---------------------------------------------------------------- rows


def _user(view: View, id: str) -> Row:
    user = view.user(id)
    if user is None:
        raise Refused("Error: user not found")
    return user


def _reservation(view: View, id: str) -> Row:
    reservation = view.reservation(id)
    if reservation is None:
        raise Refused("Error: reservation not found")
    return reservation


def _changed(reservation: Row, user: Row | None = None) -> Change:
    users = {} if user is None else {reservation["user_id"]: user}
    return Change(json.dumps(reservation), reservations={reservation["reservation_id"]: reservation}, users=users)


# ---------------------------------------------------------------- seats and money


def _seated(view: View, wanted: Row, cabin: str, seats: int) -> Row:
    """The wanted flight with its price of today, if it has so many seats left."""
    number, day = wanted["flight_number"], wanted["date"]
    flight = view.flights.get(number)
    if flight is None:
        raise Refused(f"Error: flight {number} not found")
    offer: dict[str, Any] | None = flight["dates"].get(day)
    if offer is None:
        raise Refused(f"Error: flight {number} not found on date {day}")
    if offer["status"] != "available":
        raise Refused(f"Error: flight {number} not available on date {day}")
    if cabin not in offer["prices"]:
        raise Refused(f"Error: there is no cabin {cabin}")
    if offer["available_seats"][cabin] < seats:
        raise Refused(f"Error: not enough seats on flight {number}")
    return {**wanted, "price": offer["prices"][cabin], "origin": flight["origin"], "destination": flight["destination"]}


def _kept(reservation: Row, wanted: Row, cabin: str) -> Row | None:
    """The wanted flight at its old price, if it is booked already."""
    if cabin != reservation["cabin"]:
        return None
    for flight in reservation["flights"]:
        if (flight["flight_number"], flight["date"]) == (wanted["flight_number"], wanted["date"]):
            return {**wanted, **{name: flight[name] for name in ("price", "origin", "destination")}}
    return None


def _pay_exactly(user: Row, payments: list[Row], price: int) -> None:
    """Take `price` from the user's payment methods; a certificate is used up, also if an amount is left on it."""
    owned = user["payment_methods"]
    for payment in payments:
        id = payment["payment_id"]
        if id not in owned:
            raise Refused(f"Error: payment method {id} not found")
        if owned[id]["source"] in ("gift_card", "certificate") and owned[id]["amount"] < payment["amount"]:
            raise Refused(f"Error: not enough balance in payment method {id}")
    paid = sum(payment["amount"] for payment in payments)
    if paid != price:
        raise Refused(f"Error: payment amount does not add up, total price is {price}, but paid {paid}")
    for payment in payments:
        id = payment["payment_id"]
        if owned[id]["source"] == "gift_card":
            owned[id]["amount"] -= payment["amount"]
        elif owned[id]["source"] == "certificate":
            del owned[id]


def _charged(view: View, reservation: Row, payment_id: str, price: int) -> Row:
    """The user after paying `price`, which is noted in the reservation; a negative one is paid back."""
    user = _user(view, reservation["user_id"])
    method = user["payment_methods"].get(payment_id)
    if method is None:
        raise Refused("Error: payment method not found")
    if method["source"] == "certificate":
        raise Refused("Error: certificate cannot be used to update reservation")
    if method["source"] == "gift_card":
        if method["amount"] < price:
            raise Refused("Error: gift card balance is not enough")
        method["amount"] -= price
    if price != 0:
        reservation["payment_history"].append({"payment_id": payment_id, "amount": price})
    return user
