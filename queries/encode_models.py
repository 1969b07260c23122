"""The models and tests of a query on the wire; `encode` holds the rest and says what must hold of all of it.

A field of protobuf bears the name of the node's; texts are names or published keys, so none is empty. Must not know:
schemas; names and literals are judged by `resolve`.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from protos.v1 import query_pb2
from queries import ir_models as ir
from queries.errors import QueryError

_KINDS: dict[str, type[ir.Model]] = {
    "covariance": ir.Covariance,
    "correlation": ir.Correlation,
    "line": ir.Line,
    "matrix": ir.Matrix,
    "linear_model": ir.LinearModel,
    "mean_test": ir.MeanTest,
    "group_test": ir.GroupTest,
    "independence_test": ir.IndependenceTest,
    "survival": ir.Survival,
    "log_rank": ir.LogRank,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_WRONG_TYPE = "the query holds a value of the wrong type"


def put_model(out: query_pb2.NamedAggregate, node: ir.Model) -> None:
    """Write a node. Raise QueryError where a field holds what the wire cannot."""
    message = getattr(out, _NAMES[type(node)])
    message.SetInParent()
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, tuple):
            getattr(message, field.name).extend([_checked(item) for item in value])
        elif value is not None:
            setattr(message, field.name, _checked(value))


def get_model(kind: str, named: query_pb2.NamedAggregate) -> ir.Model:
    """Read the node that the oneof says is there. Raise QueryError where it is none."""
    message = getattr(named, kind)
    values: dict[str, Any] = {}
    for field in fields(_KINDS[kind]):
        value = getattr(message, field.name)
        optional = isinstance(value, str) and not value and field.default is None
        values[field.name] = tuple(value) if _is_repeated(message, field.name) else None if optional else value
    for value in values.values():
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None:
                _checked(item)
    return _KINDS[kind](**values)


def _is_repeated(message: Any, name: str) -> bool:
    return bool(message.DESCRIPTOR.fields_by_name[name].is_repeated)


def _checked(value: object) -> object:
    match value:
        case str():
            if not value:
                raise QueryError("a name or category is empty", hint="every column, output and category has a name")
        case bool():
            pass
        case int():
            if not 0 <= value < 1 << 32:
                raise QueryError("ddof must be an integer of at least 0")
        case float():
            if not math.isfinite(value):
                raise QueryError("a number in the query is not finite", hint="NaN and infinity cannot be compared with")
            return value + 0.0  # -0.0 equals 0.0, so it must not have an encoding of its own
        case _:
            raise QueryError(_WRONG_TYPE, hint="build it with queries.builder")
    return value
