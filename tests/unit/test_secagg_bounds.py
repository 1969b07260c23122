"""How many neighbours are enough: the published figures, tails against scipy's, bounds against brute force."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from scipy.stats import hypergeom

from trust.secagg import bounds
from trust.secagg.bounds import Degree, degree, log2_larger_groups, log2_single
from trust.secagg.parameters import default_threshold


@pytest.mark.parametrize(("percent", "holders"), [(5, 78), (10, 100), (20, 140)])
def test_a_thousand_members_need_the_stated_neighbours(percent: int, holders: int) -> None:
    found = degree(1000, 10 * percent, default_threshold(1000))
    assert found is not None
    assert found.holders == holders
    assert found.partners == holders // 2


def at_least(members: int, marked: int, drawn: int, least: int) -> float:
    """A union bound: some member draws at least so many of the marked."""
    return float(members * hypergeom(members - 1, marked, drawn).sf(least - 1))


SIZES = [(n, c) for n in (501, 750, 1000, 1400, 2000) for c in (1, n // 10, n // 5)]


@pytest.mark.parametrize(("members", "colluders"), SIZES)
def test_a_degree_keeps_its_promises_and_two_fewer_would_not(members: int, colluders: int) -> None:
    threshold = default_threshold(members)
    bad, gone = max(colluders, math.ceil(members / 20)), members // 10
    found = degree(members, colluders, threshold)
    assert found is not None

    def serves(holders: int) -> tuple[range, range]:
        """The share thresholds and the least partners that would do."""
        partners = holders // 2
        corrupt = next(x for x in range(-1, 999) if at_least(members, bad, holders, x + 1) <= 2**-40)
        gone_holders = next(x for x in range(-1, 999) if at_least(members, gone, holders, x + 1) <= 2**-20)
        corrupt_partners = next(x for x in range(-1, 999) if at_least(members, bad, partners, x + 1) <= 2**-40)
        gone_partners = next(x for x in range(-1, 999) if at_least(members, gone, partners, x + 1) <= 2**-20)
        return (
            range((holders + 1 + corrupt) // 2 + 1, holders - gone_holders + 1),
            range(corrupt_partners + 1, partners - gone_partners + 1),
        )

    thresholds, leasts = serves(found.holders)
    assert found.threshold in thresholds
    assert found.least in leasts
    assert log2_single(found, members, bad) <= -40
    assert log2_larger_groups(found, members, bad, threshold) <= -bounds.NEGLIGIBLE_BITS
    thresholds, leasts = serves(found.holders - 2)
    assert not (thresholds and leasts)


@pytest.mark.parametrize(("members", "colluders"), SIZES)
def test_a_cohort_that_shrank_to_the_threshold_still_has_a_safe_degree(members: int, colluders: int) -> None:
    threshold = default_threshold(members)
    bad = max(colluders, math.ceil(threshold / 20))
    found = degree(threshold, colluders, threshold)
    assert found is not None
    assert log2_single(found, threshold, bad) <= -40
    assert log2_larger_groups(found, threshold, bad, threshold) <= -bounds.NEGLIGIBLE_BITS


def test_more_colluders_dropouts_or_bits_never_need_fewer_neighbours() -> None:
    base = degree(600, 30, 401)
    assert base is not None
    for more in (
        degree(600, 60, 401),
        degree(600, 30, 401, dropouts=90),
        degree(600, 30, 401, privacy_bits=60),
        degree(600, 30, 401, abort_bits=40),
    ):
        assert more is not None
        assert more.holders > base.holders


def test_there_is_no_degree_where_too_many_collude() -> None:
    assert degree(501, 125, 400) is not None
    assert degree(501, 168, 500) is None
    assert degree(2000, 1900, 1990) is None
    assert degree(10, 1, 7) is None


def test_the_tails_are_exact() -> None:
    for population, marked, drawn in ((10, 3, 4), (12, 12, 5), (9, 0, 3)):
        ways = bounds._upper_tails(population, marked, drawn)
        for least in range(drawn + 1):
            sets = itertools.combinations(range(population), drawn)
            assert ways[least] == sum(sum(item < marked for item in drawn_set) >= least for drawn_set in sets)


def can_be_split(picks: list[int], bad: int, threshold: int, least: int) -> bool:
    """Whether some survivor list that every agent accepts cuts two or more honest members off from two or more others.

    By trying all lists with all colluders on them. Sets of members are bits of an integer.
    """
    members = range(len(picks))
    tied = [pick | sum(1 << j for j in members if picks[j] >> i & 1) for i, pick in enumerate(picks)]
    for listed in range(1 << len(picks)):
        if listed & bad != bad or listed.bit_count() < threshold:
            continue
        alive = listed & ~bad
        if any(alive >> i & 1 and (picks[i] & listed).bit_count() < least for i in members):
            continue
        group, edge = 0, alive & -alive
        while edge:
            group |= edge
            reached = 0
            for i in members:
                if edge >> i & 1:
                    reached |= tied[i]
            edge = reached & alive & ~group
        if 2 <= group.bit_count() <= alive.bit_count() - 2:
            return True
    return False


def test_the_bound_on_larger_groups_holds_where_all_lists_can_be_tried() -> None:
    """Small enough to try every list, with so few partners that graphs do fall apart, less often than is claimed."""
    members, threshold = 11, 7
    choose = random.Random(20240702)
    for partners, least in ((2, 1), (3, 2), (4, 3)):
        split, graphs = 0, 60
        for _ in range(graphs):
            picks = [
                sum(1 << j for j in choose.sample([j for j in range(members) if j != i], partners))
                for i in range(members)
            ]
            split += can_be_split(picks, 1, threshold, least)
        claimed = log2_larger_groups(Degree(2 * partners, 1, partners, least), members, 1, threshold)
        assert split / graphs <= 2**claimed
        if partners == 2:
            assert split > 0  # so that the comparison can fail
