"""A tool: a function that a model or a handler may call, with an effect class, a schema, and a query whether it ran (reconcile)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

import msgspec

from holdfast.calls.call import DEFAULT_TIMEOUT_S, ONE_STEP, Call, Effect, StepContext
from holdfast.calls.caller import unrecorded
from holdfast.calls.tools.docstring import read_docstring
from holdfast.calls.tools.reader import Reader
from holdfast.calls.tools.schema import schema_of
from holdfast.calls.tools.signature import Signature, read
from holdfast.calls.tools.threads import in_thread
from holdfast.codec import arguments, codec_for
from holdfast.errors import ConfigError, HoldfastError, NotJournalable
from holdfast.given import text_of
from holdfast.policies.budget import Usage
from holdfast.policies.classify import MESSAGE_MAX
from holdfast.policies.failures import NO_RULES, Rules
from holdfast.policies.retry import NO_RETRY, Retry

P = ParamSpec("P")
R = TypeVar("R")

NO_KWARGS: dict[str, Any] = {}
_RETRY = Retry()


class ToolArgumentError(HoldfastError):
    """The arguments that a model gave for a tool are not valid; the message names the fault for the model. `tool` is the tool's name."""

    holdfast_failure = "input"

    def __init__(self, tool: str, text: str) -> None:
        super().__init__(f"tool {tool!r}: {text}")
        self.tool = tool


