"""Values to bytes and back: MessagePack through msgspec, with closed types.

Only the annotated type decides how bytes are decoded; the bytes cannot name a class. Types that msgspec knows (structs, dataclasses,
TypedDicts, builtins, datetimes, Decimal, UUID, enums) pass as they are, pydantic models through their own validation. Any other type is
refused: before the effect runs, if the type is known by then.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec

from holdfast.errors import NotJournalable
from holdfast.given import text_of

NIL = b"\xc0"
MAX_BYTES = 1 << 25
"""The most bytes of one encoded value: as many as a request to a model provider may have. A few such values fit into one transaction of
every store, and none holds up the other sessions for long."""

_USUAL, _MEDIUM, _LARGER = 1 << 12, 1 << 16, (1 << 20, 1 << 23, MAX_BYTES)
"""The sizes of the buffers in which a value is encoded, one after another, until it fits."""

_LOOKED_AT = 50_000
"""How many parts of a large value are looked at for its size before it is encoded."""

_MOST_TEXT = 500
"""The most characters of the text of another error in one of this module."""

_SCALARS = frozenset({bool, int, float, type(None)})
_TEXTS = frozenset({str, bytes, bytearray})
_PLAIN = frozenset({*_SCALARS, str, bytes})


def _is_pydantic(type_: Any) -> bool:
    return hasattr(type_, "__pydantic_validator__")


def read_model(type_: Any, value: Any) -> Any:
    """`value` as the pydantic model `type_`; its fields may have their names, as written here, or their aliases.

    Raises:
        NotJournalable: `type_` is no pydantic model.
        ValueError: as pydantic's ValidationError, if `value` is not a valid one.
    """
    if not _is_pydantic(type_):
        raise NotJournalable(f"{type_!r} cannot be read back from the journal")
    return type_.model_validate(value, by_alias=True, by_name=True)


def _enc_hook(value: Any) -> Any:
    if _is_pydantic(type(value)):
        # Models of an SDK are built unchecked: a provider's answer does not always match them.
        return value.model_dump(mode="json", exclude_unset=True, warnings=False)
    instead = getattr(type(value), "journal_instead", "use plain data, a dataclass, a msgspec.Struct or a pydantic model")
    raise NotJournalable(f"a value of type {type(value).__qualname__} cannot be journaled: {instead}")


def _plain_hook(value: Any) -> Any:
    raise NotJournalable(_unannotated(type(value)))


def _unannotated(kind: type[Any]) -> str:
    return (
        f"a value of type {kind.__qualname__} cannot be journaled without an annotation of its type (a function's return, "
        "Session[...]): add one, or use plain data (None, bool, int, float, str, bytes, list, dict)"
    )


_encoder = msgspec.msgpack.Encoder(enc_hook=_enc_hook)
_plain_encoder = msgspec.msgpack.Encoder(enc_hook=_plain_hook)
_canonical = msgspec.msgpack.Encoder(enc_hook=_enc_hook, order="sorted")


def encode(value: Any) -> bytes:
    """`value` as MessagePack.

    Raises:
        NotJournalable: it contains a value that is not data, text that is no Unicode, a number over 64 bits; or it is over MAX_BYTES.
    """
    return _encoded(_encoder, value)


def _encoded(encoder: msgspec.msgpack.Encoder, value: Any) -> bytes:
    try:
        kind = type(value)
        small = kind in _SCALARS or (kind in _TEXTS and len(value) < _USUAL)
        return encoder.encode(value) if small else _bounded(encoder, value)
    except NotJournalable:
        raise
    except Exception as error:  # also an exception of a user's own model while it is dumped
        raise NotJournalable(f"a value of type {type(value).__qualname__} cannot be journaled: {text_of(error, _MOST_TEXT)}") from error


def _bounded(encoder: msgspec.msgpack.Encoder, value: Any) -> bytes:
    """`value` as MessagePack, without the time and memory that a value over MAX_BYTES would take.

    Encoding holds the interpreter, and so every other session. So it ends where the value no longer fits: a buffer that a memoryview holds
    cannot grow, and the encoder then raises BufferError.
    """
    buffer = bytearray(_USUAL)  # as `_into`, without a call for the values that most are
    _held = memoryview(buffer)
    try:
        encoder.encode_into(value, buffer)
        return bytes(buffer)
    except BufferError:
        pass
    if type(value) in _TEXTS and len(value) > MAX_BYTES:
        raise NotJournalable(_too_large(value))
    try:
        return _into(encoder, value, _MEDIUM)
    except BufferError:
        pass
    for size in () if _least(value) > MAX_BYTES else _LARGER:
        try:
            return _into(encoder, value, size)
        except BufferError:
            continue
    raise NotJournalable(_too_large(value))


def _into(encoder: msgspec.msgpack.Encoder, value: Any, size: int) -> bytes:
    buffer = bytearray(size)
    _held = memoryview(buffer)
    encoder.encode_into(value, buffer)
    return bytes(buffer)


def _least(value: Any) -> int:
    """Bytes that `value` has at least: the texts and items of its first parts."""
    size, waiting = 0, [value]
    for _ in range(_LOOKED_AT):
        if not waiting or size > MAX_BYTES:
            break
        part = waiting.pop()
        kind = type(part)
        if kind in _TEXTS:
            size += len(part)
        elif kind is list or kind is tuple:
            size += len(part)
            waiting += part[:_LOOKED_AT]
        elif kind is dict:
            size += len(part)
            waiting += islice(part, _LOOKED_AT)
            waiting += islice(part.values(), _LOOKED_AT)
        elif isinstance(part, msgspec.Struct):
            waiting += (getattr(part, field) for field in part.__struct_fields__)
        elif hasattr(part, "__dict__"):
            waiting += islice(vars(part).values(), _LOOKED_AT)
    return size


def _too_large(value: Any) -> str:
    name = type(value).__qualname__
    return f"a value of type {name} of over {MAX_BYTES:,} bytes cannot be journaled: give at most so many, or keep it elsewhere"


def canonical(value: Any) -> bytes:
    """`value` as MessagePack with sorted keys: equal values give equal bytes. Raises NotJournalable."""
    try:
        return _bounded(_canonical, value)
    except NotJournalable:
        raise
    except Exception as error:  # as in `encode`
        raise NotJournalable(f"the value cannot be journaled: {text_of(error, _MOST_TEXT)}") from error


def arguments(of: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The arguments of a call of `of`, as `canonical`. Raises NotJournalable, which names the argument."""
    # A map if there are keyword arguments, so that no two different calls have the same bytes; "" cannot be a name.
    value = args if not kwargs else {"": args, **kwargs} if args else kwargs
    try:
        return _bounded(_canonical, value)
    except Exception as error:  # as in `encode`
        raise NotJournalable(f"{of}: {_refused(args, kwargs) or text_of(error, _MOST_TEXT)}") from error


