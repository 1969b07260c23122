"""Quantiles from trees of counts: without noise the pooled rows' own, with noise honest intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.inference import shapes
from queries.inference.forms import Floats
from queries.inference.quantiles import Cumulative, cumulative, quantile
from queries.quantiles import MOST_LEAVES, Tree, tree_of
from queries.schema import Numeric

YEARS = Numeric(0, 120, integer=True)
LEVEL = Numeric(0.0, 10.0)
SHARES = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


def counted(tree: Tree, values: Floats) -> list[Floats]:
    """Exact counts of every level."""
    out = []
    for edges in tree.levels:
        place = np.clip(np.searchsorted(edges, values, "right") - 1, 0, len(edges) - 2)
        out.append(np.bincount(place, minlength=len(edges) - 1)[None].astype(float))
    return out


def noisy(tree: Tree, values: Floats, deviation: float, runs: int, seed: int) -> Cumulative:
    rng = np.random.default_rng(seed)
    levels = [exact + rng.normal(0, deviation, (runs, exact.shape[1])) for exact in counted(tree, values)]
    return cumulative(tree, levels, [deviation**2] * len(levels))


@given(st.integers(-1000, 1000), st.integers(1, 20_000), st.booleans())
def test_levels_nest_and_no_node_has_more_children_than_branches(lower: int, width: int, integer: bool) -> None:
    tree = tree_of(Numeric(float(lower), float(lower + width), integer=integer))
    for coarse, fine in zip(tree.levels, tree.levels[1:], strict=False):
        assert coarse[:-1] == fine[: -1 : tree.branches]
        assert coarse[-1] == fine[-1]
    assert len(tree.levels[0]) - 1 <= tree.branches
    assert tree.whole == (integer and width + 1 <= MOST_LEAVES)
    assert len(tree.levels[-1]) - 1 <= MOST_LEAVES


@pytest.mark.parametrize("bounds", [(0.0, 5e-324), (2.0**53, 2.0**53 + 6), (-0.1, 0.2), (1e308, 1.1e308)])
def test_bounds_with_hardly_a_float_between_them_still_have_ascending_leaves(bounds: tuple[float, float]) -> None:
    for edges in tree_of(Numeric(*bounds)).levels:
        assert list(edges) == sorted(set(edges))


@given(st.lists(st.integers(0, 120), min_size=1, max_size=60), SHARES)
def test_without_noise_a_quantile_of_whole_numbers_is_numpys(values: list[int], q: float) -> None:
    tree = tree_of(YEARS)
    value, low, high = quantile(cumulative(tree, counted(tree, np.array(values)), [0.0] * len(tree.levels)), q)
    expected = np.quantile(values, q)
    assert value[0] == pytest.approx(expected, abs=1e-3)
    assert low[0] - 1e-9 <= expected <= high[0] + 1e-9


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), SHARES)
def test_without_noise_a_quantile_is_within_a_leaf(values: list[float], q: float) -> None:
    tree = tree_of(LEVEL)
    value, low, high = quantile(cumulative(tree, counted(tree, np.array(values)), [0.0] * len(tree.levels)), q)
    expected, leaf = np.quantile(values, q), 10 / MOST_LEAVES
    assert abs(value[0] - expected) <= leaf + 1e-9
    assert low[0] - 1e-9 <= expected <= high[0] + 1e-9


@pytest.mark.parametrize("kind", [YEARS, LEVEL])
def test_the_stated_variance_of_cumulative_counts_is_theirs(kind: Numeric) -> None:
    """2,000 runs at 12 edges: each sample variance is within 18% of the true one but with probability 1e-8 (chi^2)."""
    tree = tree_of(kind)
    counts = noisy(tree, np.linspace(kind.lower, kind.upper, 500), 4.0, 2000, seed=1)
    stated = counts.deviation(0.3)
    found = (counts.below - 0.3 * counts.below[:, -1:]).std(axis=0)
    edges = np.linspace(1, stated.size - 2, 12).astype(int)
    assert np.abs(found[edges] / stated[edges] - 1).max() < 0.09
    # a planted bug, the variance of the leaves alone, would be seen
    assert np.abs(found[edges] / (4.0 * np.sqrt(edges)) - 1).max() > 0.09


@pytest.mark.parametrize("q", [0.0, 0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("kind", [YEARS, LEVEL])
def test_intervals_cover_the_pooled_quantile(kind: Numeric, q: float) -> None:
    """At 95% coverage fewer than 270 of 300 happens with probability 2e-4; coverage here is above 97.5%: below 1e-9."""
    tree = tree_of(kind)
    values = np.clip(np.random.default_rng(3).gamma(2.0, (kind.upper - kind.lower) / 10, 1000), kind.lower, kind.upper)
    values = np.floor(values) if kind.integer else values
    _value, low, high = quantile(noisy(tree, values, 6.0, 300, seed=4), q)
    truth = np.quantile(values, q)
    assert ((low <= truth) & (truth <= high)).sum() >= 270


@pytest.mark.parametrize("deviation", [3.0, 10.0, 40.0])
def test_beside_a_gap_intervals_cover_and_those_of_a_smoothed_curve_do_not(deviation: float) -> None:
    """Of 1,000 values the median is the last before a gap, or the first after it. Only one end can then miss it, with
    2.5% at most: more than 33 of 400 releases have probability 1e-8. Read from the curve made monotone, which is nearer
    to the true one on average, intervals miss in a quarter: the noise all along the gap pulls it to one side."""
    tree, random = tree_of(LEVEL), np.random.default_rng(8)
    missed = []
    for left in (501, 499):
        values = np.append(random.uniform(2.0, 2.1, left), random.uniform(8.0, 8.1, 1000 - left))
        counts, truth = noisy(tree, values, deviation, 400, seed=9), np.quantile(values, 0.5)
        up = np.maximum.accumulate(counts.below, axis=1)
        down = np.minimum.accumulate(counts.below[:, ::-1], axis=1)[:, ::-1]
        for curve in (counts, replace(counts, below=(up + down) / 2)):
            _value, low, high = quantile(curve, 0.5)
            missed.append(int(((low > truth) | (high < truth)).sum()))
    assert max(missed[::2]) <= 33
    assert max(missed[1::2]) > 60


def test_consistent_counts_are_less_noisy_than_leaves() -> None:
    tree = tree_of(LEVEL)
    assert noisy(tree, np.linspace(0, 10, 99), 1.0, 1, seed=0).deviation(0.5).max() < 0.2 * np.sqrt(MOST_LEAVES)


def test_shape_is_that_of_pandas_without_noise_and_covered_with_it() -> None:
    """2,000 releases each; at 95% fewer than 1,840 are covered with probability 2e-9."""
    values = (np.random.default_rng(1).gamma(4.0, 1.0, 5000).clip(0, 16) - 8) / 8
    exact = np.array([[values.size, *(np.sum(values**power) for power in (1, 2, 3, 4))]])
    for statistic, truth, powers in (
        (shapes.skewness, pd.Series(values).skew(), 4),
        (shapes.kurtosis, pd.Series(values).kurt(), 5),
    ):
        value, low, high = statistic(exact[:, :powers], np.zeros(powers))
        assert value[0] == pytest.approx(truth, rel=1e-8)
        assert low[0] == pytest.approx(truth, rel=1e-8)
        released = exact[:, :powers] + np.random.default_rng(2).normal(0, 6.0, (2000, powers))
        _value, low, high = statistic(released, np.full(powers, 36.0))
        assert ((low <= truth) & (truth <= high)).sum() >= 1840
        assert np.median(high - low) < 4


def test_a_shape_that_the_noise_hides_has_the_widest_interval() -> None:
    value, low, high = shapes.skewness(np.array([[40.0, 0.0, 4.0, 1.0]]), np.full(4, 100.0))
    assert value[0] == 0
    assert low[0] <= -6
    assert high[0] >= 6
