"""Tables, sums and their errors, computed exactly: how far the fast sampler is from the discrete Gaussian."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from trust.noise import gaussian
from trust.noise.gaussian import SMOOTHNESS, smoothness, split
from trust.noise.stream import Stream
from trust.noise.table import MAX_VARIANCE, PRECISION, UNDECIDED, Table, table

ONE = 1 << PRECISION
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798")
VARIANCES = [Fraction(1, 1000), Fraction(1, 3), Fraction(1), Fraction(16), Fraction(40000, 3), Fraction(160_000)]


def mass(part: Table) -> dict[int, int]:
    """P(x) in units of 2^-256."""
    ends = (0, *part.bounds, ONE)
    return {x: ends[x + part.reach + 1] - ends[x + part.reach] for x in range(-part.reach, part.reach + 1)}


def gaussian_weights(variance: Fraction, values: Iterable[int]) -> dict[int, Decimal]:
    """e^(-x^2/2v) to 120 digits, by the decimal module's correctly rounded exponential."""
    with localcontext() as context:
        context.prec = 120
        return {x: (-(x * x) / Decimal(2) * variance.denominator / variance.numerator).exp() for x in values}


@pytest.mark.parametrize("variance", VARIANCES)
def test_a_table_is_within_its_cut_tails_of_the_distribution(variance: Fraction) -> None:
    part = table(variance)
    far = 2 * part.reach + 10
    with localcontext() as context:
        context.prec = 120
        weights = gaussian_weights(variance, range(-far, far + 1))
        total = sum(weights.values())
        probability = mass(part)
        errors = [abs(weight / total - Decimal(probability.get(x, 0)) / ONE) for x, weight in weights.items()]
        assert sum(errors) / 2 < Decimal(2) ** -132
        conditional = sum(weights[x] for x in probability)
        rounding = [abs(weights[x] / conditional - Decimal(p) / ONE) for x, p in probability.items()]
        assert sum(rounding) / 2 < Decimal(2 * part.reach + 2) / ONE


@pytest.mark.parametrize("sigma", [0.3, 0.7, *range(1, 40), 100.5, 400])
def test_a_table_ends_where_its_bound_on_the_tails_allows(sigma: float) -> None:
    variance, part = Fraction(sigma) ** 2, table(Fraction(sigma) ** 2)
    with localcontext() as context:
        context.prec = 120
        w = gaussian_weights(variance, range(part.reach, part.reach + 3))
        tails = [2 * w[x] / (1 - w[x + 1] / w[x]) for x in (part.reach, part.reach + 1)]
        assert tails[1] < Decimal(2) ** -132 <= tails[0]


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_guide_decides_exactly_what_the_bounds_do(variance: Fraction) -> None:
    assert wrong_cells(table(variance)) == 0


def wrong_cells(part: Table) -> int:
    """Count the cells whose guide differs from what their first and last uniform number are worth."""
    wrong = 0
    for cell, value in enumerate(part.guide.tolist()):
        first, last = (bisect_right(part.bounds, u) - part.reach for u in (cell << 240, (cell + 1 << 240) - 1))
        wrong += value != (first if first == last else UNDECIDED)
    return wrong


def test_a_guide_that_is_one_off_is_seen() -> None:
    part = table(Fraction(16))
    assert wrong_cells(replace(part, guide=np.roll(part.guide, 1))) > 30
    late = np.where(part.guide == UNDECIDED, np.roll(part.guide, 1), part.guide)
    assert wrong_cells(replace(part, guide=late)) > 30


