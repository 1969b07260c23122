"""Discrete Laplace noise: exact, with the whole tail."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from harness.goodness import FALSE_ALARM
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from analytics_client.agent import noise
from analytics_client.agent.noise import laplace
from analytics_client.agent.noise.laplace import Bernoulli
from queries.errors import ProtocolViolation
from trust.noise.exponential import exp_minus
from trust.noise.stream import Stream

DRAWS = 500_000


def p_value(draws: NDArray[np.int64], scale: float) -> float:
    """Chi-square against P(x) proportional to e^(-|x|/t), by the cumulative probabilities of classes of values."""
    width = max(1, math.floor(scale / 50))
    reach = math.ceil(8 * scale / width) + 3
    starts = np.arange(-reach, reach + 1, dtype=np.int64) * width
    below = [cumulative(int(start) - 1, scale) for start in starts[1:]]  # the first and last class hold all beyond
    expected = np.diff([0, *below, 1]) * len(draws)
    observed = np.bincount(np.clip((draws - starts[0]) // width, 0, len(starts) - 1), minlength=len(starts))
    keep = np.flatnonzero(expected >= 50)
    low, high = keep[0], keep[-1]
    pooled = [np.concatenate([[v[: low + 1].sum()], v[low + 1 : high], [v[high:].sum()]]) for v in (observed, expected)]
    return float(stats.chisquare(*pooled).pvalue)


def cumulative(x: int, scale: float) -> float:
    """P(X <= x)."""
    tail = math.exp(-(x + 1 if x >= 0 else -x) / scale) / (1 + math.exp(-1 / scale))
    return 1 - tail if x >= 0 else tail


@pytest.mark.parametrize("scale", [Fraction(1, 5), Fraction(1), Fraction(7, 3), Fraction(1000), Fraction(1 << 40)])
def test_draws_follow_the_exact_discrete_laplace(scale: Fraction) -> None:
    assert p_value(noise.discrete_laplace(DRAWS, scale), float(scale)) > FALSE_ALARM


def scale_off(scale: Fraction) -> NDArray[np.int64]:
    return noise.discrete_laplace(DRAWS, scale * Fraction(106, 100))


def sign_dropped(scale: Fraction) -> NDArray[np.int64]:
    return np.abs(noise.discrete_laplace(DRAWS, scale))


def zero_twice(scale: Fraction) -> NDArray[np.int64]:
    """A sign put before a geometric magnitude without refusing -0."""
    zeros = np.zeros(DRAWS // 10, dtype=np.int64)
    return np.concatenate([noise.discrete_laplace(DRAWS - len(zeros), scale), zeros])


def digit_lost(scale: Fraction) -> NDArray[np.int64]:
    draws = noise.discrete_laplace(DRAWS, scale)
    return draws - draws % 2


@pytest.mark.parametrize("bug", [scale_off, sign_dropped, zero_twice, digit_lost])
@pytest.mark.parametrize("scale", [Fraction(1), Fraction(7, 3), Fraction(20)])
def test_the_fit_rejects_planted_bugs(bug: Callable[[Fraction], NDArray[np.int64]], scale: Fraction) -> None:
    assert p_value(bug(scale), float(scale)) < FALSE_ALARM


@pytest.mark.parametrize("scale", [Fraction(1, 20), Fraction(1), Fraction(300)])
def test_moments(scale: Fraction) -> None:
    draws = noise.discrete_laplace(DRAWS, scale)
    ratio = math.exp(-1 / scale)
    variance = 2 * ratio / (1 - ratio) ** 2
    assert abs(draws.mean()) < 6.5 * math.sqrt(variance / DRAWS)
    fourth = 12 * variance**2 + variance  # bounds the fourth moment, 6 variance^2 + variance
    assert abs((draws.astype(float) ** 2).mean() - variance) < 6.5 * math.sqrt(fourth / DRAWS)


class Words(Stream):
    """A stream of given 64-bit words."""

    def __init__(self, *words: int) -> None:
        self.words = list(words)

    def take(self, count: int) -> bytes:
        taken, self.words = self.words[: count // 8], self.words[count // 8 :]
        assert len(taken) * 8 == count
        return b"".join(word.to_bytes(8, "little") for word in taken)


HIGH = (1 << 64) - 1
THIRD = HIGH // 3  # 0x5555...


@pytest.mark.parametrize("equal_words", [0, 1, 2, 5])
def test_a_tie_takes_as_many_bits_as_decide_it(equal_words: int) -> None:
    third = Bernoulli(lambda bits: (1 << bits) // 3)
    below = Words(*[THIRD] * equal_words, THIRD - 9, 0)
    assert third.draw(1, below).tolist() == [True]
    above = Words(*[THIRD] * equal_words, THIRD + 9, 0)
    assert third.draw(1, above).tolist() == [False]
    assert below.words == above.words == [0]


@pytest.mark.parametrize("multiple", [1, 2, 3])
@pytest.mark.parametrize("scale", [Fraction(1, 2), Fraction(3), Fraction(1 << 20), Fraction(1 << 56)])
def test_the_tail_beyond_the_digits_is_drawn_modulo_the_ring(scale: Fraction, multiple: int) -> None:
    places = 0
    while (limit := Fraction(1 << places) / scale) < 45:
        places += 1
    zeros = 2  # words of zeros that put a uniform number below e^-limit
    while exp_minus(limit, 64 * zeros) < 3:
        zeros += 1
    stream = Words(*[HIGH] * places, *[0] * (zeros * multiple), HIGH, *[0] * places, HIGH)
    expected = (multiple << places) - ((1 << places) - 1)
    assert laplace.draw(1, scale, stream).tolist() == [(expected + (1 << 63)) % (1 << 64) - (1 << 63)]
    assert stream.words == []


@given(st.fractions(laplace.MIN_SCALE, 1 << 20) | st.integers(1, 1 << 56).map(Fraction))
@settings(max_examples=50, deadline=None)
def test_the_digits_have_their_exact_probabilities(scale: Fraction) -> None:
    *digits, far = laplace.events(scale)
    with localcontext() as context:
        context.prec = 100
        over = [Decimal((1 << place) * scale.denominator) / scale.numerator for place in range(len(digits) + 1)]
        for bits in (64, 128, 200):
            for event, exponent in zip(digits, over[:-1], strict=True):
                assert abs(event.probability(bits) - 2**bits / (1 + exponent.exp())) < 2
            assert abs(far.probability(bits) - 2**bits * (-over[-1]).exp()) < 2


@pytest.mark.parametrize("scale", [Fraction(0), Fraction(-1), Fraction(1, 1 << 21), Fraction((1 << 56) + 1)])
def test_scales_that_cannot_be_drawn_are_refused(scale: Fraction) -> None:
    with pytest.raises(ProtocolViolation):
        noise.discrete_laplace(3, scale)
    with pytest.raises(OverflowError):
        laplace.draw(3, scale, Stream(bytes(32)))


@pytest.mark.parametrize("length", [0, 1, (1 << 16) + 1])
def test_every_length_is_drawn(length: int) -> None:
    draws = noise.discrete_laplace(length, Fraction(1 << 50))
    assert draws.dtype == np.int64
    assert len(np.unique(draws)) == len(draws) == length


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        noise.discrete_laplace(-1, Fraction(1))
