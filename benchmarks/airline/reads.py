"""The look-ups of the desk. Pure functions of the tables as the session sees them; each returns the text for the model, also for errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from benchmarks.airline.tables import Row, View

AIRPORTS = {
    "SFO": "San Francisco",
    "JFK": "New York",
    "LAX": "Los Angeles",
    "ORD": "Chicago",
    "DFW": "Dallas",
    "DEN": "Denver",
    "SEA": "Seattle",
    "ATL": "Atlanta",
    "MIA": "Miami",
    "BOS": "Boston",
    "PHX": "Phoenix",
    "IAH": "Houston",
    "LAS": "Las Vegas",
    "MCO": "Orlando",
    "EWR": "Newark",
    "CLT": "Charlotte",
    "MSP": "Minneapolis",
    "DTW": "Detroit",
    "PHL": "Philadelphia",
    "LGA": "LaGuardia",
}
_NEXT_DAY = "+1"
"""The end of the arrival time of a flight that lands on the next day."""


def get_user_details(view: View, user_id: str) -> str:
    """The row of a user."""
    user = view.user(user_id)
    return "Error: user not found" if user is None else json.dumps(user)


def get_reservation_details(view: View, reservation_id: str) -> str:
    """The row of a reservation."""
    reservation = view.reservation(reservation_id)
    return "Error: reservation not found" if reservation is None else json.dumps(reservation)


def list_all_airports(view: View) -> str:
    """The cities, by airport."""
    return json.dumps(AIRPORTS)


def search_direct_flight(view: View, origin: str, destination: str, date: str) -> str:
    """The flights that can be booked on that day."""
    return json.dumps([_offer(flight, date) for flight in _leaving(view, origin, date) if flight["destination"] == destination])


def search_onestop_flight(view: View, origin: str, destination: str, date: str) -> str:
    """Pairs of flights with a change between them, the second one the day after where the first one lands then.

    The times of day are compared as if both were on the same day, and the second flight's seats and prices are those of `date`: the
    recorded system does so, and the recorded answers depend on it.
    """
    found: list[list[Row]] = []
    for first in _leaving(view, origin, date):
        onward = _day_after(date) if _NEXT_DAY in first["scheduled_arrival_time_est"] else date
        for second in _leaving(view, first["destination"], onward):
            late = first["scheduled_arrival_time_est"] > second["scheduled_departure_time_est"]
            if second["destination"] == destination and not late and date in second["dates"]:
                found.append([{**_offer(first, date), "date": date}, {**_offer(second, date), "date": onward}])
    return json.dumps(found)


def _leaving(view: View, origin: str, day: str) -> Iterator[Row]:
    for flight in view.flights.values():
        if flight["origin"] == origin and flight["dates"].get(day, {}).get("status") == "available":
            yield flight


def _offer(flight: Row, day: str) -> dict[str, Any]:
    """A flight as it is on one day."""
    return {**{name: value for name, value in flight.items() if name != "dates"}, **flight["dates"][day]}


def _day_after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()
