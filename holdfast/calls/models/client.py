"""A provider's client, prepared for all sessions: each request of a handler becomes a call, which is a durable, metered step."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from holdfast.calls.call import Call, StepContext, Steps
from holdfast.calls.models.additions import requested
from holdfast.calls.models.anthropic_messages import AnthropicMessages
from holdfast.calls.models.dialect import Billed, Dialect, Fields, mapped
from holdfast.calls.models.ends import Stage
from holdfast.calls.models.facts import facts_of
from holdfast.calls.models.first_chunk import begun_within
from holdfast.calls.models.keys import remember_keys
from holdfast.calls.models.metering import Meter, Metering
from holdfast.calls.models.openai_chat import OpenAIChat
from holdfast.calls.models.openai_embeddings import EMBEDDINGS, embedded, embeddings_of
from holdfast.calls.models.openai_responses import OpenAIResponses
from holdfast.calls.models.prices import Prices
from holdfast.calls.models.refusals import checked_model
from holdfast.calls.models.replies import BrokenReply, fields_of, reported, unreadable
from holdfast.calls.models.streamed import StreamCodec
from holdfast.calls.models.streams import CLOSE_S, ModelStream
from holdfast.calls.models.surface import facts_about, left_out, names_of, proxy_of
from holdfast.calls.models.wire import Events, events_in
from holdfast.codec.answers import AnswerCodec, request_bytes
from holdfast.errors import ConfigError
from holdfast.given import is_number
from holdfast.policies._faults import Faults
from holdfast.policies.failures import FailureRule, read_rules
from holdfast.policies.retry import Retry

DIALECTS: tuple[Dialect, ...] = (OpenAIChat(), OpenAIResponses(), AnthropicMessages())
"""The APIs that are durable steps, each at its place on the client of its provider's SDK."""

MODEL_TIMEOUT_S = 600.0
"""The time limit of one attempt, in seconds, as in the providers' own clients; a healthy stream can also take that long."""

MAX_TOKENS = 4_096
"""The limit of an answer that is sent if money or tokens are limited and the handler gives none: the highest that all chat models
accept."""

_SECRET = ("extra_headers", "timeout")
"""The arguments that are sent but neither recorded nor part of the call's identity: headers can hold secrets."""

_RETRY = Retry()


