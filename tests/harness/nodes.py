"""Every kind of model, test and curve over given columns, for property tests that must not forget one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from hypothesis import strategies as st

from queries import ir


def statistics(column: str) -> list[ir.Aggregate]:
    """Every statistic of one numeric column, and of persons."""
    return [
        ir.Persons(), ir.Sum(column), ir.Mean(column), ir.Variance(column), ir.Stddev(column, ddof=0),
        ir.Quantile(column, 0.25), ir.Quantile(column, 0.0), ir.Skewness(column), ir.Kurtosis(column),
    ]  # fmt: skip


def models(
    numeric: Sequence[str], categorical: Sequence[tuple[str, Sequence[str]]], edges: Sequence[float]
) -> st.SearchStrategy[ir.Model]:
    """Nodes over at least two numeric columns, and categorical ones with their keys; `edges` suit the first column."""
    x, y = numeric[0], numeric[1]
    (g, keys), (h, others) = categorical[0], categorical[-1]
    cut = tuple(edges)
    population = st.booleans()
    fixed: list[ir.Model] = [
        ir.Covariance(x, y), ir.Covariance(x, x, 0), ir.Correlation(x, y), ir.Matrix("covariance", tuple(numeric)),
        ir.Matrix("correlation", tuple(numeric)), ir.Matrix("components", tuple(numeric)),
        ir.MeanTest(x, other=y, mean=0.5),
        *(ir.Line(part, y, x) for part in ir.LINE_PARTS),
    ]  # fmt: skip
    if len(keys) >= 2:
        fixed += [ir.GroupTest("anova", y, g), *(ir.GroupTest(k, x, g, tuple(keys[:2])) for k in ("welch", "student"))]
    drawn = [
        st.builds(ir.LinearModel, st.just(y), st.just((x, g)), population),
        st.builds(ir.LinearModel, st.just(x), st.just((h,) if g == h else (h, y, g)), population),
    ]
    if len(others) >= 2:
        drawn.append(st.builds(ir.Survival, st.just(x), st.just(h), st.sampled_from(others), st.just(cut), population))
    if g != h and len(keys) >= 2 and len(others) >= 2:
        fixed += [ir.IndependenceTest(g, h), ir.LogRank(x, h, others[0], g, cut, tuple(keys[:2]))]
    return st.one_of(st.sampled_from(fixed), *drawn)


def expressions(
    columns: Sequence[str], conditions: st.SearchStrategy[ir.Predicate] | None = None
) -> st.SearchStrategy[ir.Expression]:
    """Expressions over numeric columns, most of which have bounds; with `conditions` also cases and truths."""
    leaves: st.SearchStrategy[ir.Expression] = st.sampled_from(columns).map(ir.Value) | st.floats(-50, 50).map(
        lambda x: ir.Constant(round(x, 3) + 0.0)
    )

    def wider(inner: st.SearchStrategy[ir.Expression]) -> st.SearchStrategy[ir.Expression]:
        some = (
            st.builds(ir.Arithmetic, st.sampled_from(ir.ARITHMETIC), inner, inner)
            | st.builds(ir.Function, st.sampled_from(ir.SCALAR_FUNCTIONS), inner)
            | st.builds(ir.Bounded, inner, st.floats(-9, -1), st.floats(1, 9))
        )
        if conditions is None:
            return some
        branches = st.lists(st.builds(ir.Branch, conditions, inner), min_size=1, max_size=2).map(tuple)
        return some | st.builds(ir.Case, branches, st.none() | inner) | st.builds(ir.Truth, conditions)

    return st.recursive(leaves, wider, max_leaves=6)


def evaluate(  # noqa: PLR0911 -- one return a node
    node: ir.Expression, row: Mapping[str, float | str | None], holds: Callable[[ir.Predicate], bool | None]
) -> float | None:
    """The value of an expression in a row of clipped numbers; Python's doubles are the engines'."""
    match node:
        case ir.Value(column):
            value = row[column]
            return None if value is None else float(value)
        case ir.Constant(value):
            return float(value)
        case ir.Truth(predicate):
            truth = holds(predicate)
            return None if truth is None else float(truth)
        case ir.Case(branches, otherwise):
            for branch in branches:
                if holds(branch.when):
                    return evaluate(branch.then, row, holds)
            return None if otherwise is None else evaluate(otherwise, row, holds)
    found = [evaluate(part, row, holds) for part in ir.parts_of(node)]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    return _computed(node, known)


def _computed(node: ir.Expression, known: Sequence[float]) -> float | None:  # noqa: PLR0911 -- one return a node
    first, last = known[0], known[-1]
    match node:
        case ir.Bounded(_value, lower, upper):
            return min(max(first, lower), upper)
        case ir.Function("ln"):
            return math.log(first) if first > 0 else None
        case ir.Function("sqrt"):
            return math.sqrt(first) if first >= 0 else None
        case ir.Function("abs"):
            return abs(first)
        case ir.Arithmetic("+"):
            return first + last
        case ir.Arithmetic("-"):
            return first - last
        case ir.Arithmetic("*"):
            return first * last
    divisor = (last + 1e-124) - 1e-124  # what is near 0 counts as 0
    return first / divisor if divisor else None
