"""Virtual time for these tests: the loop never sleeps, its clock jumps to the next timer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.supervisors.support import VirtualLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every async test here runs in virtual time."""
    return "asyncio", {"loop_factory": VirtualLoop}
