"""Discrete Laplace noise for budgets without a delta: P(x) proportional to e^(-|x|/t), exactly and on all integers.

A cut tail would cost a delta, so nothing is cut. The difference of two geometric variables is discrete Laplace; the
binary digits of a geometric variable are independent, so each is one comparison of a uniform number with a probability,
made with 64 bits and, in a tie, with as many as decide it. Argument: docs/noise.md. Must not know: who asks, and why.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trust.noise.exponential import exp_minus
from trust.noise.stream import Stream

MIN_SCALE = Fraction(1, 1 << 20)
MAX_SCALE = Fraction(1 << 56)
"""Largest scale t: a value beyond 64 bits, 128 t, has probability e^-128."""
_BLOCK = 1 << 16
_FAR = 45  # e^-45 < 2^-64: digits worth more than 45 t are drawn together, as one event that hardly ever happens

Probability = Callable[[int], int]
"""Of a number of bits b: an integer within 2 of p 2^b."""


def draw(length: int, scale: Fraction, stream: Stream) -> NDArray[np.int64]:
    """Draw independent discrete Laplace variables of this scale, mean 0, modulo 2^64; a function of the stream alone.

    Raise OverflowError for a scale outside [2^-20, 2^56].
    """
    if not MIN_SCALE <= scale <= MAX_SCALE:
        raise OverflowError("a discrete Laplace needs a scale from 2^-20 to 2^56")
    out = np.empty(length, dtype=np.uint64)
    for start in range(0, length, _BLOCK):
        block = out[start : start + _BLOCK]
        block[:] = _geometric(len(block), scale, stream)
        block -= _geometric(len(block), scale, stream)
    return out.view(np.int64)


def _geometric(count: int, scale: Fraction, stream: Stream) -> NDArray[np.uint64]:
    """Draw G >= 0 with P(G >= g) = e^(-g/t), modulo 2^64."""
    total = np.zeros(count, dtype=np.uint64)
    *digits, far = events(scale)
    for place, digit in enumerate(digits):
        total += digit.draw(count, stream).astype(np.uint64) << np.uint64(place)
    for index in np.flatnonzero(far.draw(count, stream)):
        multiple = 1
        while far.draw(1, stream)[0]:
            multiple += 1
        total[index] += np.uint64((multiple << len(digits)) % (1 << 64))
    return total


@lru_cache(maxsize=32)
def events(scale: Fraction) -> tuple[Bernoulli, ...]:
    """Return the events "binary digit i is 1" of a geometric variable, last "it is 2^I or more", I digits being drawn.

    Digit i is 1 with probability 1 / (1 + e^(2^i/t)), whatever the others are; G // 2^I is geometric of scale t / 2^I.
    """
    places = 0
    while (1 << places) < _FAR * scale:
        places += 1
    digits = (Bernoulli(_odds(Fraction(1 << place) / scale)) for place in range(places))
    exponent = Fraction(1 << places) / scale
    return (*digits, Bernoulli(lambda bits: exp_minus(exponent, bits)))


def _odds(exponent: Fraction) -> Probability:
    """Return the probability 1 / (1 + e^exponent) = y / (1 + y) of y = e^-exponent, whose derivative is below 1."""

    def probability(bits: int) -> int:
        y = exp_minus(exponent, bits)
        return (y << bits) // ((1 << bits) + y)

    return probability


class Bernoulli:
    """An event of a real probability that can be computed to any precision."""

    def __init__(self, probability: Probability) -> None:
        self.probability = probability
        wide = probability(128)
        self._surely, self._never = max(wide - 2, 0) >> 64, wide + 2 >> 64

    def draw(self, count: int, stream: Stream) -> NDArray[np.bool_]:
        """Draw `count` independent outcomes, exactly; takes 64 bits for each, then those of ties."""
        first = stream.words64(count)
        happens = first < np.uint64(self._surely)
        for tie in np.flatnonzero(~happens & (first <= np.uint64(self._never))):
            happens[tie] = self._settle(int(first[tie]), stream)
        return happens

    def _settle(self, prefix: int, stream: Stream) -> bool:
        """Tell whether a uniform number that starts with these 64 bits is below the probability."""
        bits = 64
        while True:
            prefix, bits = prefix << 64 | int.from_bytes(stream.take(8), "little"), bits + 64
            bound = self.probability(bits)
            if prefix + 1 <= bound - 2:
                return True
            if prefix >= bound + 2:
                return False