class ModelClient:
    """A provider's client, prepared once for all sessions.

    Attributes:
        name: the name by which handlers find it; also the name of its dependency, which has a breaker of its own.
    """

    def __init__(
        self,
        name: str,
        client: Any,
        *,
        prices: Prices | None = None,
        provider: str | None = None,
        retry: Retry = _RETRY,
        failures: Mapping[Any, FailureRule | Mapping[str, Any]] | None = None,
        max_tokens: int = MAX_TOKENS,
        context_tokens: int | None = None,
        first_chunk_s: float | None = None,
    ) -> None:
        """Checks the client and turns its own retries off.

        Args:
            name: of the client.
            client: an `openai.AsyncOpenAI` or an `anthropic.AsyncAnthropic`, or an object with `with_options` and one of their `create`s.
            prices: the price list.
            provider: the id in genai-prices of the provider that serves the models; None guesses by the name of the model.
            retry: how often and how long its calls are tried again.
            failures: your own rules on what failures mean, by kind of failure, HTTP status, class of exception or "code:" and the
                provider's error code; see docs/failures.md.
            max_tokens: the limit of an answer that is sent if money or tokens are limited and the handler gives none. Anthropic requires a
                limit, so it always gets one.
            context_tokens: the tokens that are reserved for a prompt of which the provider keeps a part (`previous_response_id`) or fetches
                a part (its own tools, documents by url or file id), if money or tokens are limited. None: the model's context window, which
                is the most that it can cost.
            first_chunk_s: an attempt of a streamed call fails if its first chunk takes longer, in seconds. None: as long as the client's
                timeout lets it take.

        Raises:
            ConfigError: it is not such a client, or an option is wrong.
        """
        faults = Faults(f"client {name!r}")
        faults.number("first_chunk_s", first_chunk_s, positive=True, optional=True)
        self.failures, self._first_chunk_s = read_rules(failures, faults.found), first_chunk_s
        faults.check()
        apis = _apis_of(name, client)
        remember_keys(client)
        self.name, self.retry, self.max_tokens = name, retry, max_tokens
        self._metering = Metering(prices or Prices(), provider, max_tokens=max_tokens, context_tokens=context_tokens)
        # The client's own retries would multiply those of the step.
        client = client.with_options(max_retries=0)
        self._apis = {dialect.path: (dialect, _create_of(client, dialect), codec) for dialect, codec in apis}
        self._embeddings = embeddings_of(client)
        read_s = getattr(getattr(client, "timeout", None), "read", getattr(client, "timeout", None))
        self.timeout_s = float(read_s) if isinstance(read_s, int | float) and read_s > 0 else MODEL_TIMEOUT_S
        self._refused: dict[tuple[str, str], set[str]] = {}
        self._names = names_of([*self._apis, *([EMBEDDINGS.path] if self._embeddings else [])])
        self._known = facts_about(client, self.timeout_s)
        self._host = str(getattr(getattr(client, "base_url", None), "host", ""))

    def __repr__(self) -> str:
        return f"<client {self.name!r}>"

    def proxy(self, steps: Steps, *, cap_tokens: bool = False, cap_money: bool = False) -> Any:
        """The client for one session's turn.

        Args:
            steps: the pipeline that runs its calls.
            cap_tokens: whether the session's tokens are limited.
            cap_money: whether its money is limited: then a call of a model of unknown price is refused.
        """

        async def send(path: str, given: Fields) -> Any:
            given = {name: value for name, value in given.items() if not left_out(value)}
            if path == EMBEDDINGS.path:
                return await self._embed(steps, given, cap_tokens=cap_tokens, cap_money=cap_money)
            return await self._create(path, steps, given, cap_tokens=cap_tokens, cap_money=cap_money)

        return proxy_of(self.name, self._names, self._known, send, {})

    def _call(self, model: str, args: bytes, meter: Meter) -> Callable[..., Call]:
        """A call of this client, without what depends on the API."""
        return functools.partial(
            Call,
            kind="model",
            name=model,
            effect="read",
            args=args,
            retry=self.retry,
            failures=self.failures,
            most=meter.most,
            dependency=self.name,
            costs=True,
        )

    async def _embed(self, steps: Steps, given: Fields, *, cap_tokens: bool, cap_money: bool) -> Any:
        send, codec = self._embeddings
        model = checked_model(EMBEDDINGS.path, given.get("model"))
        args = request_bytes({name: value for name, value in given.items() if name not in _SECRET})
        meter = self._metering.meter(EMBEDDINGS, model, EMBEDDINGS.asked, args, cap_tokens=cap_tokens, cap_money=cap_money)
        timeout = given.get("timeout")
        return await steps.run(
            self._call(model, args, meter)(
                run=functools.partial(embedded, send, given),
                codec=codec,
                timeout_s=float(timeout) if is_number(timeout) else self.timeout_s,
                meter=lambda reply: meter.of_reply(EMBEDDINGS, fields_of(reply)),
                check=lambda reply: EMBEDDINGS.check(fields_of(reply)),
                facts=functools.partial(_facts, EMBEDDINGS, model),
            )
        )

    async def _create(self, path: str, steps: Steps, given: Fields, *, cap_tokens: bool, cap_money: bool) -> Any:
        dialect, send, codec = self._apis[path]
        # Merged as the SDK merges it, since the fields of `extra_body` count, too.
        request = {**given, **mapped(given.get("extra_body"))}
        model = checked_model(path, request.get("model"))
        asked = dialect.asked(request)
        args = request_bytes({name: value for name, value in given.items() if name not in _SECRET})
        meter = self._metering.meter(dialect, model, asked, args, cap_tokens=cap_tokens, cap_money=cap_money)
        # The lists are copied: a handler that changes its own lists during a stream or a retry does not change the request.
        sent = {name: [*value] if isinstance(value, list) else value for name, value in given.items()}
        added = {} if asked.limit is not None else dialect.limited(self.max_tokens, self._host, model, cap_tokens or cap_money)
        refused = self._refused.setdefault((path, model), set())
        call = self._call(model, args, meter)
        if given.get("stream"):
            open_: Callable[[], Awaitable[Any]] = functools.partial(_open, send, sent, {**added, **dialect.streamed(sent)}, refused)
            if self._first_chunk_s is not None:
                open_ = functools.partial(begun_within, self._first_chunk_s, CLOSE_S, open_)
            stream = ModelStream(open_, dialect=dialect, request=request, meter=meter)
            made = call(
                run=stream.attempt,
                codec=StreamCodec(),
                timeout_s=self.timeout_s,
                meter=stream.usage,
                check=stream.check,
                facts=stream.facts,
            )
            steps.start(stream.follow(steps, made))
            return stream
        timeout = given.get("timeout")
        return await steps.run(
            call(
                run=functools.partial(_send, dialect, functools.partial(requested, send, sent, added, refused)),
                codec=codec,
                timeout_s=float(timeout) if is_number(timeout) else self.timeout_s,
                meter=lambda reply: meter.of_reply(dialect, fields_of(reply)),
                check=lambda reply: dialect.check(fields_of(reply), request),
                facts=functools.partial(_facts, dialect, model),
            )
        )


