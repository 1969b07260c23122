"""Noise for budgets without a delta, in shares: independent ones whose parts add up to one are discrete Laplace.

Discrete Laplace, P(x) proportional to e^(-|x|/t) on all integers, is infinitely divisible (Inusah and Kozubowski 2006):
the sum of jumps +-j, j = 1, 2, ..., of which there are Poisson(e^(-j/t) / j) of each, so that r times as many make a
part r of it. A cut tail would cost a delta, so nothing is cut: every outcome is decided by exact probabilities.
Argument: docs/noise.md. Must not know: who asks, why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trust.noise.exponential import exp_minus
from trust.noise.stream import Stream

MIN_SCALE = Fraction(1, 1 << 20)
MAX_SCALE = Fraction(1 << 56)
"""Largest scale t: a value beyond 64 bits, 128 t, has probability e^-128."""
BLOCK = 1 << 12
"""Coordinates drawn at a time. Fixes the order of the stream, so part of the definition."""
_FAR = 45  # e^-45 < 2^-64: digits worth more than 45 t are drawn together, as one event that hardly ever happens
_DOUBT = 2.0**-44  # far more than floats err by in a probability
_ONE = 1 << 64

Probability = Callable[[int], int]
"""Of a number of bits b: an integer within 2 of p 2^b."""


def draw(length: int, scale: Fraction, part: Fraction, stream: Stream) -> NDArray[np.int64]:
    """Draw independent variables, modulo 2^64: a `part` of discrete Laplace of this scale; a function of the stream.

    Parts that add up to 1 or more, drawn under independent streams, hold a whole discrete Laplace variable and what is
    independent of it. Raise OverflowError for a scale outside [2^-20, 2^56] or a part outside (0, 1].
    """
    if not (MIN_SCALE <= scale <= MAX_SCALE and 0 < part <= 1):
        raise OverflowError("a share of discrete Laplace needs a scale from 2^-20 to 2^56 and a part of at most 1")
    out = np.zeros(length, dtype=np.uint64)
    levels = level_count(scale)
    number = Poisson(2 * part * (levels + 1))
    for start in range(0, length, BLOCK):
        block = out[start : start + BLOCK]
        counts = number.draw(len(block), stream)
        jumps = _jumps(int(counts.sum()), scale, levels, stream)
        np.add.at(block, np.repeat(np.arange(len(block)), counts), jumps)
    return out.view(np.int64)


def level_count(scale: Fraction) -> int:
    """Return the smallest L with 2^L >= t + 1. Level i < L has the jumps from 2^i to 2^(i+1) - 1, level L the others.

    On every level the rates of all jumps add up to less than 1.
    """
    levels = 0
    while (1 << levels) < scale + 1:
        levels += 1
    return levels


def _jumps(count: int, scale: Fraction, levels: int, stream: Stream) -> NDArray[np.uint64]:
    """Draw proposals on uniform levels with uniform signs: each a jump, modulo 2^64, or 0 where it is not accepted."""
    words = stream.words64(count)
    negative = (words & np.uint64(1)).astype(bool)
    level = _below(levels + 1, count, stream)
    jumps = np.zeros(count, dtype=np.uint64)
    near = np.flatnonzero(level < levels)
    jumps[near] = _near(level[near], scale, stream)
    far = np.flatnonzero(level == levels)
    jumps[far] = _far(len(far), scale, levels, stream)
    return np.where(negative, np.uint64(0) - jumps, jumps)


def _near(level: NDArray[np.uint64], scale: Fraction, stream: Stream) -> NDArray[np.uint64]:
    """Draw j uniformly from its level, and keep it with probability (2^level / j) e^(-j/t)."""
    lowest = np.uint64(1) << level
    jumps = lowest + (stream.words64(len(level)) & lowest - np.uint64(1))
    kept = np.zeros(len(level), dtype=bool)
    open_ = np.arange(len(level))
    while len(open_):  # uniform below j, out of the next power of two: below 2^level is a yes
        trial = stream.words64(len(open_)) & (lowest[open_] * np.uint64(2) - np.uint64(1))
        kept[open_] = trial < lowest[open_]
        open_ = open_[trial >= jumps[open_]]
    chosen = np.flatnonzero(kept)
    values = jumps[chosen]
    close = np.exp(-values.astype(np.float64) / float(scale))

    def exactly(index: int) -> Probability:
        exponent = int(values[index]) / scale
        return lambda bits: exp_minus(exponent, bits)

    kept[chosen] = _happen(close, exactly, stream)
    return np.where(kept, jumps, np.uint64(0))


def _far(count: int, scale: Fraction, levels: int, stream: Stream) -> NDArray[np.uint64]:
    """Draw j = 2^L + G, G geometric, and keep it with probability e^(-2^L/t) / (j (1 - e^(-1/t))), which is below 1."""
    first = 1 << levels
    wrapped, giants = _geometric(count, scale, stream)
    size = np.float64(first) + wrapped.astype(np.float64)
    for index, exact in giants.items():
        size[index] = float(exact + first)
    factor = np.exp(-float(first / scale)) / -np.expm1(-float(1 / scale))

    def exactly(index: int) -> Probability:
        jump = first + giants.get(index, int(wrapped[index]))

        def probability(bits: int) -> int:
            work = bits + 96  # 1 - e^(-1/t) is above 2^-57
            above = exp_minus(first / scale, work)
            below = jump * ((1 << work) - exp_minus(1 / scale, work))
            return (above << bits) // below

        return probability

    kept = _happen(factor / size, exactly, stream)
    return np.where(kept, np.uint64(first) + wrapped, np.uint64(0))


def _happen(close: NDArray[np.float64], exactly: Callable[[int], Probability], stream: Stream) -> NDArray[np.bool_]:
    """Draw events of given probabilities, exactly: floats decide only what is clear by far, and take nothing.

    So what is read from the stream depends on exact probabilities alone: 64 bits for each, then those of ties.
    """
    first = stream.words64(len(close))
    uniform = first.astype(np.float64) / _ONE
    happens = uniform < close
    for doubt in np.flatnonzero(np.abs(uniform - close) < _DOUBT):
        happens[doubt] = Bernoulli(exactly(int(doubt))).settle(int(first[doubt]), stream)
    return happens


def _below(bound: int, count: int, stream: Stream) -> NDArray[np.uint64]:
    """Draw uniform integers in [0, bound), bound < 2^16, by rejection of 16-bit words."""
    multiple = (1 << 16) // bound * bound
    drawn = stream.words16(count).astype(np.uint64)
    rejected = np.flatnonzero(drawn >= multiple)
    while len(rejected):
        drawn[rejected] = stream.words16(len(rejected))
        rejected = rejected[drawn[rejected] >= multiple]
    return drawn % np.uint64(bound)


def _geometric(count: int, scale: Fraction, stream: Stream) -> tuple[NDArray[np.uint64], dict[int, int]]:
    """Draw G >= 0 with P(G >= g) = e^(-g/t): modulo 2^64, and by index the few that may be larger, exactly."""
    total = np.zeros(count, dtype=np.uint64)
    *digits, far = events(scale)
    for place, digit in enumerate(digits):
        total += digit.draw(count, stream).astype(np.uint64) << np.uint64(place)
    giants = {}
    for index in np.flatnonzero(far.draw(count, stream)).tolist():
        multiple = 1
        while far.draw(1, stream)[0]:
            multiple += 1
        giants[index] = int(total[index]) + (multiple << len(digits))
        total[index] = giants[index] % _ONE
    return total, giants


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
            happens[tie] = self.settle(int(first[tie]), stream)
        return happens

    def settle(self, prefix: int, stream: Stream) -> bool:
        """Tell whether a uniform number that starts with these 64 bits is below the probability; takes bits of ties."""
        if prefix < self._surely:
            return True
        if prefix > self._never:
            return False
        bits = 64
        while True:
            prefix, bits = prefix << 64 | int.from_bytes(stream.take(8), "little"), bits + 64
            bound = self.probability(bits)
            if prefix + 1 <= bound - 2:
                return True
            if prefix >= bound + 2:
                return False


class Poisson:
    """A Poisson variable of a rational rate: the place of a uniform number among exact cumulative probabilities."""

    def __init__(self, rate: Fraction) -> None:
        self.rate = rate
        wide = []
        for bound in self._cumulative(192):
            wide.append(bound)
            if (1 << 192) - bound < 1 << 120:  # the rest is below 2^-72
                break
        self._surely = np.array([max(bound - 2, 0) >> 128 for bound in wide], dtype=np.uint64)
        self._never = np.array([min(bound + 2 >> 128, _ONE - 1) for bound in wide], dtype=np.uint64)

    def draw(self, count: int, stream: Stream) -> NDArray[np.int64]:
        """Draw `count` independent values, exactly; takes 64 bits for each, then those of ties."""
        first = stream.words64(count)
        place = np.searchsorted(self._surely, first, side="right").astype(np.int64)
        for tie in np.flatnonzero(place > np.searchsorted(self._never, first, side="left")):
            place[tie] = self._settle(int(first[tie]), stream)
        return place  # beyond the last bound everything is a tie

    def _settle(self, prefix: int, stream: Stream) -> int:
        bits = 64
        while True:
            prefix, bits = prefix << 64 | int.from_bytes(stream.take(8), "little"), bits + 64
            for place, bound in enumerate(self._cumulative(bits)):
                if prefix + 1 <= bound - 2:
                    return place
                if prefix < bound + 2:
                    break  # undecided, at the latest where the bounds reach 1

    def _cumulative(self, bits: int) -> Iterator[int]:
        """Yield integers within 2 of P(X <= k) 2^bits, for k = 0, 1, ... without end."""
        guard = 64 + 4 * int(self.rate + 1).bit_length()
        work = bits + guard + 2 * int(self.rate + 1)
        first = exp_minus(self.rate, work)
        term, total, place = Fraction(1), Fraction(0), 0
        while True:
            total += term
            yield int(first * total) >> work - bits
            place += 1
            term = term * self.rate / place
