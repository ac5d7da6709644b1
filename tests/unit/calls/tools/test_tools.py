"""Tools: what makes one, how it becomes a call, and how it comes back from its record."""

from __future__ import annotations

import functools
import inspect
import pickle
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest
from pydantic import BaseModel, Field

from holdfast.calls import ToolArgumentError, Toolset, failed, spec_for, succeeded, tool
from holdfast.calls.call import UNKNOWN, Call, StepContext
from holdfast.calls.tools.threads import abandoned
from holdfast.codec import MAX_BYTES, canonical
from holdfast.errors import ConfigError, NotJournalable
from holdfast.policies.budget import Usage
from holdfast.policies.retry import NO_RETRY, Retry

STEP = StepContext("s-1", "key-1", 1)


class Receipt(msgspec.Struct):
    order_id: str
    cents: int


class Address(BaseModel):
    city: str


class Parcel(BaseModel):
    weight_g: int = Field(alias="weightG")


class Opaque:
    pass


async def run(call: Call) -> Any:
    return await call.run(STEP)


# ---------------------------------------------------------------- what makes one


async def test_a_tool_can_be_called_as_the_function_it_was() -> None:
    """The decorator takes nothing away: the value, the signature and the docstring are the function's."""

    @tool
    async def double(n: int) -> int:
        """Twice as much."""
        return n * 2

    @tool(effect="idempotent", name="half")
    def halve(n: int) -> int:
        return n // 2

    assert await double(4) == 8
    assert halve(8) == 4
    assert (double.name, double.effect, double.__doc__) == ("double", "read", "Twice as much.")
    assert (halve.name, halve.effect) == ("half", "idempotent")
    assert list(inspect.signature(double).parameters) == ["n"]


def test_reads_are_retried_and_once_is_not() -> None:
    """Without retry= the effect class decides."""

    async def work() -> None: ...

    assert tool(work).retry == tool(effect="idempotent")(work).retry == Retry()
    assert tool(effect="once")(work).retry == NO_RETRY


async def _query(order_id: str) -> Receipt: ...  # type: ignore[empty-body]


def _no_annotation(order_id: str, cents) -> None: ...  # type: ignore[no-untyped-def]
def _star(*orders: str) -> None: ...
def _stars(**orders: str) -> None: ...
def _position(order_id: str, /) -> None: ...
def _opaque(thing: Opaque) -> None: ...
def _gives_opaque() -> Opaque: ...  # type: ignore[empty-body]
def _nested(things: list[dict[str, Opaque]]) -> None: ...
def _forward(thing: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821
async def _fine(order_id: str, cents: int) -> Receipt: ...  # type: ignore[empty-body]
def _blocking_query(order_id: str, cents: int) -> Receipt: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("function", "options", "texts"),
    [
        (_no_annotation, {}, ["tool '_no_annotation': parameter 'cents' needs a type annotation"]),
        (_star, {}, ["*orders is not possible: name each parameter"]),
        (_stars, {}, ["**orders is not possible"]),
        (_position, {}, ["parameter 'order_id' can be given by position only: remove the '/'"]),
        (_opaque, {}, ["parameter 'thing': <class", "Opaque'> cannot be journaled"]),
        (_nested, {}, ["parameter 'things': <class"]),
        (_gives_opaque, {}, ["its return type: <class"]),
        (_forward, {}, ["its annotations do not resolve (name 'Nowhere' is not defined)"]),
        (_fine, {"reconcile": _fine}, ["reconcile is for effect=\"once\": the effect is 'read'"]),
        (_fine, {"effect": "once", "reconcile": _blocking_query}, ["reconcile has to be an async function"]),
        (_fine, {"effect": "once", "reconcile": _query}, ["reconcile takes (order_id) and the tool (order_id, cents)"]),
        (_fine, {"effect": "twice"}, ["effect 'twice' is unknown: it is one of read, idempotent, once"]),
        (_fine, {"name": "re fund"}, ["its name has to be 1 to 64 letters, digits, _ or - (give name=)"]),
        (lambda: None, {}, ["its name has to be"]),
        (_fine, {"timeout_s": 0}, ["timeout_s is 0: give seconds, more than 0"]),
        (_fine, {"timeout_s": float("inf")}, ["timeout_s is inf"]),
        (_fine, {"retry": 3, "cost": 5}, ["retry is 3: give a Retry", "cost is 5: give a Usage"]),
        (_no_annotation, {"effect": "twice", "timeout_s": -1}, ["'cents' needs", "effect 'twice'", "timeout_s is -1"]),
        ("refund", {}, ["tool needs a function, not 'refund'"]),
    ],
)
def test_a_wrong_definition_is_refused_with_everything_that_is_wrong(
    function: Callable[..., Any], options: dict[str, Any], texts: list[str]
) -> None:
    """When it is loaded, not when a model first calls it; one line for each fault."""
    with pytest.raises(ConfigError) as caught:
        tool(**options)(function)
    lines = str(caught.value).splitlines()
    for text in texts:
        assert any(text in line for line in lines)


