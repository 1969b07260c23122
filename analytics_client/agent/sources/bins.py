"""Which bin of a histogram a row falls into, as sqlglot trees. Must not know: cells, connections, files."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from analytics_client.agent.sources.terms import Dialect, bare_double, cast, column, double, integer, present, scalar
from queries import ir
from queries.schema import Dataset
from queries.slots import Axis, Joint

FEW_EDGES = 65
"""Up to this many a histogram's bins are found by comparisons alone."""


def axes_of(histogram: ir.Histogram | Joint) -> tuple[ir.Histogram | Axis, ...]:
    """Return the axes of a histogram, itself where it has but one."""
    return histogram.axes if isinstance(histogram, Joint) else (histogram,)


def counted(histogram: ir.Histogram | Joint, dataset: Dataset) -> list[exp.Expr]:
    """What must hold for a row to fall into a bin: a value on every axis, and one of the keys that it groups."""
    conditions: list[exp.Expr] = []
    for axis in axes_of(histogram):
        groups = axis.groups if isinstance(axis, Axis) else ()
        listed = [key for group in groups for key in group]
        if groups and len(listed) < len(dataset.categorical(axis.column).keys):
            codes = [scalar(dataset, axis.column, key) for key in listed]
            conditions.append(exp.In(this=column(axis.column), expressions=codes))
        else:
            conditions.append(present(axis.column))
    return conditions


def bin_of(number: int, histogram: ir.Histogram | Joint, dataset: Dataset, dialect: Dialect) -> exp.Expr:
    """The bin of a row that `_counted` admits; of several axes the last one runs fastest."""
    if isinstance(histogram, ir.Histogram):
        return _place(number, histogram, dialect)
    index: exp.Expr | None = None
    for axis in histogram.axes:
        place = _place(number, axis, dialect) if axis.edges else _group(axis, dataset)
        if index is None:
            index = place
        else:
            scaled = exp.Mul(this=exp.Paren(this=index), expression=integer(axis.bins))
            index = exp.Add(this=scaled, expression=exp.Paren(this=place))
    assert index is not None  # noqa: S101 - a joint histogram has axes
    return index


def _group(axis: Axis, dataset: Dataset) -> exp.Expr:
    """The position of a category's group; its own where every key is a group by itself."""
    codes = [[scalar(dataset, axis.column, key) for key in group] for group in axis.groups]
    if axis.groups == tuple((key,) for key in dataset.categorical(axis.column).keys):
        return column(axis.column)
    *some, _last = codes
    ifs = [
        exp.If(this=exp.In(this=column(axis.column), expressions=each), true=integer(place))
        for place, each in enumerate(some)
    ]
    return exp.Case(ifs=ifs, default=integer(len(some)))


def _place(number: int, histogram: ir.Histogram | Axis, dialect: Dialect) -> exp.Expr:
    """The bin of a value that is present: a category's own position, else found among the edges."""
    value, edges = column(histogram.column), histogram.edges
    if not edges:
        return value
    if len(edges) > FEW_EDGES and dialect == "postgres":
        inner = exp.Array(expressions=[double(edge) for edge in edges[1:-1]])
        return exp.Anonymous(this="WIDTH_BUCKET", expressions=[value, inner])
    if dialect != "duckdb" or not is_wide(edges):
        return _halving(value, edges)
    guess = column(f"_g_{number}")
    listed = exp.Array(expressions=[bare_double(edge) for edge in edges])

    def edge(offset: int) -> exp.Expr:
        place = exp.Add(this=guess.copy(), expression=integer(offset))  # lists are counted from 1
        return exp.Anonymous(this="LIST_EXTRACT", expressions=[listed.copy(), place])

    last = exp.LT(this=guess.copy(), expression=integer(len(edges) - 2))
    above = exp.and_(exp.GTE(this=value.copy(), expression=edge(2)), last)
    first = exp.GT(this=guess.copy(), expression=integer(0))
    below = exp.and_(exp.LT(this=value.copy(), expression=edge(1)), first)
    return exp.Case(
        ifs=[
            exp.If(this=below, true=exp.Sub(this=guess.copy(), expression=integer(1))),
            exp.If(this=above, true=exp.Add(this=guess.copy(), expression=integer(1))),
        ],
        default=guess,
    )


def _halving(value: exp.Column, edges: Sequence[float]) -> exp.Expr:
    def search(low: int, high: int) -> exp.Expr:
        if low == high:
            return integer(low)
        middle = (low + high + 1) // 2  # bin `middle` begins at edges[middle]
        below = exp.LT(this=value.copy(), expression=double(edges[middle]))
        return exp.Case(ifs=[exp.If(this=below, true=search(low, middle - 1))], default=search(middle, high))

    return search(0, len(edges) - 2)


def is_wide(edges: Sequence[float]) -> bool:
    """Whether bins are many and of equal width, to a hundredth of it: then a division finds them, or their neighbour.

    A tree of comparisons over thousands of edges takes an engine longer to plan than to run.
    """
    if len(edges) <= FEW_EDGES:
        return False
    bins = len(edges) - 1
    width = edges[-1] / bins - edges[0] / bins
    return all(abs(edge - (edges[0] + width * place)) < width / 100 for place, edge in enumerate(edges))


def guess_of(histogram: ir.Histogram | Axis) -> exp.Expr:
    """The bin of a value by division: right, or off by one beside an edge."""
    edges, bins = histogram.edges, len(histogram.edges) - 1
    per_width = bins / (edges[-1] - edges[0])
    offset = exp.Paren(this=exp.Sub(this=column(histogram.column), expression=double(edges[0])))
    place = exp.Floor(this=exp.Mul(this=offset, expression=double(per_width)))
    within = exp.Least(
        this=exp.Greatest(this=place, expressions=[double(0.0)], ignore_nulls=True),
        expressions=[double(float(bins - 1))],
        ignore_nulls=True,
    )
    return cast("BIGINT", within)
