"""Answers in the form of a class: the JSON schema that is asked for, and the answer read as the class.

The answer is recorded as it came, before it is read: it is paid for, and a replay reads the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from holdfast.calls.models.dialect import Fields, listed, mapped
from holdfast.calls.models.replies import fields_of

Read = Callable[[Any], Any]
Parser = Callable[[Fields], tuple[Fields, Read]]
"""Takes the arguments of `parse`; gives those of `create`, and the function that reads its answer."""

_REF = "#/$defs/"
_VALUES = ("enum", "const", "examples")
"""The keys of a schema whose values are no schemas."""


def _chat(given: Fields) -> tuple[Fields, Read]:
    wanted, adapter = given.get("response_format"), None
    if wanted is not None and not isinstance(wanted, dict):
        adapter, form = _form_of(wanted)
        given = {**given, "response_format": {"type": "json_schema", "json_schema": form}}
    tools = {mapped(each.get("function")).get("name"): getattr(each.get("function"), "model", None) for each in listed(given.get("tools"))}

    def read(reply: Any) -> Any:
        from openai import ContentFilterFinishReasonError, LengthFinishReasonError
        from openai.types.chat import ParsedChatCompletion

        parsed: Any = ParsedChatCompletion.model_construct(**fields_of(reply))
        for choice in parsed.choices:
            if choice.finish_reason == "length":
                raise LengthFinishReasonError(completion=reply)
            if choice.finish_reason == "content_filter":
                raise ContentFilterFinishReasonError
            message = choice.message
            refused = getattr(message, "refusal", None)
            message.parsed = adapter.validate_json(message.content) if adapter and message.content and not refused else None
            for call in getattr(message, "tool_calls", None) or ():
                model = tools.get(call.function.name) if call.type == "function" else None
                if model is not None:
                    call.function.parsed_arguments = model.model_validate_json(call.function.arguments)
        return parsed

    return given, read


def _responses(given: Fields) -> tuple[Fields, Read]:
    given = dict(given)
    wanted, adapter = given.pop("text_format", None), None
    if wanted is not None:
        adapter, form = _form_of(wanted)
        given["text"] = {**mapped(given.get("text")), "format": {"type": "json_schema", **form}}

    def read(reply: Any) -> Any:
        from openai.types.responses import ParsedResponse

        parsed: Any = ParsedResponse.model_construct(**fields_of(reply))
        for item in parsed.output:
            for part in (getattr(item, "content", None) or ()) if item.type == "message" else ():
                if part.type == "output_text":
                    part.parsed = adapter.validate_json(part.text) if adapter else None
        return parsed

    return given, read


PARSERS: dict[str, Parser] = {"chat.completions": _chat, "responses": _responses}
"""The APIs that have a `parse`, by their path."""


def _form_of(type_: Any) -> tuple[Any, Fields]:
    """The reader of a class, and its form in a request. Raises TypeError if pydantic does not know it."""
    from pydantic import TypeAdapter

    try:
        adapter: Any = TypeAdapter(type_)
        schema = adapter.json_schema()
    except Exception as error:  # pydantic, or the class, can raise anything
        raise TypeError(f"an answer cannot have the form {type_!r}: give a pydantic model or a dataclass ({error})") from error
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", getattr(type_, "__name__", "answer"))[:64]
    return adapter, {"name": name, "schema": strict(schema, mapped(schema.get("$defs"))), "strict": True}


def strict(schema: Any, definitions: Fields, inside: tuple[str, ...] = ()) -> Any:
    """The schema as OpenAI's strict mode wants it: all fields required, no others, no default of null, no keys next to a `$ref`.

    Args:
        schema: as pydantic makes it.
        definitions: its `$defs`.
        inside: the definitions that are written out around it; one that contains itself is not written out again.
    """
    if isinstance(schema, list):
        return [strict(each, definitions, inside) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str) and len(schema) > 1:
        others = {key: value for key, value in schema.items() if key != "$ref"}
        if reference in inside:
            return {"$ref": reference}
        return strict({**mapped(definitions.get(reference.removeprefix(_REF))), **others}, definitions, (*inside, reference))
    made: Fields = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            made[key] = {name: strict(each, definitions, inside) for name, each in mapped(value).items()}
        elif key in _VALUES:
            made[key] = value
        elif key != "default":
            made[key] = strict(value, definitions, inside)
        elif value is not None:
            made[key] = value
    if schema.get("type") == "object":
        made.setdefault("properties", {})
        made["additionalProperties"] = False
        made["required"] = list(made["properties"])
    return made