class Given(Stream):
    """A stream of given bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def take(self, count: int) -> bytes:
        taken, self.content = self.content[:count], self.content[count:]
        assert len(taken) == count
        return taken


def bits_of(uniform: int) -> Given:
    """The stream in which a lone draw finds a uniform 256-bit number."""
    cell, more, rest = uniform >> 240, (uniform >> 176) % (1 << 64), uniform % (1 << 176)
    return Given(cell.to_bytes(2, "little") + more.to_bytes(8, "little") + rest.to_bytes(22, "little"))


@pytest.mark.parametrize("variance", [Fraction(1), Fraction(16), Fraction(40000, 3)])
def test_draws_at_a_bound_are_decided_by_their_last_bit(variance: Fraction) -> None:
    part = table(variance)
    for index, bound in enumerate(part.bounds):
        assert part.draw(1, bits_of(bound - 1))[0] == index - part.reach
        assert part.draw(1, bits_of(bound))[0] == index - part.reach + 1


def test_bits_are_made_only_where_they_decide() -> None:
    part = table(Fraction(1))
    middle, tied = Given(bytes.fromhex("0080")), bits_of(part.bounds[13])
    assert part.draw(1, middle)[0] == 0
    assert part.draw(1, bits_of(part.bounds[13] + (1 << 200)))[0] == 1
    near = bits_of(part.bounds[13] + (1 << 200))
    part.draw(1, near)
    assert len(near.content) == 22  # 80 bits sufficed
    part.draw(1, tied)
    assert tied.content == b""


@pytest.mark.parametrize("variance", [Fraction(0), Fraction(-1), Fraction(MAX_VARIANCE) + Fraction(1, 10**9)])
def test_a_variance_outside_the_tables_is_refused(variance: Fraction) -> None:
    with pytest.raises(ValueError, match="variance"):
        table(variance)


def test_a_table_cannot_be_written_to() -> None:
    for array in (table(Fraction(2)).guide, table(Fraction(2)).keys):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


# Sums.


def sum_error(low: Fraction, high: Fraction, factor: int, places: NDArray[np.int64]) -> Decimal:
    """Largest difference, over these values, of P(X1 + k X2) from the one discrete Gaussian's, in units of its P(0)."""
    first, second, variance = mass(table(low)), mass(table(high)), low + factor**2 * high
    with localcontext() as context:
        context.prec = 120
        # Poisson summation: the weights sum to sqrt(2 pi v) (1 + 2 exp(-2 pi^2 v) + ...), and v is large.
        total = (2 * PI * variance.numerator / variance.denominator).sqrt()
        worst = Decimal(0)
        for y, weight in gaussian_weights(variance, places.tolist()).items():
            together = sum(p * first.get(y - factor * x, 0) for x, p in second.items())
            worst = max(worst, abs(Decimal(together) / ONE / ONE * total - weight))
        return worst


@pytest.mark.parametrize("sigma", [401, 1000, 20_000])
def test_a_sum_is_the_discrete_gaussian_to_within_its_bound(sigma: int) -> None:
    (low, high) = split(Fraction(sigma) ** 2)
    places = np.unique(np.linspace(0, 6 * sigma, 60).astype(np.int64))
    # 2 e from the sum, the rest from the tails the tables lack.
    assert sum_error(low.variance, high.variance, low.factor, places) < Decimal(2) ** -130


def test_a_sum_that_would_not_be_smooth_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "isqrt", lambda n: isqrt(n) + 1)
    with pytest.raises(ArithmeticError):
        split(Fraction(10**6))


def test_a_sum_that_is_less_smooth_is_seen_to_be_worse() -> None:
    low, high, factor = Fraction(40**2), Fraction(40**2), 40
    assert Fraction(99, 100) < smoothness(low, high, factor) < 1 < SMOOTHNESS
    bound = 2 * (-2 * PI * PI * Decimal("0.99")).exp()  # 7e-9
    assert bound / 2 < sum_error(low, high, factor, np.arange(40)) < bound * 2


@pytest.mark.parametrize("sigma", [1, 400, 401, 1000, 47_000, 10**6, 2**38, 2**44, 2**57])
def test_total_variation_of_ten_million_coordinates(sigma: int) -> None:
    levels = split(Fraction(sigma) ** 2)
    per_table = Fraction(1, 2**132)
    per_sum = Fraction(1, 2**133)  # e / (1 - e), e = 2 exp(-2 pi^2 4.71) < 2^-133.1
    per_coordinate = len(levels) * per_table + (len(levels) - 1) * per_sum
    assert 10**7 * per_coordinate < Fraction(1, 2**105)


def test_the_smoothness_bound_is_what_it_says() -> None:
    with localcontext() as context:
        context.prec = 60
        terms = [(-2 * PI * PI * Decimal(471) / 100 * n * n).exp() for n in (1, 2, 3)]
        assert 2 * sum(terms) < Decimal(2) ** -133
