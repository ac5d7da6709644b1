"""What goes wrong with a tool is data for the model: it can mend its call, and the handler goes on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast import NO_RETRY, Runtime, Session, agent, tool
from tests.unit.runtime.support import World


@tool(retry=NO_RETRY)
async def find(order: str, count: int = 1) -> list[str]:
    """Finds an order."""
    if order == "down":
        raise ConnectionError("the shop is down")
    if order == "bug":
        raise KeyError(order)
    return [order] * count


@agent(tools=[find])
async def support(session: Session[Any], call: list[Any]) -> list[Any]:
    result = await session.call_tool(call[0], call[1])
    return [result.error, result.content]


def called(name: str, arguments: str) -> Any:
    async def main(runtime: Runtime) -> Any:
        error, content = await (await runtime.spawn(support)).ask([name, arguments])
        return error, msgspec.json.decode(content)

    return World().life(support, main)


def test_a_result_is_json_for_the_model() -> None:
    """The arguments are decoded and the defaults filled in."""
    assert called("find", '{"order": "o1"}') == (False, ["o1"])


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("lose", "{}", "UnknownTool"),
        ("find", "not json", "ToolArgumentError"),
        ("find", '{"order": 5}', "ToolArgumentError"),
        ("find", '{"order": "o1", "extra": 1}', "ToolArgumentError"),
        ("find", "{}", "ToolArgumentError"),
        ("find", '{"order": "down"}', "ConnectionError"),
        ("find", '{"order": "bug"}', "KeyError"),
    ],
)
def test_every_failure_is_an_error_and_a_message(name: str, arguments: str, error: str) -> None:
    """Nothing is raised into the handler; the turn commits."""
    failed, content = called(name, arguments)
    assert failed
    assert set(content) == {"error", "message"}
    assert content["error"] == error
    assert content["message"]
