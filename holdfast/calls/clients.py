"""Clients of model providers as a handler sees them: pre-authenticated, with nothing on them but calls that are durable steps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast import redact
from holdfast.calls.call import Call, StepContext, Steps
from holdfast.calls.prices import Prices
from holdfast.calls.replies import Meter, ReplyCodec, estimate_prompt, fields_of, refuse_empty
from holdfast.calls.streams import ModelStream, Streamed
from holdfast.codec import canonical, codec_for
from holdfast.errors import ConfigError
from holdfast.policies.budget import Usage
from holdfast.policies.retry import Retry

MODEL_TIMEOUT_S = 600.0
"""For one attempt, as in OpenAI's own client; a streamed one takes its time also when all is well."""

MAX_TOKENS = 4_096
"""The limit of an answer that is sent where money or tokens are capped and the handler gives none: the longest that all
chat models accept."""

_SECRET = ("extra_headers", "timeout")
"""What is sent along but neither recorded nor part of the call's identity: headers can hold secrets."""

_RETRY = Retry()


class ModelClient:
    """A provider's client, prepared once for all sessions.

    Attributes:
        name: by which handlers find it; its dependency, which has a breaker of its own.
    """

    def __init__(
        self,
        name: str,
        client: Any,
        *,
        prices: Prices | None = None,
        provider: str | None = None,
        retry: Retry = _RETRY,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        """Checks the client and turns its own retries off.

        Args:
            name: of the client.
            client: an `openai.AsyncOpenAI` or what has its `chat.completions.create` and `with_options`.
            prices: the price list.
            provider: the id that genai-prices has for who serves the models; None guesses by the name of the model.
            retry: of its calls.
            max_tokens: the limit of an answer that is sent where money or tokens are capped and the handler gives none.

        Raises:
            ConfigError: it is not such a client.
        """
        _check_client(name, client)
        redact.remember(str(getattr(client, "api_key", "")))
        self.name, self.prices, self.provider, self.retry, self.max_tokens = name, prices or Prices(), provider, retry, max_tokens
        self._client = client.with_options(max_retries=0)
        read_s = getattr(getattr(client, "timeout", None), "read", getattr(client, "timeout", None))
        self.timeout_s = float(read_s) if isinstance(read_s, int | float) and read_s > 0 else MODEL_TIMEOUT_S
        host = str(getattr(getattr(client, "base_url", None), "host", ""))
        # OpenAI's newer models refuse `max_tokens`; many compatible servers do not know its successor.
        newer = host == "api.openai.com" or host.endswith(".openai.azure.com")
        self._limit = "max_completion_tokens" if newer else "max_tokens"

    def __repr__(self) -> str:
        return f"<client {self.name!r}>"

    def proxy(self, steps: Steps, *, cap_tokens: bool = False, cap_money: bool = False) -> Any:
        """The client for one session's turn.

        Args:
            steps: what its calls are handed to.
            cap_tokens: whether the session's tokens are limited.
            cap_money: whether its money is: then the call of a model of unknown price is refused.
        """

        async def create(**given: Any) -> Any:
            """One durable, metered step. Takes what the client's own `chat.completions.create` takes."""
            return await self._create(steps, given, cap_tokens=cap_tokens, cap_money=cap_money)

        completions = _Namespace(self.name, "chat.completions", {"create": create})
        chat = _Namespace(self.name, "chat", {"completions": completions})
        return _Namespace(self.name, "", {"chat": chat})

    async def _create(self, steps: Steps, given: dict[str, Any], *, cap_tokens: bool, cap_money: bool) -> Any:
        given = {name: value for name, value in given.items() if type(value).__name__ not in ("NotGiven", "Omit")}
        model = given.get("model")
        if not isinstance(model, str):
            raise TypeError("chat.completions.create needs model=, the name of a model")
        args = canonical({name: value for name, value in given.items() if name not in _SECRET})
        request = dict(given)
        limit = next((given[name] for name in ("max_completion_tokens", "max_tokens") if isinstance(given.get(name), int)), None)
        if limit is None:
            limit = self.max_tokens
            if cap_tokens or cap_money:
                request[self._limit] = limit
        choices = given.get("n")
        meter = Meter(
            self.prices,
            model,
            self.provider,
            estimate_prompt(args),
            limit * (choices if isinstance(choices, int) else 1),
        )
        if cap_money and meter.most_microusd is None:
            raise ConfigError(
                f"the price of model {model!r} is not known, and the session's money is limited: "
                f"set it with Prices(overrides={{{model!r}: (usd_per_mtok_in, usd_per_mtok_out)}}), or lift the limit"
            )
        call = functools.partial(
            Call,
            kind="model",
            name=model,
            effect="read",
            args=args,
            retry=self.retry,
            most=meter.most,
            dependency=self.name,
            costs=True,
        )
        if given.get("stream"):
            return self._stream(steps, call, request, meter)
        timeout = given.get("timeout")
        return await steps.run(
            call(
                run=functools.partial(_send, self._client.chat.completions.create, request),
                codec=_reply_codec(),
                timeout_s=float(timeout) if isinstance(timeout, int | float) else self.timeout_s,
                meter=lambda reply: meter.of_reply(fields_of(reply)),
                check=lambda reply: refuse_empty(fields_of(reply)),
            )
        )

    def _stream(self, steps: Steps, call: Callable[..., Call], request: dict[str, Any], meter: Meter) -> ModelStream:
        from openai.types.chat import ChatCompletion, ChatCompletionChunk

        options = request.get("stream_options") or {}
        request["stream_options"] = {**options, "include_usage": True}
        stream = ModelStream(
            functools.partial(self._client.chat.completions.create, **request),
            step=request["model"],
            meter=meter,
            chunk_type=ChatCompletionChunk,
            reply_type=ChatCompletion,
            shows_usage=bool(options.get("include_usage")),
        )
        made = call(run=stream.attempt, codec=codec_for(Streamed), timeout_s=self.timeout_s, meter=stream.usage, check=stream.check)
        steps.start(stream.follow(steps, made))
        return stream


def client_proxy(
    name: str, client: Any, steps: Steps, *, prices: Prices | None = None, cap_tokens: bool = False, cap_money: bool = False
) -> Any:
    """What a handler gets for `client`: see `ModelClient`, which prepares it once instead of for each session.

    Raises:
        ConfigError: it is not a client that can be made durable.
    """
    prepared = client if isinstance(client, ModelClient) else ModelClient(name, client, prices=prices)
    return prepared.proxy(steps, cap_tokens=cap_tokens, cap_money=cap_money)


async def _send(create: Callable[..., Awaitable[Any]], request: dict[str, Any], step: StepContext) -> Any:
    return await create(**request)


@functools.cache
def _reply_codec() -> ReplyCodec:
    # Imported late: a client of it is at hand, so it is loaded already.
    from openai.types.chat import ChatCompletion

    return ReplyCodec(ChatCompletion)


def cost_of(error: BaseException) -> Usage | None:
    """What a failed attempt cost, where its error says so; None: nobody knows, so as much as it can."""
    usage = getattr(error, "holdfast_usage", None)
    return usage if isinstance(usage, Usage) else None


def _check_client(name: str, client: Any) -> None:
    create = getattr(getattr(getattr(client, "chat", None), "completions", None), "create", None)
    if not callable(create) or not callable(getattr(client, "with_options", None)):
        raise ConfigError(
            f"client {name!r} is a {type(client).__qualname__}: give an openai.AsyncOpenAI (also for compatible servers, with "
            "base_url=); call other services from a tool"
        )
    if not _is_async(client):
        raise ConfigError(f"client {name!r} is a {type(client).__qualname__}, which blocks: give an openai.AsyncOpenAI")
    try:
        _reply_codec()
    except ImportError as error:
        raise ConfigError(f"client {name!r} needs the package openai: install holdfast[openai]") from error


def _is_async(client: Any) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(client.chat.completions.create))


class _Namespace:
    """A part of a client that has durable calls and nothing else: what it stands for is not reachable from it."""

    __slots__ = ("_name", "_parts", "_path")

    def __init__(self, name: str, path: str, parts: dict[str, Any]) -> None:
        self._name, self._path, self._parts = name, path, parts

    def __getattr__(self, name: str) -> Any:
        try:
            return self._parts[name]
        except KeyError:
            path = ".".join(part for part in (self._path, name) if part)
            raise AttributeError(
                f"{path!r} of client {self._name!r} is not available to a handler: only chat.completions.create is a durable "
                "step; call anything else from a tool"
            ) from None

    def __dir__(self) -> list[str]:
        return sorted(self._parts)

    def __repr__(self) -> str:
        return f"<{self._path or 'client'} of {self._name!r}>" if self._path else f"<client {self._name!r}>"
