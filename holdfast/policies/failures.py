"""What a failure means: one table with four separate answers for each kind of failure, and the rules by which users change it.

*Try again?* (how often), *whose health?*, *how charged?*, *what then?* Steps, streams, tools, breakers and sessions read this table and
decide nothing of it themselves. docs/failures.md shows it; `holdfast.policies.classify` finds the kind of an exception.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import msgspec

from holdfast.errors import ConfigError
from holdfast.given import brief
from holdfast.policies._faults import Faults

Category = Literal["transient", "semantic", "permanent"]
Health = Literal["dependency", "session", "none"]
Charge = Literal["nothing", "step", "metered", "most"]
Then = Literal["handler", "dead letter", "park", "person"]


class FailureRule(msgspec.Struct, frozen=True, kw_only=True):
    """Your own answers for one kind of failure; None keeps the answer of the table.

    Attributes:
        attempts: attempts in total, the first one included; 1 does not try again. It replaces `Retry.attempts` for this kind. A `once` tool
            is tried again only where its effect certainly did not happen (`not_done`).
        health: whose breaker counts it: "dependency", "session" or "none".
        charge: the cost of the attempt: "nothing", "step", "metered" or "most".
        then: what follows once the attempts are used up: "handler", "dead letter", "park" or "person".

    Raises:
        ConfigError: a field is not one of these; the message names every such field.
    """

    attempts: int | None = None
    health: Health | None = None
    charge: Charge | None = None
    then: Then | None = None

    def __post_init__(self) -> None:
        faults = Faults("FailureRule")
        if self.attempts is not None:
            faults.whole("attempts", self.attempts, 1, most=1_000)
        for field, known in (("health", Health), ("charge", Charge), ("then", Then)):
            value = getattr(self, field)
            if value is not None and value not in get_args(known):
                faults.add(f"{field} is {brief(value)}: give {', '.join(map(repr, get_args(known)))}")
        faults.check()


class Answers(msgspec.Struct, frozen=True):
    """The answers for one failure.

    Attributes:
        what: which failures are of this kind, for people.
        category: the category of the StepError that the handler gets.
        attempts: attempts in total; in the table, None is as many as the `Retry` of the call allows.
        health, charge, then: as in FailureRule.
    """

    what: str
    category: Category
    attempts: int | None
    health: Health
    charge: Charge
    then: Then


TABLE: dict[str, Answers] = {
    "unreached": Answers("no connection was made", "transient", None, "dependency", "step", "park"),
    "broken": Answers("the connection broke, or a body or a stream was cut short", "transient", None, "dependency", "most", "park"),
    "timeout": Answers("no answer within the timeout of the step", "transient", None, "dependency", "most", "park"),
    "slow": Answers("no first chunk within `first_chunk_s`, where a client asks for that", "transient", None, "dependency", "most", "park"),
    "unavailable": Answers("408, 5xx, or a stream that reports such an error", "transient", None, "dependency", "step", "park"),
    "rate_limit": Answers("429", "transient", None, "dependency", "step", "park"),
    "busy": Answers("409, 425, a deadlock, a full mailbox or connection pool", "transient", None, "none", "most", "park"),
    "no_reply": Answers("another session did not answer an ask in time", "transient", 1, "none", "step", "park"),
    "no_thread": Answers("no thread was free for a plain function", "transient", None, "none", "step", "park"),
    "empty_answer": Answers("a whole answer without content", "transient", 3, "session", "metered", "dead letter"),
    "refused_answer": Answers("a filter or policy of the provider refused the answer", "semantic", 2, "session", "metered", "dead letter"),
    "unreadable_answer": Answers("a whole answer that is no JSON, or of another form", "transient", 3, "session", "most", "dead letter"),
    "request": Answers("400, 404, 413, 422 and every other 4xx", "semantic", 1, "none", "step", "dead letter"),
    "declined": Answers("408, 429 or 5xx with `x-should-retry: false`", "permanent", 1, "dependency", "step", "dead letter"),
    "access": Answers("401, 403, 407, or a certificate that cannot be verified", "permanent", 1, "none", "step", "person"),
    "quota": Answers("402 of a model, or a 429 that says that the account is out of money", "permanent", 1, "none", "step", "person"),
    "input": Answers("ValueError, TypeError, KeyError or a validation error", "semantic", 1, "none", "most", "handler"),
    "bug": Answers("every other exception", "permanent", 1, "none", "most", "handler"),
    "not_done": Answers("NotDone: the effect certainly did not happen", "permanent", 1, "none", "most", "handler"),
    "cancelled": Answers("the effect was cancelled from within", "permanent", 1, "none", "most", "handler"),
}  # fmt: skip
"""The answers for each kind of failure."""

Rules = Mapping[str, FailureRule]
"""Rules by key: a kind of the table, an HTTP status ("429"), the name of an exception's class, or "code:" and a provider's error code."""

NO_RULES: Rules = {}

ALL = "all"
"""The name under which holdfast.toml has rules for every tool and client."""

_STATUS, _CLASS, _CODE = re.compile(r"[1-5][0-9][0-9]"), re.compile(r"_*[A-Z]\w*"), re.compile(r"code:[!-~]{1,200}")
_PLAIN = re.compile(r"[\w.:-]{1,100}")


def answers(kind: str, keys: Iterable[str], tables: Iterable[Rules], attempts: int) -> Answers:
    """The answers for one failure.

    Args:
        kind: its kind in `TABLE`.
        keys: the keys that fit it, the most specific first; its kind is the last.
        tables: the users' rules, those that take precedence first. Each answer is taken from the first rule that has it.
        attempts: the attempts that the call's own `Retry` allows: the table only lowers it, a user's rule replaces it.
    """
    row = TABLE[kind]
    most = attempts if row.attempts is None else min(attempts, row.attempts)
    rules = [rule for table in tables if table for key in keys if (rule := table.get(key)) is not None]
    if not rules:
        return msgspec.structs.replace(row, attempts=most)
    given = {field: value for rule in reversed(rules) for field in _FIELDS if (value := getattr(rule, field)) is not None}
    return msgspec.structs.replace(row, **{"attempts": most, **given})


_FIELDS = FailureRule.__struct_fields__
_FIELD_NAMES = ", ".join(_FIELDS)


def read_rules(given: object, found: list[str], at: str = "failures") -> Rules:
    """The rules that a user gave, by key; notes their faults in `found`, one line each, which begin with `at` and the key.

    Args:
        given: FailureRule, or a table of its fields, by: a kind of the table, an HTTP status (a number or its text), an exception's class
            or its name, or "code:" and a provider's error code.
    """
    if given is None:
        return NO_RULES
    if not isinstance(given, Mapping):
        found.append(f"{at} is {brief(given)}: give a table of rules by kind of failure")
        return NO_RULES
    rules: dict[str, FailureRule] = {}
    for name, rule in given.items():
        key = _key(name)
        where = f"{at}.{_quoted(name)}"
        if key is None:
            found.append(f"{where} is no kind of failure{_alike(name)}")
        elif isinstance(rule, FailureRule):
            rules[key] = rule
        elif isinstance(rule, Mapping):
            _read_rule(rules, key, rule, where, found)
        else:
            found.append(f"{where} is {brief(rule)}: give a FailureRule, or a table of its fields ({_FIELD_NAMES})")
    return rules


def _read_rule(rules: dict[str, FailureRule], key: str, fields: Mapping[Any, Any], where: str, found: list[str]) -> None:
    unknown = [name for name in fields if name not in _FIELDS]
    if unknown:
        found += [f"{where}.{_quoted(name)} is an unknown key: use {_FIELD_NAMES}" for name in unknown]
        return
    try:
        rules[key] = FailureRule(**fields)
    except ConfigError as error:
        # Split only where the next fault begins: a value quoted in a fault may hold a semicolon.
        text = str(error).removeprefix("FailureRule: ")
        found += [f"{where}.{fault}" for fault in re.split(rf"; (?=(?:{'|'.join(_FIELDS)}) is )", text)]


def _quoted(name: object) -> str:
    if isinstance(name, type):
        return name.__name__
    return name if isinstance(name, str) and _PLAIN.fullmatch(name) else brief(name)


def _key(name: object) -> str | None:
    if isinstance(name, type) and issubclass(name, BaseException):
        return name.__name__
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if isinstance(name, str) and (name in TABLE or any(shape.fullmatch(name) for shape in (_STATUS, _CLASS, _CODE))):
        return name
    return None


def _alike(name: object) -> str:
    close = difflib.get_close_matches(name, TABLE, 1) if isinstance(name, str) else []
    if close:
        return f": did you mean {close[0]!r}?"
    return f": use {', '.join(TABLE)}; an HTTP status; an exception's class; or 'code:' and a provider's error code"
