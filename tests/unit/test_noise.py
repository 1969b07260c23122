"""The noise share: exact distribution, variance never undercut, no saturation, no repetition across fork."""

from __future__ import annotations

import math
import os
import time
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
    with pytest.raises(ProtocolViolation):
        noise.share(3, variance)


def test_the_largest_accepted_variance_does_not_saturate() -> None:
    draws = noise.share(2000, Fraction((1 << 63) ** 2, 1601))
    assert np.abs(draws.astype(object)).max() < 10 * (1 << 63) // 40
    assert len(np.unique(draws)) == 2000


def test_every_call_draws_afresh() -> None:
    assert not np.array_equal(noise.share(50, Fraction(10**12)), noise.share(50, Fraction(10**12)))


def test_forked_processes_do_not_share_randomness() -> None:
    noise.share(10, Fraction(10**12))  # the sampler is built and used before the fork, as in a resident agent
    answers = []
    for _ in range(2):
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(send, noise.share(10, Fraction(10**12)).tobytes())
            os._exit(0)
        os.close(send)
        with os.fdopen(receive, "rb") as pipe:
            answers.append(pipe.read())
        os.waitpid(child, 0)
    answers.append(noise.share(10, Fraction(10**12)).tobytes())
    assert len({*answers}) == 3
    assert all(len(answer) == 80 for answer in answers)


def test_empty_vector_and_blocks() -> None:
    assert noise.share(0, Fraction(4)).shape == (0,)
    assert len(noise.share(50_001, Fraction(10**12))) == 50_001


def test_a_query_sized_share_is_drawn_in_a_few_milliseconds() -> None:
    noise.share(20, Fraction(12345))
    times = []
    for _ in range(20):
        start = time.perf_counter()
        noise.share(20, Fraction(12345))
        times.append(time.perf_counter() - start)
    assert min(times) < 0.002
