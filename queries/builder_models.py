"""Models, tests and survival in the expression API; `builder` exports all of it.

    table.agg(fit=linear_model(_.chol, on=[_.age, _.sex]), sex=t_test(_.chol, by=_.sex), r=correlation(_.age, _.chol))

Each function returns a frozen node of `ir_models`. Must not know: SQL text, protobuf, any data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

from queries import ir_models as ir
from queries.errors import LiteralError, QueryError


class Named(Protocol):
    """A column of the expression API."""

    @property
    def name(self) -> str:
        """The column's name."""


@dataclass(frozen=True, slots=True)
class TimeBins:
    """A survival node over a number of bins of equal width; they become edges once the bounds of time are known."""

    node: ir.Survival | ir.LogRank
    bins: int


def covariance(x: Named, y: Named, ddof: int = 1) -> ir.Covariance:
    """Covariance of two numeric columns: of the sample (`ddof` 1) or the population (0)."""
    return ir.Covariance(x.name, y.name, ddof)


def correlation(x: Named, y: Named) -> ir.Correlation:
    """Pearson's correlation of two numeric columns."""
    return ir.Correlation(x.name, y.name)


def slope(y: Named, x: Named) -> ir.Line:
    """Slope of the least squares line of y on x."""
    return ir.Line("slope", y.name, x.name)


def intercept(y: Named, x: Named) -> ir.Line:
    """Where the least squares line of y on x meets x = 0."""
    return ir.Line("intercept", y.name, x.name)


def r_squared(y: Named, x: Named) -> ir.Line:
    """Share of the variance of y that the least squares line on x explains."""
    return ir.Line("r2", y.name, x.name)


def count_pairs(y: Named, x: Named) -> ir.Line:
    """Rows in which both columns have a value."""
    return ir.Line("count", y.name, x.name)


def covariance_matrix(*columns: Named) -> ir.Matrix:
    """Covariances (of the sample) of all pairs of numeric columns, over rows complete in all of them."""
    return ir.Matrix("covariance", _names(columns))


def correlation_matrix(*columns: Named) -> ir.Matrix:
    """Correlations of all pairs of numeric columns, over rows complete in all of them."""
    return ir.Matrix("correlation", _names(columns))


def principal_components(*columns: Named) -> ir.Matrix:
    """Principal components of the columns' covariance matrix: variances and loadings."""
    return ir.Matrix("components", _names(columns))


def linear_model(response: Named, on: Iterable[Named], *, population: bool = True) -> ir.LinearModel:
    """Least squares of a numeric column on others; a categorical one stands for an indicator per key but the first.

    Standard errors and intervals count in sampling and noise; with `population` false the noise alone, for the
    model of these very rows.
    """
    return ir.LinearModel(response.name, _names(on), population)


def t_test(
    column: Named,
    *,
    mean: Real | float | None = None,
    by: Named | None = None,
    groups: Iterable[str] = (),
    equal_variances: bool = False,
) -> ir.MeanTest | ir.GroupTest:
    """Student's t test of a mean against `mean`, or Welch's of the means of two groups of the column `by`.

    With `equal_variances` the latter is Student's. `groups` names the two where `by` has more.
    """
    if (mean is None) == (by is None):
        raise QueryError("a t test compares with a mean or by a column", hint="t_test(_.chol, by=_.sex)")
    if by is not None:
        return ir.GroupTest("student" if equal_variances else "welch", column.name, by.name, _keys(groups))
    return ir.MeanTest(column.name, _number(mean))


def paired_t_test(column: Named, other: Named, *, mean: Real | float = 0.0) -> ir.MeanTest:
    """Student's t test that the mean of column - other is `mean`, over rows that have both."""
    return ir.MeanTest(column.name, _number(mean), other.name)


def anova(column: Named, by: Named, *, groups: Iterable[str] = ()) -> ir.GroupTest:
    """One-way analysis of variance: do the groups of `by` have the same mean?"""
    return ir.GroupTest("anova", column.name, by.name, _keys(groups))


def independence_test(x: Named, y: Named) -> ir.IndependenceTest:
    """Pearson's chi-square test that two categorical columns are independent."""
    return ir.IndependenceTest(x.name, y.name)


def survival(
    time: Named,
    event: Named,
    *,
    happened: str,
    bins: int | None = None,
    edges: Iterable[Real | float] | None = None,
    population: bool = False,
) -> ir.Survival | TimeBins:
    """Kaplan-Meier over a public grid of times: `bins` of equal width over the bounds of `time`, or `edges`.

    The event happened where `event` is `happened`, else the person was censored. `population`: bands count sampling in.
    """
    node = ir.Survival(time.name, event.name, happened, _edges(bins, edges), population)
    return node if bins is None else TimeBins(node, bins)


def log_rank(
    time: Named,
    event: Named,
    *,
    happened: str,
    by: Named,
    groups: Iterable[str] = (),
    bins: int | None = None,
    edges: Iterable[Real | float] | None = None,
) -> ir.LogRank | TimeBins:
    """Log-rank test that groups of `by` live alike, over a grid as in `survival`."""
    node = ir.LogRank(time.name, event.name, happened, by.name, _edges(bins, edges), _keys(groups))
    return node if bins is None else TimeBins(node, bins)


def _names(columns: Iterable[Named]) -> tuple[str, ...]:
    return tuple(column.name for column in columns)


def _keys(groups: Iterable[str]) -> tuple[str, ...]:
    if isinstance(groups, str):
        raise LiteralError("groups are a list, not one text", hint='write groups=["a", "b"]')
    return tuple(groups)


def _edges(bins: int | None, edges: Iterable[Real | float] | None) -> tuple[float, ...]:
    if (bins is None) == (edges is None):
        raise QueryError("a grid of times takes bins or edges", hint="survival(..., bins=24) or edges=[0, 30, 60]")
    return tuple(_number(edge) for edge in edges) if edges is not None else ()


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise LiteralError("a literal must be a number or a text")
    return float(value)
