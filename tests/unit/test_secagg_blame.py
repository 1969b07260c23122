"""Whom complaints remove: the rule, on the cases that it is for."""

from __future__ import annotations

import itertools

import pytest

from trust.secagg.blame import accused


@pytest.mark.parametrize(
    ("complaints", "expected"),
    [
        ([], ()),
        ([("a", "d")], ("d",)),  # one word against another: the dealer goes
        ([("d", "a")], ("a",)),
        ([("a", "d"), ("b", "d"), ("c", "d")], ("d",)),  # bad for many: the dealer alone
        ([("l", "a"), ("l", "b"), ("l", "c")], ("l",)),  # accuses many: the accuser alone
        ([("a", "b"), ("b", "a")], ("a",)),  # each accuses the other: the smaller id, and one of them only
        ([("a", "d"), ("b", "e")], ("d", "e")),
        ([("a", "d"), ("l", "d"), ("l", "b"), ("l", "c")], ("d", "l")),
    ],
)
def test_the_rule_removes_as_stated(complaints: list[tuple[str, str]], expected: tuple[str, ...]) -> None:
    assert accused(complaints) == expected


def test_no_complaint_stands_between_those_who_remain() -> None:
    pairs = [(a, b) for a in "abcd" for b in "abcd" if a != b]
    for size in range(4):
        for complaints in itertools.combinations(pairs, size):
            removed = accused(complaints)
            assert all(holder in removed or dealer in removed for holder, dealer in complaints)
            assert len(removed) <= len(complaints)
            assert accused(reversed(complaints)) == removed