def _refused(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The first argument that cannot be journaled, and why; "" if each can be for itself."""
    for name, value in (*enumerate(args, 1), *kwargs.items()):
        try:
            canonical(value)
        except NotJournalable as error:
            return f"argument {name}: {error}"
    return ""


def digest(data: bytes) -> bytes:
    """A 16-byte BLAKE2b digest."""
    return blake2b(data, digest_size=16).digest()


def body_of(message: Any) -> bytes:
    """A message as MessagePack: the same for another order of its keys, unless some are no text. Raises NotJournalable."""
    try:
        return _bounded(_canonical, message)
    except NotJournalable:
        raise
    except Exception:  # its keys cannot be sorted; or it cannot be encoded at all, as `encode` then tells
        return encode(message)


def why_untyped(message: Any) -> str:
    """Why a message would arrive as something else at a receiver that declares no type for it; "" where it would not. Structured types
    arrive as their fields. For messages that can be encoded: one that contains itself has no end."""
    odd = _odd_part(message)
    if odd is None:
        return ""
    return (
        f"a {odd.__qualname__} would arrive as something else, since the agent has no annotation for its message: annotate it, or send "
        "plain data (None, bool, int, float, str, bytes, list, dict), a dataclass, a msgspec.Struct or a pydantic model"
    )


def _odd_part(value: Any) -> type | None:
    waiting = [value]  # not by recursion: a message may be nested as deeply as it can be encoded
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind in _PLAIN:
            continue
        if kind in (list, tuple):
            waiting += value
        elif kind is dict:
            waiting += value
            waiting += value.values()
        elif not (hasattr(kind, "__dataclass_fields__") or issubclass(kind, msgspec.Struct) or _is_pydantic(kind)):
            return kind
    return None


class Codec:
    """Encodes values of one type and decodes them back to it. `type` Any takes plain data only and gives plain data."""

    __slots__ = ("decode", "plain", "type")

    decode: Callable[[bytes], Any]

    def __init__(self, type_: Any) -> None:
        self.type = type_
        self.plain = type_ is Any
        self.decode = msgspec.msgpack.Decoder(type_, dec_hook=read_model).decode

    def encode(self, value: Any) -> bytes:
        """Raises NotJournalable if `value` is not data (for Any: not plain data). Only `round_trip` checks that it is of the type."""
        if self.plain and type(value) not in _PLAIN:
            data = _encoded(_plain_encoder, value)  # first, since it has a bound
            _check_plain(value)
            return data
        return encode(value)

    def round_trip(self, value: Any) -> tuple[bytes, Any]:
        """The bytes, and the value that they decode to. Raises NotJournalable if `value` is not of the type."""
        data = self.encode(value)
        try:
            return data, self.decode(data)
        except Exception as error:  # also an exception of a user's own validator
            raise NotJournalable(f"the value does not read back as {self.type!r}: {text_of(error, _MOST_TEXT)}") from error


def _check_plain(value: Any) -> None:
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind in (list, tuple):
        for item in value:
            _check_plain(item)
    elif kind is dict:
        for key, item in value.items():
            _check_plain(key)
            _check_plain(item)
    else:
        raise NotJournalable(_unannotated(kind))


@lru_cache(maxsize=4096)
def codec_for(type_: Any) -> Codec:
    """The codec of an annotation.

    Raises:
        NotJournalable: values of this type cannot be journaled; the message names the part of it.
    """
    if type_ is None or type_ is type(None):
        return Codec(None)
    if type_ is inspect.Signature.empty or type_ is Any or type_ is object:
        return Codec(Any)
    try:
        info = msgspec.inspect.type_info(type_)
    except (TypeError, NameError) as error:
        raise NotJournalable(f"{type_!r} cannot be journaled: {error}") from error
    _refuse_custom(info, set())
    return Codec(type_)


def _refuse_custom(info: Any, seen: set[int]) -> None:
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        if not _is_pydantic(info.cls):
            raise NotJournalable(f"{info.cls!r} cannot be journaled: use plain data, a dataclass, a msgspec.Struct or a pydantic model")
        return
    for field in getattr(info, "__struct_fields__", ()):
        child = getattr(info, field)
        for item in child if isinstance(child, tuple) else (child,):
            if isinstance(item, msgspec.inspect.Field):
                _refuse_custom(item.type, seen)
            elif isinstance(item, msgspec.inspect.Type):
                _refuse_custom(item, seen)


def return_type(function: Callable[..., Any]) -> Any:
    """The resolved return annotation of a function; Any if it has none.

    Raises:
        NotJournalable: an annotation names a type that does not exist.
    """
    target = inspect.unwrap(function)
    if not (inspect.isfunction(target) or inspect.ismethod(target)):
        target = type(target).__call__ if callable(target) else target
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        raise NotJournalable(f"the annotations of {getattr(function, '__qualname__', function)!r} do not resolve: {error}") from error
    return hints.get("return", Any)
