"""Invariants of every table, every split of a variance, and the exponential they stand on."""

from __future__ import annotations

from bisect import bisect_right
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from trust.noise.exponential import exp_minus
from trust.noise.gaussian import BASE_VARIANCE, SMOOTHNESS, draw, smoothness, split
from trust.noise.stream import Stream
from trust.noise.table import MAX_VARIANCE, PRECISION, UNDECIDED, table

ONE = 1 << PRECISION
narrow = st.builds(
    lambda sigma, odd: max(Fraction(sigma) ** 2 - odd, Fraction(1, 100)),
    st.floats(0.05, 400),
    st.fractions(0, Fraction(1, 2), max_denominator=10**9),
)
wide = st.builds(
    lambda bits, mantissa, odd: Fraction(2) ** bits * Fraction(mantissa) + odd,
    st.integers(0, 114),
    st.floats(1, 2),
    st.fractions(0, 1, max_denominator=10**12),
)


@settings(max_examples=60, deadline=None)
@given(narrow)
def test_every_table_is_a_symmetric_falling_distribution(variance: Fraction) -> None:
    part = table(variance)
    ends = (0, *part.bounds, ONE)
    mass = [after - before for before, after in pairwise(ends)]
    assert len(mass) == 2 * part.reach + 1
    assert sum(mass) == ONE
    assert all(p > 0 for p in mass)  # bounds rise
    assert mass == mass[::-1]
    assert all(before >= after for before, after in pairwise(mass[part.reach :]))
    assert part.keys.tolist() == [bound >> PRECISION - 64 for bound in part.bounds]


@settings(max_examples=60, deadline=None)
@given(narrow, st.integers(0, (1 << 16) - 1))
def test_every_cell_of_a_guide_is_right(variance: Fraction, cell: int) -> None:
    part = table(variance)
    first, last = (bisect_right(part.bounds, u) - part.reach for u in (cell << 240, (cell + 1 << 240) - 1))
    assert part.guide[cell] == (first if first == last else UNDECIDED)


@settings(deadline=None)
@given(wide)
def test_every_split_adds_up_exactly_and_is_smooth(variance: Fraction) -> None:
    levels = split(variance)
    total = Fraction(0)
    for level in reversed(levels):
        if level.factor:
            assert smoothness(level.variance, total, level.factor) >= SMOOTHNESS
            assert level.variance == BASE_VARIANCE
        total = level.variance + level.factor**2 * total
    assert total == variance
    assert levels[-1].variance <= MAX_VARIANCE
    assert len(levels) <= 9


@settings(deadline=None)
@given(wide, st.binary(min_size=32, max_size=32), st.integers(0, 300))
def test_draws_are_a_function_of_the_key(variance: Fraction, key: bytes, length: int) -> None:
    draws = draw(length, variance, Stream(key))
    assert draws.tolist() == draw(length, variance, Stream(key)).tolist()
    assert length < 100 or draws.tolist() != draw(length, variance, Stream(bytes([key[0] ^ 1]) + key[1:])).tolist()


@settings(deadline=None)
@given(st.fractions(0, 200, max_denominator=10**9) | st.fractions(0, Fraction(1, 10**6)), st.integers(1, 700))
def test_the_exponential_is_within_one_unit(x: Fraction, bits: int) -> None:
    with localcontext() as context:
        context.prec = 400
        exact = (-Decimal(x.numerator) / x.denominator).exp() * (1 << bits)
        assert abs(exp_minus(x, bits) - exact) < 1
