"""The children that a crash concerns: the three strategies of OTP, as one pure function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
STRATEGIES: tuple[Strategy, ...] = ("one_for_one", "one_for_all", "rest_for_one")


class Plan(NamedTuple):
    """The reaction to one crash: stop these children, in this order, then start those, in that order."""

    stop: tuple[str, ...]
    start: tuple[str, ...]


def plan(strategy: Strategy, ids: Sequence[str], failed: str) -> Plan:
    """Which children to stop and which to start when one of them failed.

    Args:
        strategy: `one_for_one` concerns the failed child alone, `one_for_all` every child, `rest_for_one` the failed child and
            those that were started after it.
        ids: the children, in start order.
        failed: the one that failed; it has ended already, so it is never among those to stop.

    Returns:
        The ids to stop, latest first, and the ids to start, earliest first.

    Raises:
        ValueError: `failed` is not among `ids`, or the strategy is unknown.
    """
    position = ids.index(failed) if failed in ids else -1
    if position < 0:
        raise ValueError(f"{failed!r} is not one of the children {list(ids)!r}")
    match strategy:
        case "one_for_one":
            concerned: tuple[str, ...] = (failed,)
        case "one_for_all":
            concerned = tuple(ids)
        case "rest_for_one":
            concerned = tuple(ids[position:])
        case _:
            raise ValueError(f"unknown strategy {strategy!r}: use one of {', '.join(STRATEGIES)}")
    return Plan(stop=tuple(child for child in reversed(concerned) if child != failed), start=concerned)
