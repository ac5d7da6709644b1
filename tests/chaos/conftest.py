"""What the chaos tests share."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keeping what thousands of faults have to say would take most of the time."""
    caplog.set_level(logging.CRITICAL, logger="holdfast")