# ---------------------------------------------------------------- as a call


async def test_the_context_of_the_step_is_injected_wherever_it_stands() -> None:
    """The parameter annotated StepContext is neither an argument nor in the schema."""

    @tool
    async def first(ctx: StepContext, order_id: str) -> str:
        return f"{ctx.key} {order_id}"

    @tool
    async def last(order_id: str, *, ctx: StepContext) -> str:
        return f"{ctx.key} {order_id}"

    @tool
    def plain(order_id: str, ctx: StepContext, cents: int = 1) -> str:
        return f"{ctx.key} {order_id} {cents}"

    for each in (first, last):
        assert await run(each.call(("o-1",))) == "key-1 o-1"
        assert await run(each.call((), {"order_id": "o-1"})) == "key-1 o-1"
        assert list(each.schema()["properties"]) == ["order_id"]
        assert each.call(("o-1",)).args == canonical(("o-1",))
    assert await run(plain.call(("o-1", 5))) == "key-1 o-1 5"
    assert await run(plain.call(("o-1",), {"cents": 5})) == "key-1 o-1 5"


def test_different_calls_have_different_arguments_and_equal_ones_equal() -> None:
    """The bytes are the call's identity: the order of names does not count, how an argument was given does."""

    async def work(a: Any, b: Any = None) -> None: ...

    spec = spec_for(work)
    assert spec.call((), {"a": 1, "b": 2}).args == spec.call((), {"b": 2, "a": 1}).args
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((1, 2), {}),
        ((1,), {"b": 2}),
        (([1], {"b": 2}), {}),
        (([1],), {"b": 2}),
    ]
    assert len({spec.call(args, kwargs).args for args, kwargs in given}) == 4


def test_a_call_carries_what_the_tool_says() -> None:
    """Effect, patience, cost and dependency reach the pipeline; what costs is opened with a durable record."""

    @tool(effect="idempotent", timeout_s=5, dependency="shop", cost=Usage(microusd=30))
    async def lookup(order_id: str) -> Receipt: ...  # type: ignore[empty-body]

    as_tool, as_step = lookup.call(("o-1",), kind="tool"), lookup.call(("o-1",))
    assert (as_tool.kind, as_tool.name, as_tool.effect, as_tool.timeout_s) == ("tool", "lookup", "idempotent", 5)
    assert (as_tool.dependency, as_tool.costs, as_tool.codec.type) == ("shop", True, Receipt)
    assert as_tool.most == Usage(steps=1, tool_calls=1, microusd=30)
    assert as_step.most == Usage(steps=1, microusd=30)


def test_arguments_that_do_not_fit_an_effect_are_refused_before_it() -> None:
    """Found when it runs, a wrong argument of a `once` tool would be a doubt."""

    async def query(order_id: str, cents: int) -> Any:
        return UNKNOWN

    @tool(effect="once", reconcile=query)
    async def refund(order_id: str, cents: int) -> None: ...

    with pytest.raises(TypeError, match="cents"):
        refund.call(("o-1",))
    with pytest.raises(NotJournalable, match="do not read back"):
        refund.call(("o-1", "five"))
    with pytest.raises(NotJournalable):
        refund.call((Opaque(), 5))


