"""What is left of the noise after layers are taken off: never less than a curator's over the honest, and no more."""

from __future__ import annotations

import os
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from harness.layered import noise_left
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analytics_client.agent.noise import share
from queries.noise import LARGEST_LAYERED, MOST_DRAWS, MOST_LAYERS, NoiseShape, noise_shape, rungs_of
from trust.noise import layers
from trust.secagg import default_threshold
from trust.secagg.parameters import LARGEST_FULL_GRAPH, MOST_RUNGS

FALSE_ALARM = 1e-6


def shape_of(invited: int, colluders: int, *, rho: float = 0.1, length: int = 3, delta_squared: int = 1) -> NoiseShape:
    return noise_shape(
        delta_squared,
        10**6,
        round(rho * 1e9),
        threshold=default_threshold(invited),
        colluders=colluders,
        invited=invited,
        length=length,
    )


@given(
    invited=st.integers(3, 700),
    length=st.integers(1, 10**6),
    rho=st.floats(1e-6, 10),
    delta_squared=st.integers(1, 10**12),
    data=st.data(),
)
def test_any_honest_survivors_carry_the_curators_noise_whatever_is_taken_off(
    invited: int, length: int, rho: float, delta_squared: int, data: st.DataObject
) -> None:
    threshold = default_threshold(invited)
    colluders = data.draw(st.integers(0, min(threshold - 1, 2 * threshold - invited - 1)))
    shape = shape_of(invited, colluders, rho=rho, length=length, delta_squared=delta_squared)
    assert shape.base_variance + sum(shape.layers) == shape.share_variance
    assert min(shape.base_variance, *shape.layers, shape.share_variance) >= 16
    assert shape.share_variance * (threshold - colluders) == shape.central_variance
    assert len(shape.rungs) == len(shape.layers) <= MOST_LAYERS <= MOST_RUNGS
    assert all(low < high for low, high in pairwise((threshold, *shape.rungs)))
    assert invited * length * len(shape.layers) <= MOST_DRAWS
    for survivors in {
        threshold,
        invited,
        data.draw(st.integers(threshold, invited)),
        *shape.rungs,
        *(r - 1 for r in shape.rungs),
    }:
        assert (survivors - colluders) * shape.kept_variance(survivors) >= shape.central_variance
        below = max((rung for rung in (threshold, *shape.rungs) if rung <= survivors), default=threshold)
        assert shape.kept_variance(survivors) == shape.central_variance / (below - colluders)


@pytest.mark.parametrize(("invited", "colluders"), [(4, 0), (5, 0), (5, 1), (10, 1), (50, 2), (100, 5), (500, 10)])
def test_with_everybody_there_the_noise_is_the_curators_over_the_honest(invited: int, colluders: int) -> None:
    shape = shape_of(invited, colluders)
    assert shape.total_variance(invited) == shape.central_variance * invited / (invited - colluders)


def test_three_of_three_have_no_layer_to_take_off() -> None:
    assert shape_of(3, 1).layers == ()


def test_long_vectors_have_fewer_layers_and_drawn_rounds_none() -> None:
    assert rungs_of(7, 10, 10) == (8, 9, 10)
    assert rungs_of(7, 10, MOST_DRAWS // 20) == (9, 10)
    assert rungs_of(7, 10, MOST_DRAWS // 10) == (10,)
    assert rungs_of(7, 10, MOST_DRAWS // 9) == ()
    assert rungs_of(334, LARGEST_LAYERED, 1)[-1] == LARGEST_LAYERED == LARGEST_FULL_GRAPH
    assert [len(rungs_of(2 * n // 3 + 1, n, 1)) for n in (50, 200, 400, 500)] == [7, 8, 4, 3]
    assert rungs_of(335, LARGEST_LAYERED + 1, 1) == ()


def variance_p(sample: np.ndarray[tuple[int], np.dtype[np.int64]], variance: Fraction) -> float:
    """Two-sided p-value of the sample's sum of squares, chi-square for Gaussians this wide."""
    square = float(np.sum(sample.astype(np.float64) ** 2)) / float(variance)
    return 2 * min(stats.chi2.cdf(square, sample.size), stats.chi2.sf(square, sample.size))


@pytest.mark.parametrize(("survivors", "wrong"), [(10, -1), (9, 1), (8, 1), (7, 1)])
def test_what_is_left_has_the_stated_variance_and_one_layer_too_many_is_noticed(survivors: int, wrong: int) -> None:
    """Among ten all layers are off already, so there it is one too few."""
    shape = shape_of(10, 1, delta_squared=10**6)
    assert variance_p(noise_left(20_000, shape, survivors), shape.total_variance(survivors)) > FALSE_ALARM
    planted = noise_left(20_000, shape, survivors, too_many=wrong)
    assert variance_p(planted, shape.total_variance(survivors)) < FALSE_ALARM


def test_layers_taken_off_leave_no_trace_of_themselves() -> None:
    """Exactly: what is left is what agents drew under no key, to the last bit."""
    shape = shape_of(10, 1)
    keys = [os.urandom(32) for _ in shape.layers]
    base = share(1000, shape.base_variance)
    sums = base + layers.draw(1000, shape, keys)
    assert (sums != base).mean() > 0.5
    layers.remove(sums, shape, [keys])
    assert (sums == base).all()


def test_a_layer_is_a_function_of_its_key_alone() -> None:
    shape = shape_of(10, 1)
    keys = [os.urandom(32) for _ in shape.layers]
    first = layers.draw(500, shape, keys)
    assert (layers.draw(500, shape, keys) == first).all()
    assert (layers.draw(500, shape, keys[::-1]) != first).any()
    assert (layers.draw(500, shape, ()) == 0).all()
