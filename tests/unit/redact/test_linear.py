"""Redaction takes time in proportion to the text, whatever that is: the steps of each pattern are counted, not its seconds."""

from __future__ import annotations

import re
import time

import pytest

from holdfast import redact
from holdfast.redact import known, named, tokens
from tests.unit.redact.hostile import HOSTILE, filled
from tests.unit.redact.steps import Matcher

SECRET = "hunter2/correct horse+battery"
PATTERNS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": pattern
    for module in (named, tokens)
    for name, pattern in vars(module).items()
    if isinstance(pattern, re.Pattern) and name != "_NAME"  # which sees 64 characters at the most
} | {
    f"known {number}": each.pattern
    for number, each in enumerate((known._spelling(SECRET), *(known._in_base64(SECRET.encode(), n) for n in range(3))))
}
LENGTH = 384
STEPS = 64  # for each character; the most is 38


def steps(matcher: Matcher, text: str) -> int:
    matcher.spans(text)
    return matcher.steps


@pytest.mark.parametrize("name", PATTERNS)
def test_twice_the_text_takes_twice_the_steps(name: str) -> None:
    """A hostile text is one that makes a pattern read the same characters again from each place."""
    matcher = Matcher(PATTERNS[name])
    for unit in HOSTILE:
        once, twice = (steps(matcher, filled(unit, length)) for length in (LENGTH, 2 * LENGTH))
        assert twice < 2.3 * once, unit
        assert twice < STEPS * 2 * LENGTH, unit


def test_the_count_finds_a_quadratic_pattern() -> None:
    """The pattern of JWTs that froze a process for 10 s on 60 kB."""
    pattern = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.")
    once, twice = (steps(Matcher(pattern), filled("eyJ-", length)) for length in (LENGTH, 2 * LENGTH))
    assert twice > 3.5 * once


@pytest.mark.parametrize("name", PATTERNS)
def test_the_counted_matches_are_those_of_re(name: str) -> None:
    """What counts the steps is worth nothing if it walks the pattern in another way."""
    matcher = Matcher(PATTERNS[name])
    for text in [filled(unit, 120) for unit in HOSTILE] + [
        "key sk-proj-aaaabbbbccccdddd Bearer abcdefghijkl",
        "https://a:b@c/ password='x'",
    ]:
        assert matcher.spans(text) == [match.span() for match in PATTERNS[name].finditer(text)]


@pytest.mark.slow
@pytest.mark.parametrize("unit", HOSTILE)
def test_a_megabyte_does_not_hold_the_loop(unit: str) -> None:
    """The bound is ten times what it takes (0.2 s), for busy machines; a quadratic pattern takes hours."""
    text = filled(unit, 1_000_000)
    began = time.process_time()
    redact.text(text)
    assert time.process_time() - began < 2.0
