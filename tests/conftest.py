"""What all tests share: the event loop they run on and how hypothesis searches."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest
from hypothesis import settings

# The same examples at every run, so that a red suite stays red. HYPOTHESIS_PROFILE=explore looks at others.
settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# Before any test copies the environment for a process: what is killed leaves its control socket behind, which is to go with the tests.
os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="hf-")  # short: the path of a socket has 107 bytes
atexit.register(shutil.rmtree, os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)

pytest_plugins = ["tests.postgres_server"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Every async test runs on asyncio: holdfast's turn tasks are asyncio tasks."""
    return "asyncio"