async def test_a_call_is_rebuilt_from_its_record_for_reconcile() -> None:
    """After a crash only the bytes are left; `reconcile` gets values of the annotated types, and the context if it asks for it."""
    asked: list[Any] = []

    async def query(receipt: Receipt, to: Address, ctx: StepContext, note: str = "") -> Receipt:
        asked.append((receipt, to, ctx.key, note))
        return receipt

    @tool(effect="once", reconcile=query)
    async def refund(receipt: Receipt, to: Address, note: str = "") -> Receipt:
        asked.append((receipt, to, note))
        return receipt

    receipt, to = Receipt("o-1", 5), Address(city="Bonn")
    for args, kwargs in (
        ((receipt, to, "x"), {}),
        ((receipt,), {"to": to, "note": "x"}),
        ((), {"receipt": receipt, "to": to, "note": "x"}),
    ):
        call = refund.call(args, kwargs)
        again = refund.recall(call.args)
        assert again.args == call.args
        assert again.reconcile is not None
        assert await again.reconcile(STEP) == receipt
        assert await run(again) == receipt
    assert asked == [(receipt, to, "key-1", "x"), (receipt, to, "x")] * 3


def test_a_record_that_no_longer_fits_is_said_to_be_so() -> None:
    """The code changed between the crash and the restart."""

    @tool(effect="once")
    async def refund(order_id: str, cents: int) -> None: ...

    with pytest.raises(NotJournalable, match="tool 'refund': its arguments do not read back"):
        refund.recall(canonical(("o-1", "five")))


# ---------------------------------------------------------------- any function as a step


class Shop:
    async def find(self, order_id: str) -> Receipt:
        return Receipt(order_id, 5)

    async def __call__(self, order_id: str) -> str:
        return f"called {order_id}"


async def find(order_id, cents=5):  # type: ignore[no-untyped-def]
    return {"order_id": order_id, "cents": cents}


async def test_any_function_can_be_a_step() -> None:
    """Functions without annotations, methods, partials, lambdas (also of what is to be awaited) and callable objects."""

    def inner(n: int, *more: int) -> int:
        return n + sum(more)

    cases: list[tuple[Callable[..., Any], tuple[Any, ...], str, Any]] = [
        (find, ("o-1",), "find", {"order_id": "o-1", "cents": 5}),
        (Shop().find, ("o-1",), "Shop.find", Receipt("o-1", 5)),
        (Shop(), ("o-1",), "Shop", "called o-1"),
        (inner, (1, 2, 3), "inner", 6),
        (functools.partial(find, "o-1"), (), "find", {"order_id": "o-1", "cents": 5}),
        (lambda n: n + 1, (1,), "<lambda>", 2),
        (lambda n: Shop().find(n), ("o-2",), "<lambda>", Receipt("o-2", 5)),
        (len, ("abc",), "len", 3),
    ]
    for function, args, name, result in cases:
        call = spec_for(function).call(args)
        assert (call.name, call.kind, call.effect) == (name, "step", "read")
        assert await run(call) == result


def test_what_a_partial_brings_along_is_part_of_the_identity() -> None:
    """Two partials of one function are two different steps."""
    one, two = functools.partial(find, "o-1"), functools.partial(find, "o-2")
    assert spec_for(one).call(()).args == canonical(("o-1",)) != spec_for(two).call(()).args
    assert spec_for(functools.partial(find, cents=1)).call(("o-1",), {"cents": 2}).args == canonical({"": ("o-1",), "cents": 2})


def test_the_tool_of_a_function_is_made_once() -> None:
    """A step in a loop does not read the annotations each time; methods of two objects do not share one."""

    async def work() -> None: ...

    decorated = tool(work)
    one, two = Shop(), Shop()
    assert spec_for(work) is spec_for(work)
    assert spec_for(decorated) is decorated
    assert spec_for(one.find).__wrapped__ == one.find
    assert spec_for(two.find).__wrapped__ == two.find


def test_a_function_whose_result_cannot_be_kept_is_refused_before_it_runs() -> None:
    """Also without the decorator."""
    with pytest.raises(NotJournalable, match="Opaque"):
        spec_for(_gives_opaque)
    with pytest.raises(TypeError, match="give the function and its arguments, uncalled"):
        spec_for(5)  # type: ignore[arg-type]


# ---------------------------------------------------------------- plain functions in threads


async def test_a_plain_function_runs_in_a_thread() -> None:
    """It does not block the loop."""
    assert await run(spec_for(threading.get_ident).call(())) != threading.get_ident()


