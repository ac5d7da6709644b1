"""The chunks of a streamed answer, column by column: each text of the answer in one piece, and what all chunks share only once.

Nothing is lost: the chunks that are made of the columns are equal to those that came, in the same order, also those of event types that no
dialect knows. So a handler that reads a recorded stream goes the same way as it did live, whatever it does with each chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise, repeat
from typing import Any

import msgspec

_LONG = 32
"""A text of so many characters is kept once, wherever it stands: the last events of a stream often repeat the whole answer."""

_EXACT = 1 << 53
"""Numbers below this are kept as differences, which take one byte where a provider numbers its events."""


class Column(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The values at one place of the chunks of one shape, in order. One of the fields is set.

    Attributes:
        same: the value of all of them.
        same_text: the number of the text that all of them are.
        text: the number of the text that they are when put together, of `lengths` characters each.
        steps: the differences of whole numbers, each to the one before; the first to 0.
        each: the values.
    """

    same: Any = msgspec.UNSET
    same_text: int | None = None
    text: int | None = None
    lengths: list[int] | None = None
    steps: list[int] | None = None
    each: list[Any] | None = None


class Shape(msgspec.Struct, frozen=True, gc=False):
    """Chunks with the same fields: `form` is one of them, with the number of a column in place of each value."""

    form: Any
    columns: list[Column]


class Columns(msgspec.Struct, frozen=True, gc=False):
    """The chunks of a stream.

    Attributes:
        texts: the texts of the answer.
        shapes: the chunks, by their fields.
        order: in turn the number of a shape, and how many chunks of it come one after another.
    """

    texts: list[str]
    shapes: list[Shape]
    order: list[int]


class Packer:
    """Takes the chunks of a stream as they come, and makes columns of them."""

    __slots__ = ("_numbers", "_order", "_shapes")

    def __init__(self) -> None:
        self._order: list[int] = []
        self._numbers: dict[Any, int] = {}
        self._shapes: list[tuple[Any, list[list[Any]]]] = []

    def add(self, chunk: Any) -> None:
        """Take the next chunk: plain data."""
        values: list[Any] = []
        key = _key(chunk, values)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._shapes)
            self._shapes.append((_form(chunk, iter(range(len(values)))), []))
        self._shapes[number][1].append(values)
        order = self._order
        if order and order[-2] == number:
            order[-1] += 1
        else:
            order += number, 1

    def columns(self) -> Columns:
        """The columns of all chunks so far."""
        texts: dict[str, int] = {}
        shapes = [Shape(form, [_column(column, texts) for column in zip(*rows, strict=True)]) for form, rows in self._shapes]
        return Columns(list(texts), shapes, self._order)


def pack(chunks: Iterable[Any]) -> Columns:
    """The columns of chunks, which are plain data."""
    packer = Packer()
    for chunk in chunks:
        packer.add(chunk)
    return packer.columns()


def unpack(columns: Columns) -> list[Any]:
    """The chunks of which the columns were made. Raises ValueError where the parts do not fit together."""
    try:
        rows = [_rows(shape, columns.texts) for shape in columns.shapes]
        forms = [shape.form for shape in columns.shapes]
        counts = zip(columns.order[::2], columns.order[1::2], strict=True)
        return [_filled(forms[number], next(rows[number])) for number, count in counts for _ in range(count)]
    except (StopIteration, IndexError, TypeError) as error:
        raise ValueError(f"the parts of a recorded stream do not fit together: {error!r}") from error


def _key(value: Any, values: list[Any]) -> Any:
    """What chunks of one shape have in common: their fields and the types of their values, which are added to `values`."""
    kind = type(value)
    if kind is dict:
        return (*value, *[_key(each, values) for each in value.values()])
    if kind is list or kind is tuple:
        return (None, *[_key(each, values) for each in value])
    values.append(value)
    return kind


def _form(value: Any, numbers: Iterator[int]) -> Any:
    if isinstance(value, dict):
        return {name: _form(each, numbers) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_form(each, numbers) for each in value]
    return next(numbers)


def _filled(form: Any, row: tuple[Any, ...]) -> Any:
    if type(form) is int:
        return row[form]
    if type(form) is dict:
        return {name: _filled(each, row) for name, each in form.items()}
    return [_filled(each, row) for each in form]


def _column(values: tuple[Any, ...], texts: dict[str, int]) -> Column:
    first = values[0]
    if all(map(first.__eq__, values)):
        if type(first) is str and len(first) >= _LONG:
            return Column(same_text=texts.setdefault(first, len(texts)))
        return Column(same=first)
    if type(first) is str:
        return Column(text=texts.setdefault("".join(values), len(texts)), lengths=[len(value) for value in values])
    if type(first) is int and max(map(abs, values)) < _EXACT:
        return Column(steps=[first, *(after - before for before, after in pairwise(values))])
    return Column(each=list(values))


def _rows(shape: Shape, texts: list[str]) -> Iterator[tuple[Any, ...]]:
    if not shape.columns:
        return repeat(())
    return zip(*(_values(column, texts) for column in shape.columns), strict=False)


def _values(column: Column, texts: list[str]) -> Iterable[Any]:
    if column.same_text is not None:
        return repeat(texts[column.same_text])
    if column.text is not None:
        return _cut(texts[column.text], column.lengths or [])
    if column.steps is not None:
        return accumulate(column.steps)
    return repeat(column.same) if column.each is None else column.each


def _cut(text: str, lengths: list[int]) -> Iterator[str]:
    at = 0
    for length in lengths:
        yield text[at : at + length]
        at += length
