"""The JSON schema of the parameters of a tool, for a model."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.calls.tools.signature import Parameter


def schema_of(tool: str, parameters: tuple[Parameter, ...], descriptions: dict[str, str]) -> dict[str, Any]:
    """The JSON schema of an object with a property for each parameter."""
    definitions: dict[str, Any] = {}

    def of_pydantic(type_: Any) -> dict[str, Any]:
        schema: dict[str, Any] = type_.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        return schema

    fields: list[Any] = [(p.name, p.type) if p.required else (p.name, p.type, _default(p.default)) for p in parameters]
    type_ = msgspec.defstruct(f"{tool}__arguments", fields, forbid_unknown_fields=True, kw_only=True)
    _, components = msgspec.json.schema_components([type_], schema_hook=of_pydantic, ref_template="#/$defs/{name}")
    schema = dict(components.pop(type_.__name__))
    schema.pop("title", None)
    for name, text in descriptions.items():
        if name in schema["properties"]:
            schema["properties"][name] = {**schema["properties"][name], "description": text}
    definitions.update(components)
    if definitions:
        schema["$defs"] = definitions
    return schema


def _default(value: Any) -> Any:
    # A mutable default is copied by a factory; msgspec refuses it as a plain one.
    if isinstance(value, list | dict | set | bytearray) and value:
        return msgspec.field(default_factory=lambda: value)
    return value