async def test_a_thread_that_nobody_waits_for_any_more_is_counted_until_it_ends() -> None:
    """It cannot be killed, so it is shown."""
    started, release = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        release.wait(10)

    async with anyio.create_task_group() as group:
        group.start_soon(run, spec_for(block).call(()))
        await anyio.to_thread.run_sync(started.wait)
        group.cancel_scope.cancel()
    assert abandoned() == 1
    release.set()
    with anyio.fail_after(5):
        while abandoned():
            await anyio.lowlevel.checkpoint()


async def test_what_a_plain_function_raises_arrives_and_its_place_is_free_again() -> None:
    """Failures do not use up the threads."""

    def fail() -> None:
        raise KeyError("x")

    for _ in range(60):
        with pytest.raises(KeyError):
            await run(spec_for(fail).call(()))
    assert abandoned() == 0


async def test_a_model_whose_fields_have_aliases_reads_back() -> None:
    """From the journal by the names of its fields, from a model by their aliases, which is what its schema shows."""

    @tool(effect="once")
    async def send(parcel: Parcel) -> Parcel:
        return parcel

    assert "weightG" in str(send.schema())
    parcel = send.parse('{"parcel": {"weightG": 5}}')["parcel"]
    assert parcel == Parcel(weightG=5)
    call = send.call((parcel,))
    assert send.recall(call.args).args == call.args
    assert call.codec.round_trip(parcel)[1] == parcel


# ---------------------------------------------------------------- toolsets and results


def test_a_toolset_finds_tools_by_name_in_their_order() -> None:
    """What an agent is given, for each API."""

    @tool
    async def one(n: int) -> int:
        """The first."""
        return n

    @tool(description="Number two.")
    async def two() -> None: ...

    tools = Toolset([one, two])
    assert [each.name for each in tools] == ["one", "two"]
    assert (tools["one"], "two" in tools, "three" in tools, len(tools)) == (one, True, False, 2)
    assert [each["function"]["description"] for each in tools.openai()] == ["The first.", "Number two."]
    assert [each["name"] for each in tools.anthropic()] == [each["name"] for each in tools.openai_responses()] == ["one", "two"]
    with pytest.raises(KeyError):
        tools["three"]


def test_a_toolset_refuses_namesakes_and_what_is_no_tool() -> None:
    """All of them at once."""

    @tool
    async def one() -> None: ...

    with pytest.raises(ConfigError, match=r"two tools are called 'one'.*is not a tool: decorate it with @tool"):
        Toolset([one, one, find])  # type: ignore[list-item]


def test_results_are_json_for_the_model() -> None:
    """A value as it is; a failure with its type and text."""
    assert succeeded(Receipt("o-1", 5)).content == '{"order_id":"o-1","cents":5}'
    assert succeeded([Address(city="Bonn")]).content == '[{"city":"Bonn"}]'
    assert succeeded("text").value == "text"
    bad = failed("ValueError", 'no "such" order')
    assert (bad.error, msgspec.json.decode(bad.content)) == (True, {"error": "ValueError", "message": 'no "such" order'})
    with pytest.raises(NotJournalable):
        succeeded(Opaque())


def test_an_argument_error_survives_pickling() -> None:
    """Like every error of holdfast."""
    error = ToolArgumentError("refund", "argument 'cents' is missing")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.tool) == ("tool 'refund': argument 'cents' is missing", "refund")


async def test_types_of_a_tool_are_those_of_its_function() -> None:
    """A type checker sees through the decorator."""

    @tool(effect="once")
    async def refund(order_id: str, cents: int) -> Receipt:
        return Receipt(order_id, cents)

    promised: Awaitable[Receipt] = refund("o-1", 5)
    assert (await promised).cents == 5


LARGE: dict[str, Any] = {"text": "x" * (MAX_BYTES + 1), "texts": ["x" * 1_000] * 50_000, "deep": [{"x": "x" * (MAX_BYTES + 1)}]}


@pytest.mark.parametrize("large", LARGE.values(), ids=LARGE)
def test_arguments_that_are_far_too_large_are_not_read(large: object) -> None:
    """To look for odd characters in a gigabyte would hold up the other sessions."""

    @tool
    async def takes(value: Any) -> None: ...

    with pytest.raises(ToolArgumentError, match="give at most"):
        takes.parse({"value": large})
