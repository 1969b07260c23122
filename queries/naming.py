"""Names for values that a question computes without naming them, the same in both front ends.

While a question is put together such a value stands in it under a `PartName`, a text that carries its expression along.
`settle` replaces these by plain names, made of the columns in the expression and never of its literals, and lists what
they stand for in `Query.derived`. Must not know: bounds, SQL text, protobuf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from queries import ir
from queries.expressions import in_use, slug
from queries.limits import walk_expression

Node = TypeVar("Node")


class PartName(str):
    """The provisional name of a value; equal expressions have equal names."""

    __slots__ = ("expression",)
    expression: ir.Expression

    def __new__(cls, expression: ir.Expression) -> PartName:
        """Name an expression. Raise QueryError where it passes a cap."""
        for _node in walk_expression(expression):
            pass  # so that whoever recurses into it, as repr does, may
        name = super().__new__(cls, "x" + hashlib.sha256(repr(expression).encode()).hexdigest()[:32])
        name.expression = expression
        return name


def settle(
    outputs: Node, where: ir.Predicate | None, keys: tuple[ir.Key, ...], derived: tuple[ir.Derived, ...],
    taken: Collection[str],
) -> tuple[Node, ir.Predicate | None, tuple[ir.Key, ...], tuple[ir.Derived, ...]]:  # fmt: skip
    """Return all of a question under plain names. `taken` are the names of the dataset's columns."""
    final: dict[str, str] = {}
    used = {*taken, *(each.name for each in derived)}
    found = dict.fromkeys(_parts((outputs, where, keys, derived)))
    for part in found:
        name, number = slug(part.expression), 1
        base = name
        while name in used:
            number += 1
            name = f"{base}_{number}"
        used.add(name)
        final[part] = name
    settled = [ir.Derived(final[part], _renamed(part.expression, final)) for part in found]
    everything = (*_renamed(derived, final), *settled)
    ordered = in_use(everything, [each.name for each in everything])
    return _renamed(outputs, final), _renamed(where, final), _renamed(keys, final), ordered


def _parts(value: object) -> Iterator[PartName]:
    """Yield every provisional name in a value, those inside of an expression before it."""
    if isinstance(value, PartName):
        yield from _parts(value.expression)
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _parts(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _parts(getattr(value, field.name))


def _renamed(value: Any, final: Mapping[str, str]) -> Any:
    if isinstance(value, PartName):
        return final[value]
    if isinstance(value, tuple):
        return tuple(_renamed(each, final) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: _renamed(getattr(value, field.name), final) for field in fields(value)}
        return replace(value, **changed)
    return value
