"""The one gate: is this query askable of this dataset?

Client, coordinator and agent each run `resolve` on their own copy of the published schema and go on with what it
returns: every name exists, every literal lies within the published bounds or categories, every cap holds, group keys
are written out and nested conditions are flat. Equal questions come out equal. Must not know: SQL text, protobuf, any
data.

Errors quote names that the query uses and what the schema publishes, never a literal of the query: an agent may send
them back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from itertools import pairwise

from queries import expressions, ir, models, schema
from queries.errors import LiteralError, QueryError, UnknownName
from queries.limits import MAX_AGGREGATES, MAX_BINS, MAX_CELLS, MAX_KEYS, walk
from queries.quantiles import tree_of
from queries.weights import normal_weights

_OUTPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")
_OPERATION = {
    ir.Count: "count",
    ir.Sum: "sum",
    ir.Mean: "mean",
    ir.Variance: "variance",
    ir.Stddev: "stddev",
    ir.Histogram: "histogram",
    ir.Persons: "count_persons",
    ir.Quantile: "quantile",
    ir.Skewness: "skewness",
    ir.Kurtosis: "kurtosis",
    ir.Covariance: "covariance",
    ir.Correlation: "correlation",
    ir.Line: "regression",
    ir.Matrix: "matrix",
    ir.LinearModel: "linear_model",
    ir.MeanTest: "mean_test",
    ir.GroupTest: "group_test",
    ir.IndependenceTest: "independence_test",
    ir.Survival: "survival",
    ir.LogRank: "log_rank",
}


def resolve(query: ir.Query, dataset: schema.Dataset, *, most: int = MAX_AGGREGATES) -> ir.Query:
    """Return the query in normal form, or raise QueryError, UnknownName or LiteralError. Idempotent.

    It may have `most` aggregates: those of a training job only name the columns that it reads.
    """
    if query.dataset != dataset.name:
        raise UnknownName("dataset", query.dataset, [dataset.name])
    derived, dataset = expressions.check(query.derived, dataset, _walked)
    keys = _keys(query.keys, dataset)
    one_row = dataset.max_rows == 1 or query.rows_per_person == 1
    if len(query.aggregates) > most:
        raise QueryError(f"the query has more than {most} aggregates", hint="split it into several queries")
    aggregates = _aggregates(query.aggregates, dataset, frozenset(key.column for key in keys), one_row=one_row)
    groups = math.prod(len(key.values) for key in keys)
    outputs = sum(_outputs(named.aggregate, dataset) for named in aggregates)
    if groups * outputs > MAX_CELLS:
        raise QueryError(
            f"the answer would hold {groups * outputs:,} numbers; at most {MAX_CELLS:,} are possible",
            hint="group by fewer columns or keys, or use fewer bins",
        )
    where = None
    if query.where is not None:
        where = _walked(query.where, dataset)
    rows = query.rows_per_person
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= dataset.max_rows):
        raise QueryError(f"rows per person must be between 1 and the schema's max_rows, {dataset.max_rows}")
    resolved = ir.Query(query.dataset, aggregates, where, keys, rows)
    return replace(resolved, derived=expressions.in_use(derived, _names_used(resolved)))


def extended(derived: tuple[ir.Derived, ...], dataset: schema.Dataset) -> schema.Dataset:
    """Return the dataset with derived values as further columns. Raise what `resolve` does about them."""
    return expressions.check(derived, dataset, _walked)[1]


def literal(column: schema.Column, value: object) -> ir.Scalar:
    """Return a literal that `column` is compared with in normal form: a float within the bounds, or a published key.

    A number that names a category, as 1 does where the categories are "0" and "1", becomes that category. Raise
    LiteralError on anything else.
    """
    kind = column.kind
    if isinstance(kind, schema.Categorical):
        for text in _readings(value):
            if text in kind.keys:
                return text
        near = get_close_matches(value[:64], kind.keys[:1000], n=1, cutoff=0.6) if isinstance(value, str) else []
        raise LiteralError(
            f"column {column.name!r} has no such category",
            hint=f"did you mean {near[0]!r}?" if near else f"published: {_listed(kind.keys)}",
        )
    if isinstance(value, str):
        raise LiteralError(
            f"column {column.name!r} is numeric and cannot be compared with text", hint="remove the quotes"
        )
    number = _number(value)
    if not kind.lower <= number <= kind.upper:
        raise LiteralError(
            f"a literal compared with {column.name!r} is outside its published bounds",
            hint=f"{column.name} lies between {kind.lower:g} and {kind.upper:g}",
        )
    return number + 0.0  # -0.0 and 0.0 are one number, so they have one encoding


def equal_width(column: schema.Column, bins: int) -> tuple[float, ...]:
    """Return the bins + 1 edges that cut the published bounds of a numeric column into bins of equal width."""
    kind = column.kind
    if not isinstance(kind, schema.Numeric):
        raise QueryError(
            f"column {column.name!r} is categorical: its histogram has one bin a category", hint="leave the bins out"
        )
    if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= MAX_BINS:
        raise QueryError(f"the number of bins must be an integer between 1 and {MAX_BINS:,}")
    width = kind.upper - kind.lower
    inner = (kind.lower + width * (i / bins) for i in range(1, bins))
    return (kind.lower, *inner, kind.upper)


def shape(query: ir.Query) -> str:
    """Return operations and columns in one line without any literal: "count(*), mean(age) by sex where age, diag"."""
    parts = [
        ", ".join(
            f"{_OPERATION[type(a.aggregate)]}({', '.join(ir.columns_of(a.aggregate)) or '*'})" for a in query.aggregates
        )
    ]
    if query.keys:
        parts.append("by " + ", ".join(key.column for key in query.keys))
    if query.where is not None:
        parts.append("where " + ", ".join(sorted(set(expressions.columns_of_predicate(query.where)))))
    parts.extend(
        f"with {each.name} from {', '.join(sorted(set(expressions.columns_in(each.value))))}" for each in query.derived
    )
    return " ".join(parts)


def columns_used(query: ir.Query) -> frozenset[str]:
    """Return every column of the dataset that the answer depends on, itself or through a derived value."""
    used = set(_names_used(query))
    used.update(name for each in query.derived for name in expressions.columns_in(each.value))
    return frozenset(used - {each.name for each in query.derived})


def operations_used(query: ir.Query) -> frozenset[str]:
    """Return which operations the query uses: those of its outputs, "group_by", "where" and "derive"."""
    used = {_OPERATION[type(named.aggregate)] for named in query.aggregates}
    if query.keys:
        used.add("group_by")
    if query.where is not None or any(expressions.has_condition(each.value) for each in query.derived):
        used.add("where")
    if query.derived:
        used.add("derive")
    return frozenset(used)


def _names_used(query: ir.Query) -> Iterator[str]:
    """Yield the columns and derived values that a query names, in the order it does."""
    for named in query.aggregates:
        yield from ir.columns_of(named.aggregate)
    if query.where is not None:
        yield from expressions.columns_of_predicate(query.where)
    yield from (key.column for key in query.keys)


def _walked(predicate: ir.Predicate, dataset: schema.Dataset) -> ir.Predicate:
    for _node in walk(predicate):
        pass  # raises before the recursion below can go deep
    return _predicate(predicate, dataset)


def _column(name: object, dataset: schema.Dataset) -> schema.Column:
    if not isinstance(name, str):
        raise QueryError("a column is named by a text")
    if name and name == dataset.privacy_unit:
        raise QueryError(
            f"{name!r} names the person (the privacy unit) and cannot be asked about",
            hint="COUNT(DISTINCT ...) of it counts persons, COUNT(*) rows",
        )
    return dataset.column(name)


def _keys(keys: tuple[ir.Key, ...], dataset: schema.Dataset) -> tuple[ir.Key, ...]:
    if len(keys) > MAX_KEYS:
        raise QueryError(f"the query groups by more than {MAX_KEYS} columns", hint="group by fewer columns")
    resolved: list[ir.Key] = []
    for key in keys:
        column = _column(key.column, dataset)
        if any(key.column == other.column for other in resolved):
            raise QueryError(f"the query groups by {key.column!r} twice", hint="name each column once")
        kind = column.kind
        if not isinstance(kind, schema.Categorical):
            raise QueryError(
                f"column {key.column!r} has no published keys to group by",
                hint="group by a categorical column, or use HISTOGRAM for a numeric one",
            )
        chosen = {literal(column, value) for value in key.values}
        if len(chosen) != len(key.values):
            raise QueryError(f"a key of {key.column!r} is given twice")
        resolved.append(ir.Key(key.column, tuple(k for k in kind.keys if not chosen or k in chosen)))
    return tuple(resolved)


def _aggregates(
    aggregates: tuple[ir.NamedAggregate, ...], dataset: schema.Dataset, taken: frozenset[str], *, one_row: bool
) -> tuple[ir.NamedAggregate, ...]:
    if not aggregates:
        raise QueryError("the query asks for nothing", hint="add an aggregate such as COUNT(*)")
    names = set(taken)
    for named in aggregates:
        if not isinstance(named.name, str) or not _OUTPUT_NAME.fullmatch(named.name):
            raise QueryError(
                "an output has a name that is none", hint="letters, digits and _, not a digit first, at most 127"
            )
        if named.name in names:
            raise QueryError(f"two outputs are called {named.name!r}", hint="give each its own name with AS")
        names.add(named.name)
    resolved = []
    for named in aggregates:
        # With one row each, rows are persons: the same number for less work, and one slot for both.
        aggregate = ir.Count() if one_row and isinstance(named.aggregate, ir.Persons) else named.aggregate
        resolved.append(replace(named, aggregate=_aggregate(aggregate, dataset)))
    return normal_weights(tuple(resolved))


def _aggregate(aggregate: ir.Aggregate, dataset: schema.Dataset) -> ir.Aggregate:
    if isinstance(aggregate, ir.Model):
        for name in aggregate.columns:
            _column(name, dataset)
        return models.check(aggregate, dataset)
    if isinstance(aggregate, ir.Count):
        if aggregate.column is not None:
            _column(aggregate.column, dataset)
        return aggregate
    if isinstance(aggregate, ir.Persons):
        return aggregate
    column = _column(aggregate.column, dataset)
    if isinstance(aggregate, ir.Histogram):
        return _histogram(aggregate, column)
    operation = _OPERATION[type(aggregate)]
    if not isinstance(column.kind, schema.Numeric):
        raise QueryError(
            f"column {column.name!r} is categorical: it has no {operation}", hint="group by it, or count with HISTOGRAM"
        )
    if isinstance(aggregate, ir.Quantile):
        return _quantile(aggregate, column.kind)
    if isinstance(aggregate, ir.Variance | ir.Stddev) and (
        isinstance(aggregate.ddof, bool) or aggregate.ddof not in {0, 1}
    ):
        raise QueryError(f"ddof of {operation} must be 0 or 1", hint="1 for the sample's, 0 for the population's")
    return aggregate


def _quantile(aggregate: ir.Quantile, kind: schema.Numeric) -> ir.Quantile:
    q = _number(aggregate.q) + 0.0
    if not 0 <= q <= 1:
        raise QueryError(f"a quantile of {aggregate.column!r} lies between 0 and 1", hint="0.5 is the median")
    if not math.isfinite(kind.upper - kind.lower):
        raise QueryError(f"the bounds of {aggregate.column!r} are too far apart for quantiles", hint="ask for its mean")
    return ir.Quantile(aggregate.column, q)


def _histogram(aggregate: ir.Histogram, column: schema.Column) -> ir.Histogram:
    kind, edges = column.kind, aggregate.edges
    if isinstance(kind, schema.Categorical):
        if edges:
            raise QueryError(
                f"column {column.name!r} is categorical: its histogram has one bin a category",
                hint="leave the edges out",
            )
        return aggregate
    if not 2 <= len(edges) <= MAX_BINS + 1:
        raise QueryError(
            f"a histogram of {column.name!r} needs 1 to {MAX_BINS:,} bins",
            hint="say how many: HISTOGRAM(col, 20)",
        )
    numbers = tuple(_number(edge) + 0.0 for edge in edges)
    if any(high <= low for low, high in pairwise(numbers)):
        raise QueryError(
            f"the histogram edges of {column.name!r} do not ascend", hint="use fewer bins, or sort the edges"
        )
    if numbers[0] < kind.lower or numbers[-1] > kind.upper:
        raise LiteralError(
            f"a histogram edge of {column.name!r} is outside its published bounds",
            hint=f"{column.name} lies between {kind.lower:g} and {kind.upper:g}",
        )
    return replace(aggregate, edges=numbers)


def _outputs(aggregate: ir.Aggregate, dataset: schema.Dataset) -> int:
    if isinstance(aggregate, ir.Model):
        return len(models.layout(aggregate, dataset).slots)
    if isinstance(aggregate, ir.Quantile):
        return sum(len(edges) - 1 for edges in tree_of(dataset.numeric(aggregate.column)).levels)
    if not isinstance(aggregate, ir.Histogram):
        return 1
    kind = dataset.column(aggregate.column).kind
    return len(kind.keys) if isinstance(kind, schema.Categorical) else len(aggregate.edges) - 1


def _predicate(node: ir.Predicate, dataset: schema.Dataset) -> ir.Predicate:
    # Recursion is bounded by MAX_DEPTH: resolve walked the whole condition before.
    match node:
        case ir.Comparison(name, operator, value):
            column = _column(name, dataset)
            if operator not in ir.OPERATORS:
                raise QueryError("the query compares with an unknown operator", hint=f"one of {' '.join(ir.OPERATORS)}")
            if isinstance(column.kind, schema.Categorical) and operator not in {"=", "!="}:
                raise QueryError(f"the categories of {name!r} have no order", hint="compare with =, != or IN")
            return ir.Comparison(name, operator, literal(column, value))
        case ir.IsIn(name, values):
            column = _column(name, dataset)
            if not values:
                raise QueryError(f"{name!r} is compared with an empty list", hint="list at least one value")
            return ir.IsIn(name, tuple(dict.fromkeys(literal(column, value) for value in values)))
        case ir.IsNull(name):
            _column(name, dataset)
            return node
        case ir.AllOf() | ir.AnyOf():
            return _flat(node, tuple(_predicate(part, dataset) for part in node.parts))
        case ir.Not(part):
            return ir.Not(_predicate(part, dataset))
        case _:
            raise QueryError("the query holds a condition of an unknown kind", hint="build it with queries.builder")


def _flat(node: ir.AllOf | ir.AnyOf, parts: tuple[ir.Predicate, ...]) -> ir.Predicate:
    if not parts:
        raise QueryError("the query joins no conditions", hint="AND and OR need something to join")
    same = type(node)
    flat: list[ir.Predicate] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, same) else (part,))
    return same(tuple(flat)) if len(flat) > 1 else flat[0]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LiteralError("a literal must be a number or a text")
    try:
        number = float(value)
    except OverflowError as error:
        raise LiteralError("a number in the query is too large") from error
    if not math.isfinite(number):
        raise LiteralError("a number in the query is not finite", hint="NaN and infinity cannot be compared with")
    return number


def _readings(value: object) -> tuple[str, ...]:
    """Texts that a literal may stand for as a category: 1 and 1.0 both for "1", and then for "1.0"."""
    if isinstance(value, str):
        return (value,)
    number = _number(value)
    return (str(int(number)), repr(number)) if number == int(number) else (repr(number),)


def _listed(keys: tuple[str, ...]) -> str:
    return ", ".join(repr(key) for key in keys[:12]) + (", ..." if len(keys) > 12 else "")
