"""Every case program holds, except those in tests/pending_cases.py, and each of those does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cases.running import FOLDER, LIMIT_S, Cases, names
from tests.pending_cases import PENDING

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no ../shared/cases next to this checkout; HOLDFAST_CASES names another folder")

NAMES = names(FOLDER)


@pytest.fixture(scope="module")
def cases(request: pytest.FixtureRequest) -> Iterator[Cases]:
    """The selected cases, started all at once: the first test waits for its own while the next ones run."""
    wanted = [str(item.callspec.params["name"]) for item in request.session.items if isinstance(item, pytest.Function) and _is_case(item)]
    running = Cases(FOLDER, wanted)
    yield running
    running.close()


def _is_case(item: pytest.Function) -> bool:
    return item.function is test_case


@pytest.mark.timeout(LIMIT_S + 10)
@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, cases: Cases) -> None:
    """A case holds, or it is pending and does not hold."""
    ran = cases.result(name)
    if ran.needs_root:
        pytest.skip(f"{name} needs root")
    if name not in PENDING:
        assert ran.fault is None, f"{name}: {ran.fault}\n\n{ran}"
    else:
        assert ran.fault is not None, f"{name} holds: take it out of tests/pending_cases.py\n\n{ran}"


def test_every_pending_case_is_there() -> None:
    """A case that was renamed or removed does not stay in the list."""
    assert sorted(set(PENDING) - set(NAMES)) == []
