"""The fast sampler's draws: exact distribution, and a test that would see it if they were not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from harness.goodness import FALSE_ALARM, Fit, p_value, residues_p_value, tail_share
from numpy.typing import NDArray
from scipy import stats

from analytics_client.agent import noise
from trust.noise import gaussian
from trust.noise.stream import Stream
from trust.noise.table import PRECISION, UNDECIDED, Table, table

DRAWS = 2_000_000
WIDTHS = [1, 4, 17.5, 400, 401, 1000, 46_000, 10**6, 2**44]  # one table up to 400, two to seven beyond


def fair(variance: Fraction) -> Callable[[int], NDArray[np.int64]]:
    return lambda count: gaussian.draw(count, variance, Stream.fresh())


def squared(sigma: float) -> Fraction:
    return Fraction(sigma) ** 2


@pytest.mark.parametrize("sigma", WIDTHS)
def test_draws_follow_the_exact_discrete_gaussian(sigma: float) -> None:
    assert p_value(fair(squared(sigma)), sigma, DRAWS) > FALSE_ALARM


@pytest.mark.parametrize("sigma", [1000, 46_000, 10**6, 2**44])
def test_draws_are_uniform_modulo_the_factors_of_a_sum(sigma: int) -> None:
    draws = fair(squared(sigma))(DRAWS)
    for modulus in {2, 64, *(factor for _, factor in gaussian.tables(squared(sigma)) if factor)}:
        assert residues_p_value(draws, modulus) > FALSE_ALARM


@pytest.mark.parametrize("sigma", WIDTHS)
def test_moments(sigma: float) -> None:
    draws = fair(squared(sigma))(DRAWS) / sigma
    for power, mean, variance in [
        (1, 0, 1),
        (2, 1, 2),
        (3, 0, 15),
        (4, 3, 96),
    ]:  # of the continuous one: from sigma 1 the
        assert abs(np.mean(draws**power) - mean) < 6.5 * math.sqrt(variance / DRAWS)


@pytest.mark.parametrize("sigma", [4, 1000, 2**44])
def test_tails_are_as_heavy_as_they_should_be(sigma: int) -> None:
    draws = np.abs(fair(squared(sigma))(DRAWS))
    for sigmas in (3, 4, 4.5):
        beyond = math.floor(sigmas * sigma) + 1
        expected = DRAWS * tail_share(beyond, sigma)
        seen = int((draws >= beyond).sum())
        assert stats.poisson.cdf(seen, expected) > 1e-9
        assert stats.poisson.sf(seen - 1, expected) > 1e-9


@pytest.mark.parametrize("lag", [1, 2, gaussian.BLOCK])
def test_draws_are_independent_of_earlier_ones(lag: int) -> None:
    draws = np.clip(fair(Fraction(1))(DRAWS), -3, 3) + 3
    pairs = np.bincount(draws[:-lag] * 7 + draws[lag:], minlength=49).reshape(7, 7)
    assert stats.chi2_contingency(pairs).pvalue > FALSE_ALARM


@pytest.mark.parametrize("sigma", [5, 1000])
def test_draws_agree_with_opendp(sigma: int) -> None:
    count = noise.LONGEST_OPENDP
    exact, fast = noise.share(count, squared(sigma)), noise.share(count + 1, squared(sigma))
    assert agreement(exact, fast, sigma) > FALSE_ALARM
    assert agreement(exact, fast + sigma // 5, sigma) < FALSE_ALARM


def agreement(one: NDArray[np.int64], other: NDArray[np.int64], sigma: int) -> float:
    """Two-sample chi-square."""
    edges = np.concatenate([[-(10**9)], np.arange(-3 * sigma, 3 * sigma + 1, max(1, sigma // 20)), [10**9]])
    counts = np.stack([np.histogram(draws, edges)[0] for draws in (one, other)])
    return float(stats.chi2_contingency(counts).pvalue)


# Planted bugs. Each breaks the sampler in one place; the tests above must see it with the draws they take.


def plant(monkeypatch: pytest.MonkeyPatch, change: Callable[[Table], Table]) -> None:
    original = gaussian.tables
    monkeypatch.setattr(
        gaussian, "tables", lambda variance: tuple((change(part), factor) for part, factor in original(variance))
    )


def decided_one_late(part: Table) -> Table:
    """A guide that misses the bound inside a cell: the whole cell goes to the value before it."""
    before = np.searchsorted(np.array([bound >> PRECISION - 16 for bound in part.bounds]), np.arange(1 << 16))
    return replace(part, guide=np.where(part.guide == UNDECIDED, before - part.reach, part.guide).astype(np.int16))


def value_one_off(part: Table) -> Table:
    return replace(part, guide=np.where(part.guide == UNDECIDED, UNDECIDED, part.guide + 1).astype(np.int16))


def sign_dropped(part: Table) -> Table:
    return replace(part, guide=np.where(part.guide == UNDECIDED, UNDECIDED, np.abs(part.guide)).astype(np.int16))


def upper_tail_lost(part: Table) -> Table:
    return replace(part, guide=np.where(part.guide > 3, 3, part.guide).astype(np.int16))


@pytest.mark.parametrize(
    ("bug", "sigma", "draws"),
    [
        (decided_one_late, 400, 10 * DRAWS),  # moves up to 2^-16 at each value: too little for fewer draws
        (value_one_off, 4, DRAWS),
        (value_one_off, 1000, DRAWS),
        (sign_dropped, 4, DRAWS),
        (sign_dropped, 1000, DRAWS),
        (upper_tail_lost, 1, DRAWS),
    ],
)
def test_the_fit_rejects_a_broken_table(
    monkeypatch: pytest.MonkeyPatch, bug: Callable[[Table], Table], sigma: int, draws: int
) -> None:
    plant(monkeypatch, bug)
    assert p_value(fair(squared(sigma)), sigma, draws) < FALSE_ALARM


@pytest.mark.parametrize("sigma", [1, 4, 400, 1000, 10**6, 2**44])
def test_the_fit_rejects_a_sigma_that_is_one_percent_off(sigma: int) -> None:
    assert p_value(fair(squared(sigma) * Fraction(99, 100) ** 2), sigma, DRAWS) < FALSE_ALARM
    assert p_value(fair(squared(sigma) * Fraction(101, 100) ** 2), sigma, DRAWS) < FALSE_ALARM


def test_the_residues_reject_a_sum_that_is_not_smooth() -> None:
    factor = 128  # against X1 of sigma 256: smoothness 4; against sigma 32: 1/16
    assert gaussian.smoothness(Fraction(32**2), Fraction(100**2), factor) < Fraction(1, 15)
    coarse = fair(Fraction(32**2))(DRAWS) + factor * fair(Fraction(100**2))(DRAWS)
    assert residues_p_value(coarse, factor) < FALSE_ALARM


def test_the_residues_reject_a_lost_summand(monkeypatch: pytest.MonkeyPatch) -> None:
    zero = replace(table(gaussian.BASE_VARIANCE), guide=np.zeros(1 << 16, dtype=np.int16))
    plant(monkeypatch, lambda part: zero if part is table(gaussian.BASE_VARIANCE) else part)
    assert residues_p_value(fair(squared(1000))(DRAWS), 114) < FALSE_ALARM


def test_independence_rejects_a_stream_that_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    key = bytes(32)
    blocks = [gaussian.draw(gaussian.BLOCK, Fraction(1), Stream(key)) for _ in range(4)]
    draws = np.concatenate(blocks) + 13
    pairs = np.bincount(draws[: -gaussian.BLOCK] * 27 + draws[gaussian.BLOCK :], minlength=729).reshape(27, 27)
    seen = pairs.sum(axis=0) > 0
    assert stats.chi2_contingency(pairs[np.ix_(seen, seen)]).pvalue < FALSE_ALARM


# What is refused, and sizes.


@pytest.mark.parametrize("sigma", [2**20, 2**44, 2**57])
def test_the_largest_draw_stays_within_the_forty_sigma_that_shares_allow(sigma: int) -> None:
    assert gaussian.reach(squared(sigma)) < noise.TAIL_SIGMAS * sigma


def test_the_largest_accepted_variance_does_not_saturate() -> None:
    variance = Fraction((1 << 63) ** 2, noise.TAIL_SIGMAS**2 + 1)
    draws = noise.share(noise.LONGEST_OPENDP + 1, variance)
    assert p_value(lambda _: draws, math.sqrt(variance), len(draws)) > FALSE_ALARM


def test_a_variance_that_might_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError):
        gaussian.draw(3, squared(2**60), Stream.fresh())


@pytest.mark.parametrize("length", [0, 1, gaussian.BLOCK, gaussian.BLOCK + 1])
def test_every_length_is_drawn(length: int) -> None:
    draws = gaussian.draw(length, squared(2**44), Stream.fresh())
    assert draws.shape == (length,)
    assert draws.dtype == np.int64
    assert len(np.unique(draws)) == length


def test_a_variance_below_a_step_is_drawn_too() -> None:
    assert not gaussian.draw(1000, Fraction(1, 1000), Stream.fresh()).any()


@pytest.mark.soak
@pytest.mark.parametrize("sigma", WIDTHS)
def test_two_hundred_million_draws_follow_the_exact_discrete_gaussian(sigma: float) -> None:
    total, step = 200_000_000, 10_000_000
    fit = Fit.of(sigma, total)
    for _ in range(total // step):
        fit.add(gaussian.draw(step, squared(sigma), Stream.fresh()))
    assert fit.p_value() > FALSE_ALARM


@pytest.mark.soak
def test_two_hundred_million_draws_reject_what_fewer_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, decided_one_late)
    assert p_value(fair(squared(100)), 100, 100_000_000) < FALSE_ALARM
