"""Every kind of model, test and curve over given columns, for property tests that must not forget one."""

from __future__ import annotations

from collections.abc import Sequence

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
