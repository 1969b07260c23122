"""The noise share as OpenDP draws it: exact distribution, variance never undercut, no saturation; what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from analytics_client.agent import noise
from queries.errors import ProtocolViolation

FALSE_ALARM = 1e-9  # of the chi-square limit; its error at >= 50 expected per bin keeps the true rate below 1e-6
DRAWS = 60_000


def probabilities(variance: float, reach: int) -> NDArray[np.float64]:
    """Exact pmf of the discrete Gaussian on -reach..reach (Canonne, Kamath, Steinke 2020, definition 1)."""
    weights = np.array([math.exp(-(x * x) / (2 * variance)) for x in range(-reach, reach + 1)])
    return weights / weights.sum()


def p_value(draws: NDArray[np.int64], variance: float) -> float:
    """Chi-square of the draws against the exact pmf, bins of fewer than 50 expected pooled into the tails."""
    reach = math.ceil(12 * math.sqrt(variance)) + 1
    expected = probabilities(variance, reach) * len(draws)
    observed = np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1).astype(float)
    keep = np.flatnonzero(expected >= 50)
    low, high = keep[0], keep[-1]
    pool = lambda v: np.concatenate([[v[: low + 1].sum()], v[low + 1 : high], [v[high:].sum()]])  # noqa: E731 -- three uses, one line
    return float(stats.chisquare(pool(observed), pool(expected)).pvalue)


@pytest.mark.parametrize("variance", [Fraction(1), Fraction(17), Fraction(40000, 3)])
def test_draws_follow_the_exact_discrete_gaussian(variance: Fraction) -> None:
    assert p_value(noise.share(DRAWS, variance), float(variance)) > FALSE_ALARM


def rounded_normal(size: int) -> NDArray[np.int64]:
    return np.rint(np.random.default_rng(7).normal(0, 1, size)).astype(np.int64)


def one_share_of_five_missing(size: int) -> NDArray[np.int64]:
    return noise.share(size, Fraction(17 * 4, 5))


def sign_lost(size: int) -> NDArray[np.int64]:
    return np.abs(noise.share(size, Fraction(17)))


@pytest.mark.parametrize(
    ("bug", "variance"), [(rounded_normal, 1.0), (one_share_of_five_missing, 17.0), (sign_lost, 17.0)]
)
def test_the_test_rejects_planted_bugs(bug: Callable[[int], NDArray[np.int64]], variance: float) -> None:
    assert p_value(bug(DRAWS), variance) < FALSE_ALARM


@given(st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(10) ** 30))
def test_scale_is_the_smallest_float_that_never_undercuts(variance: Fraction) -> None:
    scale = noise.scale_for(variance)
    assert Fraction(scale) ** 2 >= variance
    assert Fraction(math.nextafter(scale, 0.0)) ** 2 < variance


@pytest.mark.parametrize("variance", [Fraction(0), Fraction(-1), Fraction((1 << 63) ** 2, 1600), Fraction(10) ** 60])
def test_variances_that_cannot_be_drawn_are_refused(variance: Fraction) -> None:
    for length in (3, noise.LONGEST_OPENDP + 1):
        with pytest.raises(ProtocolViolation):
            noise.share(length, variance)


def test_the_largest_accepted_variance_does_not_saturate() -> None:
    draws = noise.share(2000, Fraction((1 << 63) ** 2, 1601))
    assert np.abs(draws.astype(object)).max() < 10 * (1 << 63) // 40
    assert len(np.unique(draws)) == 2000


@pytest.mark.parametrize("length", [0, 1, noise.LONGEST_OPENDP, noise.LONGEST_OPENDP + 1])
def test_every_length_is_drawn(length: int) -> None:
    draws = noise.share(length, Fraction(10**24))
    assert draws.dtype == np.int64
    assert len(np.unique(draws)) == len(draws) == length


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        noise.share(-1, Fraction(4))


@pytest.mark.parametrize(("length", "opendp"), [(noise.LONGEST_OPENDP, True), (noise.LONGEST_OPENDP + 1, False)])
def test_short_vectors_are_opendp_s(monkeypatch: pytest.MonkeyPatch, length: int, opendp: bool) -> None:
    used = []
    monkeypatch.setattr(noise.gaussian, "draw", lambda count, *_: used.append(count) or np.zeros(count, dtype=np.int64))
    noise.share(length, Fraction(16))
    assert used == ([] if opendp else [length])
