"""Conditions and expressions on the wire: their part of `encode`.

Callers have walked what they put, and the parser refuses messages nested more than 100 deep, so recursion is bounded.
Must not know: schemas; names and literals are judged by `resolve`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from protos.v1 import query_pb2
from queries import ir
from queries.errors import QueryError


def text_of(value: object) -> str:
    """Return a name or category. Raise QueryError where it is none."""
    # On the wire an empty text is the same as none, so an empty name would have a second reading.
    if not isinstance(value, str):
        raise QueryError("a name or category must be text")
    if not value:
        raise QueryError("a name or category is empty", hint="every column, output and category has a name")
    return value


def number_of(value: object) -> float:
    """Return a finite number that is not -0.0. Raise QueryError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QueryError("a literal must be a number or a text")
    try:
        number = float(value)
    except OverflowError as error:
        raise QueryError("a number in the query is too large") from error
    if not math.isfinite(number):
        raise QueryError("a number in the query is not finite", hint="NaN and infinity cannot be compared with")
    return number + 0.0  # -0.0 equals 0.0, so it must not have an encoding of its own


def _put_values(out: query_pb2.Predicate.IsIn, values: Iterable[ir.Scalar]) -> None:
    for value in values:
        _put_value(out.values.add(), value)


def _put_value(out: query_pb2.Value, value: ir.Scalar) -> None:
    if isinstance(value, str):
        out.text = value
    else:
        out.number = number_of(value)


def put_predicate(out: query_pb2.Predicate, node: ir.Predicate) -> None:
    """Fill a message with a condition."""
    match node:
        case ir.Comparison(column, operator, value):
            if operator not in ir.OPERATORS:
                raise QueryError("the query compares with an unknown operator", hint=f"one of {' '.join(ir.OPERATORS)}")
            out.comparison.column, out.comparison.operator = text_of(column), operator
            _put_value(out.comparison.value, value)
        case ir.IsIn(column, values):
            out.is_in.column = text_of(column)
            _put_values(out.is_in, values)
        case ir.IsNull(column):
            out.is_null.column = text_of(column)
        case ir.AllOf(parts):
            out.all_of.SetInParent()
            for part in parts:
                put_predicate(out.all_of.parts.add(), part)
        case ir.AnyOf(parts):
            out.any_of.SetInParent()
            for part in parts:
                put_predicate(out.any_of.parts.add(), part)
        case ir.Not(part):
            out.negation.SetInParent()
            put_predicate(out.negation, part)
        case _:
            raise QueryError("the query holds a condition of an unknown kind", hint="build it with queries.builder")


def _get_value(value: query_pb2.Value) -> ir.Scalar:
    match value.WhichOneof("kind"):
        case "number":
            return number_of(value.number)
        case "text":
            return value.text
        case _:
            raise QueryError("a literal in the query has no value")


def get_predicate(message: query_pb2.Predicate) -> ir.Predicate:
    """Return the condition in a message."""
    # Recursion is bounded by the parser, which refuses more than 100 nested messages.
    match message.WhichOneof("kind"):
        case "comparison":
            node = message.comparison
            for operator in ir.OPERATORS:
                if operator == node.operator:
                    return ir.Comparison(text_of(node.column), operator, _get_value(node.value))
            raise QueryError("the query compares with an unknown operator", hint=f"one of {' '.join(ir.OPERATORS)}")
        case "is_in":
            return ir.IsIn(text_of(message.is_in.column), tuple(_get_value(value) for value in message.is_in.values))
        case "is_null":
            return ir.IsNull(text_of(message.is_null.column))
        case "all_of":
            return ir.AllOf(tuple(get_predicate(part) for part in message.all_of.parts))
        case "any_of":
            return ir.AnyOf(tuple(get_predicate(part) for part in message.any_of.parts))
        case "negation":
            return ir.Not(get_predicate(message.negation))
        case _:
            raise QueryError("a condition in the query is empty")


def put_expression(out: query_pb2.Expression, node: ir.Expression) -> None:
    """Fill a message with an expression."""
    match node:
        case ir.Value(column):
            out.column = text_of(column)
        case ir.Constant(str(text)):
            out.text = text
        case ir.Constant(value):
            out.number = number_of(value)
        case ir.Arithmetic(operator, left, right):
            out.arithmetic.operator = text_of(operator)
            put_expression(out.arithmetic.left, left)
            put_expression(out.arithmetic.right, right)
        case ir.Function(name, argument):
            out.function.name = text_of(name)
            put_expression(out.function.argument, argument)
        case ir.Bounded(value, lower, upper):
            out.bounded.lower, out.bounded.upper = number_of(lower), number_of(upper)
            put_expression(out.bounded.value, value)
        case ir.Case(branches, otherwise):
            out.case.SetInParent()
            for branch in branches:
                each = out.case.branches.add()
                put_predicate(each.when, branch.when)
                put_expression(each.then, branch.then)
            if otherwise is not None:
                put_expression(out.case.otherwise, otherwise)
        case ir.Truth(predicate):
            put_predicate(out.truth, predicate)
        case _:
            raise QueryError("the query holds an expression of an unknown kind", hint="build it with queries.builder")


def get_expression(message: query_pb2.Expression) -> ir.Expression:  # noqa: PLR0911, PLR0912 -- one a node
    """Return the expression in a message."""
    match message.WhichOneof("kind"):
        case "column":
            return ir.Value(text_of(message.column))
        case "number":
            return ir.Constant(number_of(message.number))
        case "text":
            return ir.Constant(message.text)
        case "arithmetic":
            for operator in ir.ARITHMETIC:
                if operator == message.arithmetic.operator:
                    left, right = get_expression(message.arithmetic.left), get_expression(message.arithmetic.right)
                    return ir.Arithmetic(operator, left, right)
            raise QueryError("an expression has an unknown operator", hint=f"one of {' '.join(ir.ARITHMETIC)}")
        case "function":
            for name in ir.SCALAR_FUNCTIONS:
                if name == message.function.name:
                    return ir.Function(name, get_expression(message.function.argument))
            raise QueryError("an expression has an unknown function", hint=f"one of {', '.join(ir.SCALAR_FUNCTIONS)}")
        case "bounded":
            lower, upper = number_of(message.bounded.lower), number_of(message.bounded.upper)
            return ir.Bounded(get_expression(message.bounded.value), lower, upper)
        case "case":
            branches = tuple(
                ir.Branch(get_predicate(branch.when), get_expression(branch.then)) for branch in message.case.branches
            )
            otherwise = get_expression(message.case.otherwise) if message.case.HasField("otherwise") else None
            return ir.Case(branches, otherwise)
        case "truth":
            return ir.Truth(get_predicate(message.truth))
        case _:
            raise QueryError("an expression in the query is empty")
