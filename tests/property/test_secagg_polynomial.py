"""Both ways to evaluate a polynomial are the same polynomial, at the edges of every limb too."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trust.secagg.polynomial import MOST_POINTS, PRIME, at_each_point, at_many_points, evaluate

ELEMENTS = st.one_of(
    st.integers(0, PRIME - 1),
    st.sampled_from([0, 1, PRIME - 1, 2**28 - 1, 2**28, 2**252 - 1, 2**252, 2**256 - 2**28]),
)


@given(st.lists(ELEMENTS, min_size=1, max_size=40), st.integers(1, 200))
@example([PRIME - 1] * 40, 200)
def test_both_ways_agree(coefficients: list[int], points: int) -> None:
    assert at_many_points(coefficients, points) == at_each_point(coefficients, points)


def test_they_agree_where_limbs_grow_largest() -> None:
    for largest in (PRIME - 1, (1 << 252) - 1):
        coefficients = [largest] * 100
        every = at_many_points(coefficients, MOST_POINTS)
        value = 0
        for coefficient in coefficients:
            value = (value * MOST_POINTS + coefficient) % PRIME
        assert every[-1] == value
        assert every[:60] == at_each_point(coefficients, 60)


def test_values_are_those_of_the_polynomial() -> None:
    assert evaluate([2, 3, 5], 4) == [10, 19, 32, 49]
    assert evaluate([1, 0], 130) == list(range(1, 131))
    assert evaluate([PRIME - 1, 0], 130) == [PRIME - x for x in range(1, 131)]


def test_more_points_than_the_limbs_bear_are_refused() -> None:
    with pytest.raises(ValueError, match="2049 points"):
        at_many_points([1], MOST_POINTS + 1)
