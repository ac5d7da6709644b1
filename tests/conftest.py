"""What all tests share: the event loop they run on and how hypothesis searches."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The same examples at every run, so that a red suite stays red. HYPOTHESIS_PROFILE=explore looks at others.
settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


pytest_plugins = ["tests.postgres_server"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Every async test runs on asyncio: holdfast's turn tasks are asyncio tasks."""
    return "asyncio"
