"""A text is redacted before it is cut: the first half of a secret is not recognised, and tells enough."""

from __future__ import annotations

import pytest

from holdfast.policies.classify import classify
from holdfast.runtime.turns.failures import describe, redacted, trace

KEPT = 2_000
SECRETS = ("postgres://app:hunter2secret@db/app", "Bearer hunter2secret99", "password=hunter2secret")


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_at_the_end_of_what_is_kept_is_masked(secret: str) -> None:
    for before in range(KEPT - 80, KEPT):
        error = ConnectionError("x" * before + f" {secret} and more")
        error.add_note("y" * before + f" {secret} and more")
        for text in (redacted(classify(error, 0.0)).message, describe(error), trace(error)):
            assert "hunter2" not in text, before
