"""The smallest parts of the statements that run in a database, as sqlglot trees: names, literals, conditions.

Names and literals enter as tree nodes, never as text. Must not know: plans, connections, files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from sqlglot import exp

from queries import ir
from queries.schema import Categorical, Dataset

Dialect = Literal["duckdb", "postgres", "spark"]
_COMPARISONS: dict[str, type[exp.Binary]] = {
    "=": exp.EQ, "!=": exp.NEQ, "<": exp.LT, "<=": exp.LTE, ">": exp.GT, ">=": exp.GTE,
}  # fmt: skip


def condition(node: ir.Predicate, dataset: Dataset) -> exp.Expr:
    """Return a condition under SQL's three-valued logic."""
    match node:
        case ir.Comparison(name, operator, value):
            return _COMPARISONS[operator](this=column(name), expression=scalar(dataset, name, value))
        case ir.IsIn(name, values):
            return exp.In(this=column(name), expressions=[scalar(dataset, name, value) for value in values])
        case ir.IsNull(name):
            return exp.Is(this=column(name), expression=exp.Null())
        case ir.Not(part):
            return exp.Not(this=exp.Paren(this=condition(part, dataset)))
        case ir.AllOf(parts):
            return _joined(exp.and_, parts, dataset)
        case ir.AnyOf(parts):
            return _joined(exp.or_, parts, dataset)


def _joined(join: Callable[..., exp.Expr], parts: Sequence[ir.Predicate], dataset: Dataset) -> exp.Expr:
    return exp.Paren(this=join(*[exp.Paren(this=condition(part, dataset)) for part in parts], copy=False))


def scalar(dataset: Dataset, name: str, value: ir.Scalar) -> exp.Expr:
    """Return the literal that a column is compared with: a number, or the position of a category."""
    kind = dataset.column(name).kind
    if isinstance(kind, Categorical):
        return integer(kind.keys.index(str(value)))
    return double(float(value))


def select(outputs: Sequence[exp.Expr], table: str) -> exp.Select:
    """Return SELECT outputs FROM table."""
    source = exp.From(this=exp.Table(this=exp.to_identifier(table)))
    return exp.Select(expressions=list(outputs), from_=source)


def cast(kind: Literal["BIGINT", "DOUBLE"], value: exp.Expr) -> exp.Cast:
    """Return a value as another type."""
    return exp.Cast(this=value, to=exp.DataType(this=exp.DataType.Type[kind]))


def present(name: str) -> exp.Expr:
    """Return whether a column has a value."""
    return exp.Not(this=exp.Is(this=column(name), expression=exp.Null()))


def column(name: str) -> exp.Column:
    """Return a column by name, quoted."""
    return exp.column(exp.to_identifier(name, quoted=True))


def ascending(value: exp.Expr) -> exp.Ordered:
    """Return an order from the least up, nulls last."""
    return exp.Ordered(this=value, nulls_first=False)


def integer(value: int) -> exp.Expr:
    """Return a whole number."""
    literal = exp.Literal.number(abs(value))
    return exp.Neg(this=literal) if value < 0 else literal


def double(value: float) -> exp.Expr:
    """Return a float as a double-precision literal that reads back as the same float in every engine."""
    return cast("DOUBLE", bare_double(value))


def bare_double(value: float) -> exp.Expr:
    """As `double`, for an engine that reads a literal with an exponent as one by itself."""
    text = repr(abs(value))
    literal = exp.Literal.number(text if "e" in text else text + "e0")  # without exponent it would be a decimal
    return exp.Neg(this=literal) if value < 0 else literal
