"""Packed lanes: sums come out exactly for all that can go in, and no lane touches its neighbour."""

from __future__ import annotations

from fractions import Fraction
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trust.secagg.packing import PLAIN, SHORTEST, Lanes, lanes_for, largest_noise, pack, unpack

LANES = st.sampled_from([32, 64]).flatmap(
    lambda ring: st.integers(2, ring // 2).map(lambda per_element: Lanes(ring, per_element))
)
ANY = st.integers(-(1 << 60), 1 << 60)


def ints(bits: int) -> st.SearchStrategy[int]:
    """Every safe sum of a lane, its ends most of all."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return st.one_of(st.sampled_from([low, high, 0, -1, 1]), st.integers(low, high))


@settings(deadline=None)
@given(st.data(), LANES)
def test_every_safe_sum_comes_out_exactly_whatever_its_addends_were(data: st.DataObject, lanes: Lanes) -> None:
    sums = np.array(data.draw(st.lists(ints(lanes.bits), min_size=1, max_size=3 * lanes.per_element + 2)))
    addends = [
        np.array(data.draw(st.lists(ANY, min_size=len(sums), max_size=len(sums))), dtype=np.int64) for _ in range(3)
    ]
    last = sums - sum(addends)
    total = pack(last, lanes)
    for addend in addends:
        total = total + pack(addend, lanes)
    assert unpack(total, lanes, len(sums)).tolist() == sums.tolist()


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 1 << 20), st.data())
def test_admissible_entries_and_noise_never_leak(addends: int, largest: int, data: st.DataObject) -> None:
    variance = Fraction(data.draw(st.integers(0, 1 << 24)))
    lanes = lanes_for(SHORTEST, largest=largest, addends=addends, share_variance=variance)
    noise = largest_noise(addends * variance, SHORTEST)
    ends = [-largest, largest, 0]
    exact = np.array(data.draw(st.lists(st.lists(st.sampled_from(ends), min_size=64, max_size=64),
                                        min_size=addends, max_size=addends)), dtype=np.int64)  # fmt: skip
    exact = np.tile(exact, SHORTEST // 64)
    tails = np.tile(np.array(data.draw(st.lists(st.sampled_from([-noise, noise, 0]), min_size=64, max_size=64))),
                    SHORTEST // 64)  # fmt: skip
    exact_total = exact.sum(axis=0) + tails
    exact[0] += tails
    packed = [pack(vector, lanes) for vector in exact]
    total = sum(packed[1:], start=packed[0])
    assert total.dtype == np.dtype(f"<u{lanes.ring_bits // 8}")
    assert (unpack(total, lanes, SHORTEST) == exact_total).all()


def test_the_bound_of_a_lane_is_the_last_value_that_stays_in_it() -> None:
    lanes = Lanes(64, 4)
    for value, neighbour in ((1 << 15, 1), (-(1 << 15) - 1, -1)):
        entries = np.array([value, 0, 0, 0], dtype=np.int64)
        assert unpack(pack(entries, lanes), lanes, 4).tolist() == [value - neighbour * (1 << 16), neighbour, 0, 0]
    for value in ((1 << 15) - 1, -(1 << 15)):
        assert unpack(pack(np.array([value, 0, 0, 0]), lanes), lanes, 4).tolist() == [value, 0, 0, 0]


def test_noise_is_bounded_but_for_2_to_minus_128() -> None:
    for variance, count in ((Fraction(16), 1), (Fraction(10**6, 3), 10**6), (Fraction(1 << 70), 1 << 31)):
        x = largest_noise(variance, count)
        log_failure = log(2 * count) - x * x / (2 * float(variance))
        assert log_failure <= -128 * log(2)
        assert log_failure > -150 * log(2), "the bound is not wasteful"
    assert largest_noise(Fraction(0), 10) == 1


def test_lanes_are_used_where_they_save_bytes_and_only_there() -> None:
    quiet = Fraction(16)
    assert lanes_for(SHORTEST - 1, largest=1, addends=3, share_variance=quiet) == PLAIN
    assert lanes_for(100_000, largest=1000, addends=10, share_variance=quiet) == Lanes(32, 2)
    assert lanes_for(100_000, largest=50_000, addends=8, share_variance=quiet) == Lanes(64, 3)
    assert lanes_for(100_000, largest=1 << 24, addends=4, share_variance=quiet) == Lanes(32, 1)
    assert lanes_for(100_000, largest=1 << 40, addends=10, share_variance=quiet) == PLAIN
    assert lanes_for(100_000, largest=1, addends=10, share_variance=Fraction(1 << 80)) == PLAIN


@pytest.mark.parametrize("largest", [1, 100, 40_000, 10**6, 10**9, 10**12])
@pytest.mark.parametrize("addends", [3, 100])
def test_a_lane_holds_the_worst_sum(largest: int, addends: int) -> None:
    lanes = lanes_for(1_000_000, largest=largest, addends=addends, share_variance=Fraction(10_000))
    worst = addends * largest + largest_noise(Fraction(10_000 * addends), 1_000_000)
    assert worst < 1 << (lanes.bits - 1)
    assert lanes.elements(1_000_000) * lanes.ring_bits <= 64_000_000


def test_a_total_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="take 3 elements"):
        unpack(np.zeros(4, dtype=np.uint64), Lanes(64, 4), 10)


def test_a_tail_beyond_the_bound_is_as_rare_as_said_for_real_noise() -> None:
    drawn = np.abs(np.random.default_rng(7).normal(0, 100, 1_000_000))
    for deviations in (2, 3, 4):
        assert (drawn > deviations * 100).mean() <= 2 * exp(-(deviations**2) / 2)
