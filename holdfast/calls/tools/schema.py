"""The JSON schema of the parameters of a tool, for a model."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from holdfast.calls.tools.constraints import adapter_of, description_of
from holdfast.calls.tools.results import data_of
from holdfast.calls.tools.signature import Parameter

_REF = "#/$defs/"


def schema_of(tool: str, parameters: tuple[Parameter, ...], descriptions: dict[str, str]) -> dict[str, Any]:
    """The JSON schema of an object with a property for each parameter."""
    definitions: dict[str, Any] = {}

    def of_pydantic(type_: Any) -> dict[str, Any]:
        return _named(definitions, type_.model_json_schema(ref_template=f"{_REF}{{model}}"))

    adapters = {p.name: adapter_of(p) for p in parameters}
    fields: list[Any] = [(p.name, Any if adapters[p.name] else p.type) for p in parameters]
    type_ = msgspec.defstruct(f"{tool}__arguments", fields, forbid_unknown_fields=True, kw_only=True)
    _, components = msgspec.json.schema_components([type_], schema_hook=of_pydantic, ref_template=f"{_REF}{{name}}")
    schema: dict[str, Any] = dict(components.pop(type_.__name__))
    schema.pop("title", None)
    schema = _named(definitions, {**schema, "$defs": components})
    for p in parameters:
        if adapter := adapters[p.name]:
            schema["properties"][p.name] = _named(definitions, adapter.json_schema(ref_template=f"{_REF}{{model}}"))
        schema["properties"][p.name] = {**schema["properties"][p.name], **_notes(p, descriptions.get(p.name, ""))}
    schema["required"] = [p.name for p in parameters if p.required]
    if definitions:
        schema["$defs"] = definitions
    return schema


def _notes(parameter: Parameter, description: str) -> dict[str, Any]:
    notes: dict[str, Any] = {}
    if text := description_of(parameter.type) or description:
        notes["description"] = text
    if parameter.default is not inspect.Parameter.empty:
        try:
            notes["default"] = msgspec.json.decode(msgspec.json.encode(parameter.default, enc_hook=data_of))
        except Exception:  # a default that is no data is the function's own business: a model need not know it
            pass
    return notes


def _named(definitions: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, after its definitions were added to `definitions`: where another type has the name of one, under another name."""
    own = schema.pop("$defs", {})
    names: dict[str, str] = {}
    for name, each in own.items():
        free, nth = name, 1
        while free in definitions and definitions[free] != each:
            nth += 1
            free = f"{name}{nth}"
        names[name] = free
    renamed = {name: free for name, free in names.items() if name != free}
    for name, each in own.items():
        definitions[names[name]] = _renamed(each, renamed)
    return _renamed(schema, renamed) if renamed else schema


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    if not names:
        return schema
    if isinstance(schema, str):  # a reference, also in the mapping of a discriminator
        name = schema.removeprefix(_REF)
        return _REF + names[name] if name != schema and name in names else schema
    if isinstance(schema, list):
        return [_renamed(each, names) for each in schema]
    if isinstance(schema, dict):
        return {key: _renamed(each, names) for key, each in schema.items()}
    return schema
