"""Parts of discrete Laplace noise: exact, with the whole tail, and together the whole distribution."""

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
from queries.errors import ProtocolViolation
from trust.noise import laplace
from trust.noise.exponential import exp_minus
from trust.noise.laplace import Bernoulli, Poisson
from trust.noise.stream import Stream

DRAWS = 150_000
WHOLE, THIRD, TENTHS = (Fraction(1),), (Fraction(1, 3),) * 3, (Fraction(7, 10), Fraction(1, 5), Fraction(1, 10))


def draws(scale: Fraction, parts: tuple[Fraction, ...] = WHOLE) -> NDArray[np.int64]:
    return sum((laplace.draw(DRAWS, scale, part, Stream.fresh()) for part in parts), np.zeros(DRAWS, np.int64))


def p_value(sample: NDArray[np.int64], scale: float) -> float:
    """Chi-square against P(x) proportional to e^(-|x|/t), by the cumulative probabilities of classes of values."""
    width = max(1, math.floor(scale / 50))
    reach = math.ceil(8 * scale / width) + 3
    starts = np.arange(-reach, reach + 1, dtype=np.int64) * width
    below = [cumulative(int(start) - 1, scale) for start in starts[1:]]  # the first and last class hold all beyond
    expected = np.diff([0, *below, 1]) * len(sample)
    observed = np.bincount(np.clip((sample - starts[0]) // width, 0, len(starts) - 1), minlength=len(starts))
    keep = np.flatnonzero(expected >= 50)
    low, high = keep[0], keep[-1]
    pooled = [np.concatenate([[v[: low + 1].sum()], v[low + 1 : high], [v[high:].sum()]]) for v in (observed, expected)]
    return float(stats.chisquare(*pooled).pvalue)


def cumulative(x: int, scale: float) -> float:
    """P(X <= x)."""
    tail = math.exp(-(x + 1 if x >= 0 else -x) / scale) / (1 + math.exp(-1 / scale))
    return 1 - tail if x >= 0 else tail


@pytest.mark.parametrize("parts", [WHOLE, THIRD, TENTHS], ids=["whole", "thirds", "uneven"])
@pytest.mark.parametrize("scale", [Fraction(1, 5), Fraction(1), Fraction(7, 3), Fraction(1000), Fraction(1 << 40)])
def test_parts_add_up_to_the_exact_discrete_laplace(scale: Fraction, parts: tuple[Fraction, ...]) -> None:
    assert p_value(draws(scale, parts), float(scale)) > FALSE_ALARM


def part_missing(scale: Fraction) -> NDArray[np.int64]:
    return draws(scale, (Fraction(1, 5),) * 4)


def scale_off(scale: Fraction) -> NDArray[np.int64]:
    return draws(scale * Fraction(106, 100), THIRD)


def sign_dropped(scale: Fraction) -> NDArray[np.int64]:
    return np.abs(draws(scale, THIRD))


def smaller_scales(scale: Fraction) -> NDArray[np.int64]:
    """What a Gaussian could be made of: whole variables of a variance each a third."""
    root = Fraction(math.sqrt(3))
    return sum((draws(scale / root) for _ in range(3)), np.zeros(DRAWS, np.int64))


def far_level_lost(scale: Fraction) -> NDArray[np.int64]:
    """No jump of more than twice the scale, or thereabouts."""
    sample = draws(scale, THIRD)
    return np.clip(sample, -int(4 * scale), int(4 * scale))


def digit_lost(scale: Fraction) -> NDArray[np.int64]:
    sample = draws(scale, THIRD)
    return sample - sample % 2


@pytest.mark.parametrize("bug", [part_missing, scale_off, sign_dropped, smaller_scales, far_level_lost, digit_lost])
@pytest.mark.parametrize("scale", [Fraction(1), Fraction(7, 3), Fraction(20)])
def test_the_fit_rejects_planted_bugs(bug: Callable[[Fraction], NDArray[np.int64]], scale: Fraction) -> None:
    assert p_value(bug(scale), float(scale)) < FALSE_ALARM


@pytest.mark.parametrize("part", [Fraction(1, 7), Fraction(1, 100)])
def test_a_part_has_the_probabilities_of_two_negative_binomials(part: Fraction) -> None:
    """By scipy's, convolved: an oracle that knows nothing of jumps."""
    scale = 5.0
    steps = np.arange(400)
    one = stats.nbinom.pmf(steps, float(part), 1 - math.exp(-1 / scale))
    expected = np.convolve(one, one[::-1]) * DRAWS  # of -399 .. 399
    sample = laplace.draw(DRAWS, Fraction(5), part, Stream.fresh())
    observed = np.bincount(np.clip(sample, -399, 399) + 399, minlength=799)
    often = expected >= 20
    pooled = [np.append(v[often], v[~often].sum()) for v in (observed.astype(float), expected)]
    pooled[1] *= pooled[0].sum() / pooled[1].sum()
    assert stats.chisquare(*pooled).pvalue > FALSE_ALARM


@pytest.mark.parametrize("part", [Fraction(1), Fraction(1, 6)])
@pytest.mark.parametrize("scale", [Fraction(1, 20), Fraction(1), Fraction(300)])
def test_a_part_has_that_part_of_the_variance(scale: Fraction, part: Fraction) -> None:
    sample = laplace.draw(DRAWS, scale, part, Stream.fresh())
    ratio = math.exp(-1 / scale)
    whole = 2 * ratio / (1 - ratio) ** 2
    variance = float(part) * whole
    assert abs(sample.mean()) < 6.5 * math.sqrt(variance / DRAWS)
    fourth = 3 * variance**2 + float(part) * (3 * whole**2 + whole)  # cumulants of parts are parts of cumulants
    assert abs((sample.astype(float) ** 2).mean() - variance) < 6.5 * math.sqrt(fourth / DRAWS)


def test_a_tail_as_rare_as_the_far_level_is_drawn() -> None:
    """Beyond 12 t lie e^-12 of them: 9 of ten times 150,000, of which the far level makes nearly all."""
    beyond = sum(int((np.abs(draws(Fraction(50))) > 600).sum()) for _ in range(10))
    assert stats.poisson.cdf(beyond, 10 * DRAWS * math.exp(-12)) > FALSE_ALARM
    assert stats.poisson.sf(beyond - 1, 10 * DRAWS * math.exp(-12)) > FALSE_ALARM


class Words(Stream):
    """A stream of given 64-bit words."""

    def __init__(self, *words: int) -> None:
        self.words = list(words)

    def take(self, count: int) -> bytes:
        taken, self.words = self.words[: count // 8], self.words[count // 8 :]
        assert len(taken) * 8 == count
        return b"".join(word.to_bytes(8, "little") for word in taken)


HIGH = (1 << 64) - 1
A_THIRD = HIGH // 3  # 0x5555...


@pytest.mark.parametrize("equal_words", [0, 1, 2, 5])
def test_a_tie_takes_as_many_bits_as_decide_it(equal_words: int) -> None:
    third = Bernoulli(lambda bits: (1 << bits) // 3)
    below = Words(*[A_THIRD] * equal_words, A_THIRD - 9, 0)
    assert third.draw(1, below).tolist() == [True]
    above = Words(*[A_THIRD] * equal_words, A_THIRD + 9, 0)
    assert third.draw(1, above).tolist() == [False]
    assert below.words == above.words == [0]


@pytest.mark.parametrize("equal_words", [1, 2, 4])
@pytest.mark.parametrize("place", [0, 3, 9])
@pytest.mark.parametrize("rate", [Fraction(1, 3), Fraction(7), Fraction(20)])
def test_a_tie_of_a_number_of_jumps_is_decided_exactly(rate: Fraction, place: int, equal_words: int) -> None:
    """A uniform number that agrees with the bound between k and k + 1 for some words, then is below it, or above."""
    bits = 64 * (equal_words + 1)
    with localcontext() as context:
        context.prec = 200
        mean = Decimal(rate.numerator) / rate.denominator
        term = total = (-mean).exp()
        for k in range(1, place + 1):
            term = term * mean / k
            total += term
        bound = int(total * 2**bits)
    words = [(bound >> 64 * word) % 2**64 for word in reversed(range(equal_words + 1))]
    number = Poisson(rate)
    below, above = Words(*words[:-1], words[-1] - 99, 7), Words(*words[:-1], words[-1] + 99, 7)
    assert number.draw(1, below).tolist() == [place]
    assert number.draw(1, above).tolist() == [place + 1]
    assert below.words == above.words == [7]


@pytest.mark.parametrize("rate", [Fraction(1, 1000), Fraction(5, 3), Fraction(40)])
def test_numbers_of_jumps_are_poisson(rate: Fraction) -> None:
    sample = Poisson(rate).draw(DRAWS, Stream.fresh())
    steps = np.arange(200)
    expected = stats.poisson.pmf(steps, float(rate)) * DRAWS
    observed = np.bincount(sample, minlength=200)[:200].astype(float)
    often = expected >= 20
    pooled = [np.append(v[often], max(v[~often].sum(), 1e-9)) for v in (observed, expected)]
    pooled[1] *= pooled[0].sum() / pooled[1].sum()
    assert stats.chisquare(*pooled).pvalue > FALSE_ALARM


def test_the_largest_uniform_number_is_a_number_of_jumps_too() -> None:
    number = Poisson(Fraction(2))
    assert number.draw(1, Words(HIGH, HIGH, 0)).tolist()[0] > 20


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


@pytest.mark.parametrize("multiple", [1, 2, 3])
@pytest.mark.parametrize("scale", [Fraction(1, 2), Fraction(3), Fraction(1 << 20), Fraction(1 << 56)])
def test_a_jump_beyond_the_digits_keeps_its_exact_size(scale: Fraction, multiple: int) -> None:
    places = 0
    while (limit := Fraction(1 << places) / scale) < 45:
        places += 1
    zeros = 2  # words of zeros that put a uniform number below e^-limit
    while exp_minus(limit, 64 * zeros) < 3:
        zeros += 1
    stream = Words(*[HIGH] * places, *[0] * (zeros * multiple), HIGH)
    wrapped, giants = laplace._geometric(1, scale, stream)
    assert giants == {0: multiple << places}
    assert wrapped.tolist() == [(multiple << places) % 2**64]
    assert stream.words == []


@given(st.fractions(laplace.MIN_SCALE, 1 << 20) | st.integers(1, 1 << 56).map(Fraction))
@settings(max_examples=200, deadline=None)
def test_no_level_is_proposed_less_often_than_it_is_needed(scale: Fraction) -> None:
    """On the far level the chance of keeping a jump is at most 1, and so is a near level's total rate."""
    levels = laplace.level_count(scale)
    with localcontext() as context:
        context.prec = 80
        inverse = Decimal(scale.denominator) / scale.numerator
        assert (-(2**levels) * inverse).exp() / (2**levels * (1 - (-inverse).exp())) <= 1
    assert levels == 0 or 2 ** (levels - 1) < scale + 1


@pytest.mark.parametrize("scale", [Fraction(0), Fraction(-1), Fraction(1, 1 << 21), Fraction((1 << 56) + 1)])
def test_scales_that_cannot_be_drawn_are_refused(scale: Fraction) -> None:
    with pytest.raises(OverflowError):
        laplace.draw(3, scale, Fraction(1, 2), Stream(bytes(32)))
    if scale > 0:
        with pytest.raises(ProtocolViolation):
            noise.share(3, 2 * scale**2, scale)


@pytest.mark.parametrize("part", [Fraction(0), Fraction(-1, 2), Fraction(11, 10)])
def test_parts_that_are_none_are_refused(part: Fraction) -> None:
    with pytest.raises(OverflowError):
        laplace.draw(3, Fraction(5), part, Stream(bytes(32)))


@pytest.mark.parametrize("length", [0, 1, laplace.BLOCK, 2 * laplace.BLOCK + 1])
def test_every_length_is_drawn(length: int) -> None:
    scale = Fraction(1 << 50)
    sample = noise.share(length, 2 * scale**2, scale)
    assert sample.dtype == np.int64
    assert len(np.unique(sample)) == len(sample) == length


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        noise.share(-1, Fraction(2), Fraction(1))
