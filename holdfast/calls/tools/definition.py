"""The definition of a tool: the decorator `tool`, its options and the faults of both."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack, overload

from holdfast.calls.call import DEFAULT_TIMEOUT_S, EFFECTS, Effect
from holdfast.calls.tools.constraints import constraint_fault
from holdfast.calls.tools.signature import Signature, read
from holdfast.calls.tools.tool import Tool
from holdfast.errors import ConfigError
from holdfast.given import brief, is_a, is_number
from holdfast.policies.budget import MOST, Usage
from holdfast.policies.failures import FailureRule, read_rules
from holdfast.policies.retry import Retry
from holdfast.policies.stored import bounded

P = ParamSpec("P")
R = TypeVar("R")

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolOptions(TypedDict, total=False):
    """The options of `tool`; an option that is left out, or None, has the default that `tool` documents."""

    effect: Effect
    name: str | None
    timeout_s: float
    retry: Retry | None
    failures: Mapping[Any, FailureRule | Mapping[str, Any]] | None
    reconcile: Callable[..., Awaitable[Any]] | None
    settles_s: float
    dependency: str | None
    cost: Usage | None
    description: str | None
    threads: int | None


@overload
def tool(fn: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(fn: None = None, /, **options: Unpack[ToolOptions]) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(fn: Callable[..., Any] | None = None, /, **options: Unpack[ToolOptions]) -> Any:
    """Make a tool of an async or a plain function; a plain one runs in a thread.

    A parameter annotated `StepContext` gets the context of the step; callers and models do not pass it.

    Args:
        fn: the function, when the decorator is used without parentheses.
        effect: "read" (run again freely), "idempotent" (run again with the same key) or "once" (never run again by itself).
        name: by default that of the function.
        timeout_s: the time limit of one attempt, in seconds.
        retry: by default `Retry()`, for `once` no retry.
        failures: your own rules on what failures mean, by kind of failure, HTTP status, class of exception or "code:" and an error code;
            see docs/failures.md.
        reconcile: for `once`: an async function that gets the arguments of the tool and finds out whether the effect happened: it returns
            the result, raises `NotDone`, or returns `UNKNOWN`. It is called only when the attempt can no longer take effect.
        settles_s: for `once`: how long after an attempt has ended, in seconds, its effect may still appear (if the service queues it, say);
            default 0. `reconcile` is not called before.
        dependency: the name of its dependency; all calls with the same name share a breaker.
        cost: the most that one attempt costs, in money or tokens.
        description: the description for a model; by default the docstring up to its first section.
        threads: for a plain function: the most threads of it at once in one process, those counted that run past their deadline; a call
            over it waits for its turn. Tools of the same name and limit share it. Default: only the limits for all functions.

    Raises:
        ConfigError: the function or an option is wrong; the message names every fault.
    """

    unknown = sorted(options.keys() - ToolOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"tool() has no option {', '.join(unknown)}: it takes {', '.join(ToolOptions.__annotations__)}")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}

    def make(function: Callable[..., Any]) -> Tool[..., Any]:
        if not callable(function):
            raise ConfigError(f"tool needs a function, not {brief(function)}: options are given by name, as in @tool(effect=...)")
        own = given.get("name", getattr(function, "__name__", type(function).__name__))
        signature = read(function)
        faults = [*signature.faults, *_option_faults(own, given), *_effect_faults(signature, given), *_thread_faults(signature, given)]
        rules = read_rules(given.get("failures"), faults)
        if not signature.faults:
            faults += [f"parameter {p.name!r}: {fault}" for p in signature.parameters if (fault := constraint_fault(p))]
        if faults:
            raise ConfigError("\n".join(f"tool {brief(own)}: {fault}" for fault in faults))
        return Tool(function, signature, **{**given, "name": own, "failures": rules})

    return make if fn is None else make(fn)


def _option_faults(name: str, given: dict[str, Any]) -> list[str]:
    faults: list[str] = []
    if not is_a(name, str) or not _NAME.fullmatch(name):
        faults.append("its name has to be 1 to 64 letters, digits, _ or - (give name=)")
    effect = given.get("effect", "read")
    if effect not in EFFECTS:
        faults.append(f"effect {brief(effect)} is unknown: it is one of {', '.join(EFFECTS)}")
    timeout_s, settles_s = given.get("timeout_s", DEFAULT_TIMEOUT_S), given.get("settles_s", 0.0)
    if not is_number(timeout_s) or timeout_s <= 0:
        faults.append(f"timeout_s is {brief(timeout_s)}: give seconds, more than 0")
    if not is_number(settles_s) or settles_s < 0:
        faults.append(f"settles_s is {brief(settles_s)}: give seconds, 0 or more")
    if "retry" in given and not isinstance(given["retry"], Retry):
        faults.append(f"retry is {brief(given['retry'])}: give a Retry")
    if not isinstance(given.get("cost", Usage()), Usage):
        faults.append(f"cost is {brief(given['cost'])}: give a Usage")
    elif bounded(cost := given.get("cost", Usage())) != cost:
        faults.append(f"cost is {brief(cost)}: give whole amounts, from 0 to {MOST:,}")
    return faults


def _thread_faults(signature: Signature, given: dict[str, Any]) -> list[str]:
    threads = given.get("threads")
    if threads is None:
        return []
    if not is_a(threads, int) or is_a(threads, bool) or threads < 1:
        return [f"threads is {brief(threads)}: give a whole number, 1 or more"]
    return ["threads is for plain functions: an async one runs in no thread"] if signature.asynchronous else []


def _effect_faults(signature: Signature, given: dict[str, Any]) -> list[str]:
    """The faults of a `once` tool, and of options for one."""
    effect, reconcile = given.get("effect", "read"), given.get("reconcile")
    faults: list[str] = []
    if effect == "once" and not signature.annotated:
        faults.append("an effect that cannot be made again needs a return annotation, so that its result can be kept: -> None, -> str, ...")
    if reconcile is None:
        return faults
    if effect != "once":
        faults.append(f'reconcile is for effect="once": the effect is {brief(effect)}')
    if not callable(reconcile):
        return [*faults, f"reconcile is {brief(reconcile)}: give an async function"]
    asked = read(reconcile)
    if not asked.asynchronous:
        faults.append("reconcile has to be an async function")
    mine, its = ([p.name for p in each.parameters] for each in (signature, asked))
    if mine != its:
        faults.append(f"reconcile takes ({', '.join(its)}) and the tool ({', '.join(mine)}): give it the same parameters")
    return faults
