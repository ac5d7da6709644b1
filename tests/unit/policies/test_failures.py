"""The table of failures, its page, and the rules by which users change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError, HoldfastError
from holdfast.policies import FailureRule
from holdfast.policies.failures import TABLE, Charge, Health, Then, answers, read_rules

PAGE = Path(__file__).parents[3] / "docs" / "failures.md"


def test_the_page_shows_the_table() -> None:
    """Row by row, so that the page and the code cannot differ."""
    _, _, rest = PAGE.read_text().partition("<!-- table: failures -->\n")
    lines = rest.splitlines()
    assert lines[:2] == ["| kind | which failures | attempts | health | charge | then |", "| --- | --- | --- | --- | --- | --- |"]
    rows = [
        f"| `{kind}` | {row.what} | {row.attempts or 'retry'} | {row.health} | {row.charge} | {row.then} |" for kind, row in TABLE.items()
    ]
    assert lines[2 : lines.index("", 2)] == rows


def test_the_page_explains_every_answer() -> None:
    """Each word of a column stands in the text before the table."""
    text, _, _ = PAGE.read_text().partition("<!-- table: failures -->")
    for column in (Health, Charge, Then):
        for word in get_args(column):
            assert f"*{word}*" in text


def test_no_failure_is_tried_without_end() -> None:
    """What may pass is tried as often as `Retry` allows, and then parks; everything else has a number."""
    for kind, row in TABLE.items():
        assert row.attempts is not None or row.then == "park", kind
        assert row.attempts is None or row.attempts <= 3, kind


def test_the_table_lowers_attempts_and_a_rule_replaces_them() -> None:
    """A tool that says NO_RETRY is not tried again because of the table."""
    assert answers("empty_answer", ("empty_answer",), (), 4).attempts == 3
    assert answers("empty_answer", ("empty_answer",), (), 1).attempts == 1
    assert answers("unavailable", ("unavailable",), (), 7).attempts == 7
    assert answers("empty_answer", ("empty_answer",), ({"empty_answer": FailureRule(attempts=9)},), 1).attempts == 9


def test_each_answer_comes_from_the_first_rule_that_has_it() -> None:
    """The more specific key first, then the next table."""
    first = {"503": FailureRule(then="person"), "unavailable": FailureRule(then="handler", health="none")}
    second = {"Unavailable": FailureRule(attempts=7, charge="most", health="session")}
    found = answers("unavailable", ("Unavailable", "503", "unavailable"), (first, second), 4)
    assert (found.attempts, found.health, found.charge, found.then) == (7, "none", "most", "person")


# ---------------------------------------------------------------- rules


class Odd(Exception): ...


def test_the_keys_of_rules_are_kinds_statuses_classes_and_codes() -> None:
    """As a user writes them: numbers and their texts, classes and their names."""
    found: list[str] = []
    rule = FailureRule(attempts=2)
    rules = read_rules({"timeout": rule, 429: rule, "503": rule, Odd: rule, "LookupError": rule, "code:quota.x-1": {"then": "park"}}, found)
    assert found == []
    assert set(rules) == {"timeout", "429", "503", "Odd", "LookupError", "code:quota.x-1"}
    assert rules["code:quota.x-1"] == FailureRule(then="park")
    assert read_rules(None, found) == {}


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"emtpy_answer": FailureRule()}, "failures.emtpy_answer is no kind of failure: did you mean 'empty_answer'?"),
        ({600: FailureRule()}, "failures.600 is no kind of failure: use "),
        ({True: FailureRule()}, "failures.True is no kind of failure: use "),
        ({int: FailureRule()}, "failures.int is no kind of failure: use "),
        ({"code:": FailureRule()}, "failures.code: is no kind of failure: use "),
        ({None: FailureRule()}, "failures.None is no kind of failure: use "),
        ({503: "park"}, "failures.503 is 'park': give a FailureRule, or a table of its fields"),
        ({503: {"then": "give up"}}, "failures.503.then is 'give up': give 'handler', 'dead letter', 'park', 'person'"),
        ({503: {"when": 1}}, "failures.503.when is an unknown key: use attempts, health, charge, then"),
        ({503: {3: 1}}, "failures.503.3 is an unknown key: use attempts, health, charge, then"),
        ([503], "failures is [503]: give a table of rules by kind of failure"),
        ("503", "failures is '503': give a table of rules by kind of failure"),
    ],
)
def test_a_wrong_rule_is_one_line(given: Any, fault: str) -> None:
    """It names the key, and what would be right."""
    found: list[str] = []
    read_rules(given, found)
    assert len(found) == 1
    assert found[0].startswith(fault)
    assert "\n" not in found[0]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(), lambda of: st.lists(of) | st.dictionaries(st.text(), of)
    )
)
def test_rules_of_any_shape_are_read_or_refused(given: Any) -> None:
    """No value makes it raise."""
    found: list[str] = []
    read_rules(given, found)
    assert all("\n" not in fault for fault in found)


@pytest.mark.parametrize("field", ["attempts", "health", "charge", "then"])
def test_a_rule_with_a_wrong_field_is_refused_where_it_is_written(field: str) -> None:
    """All faults at once, as for other specs."""
    wrong: dict[str, Any] = {field: 0}
    with pytest.raises(ConfigError, match=rf"FailureRule: {field} is 0"):
        FailureRule(**wrong)
    assert issubclass(ConfigError, HoldfastError)