class Tool(Generic[P, R]):
    """A function as a call to the outside. Make one with `tool`; you can still call it as the plain function.

    Attributes:
        name: its name for models and in the journal.
        effect: its effect class.
        timeout_s: the time limit of one attempt, in seconds.
        retry: how often and how long a failed attempt is made again.
        failures: its own rules on what failures mean.
        reconcile: for `once`: finds out whether an attempt of unknown outcome happened.
        settles_s: how long after an attempt has ended, in seconds, its effect may still appear.
        dependency: the name of its dependency; all calls with the same name share a breaker.
        cost: the most that one attempt costs, in addition to the step.
        threads: the most threads of it at once, if it is a plain function; None for no limit of its own.
    """

    __wrapped__: Callable[P, R]

    def __init__(
        self,
        function: Callable[P, R],
        signature: Signature,
        *,
        name: str,
        effect: Effect = "read",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry | None = None,
        failures: Rules = NO_RULES,
        reconcile: Callable[..., Awaitable[Any]] | None = None,
        settles_s: float = 0.0,
        dependency: str | None = None,
        cost: Usage | None = None,
        description: str | None = None,
        threads: int | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.name, self.effect, self.timeout_s, self.dependency = name, effect, timeout_s, dependency
        self.retry = retry if retry is not None else NO_RETRY if effect == "once" else _RETRY
        self.failures, self.reconcile, self.settles_s = failures, reconcile, settles_s
        self.cost = cost or Usage()
        self.threads = threads
        self._description = description
        self._function: Callable[..., Any] = function
        self._signature = signature
        self._codec = codec_for(signature.returns)
        self._context = None if signature.context is None else signature.context[1]
        self._reconcile_context: tuple[str, int] | None = None if reconcile is None else read(reconcile).context
        self._most = {"step": self.cost + ONE_STEP, "tool": self.cost + ONE_STEP + Usage(tool_calls=1)}
        self._costs = bool(self.cost.tokens or self.cost.microusd)
        self._reader: Reader | None = None
        self._binder: inspect.Signature | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here, without a record: outside a turn, or in a step, which has one.

        Raises:
            ConfigError: a handler itself calls a tool with an effect: after a crash that would happen again.
        """
        if self.effect != "read" and unrecorded():
            raise ConfigError(f"{self.name} is {self.effect}, and its handler calls it unrecorded: await session.step({self.name}, ...)")
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name!r}, {self.effect}>"

    @property
    def description(self) -> str:
        """The description for a model: the option `description`, else its docstring up to the first section."""
        return self._docstring[0] if self._description is None else self._description

    @functools.cached_property
    def _docstring(self) -> tuple[str, dict[str, str]]:
        return read_docstring(self._function)

    # ---------------------------------------------------------------- as a call

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any] = NO_KWARGS, kind: str = "step") -> Call:
        """A call of it with these arguments.

        Args:
            args: by position, without the `StepContext`.
            kwargs: by name.
            kind: "step", or "tool" if it counts as a tool call.

        Raises:
            NotJournalable: the arguments are not data.
            TypeError: they do not fit the function. Except for a `read` they are checked here, before the effect can be in doubt.
        """
        data = arguments(self.name, args, kwargs)
        if self.effect != "read":
            self._check(args, kwargs, data)
        function, context = self._function, self._context
        if not self._signature.asynchronous:

            async def run(step: StepContext) -> Any:
                given, named = (args, kwargs) if context is None else self._with_context(args, kwargs, step)
                value = await in_thread(function, given, named, step, name=self.name, limit=self.threads)
                # A lambda that calls an async function is not an async function itself.
                return await value if inspect.isawaitable(value) else value

        elif context is None:

            def run(step: StepContext) -> Awaitable[Any]:  # type: ignore[misc] # a coroutine is an awaitable
                return function(*args, **kwargs)  # type: ignore[no-any-return]

        else:

            def run(step: StepContext) -> Awaitable[Any]:  # type: ignore[misc] # a coroutine is an awaitable
                given, named = self._with_context(args, kwargs, step)
                return cast(Awaitable[Any], function(*given, **named))

        return Call(
            kind=kind,
            name=self.name,
            effect=self.effect,
            args=data,
            run=run,
            codec=self._codec,
            timeout_s=self.timeout_s,
            retry=self.retry,
            failures=self.failures,
            most=self._most[kind],
            reconcile=None if self.reconcile is None else functools.partial(self._reconcile, args, kwargs),
            settles_s=self.settles_s,
            dependency=self.dependency,
            costs=self._costs,
        )

    def recall(self, data: bytes, kind: str = "step") -> Call:
        """Rebuild the call from its recorded arguments.

        Raises:
            NotJournalable: they no longer fit the annotations of the function.
        """
        args, kwargs = self._decode(data)
        return self.call(args, kwargs, kind)

    def _with_context(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], step: StepContext, at: tuple[str, int] | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        at = at or self._signature.context
        if at is None:
            return args, kwargs
        name, position = at
        if position <= len(args):
            return (*args[:position], step, *args[position:]), kwargs
        return args, {**kwargs, name: step}

    async def _reconcile(self, args: tuple[Any, ...], kwargs: dict[str, Any], step: StepContext) -> Any:
        if self.reconcile is None:
            raise ConfigError(f"tool {self.name!r} has no reconcile")
        given, named = args, kwargs
        if self._reconcile_context is not None:
            given, named = self._with_context(args, kwargs, step, self._reconcile_context)
        return await self.reconcile(*given, **named)

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any], data: bytes) -> None:
        step = StepContext("", "", 0)
        given, named = self._with_context(args, kwargs, step)
        if self._binder is None:
            self._binder = inspect.signature(self._function)
        self._binder.bind(*given, **named)
        if self.reconcile is not None:
            # After a crash, reconcile gets the arguments that these bytes decode to.
            self._decode(data)

    def _decode(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        by_name = {p.name: p.type for p in self._signature.parameters}
        types = list(by_name.values())
        try:
            raw: Any = msgspec.msgpack.decode(data, type=list[msgspec.Raw] | dict[str, msgspec.Raw])
            named = raw if isinstance(raw, dict) else {}
            first = msgspec.msgpack.decode(named.pop("", b"\x90"), type=list[msgspec.Raw]) if raw is named else raw
            args = tuple(_read(value, types[at] if at < len(types) else Any) for at, value in enumerate(first))
            return args, {name: _read(value, by_name.get(name, Any)) for name, value in named.items()}
        except Exception as error:  # also what a user's own type raises
            text = text_of(error, MESSAGE_MAX)
            raise NotJournalable(f"tool {self.name!r}: its arguments do not read back as their annotations: {text}") from error

    # ---------------------------------------------------------------- for a model

    def parse(self, arguments: object) -> dict[str, Any]:
        """The arguments of a model, checked, by name: the `kwargs` of `call`. Arguments that the model did not give are left out.

        Raises:
            ToolArgumentError: they are not valid JSON, or do not fit the tool.
        """
        if self._reader is None:
            self._reader = Reader(self.name, self._signature.parameters)
        try:
            return self._reader.read(arguments)
        except ValueError as error:
            raise ToolArgumentError(self.name, text_of(error, MESSAGE_MAX)) from error

    def schema(self) -> dict[str, Any]:
        """The JSON schema of its parameters, from the annotations, the defaults and the `Args:` of the docstring."""
        schema: dict[str, Any] = msgspec.json.decode(self._schema)  # each caller gets a copy
        return schema

    @functools.cached_property
    def _schema(self) -> bytes:
        return msgspec.json.encode(schema_of(self.name, self._signature.parameters, self._docstring[1]))

    def openai(self) -> dict[str, Any]:
        """The tool as an element of `tools=` of an OpenAI chat completion."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema()}
        return {"type": "function", "function": function}

    def openai_responses(self) -> dict[str, Any]:
        """The tool as an element of `tools=` of an OpenAI response."""
        # Strict mode, the default there, would refuse optional parameters.
        return {"type": "function", "strict": False, **self.openai()["function"]}

    def anthropic(self) -> dict[str, Any]:
        """The tool as an element of `tools=` of an Anthropic message."""
        return {"name": self.name, "description": self.description, "input_schema": self.schema()}


def _read(raw: msgspec.Raw, type_: Any) -> Any:
    return codec_for(type_).decode(bytes(raw))
