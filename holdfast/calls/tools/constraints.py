"""What an annotation demands beyond its type (`Annotated[int, Field(ge=1)]`), and who checks it.

msgspec checks its own `Meta`, and reads structs. pydantic checks its own constraints and those of annotated_types, and reads models. One
parameter is read by one of them. A constraint that its reader would pass over is a fault of the definition.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from holdfast.calls.tools.signature import Parameter
from holdfast.codec.kinds import WRAPPERS, bare


class _Part(msgspec.Struct, frozen=True):
    """A part of an annotation that only one of the two can read or check.

    Attributes:
        path: where it stands, for people; "" for the whole parameter.
        what: the part, as text.
        pydantic: whether that is pydantic.
        model: whether it stands in a field of a pydantic model, which pydantic reads anyway.
    """

    path: str
    what: str
    pydantic: bool
    model: bool = False


def adapter_of(parameter: Parameter) -> Any:
    """pydantic's adapter of a parameter that msgspec cannot check; None where it can.

    Raises:
        Exception: pydantic does not know the type, which `constraint_fault` finds before.
    """
    own = [part for part in _parts(parameter.type, "", False, set()) if not part.model]
    if not any(part.pydantic for part in own) and _msgspec_reads(parameter.type):
        return None
    from pydantic import TypeAdapter  # loaded already: the annotation has a part of it, or of annotated_types

    return TypeAdapter(parameter.type)


def constraint_fault(parameter: Parameter) -> str | None:
    """Why a constraint of the parameter would not be checked; None where all are."""
    fault = _default_fault(parameter) or _field_fault(parameter.type)
    if fault is not None:
        return fault
    parts = list(_parts(parameter.type, "", False, set()))
    lost = next((part for part in parts if part.model and not part.pydantic), None)
    if lost is not None:
        return f"{lost.path}: pydantic does not check {lost.what}: use Field(...)"
    asks = next((part for part in parts if part.pydantic and not part.model), None)
    other = next((part for part in parts if not part.pydantic), None)
    if asks is not None and other is not None:
        at = f"{asks.path}: " if asks.path else ""
        return f"{at}{asks.what} is checked by pydantic, which cannot read {other.what}: use msgspec.Meta(...) for it"
    try:
        adapter = adapter_of(parameter)
        if adapter is not None:
            adapter.json_schema()
    except Exception as error:  # pydantic, or a type's own schema, can raise anything
        return str(error).partition("\n")[0]
    return None


def description_of(type_: Any) -> str:
    """The description in an annotation: that of a `Field` or `Meta`, or of a `Doc`; "" for none."""
    for each in reversed(_metadata(type_)):
        for name in ("description", "documentation"):
            text = getattr(each, name, None)
            if isinstance(text, str) and text:
                return text
    return ""


def _default_fault(parameter: Parameter) -> str | None:
    kind = type(parameter.default)
    if not (_is_field(parameter.default) or isinstance(parameter.default, dataclasses.Field) or kind.__module__.startswith("msgspec")):
        return None
    if isinstance(parameter.default, msgspec.Struct) or parameter.default is msgspec.UNSET:
        return None
    return (
        f"its default is a {kind.__name__}, which the function itself would get as its value: write the constraints in the annotation, "
        f"{parameter.name}: Annotated[..., Field(...)], and the value after it"
    )


def _field_fault(type_: Any) -> str | None:
    for each in _metadata(type_):
        if not _is_field(each):
            continue
        if each.alias or each.validation_alias:
            return "a parameter has no alias: rename it"
        if each.default_factory is not None or not _is_left_out(each.default):
            return "its Field has a default, which the function would not get: write it after the annotation, with ="
    return None


def _parts(type_: Any, path: str, model: bool, seen: set[tuple[int, bool]]) -> Iterator[_Part]:
    for each in _metadata(type_):
        if isinstance(each, msgspec.Meta):
            if _constrains(each):
                yield _Part(path, "a msgspec.Meta", pydantic=False, model=model)
        elif _is_pydantics(each):
            yield _Part(path, type(each).__name__.lstrip("_") if not _is_field(each) else "a Field", pydantic=True, model=model)
    within = bare(type_)
    cls = typing.get_origin(within) or within
    for each in typing.get_args(within):
        if each is not Ellipsis and cls is not typing.Literal and not isinstance(each, list):
            yield from _parts(each, path, model, seen)
    if isinstance(cls, type) and (id(cls), model) not in seen:
        seen.add((id(cls), model))
        yield from _fields(cls, path, model, seen)


def _fields(cls: Any, path: str, model: bool, seen: set[tuple[int, bool]]) -> Iterator[_Part]:
    name = path or cls.__qualname__
    if hasattr(cls, "__pydantic_fields__"):
        if hasattr(cls, "__dataclass_fields__") and not model:
            yield _Part(path, f"the pydantic dataclass {cls.__qualname__}", pydantic=True)  # msgspec would take it for a plain one
        for field, info in cls.__pydantic_fields__.items():
            annotation = info.annotation
            meta = [each for each in info.metadata if isinstance(each, msgspec.Meta) and _constrains(each)]
            if meta:
                yield _Part(f"{name}.{field}", "a msgspec.Meta", pydantic=False, model=True)
            yield from _parts(annotation, f"{name}.{field}", True, seen)
        return
    if issubclass(cls, msgspec.Struct) or hasattr(cls, "__attrs_attrs__"):
        yield _Part(
            path, f"the {'msgspec.Struct' if issubclass(cls, msgspec.Struct) else 'attrs class'} {cls.__qualname__}", pydantic=False
        )
    elif not (dataclasses.is_dataclass(cls) or hasattr(cls, "__required_keys__") or hasattr(cls, "_fields")):
        return  # no TypedDict (also of typing_extensions) and no NamedTuple either
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception:  # annotations are evaluated, and can raise anything; the type itself is checked elsewhere
        return
    for field, hint in hints.items():
        yield from _parts(hint, f"{name}.{field}", model, seen)


def _metadata(type_: Any) -> list[Any]:
    """The metadata of all that is around a type."""
    found: list[Any] = []
    while True:
        origin = typing.get_origin(type_)
        if origin is typing.Annotated:
            found += type_.__metadata__
            type_ = typing.get_args(type_)[0]
        elif origin in WRAPPERS:
            type_ = typing.get_args(type_)[0]
        elif hasattr(type_, "__supertype__"):
            type_ = type_.__supertype__
        elif hasattr(type_, "__value__"):
            type_ = type_.__value__
        else:
            return found


def _constrains(meta: msgspec.Meta) -> bool:
    return any(
        getattr(meta, name) is not None
        for name in ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")
    )  # fmt: skip


def _is_pydantics(each: Any) -> bool:
    if _is_field(each):
        return bool(each.metadata) or each.discriminator is not None
    if getattr(type(each), "__module__", "").startswith("annotated_types"):
        return not hasattr(each, "documentation")
    return type(each).__module__.startswith("pydantic") or hasattr(each, "__get_pydantic_core_schema__")


def _is_field(each: Any) -> bool:
    fields = sys.modules.get("pydantic.fields")
    return fields is not None and isinstance(each, fields.FieldInfo)


def _is_left_out(default: Any) -> bool:
    return default is Ellipsis or type(default).__name__ == "PydanticUndefinedType"


def _msgspec_reads(type_: Any) -> bool:
    try:
        msgspec.inspect.type_info(type_)
    except Exception:  # also what an annotation raises
        return False
    return True