async def _send(dialect: Dialect, send: Callable[[], Awaitable[Any]], step: StepContext) -> Fields:
    try:
        reply = await send()
        return dialect.mended(fields_of(_whole(dialect, reply) if isinstance(reply, str) else reply))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise unreadable(error) from error


async def _open(create: Callable[..., Any], request: Fields, added: Fields, refused: set[str]) -> Events:
    return Events(await requested(create, request, added, refused))


def _whole(dialect: Dialect, body: str) -> Any:
    """The answer in a body that is no JSON: some servers stream without being asked to. Any other body stays as it is."""
    chunks = [chunk for event in events_in(body) for chunk in dialect.chunks(event)]
    if not chunks:
        return body
    error, ending = next((found for chunk in chunks if (found := dialect.error(chunk))), None), dialect.ending({})
    if error is not None:
        raise reported(error)
    for chunk in chunks:
        ending.add(chunk)
    if "[DONE]" not in body and ending.stage < Stage.DOUBTFUL:
        raise BrokenReply(f"the answer was cut short after {len(chunks)} chunks")
    return dialect.assemble(chunks)


def _facts(dialect: Billed, model: str, answer: Any) -> Fields:
    try:
        reply = None if answer is None else fields_of(answer)
    except Exception:  # the SDK can fail to dump an odd answer that it has built: telemetry must not lose the answer
        reply = None
    return facts_of(dialect, model, reply)


def _create_of(client: Any, dialect: Dialect) -> Any:
    return functools.reduce(lambda part, name: getattr(part, name, None), (*dialect.path.split("."), "create"), client)


def _apis_of(name: str, client: Any) -> list[tuple[Dialect, AnswerCodec]]:
    found = [each for each in DIALECTS if callable(_create_of(client, each))]
    kind = type(client).__qualname__
    if not found or not callable(getattr(client, "with_options", None)):
        raise ConfigError(
            f"client {name!r} is a {kind}: give an openai.AsyncOpenAI (also for compatible servers, with base_url=) or an "
            "anthropic.AsyncAnthropic; call other services from a tool"
        )
    if not all(inspect.iscoroutinefunction(inspect.unwrap(_create_of(client, each))) for each in found):
        raise ConfigError(f"client {name!r} is a {kind}, which blocks: give an openai.AsyncOpenAI or an anthropic.AsyncAnthropic")
    try:
        return [(each, AnswerCodec(each.reply_type(), fields_of)) for each in found]
    except ImportError as error:
        package = found[0].provider
        raise ConfigError(f"client {name!r} needs the package {package}: install holdfast[{package}]") from error
