"""Shamir sharing: any t shares open a secret, fewer are uniform, encodings are strict."""

from __future__ import annotations

import itertools
import os

import pytest

from trust.secagg import field
from trust.secagg.rehearsal import seeded


def test_any_threshold_of_shares_reconstructs_the_secret() -> None:
    secret = field.random_element(os.urandom)
    shares = field.split(secret, 3, 5, os.urandom)
    for xs in itertools.combinations(range(1, 6), 3):
        assert field.reconstruct(xs, [shares[x - 1] for x in xs]) == secret


def test_one_share_below_the_threshold_is_consistent_with_every_secret() -> None:
    """For any secret there is exactly one third point that completes two shares to it: two shares say nothing."""
    shares = field.split(7, 3, 5, os.urandom)
    for wanted in (0, 7, field.PRIME - 1):
        row = field.lagrange_row((1, 2, 3))
        rest = wanted - row[0] * shares[0] - row[1] * shares[1]
        third = rest * pow(row[2], -1, field.PRIME) % field.PRIME
        assert field.reconstruct((1, 2, 3), [shares[0], shares[1], third]) == wanted


def test_a_threshold_of_one_hands_out_the_secret_itself() -> None:
    assert field.split(42, 1, 3, os.urandom) == [42, 42, 42]


def test_random_elements_are_drawn_again_when_they_are_not_below_the_prime() -> None:
    draws = iter([field.PRIME.to_bytes(32, "big"), bytes([255] * 32), (5).to_bytes(32, "big")])
    assert field.random_element(lambda _size: next(draws)) == 5


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(33), field.PRIME.to_bytes(32, "big"), bytes([255] * 32)])
def test_a_field_element_has_one_encoding(data: bytes) -> None:
    with pytest.raises(ValueError, match="field element"):
        field.parse_element(data)


def test_elements_round_trip() -> None:
    for value in (0, 1, field.PRIME - 1):
        assert field.parse_element(field.element_bytes(value)) == value


def test_a_seeded_source_repeats_itself_and_differs_by_seed() -> None:
    one, again, other = seeded(b"1"), seeded(b"1"), seeded(b"2")
    first = one(32)
    assert first == again(32) != other(32)
    assert one(32) != first
