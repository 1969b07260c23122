"""The drawn graph: uniform draws as documented, ties that are seen alike from both ends, and who counts as cut off."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from trust.secagg.bounds import Degree
from trust.secagg.graph import SEED_BYTES, DrawnGraph, FullGraph, draw, drawn_graph
from trust.transcript import frame

COHORT = tuple(f"h{i:02}" for i in range(20))
DEGREE = Degree(holders=6, threshold=5, partners=3, least=2)
CONTEXT = b"c" * 32


def seeds_of(roster: tuple[str, ...], salt: bytes = b"") -> bytes:
    return b"".join(hashlib.sha256(name.encode() + salt).digest()[:SEED_BYTES] for name in roster)


@pytest.fixture
def graph() -> DrawnGraph:
    roster = COHORT[:17]
    return drawn_graph(COHORT, roster, seeds_of(roster), DEGREE, CONTEXT)


def test_a_draw_is_what_the_documentation_says() -> None:
    """Word by word, without numpy."""
    seed, member, position, size, count = bytes(range(16)), "h07", 7, 20, 19
    stream = hashlib.shake_256(frame("secagg/draw", CONTEXT, member.encode(), seed)).digest(4000)
    expected: list[int] = []
    others = [i for i in range(size) if i != position]
    for at in range(0, len(stream), 4):
        word = int.from_bytes(stream[at : at + 4], "big")
        if word < 2**32 - 2**32 % 19 and others[word % 19] not in expected:
            expected.append(others[word % 19])
        if len(expected) == count:
            break
    assert draw(size, position, member=member, seed=seed, count=count, context=CONTEXT) == expected


def test_draws_are_distinct_uniform_and_never_of_oneself() -> None:
    counts: Counter[int] = Counter()
    for i in range(2000):
        seed = i.to_bytes(SEED_BYTES, "big")
        found = draw(11, 4, member="m", seed=seed, count=5, context=CONTEXT)
        assert len(set(found)) == 5
        assert 4 not in found
        counts.update(found)
    assert set(counts) == set(range(11)) - {4}
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert (
        chi_square < 33
    )  # of 10 cells, negatively correlated; exceeded with probability below 3e-4, and seeds are fixed


def test_draws_depend_on_round_and_member() -> None:
    one = {"seed": bytes(16), "count": 8}
    first = draw(100, 3, member="a", context=CONTEXT, **one)
    assert first != draw(100, 3, member="b", context=CONTEXT, **one)
    assert first != draw(100, 3, member="a", context=b"d" * 32, **one)


def test_ties_are_the_same_from_both_ends(graph: DrawnGraph) -> None:
    for member in graph.roster:
        holders = graph.holders(member)
        assert len(holders) == len(set(holders)) == 7
        assert holders[-1] == member
        for position, holder in enumerate(holders):
            assert member in graph.dealers(holder)
            assert graph.index(member, holder) == (position, 7)
        assert all(member in graph.partners(other) for other in graph.partners(member))
        assert member not in graph.partners(member)
        assert set(holders[:3]) & set(graph.roster) <= set(graph.partners(member))
    assert all(set(graph.dealers(name)) <= set(graph.roster) for name in COHORT)
    assert sum(len(graph.dealers(name)) for name in COHORT) == 7 * len(graph.roster)
    assert set(graph.partners(COHORT[0])) <= set(graph.roster)


def test_partners_that_one_drew_oneself_are_what_counts(graph: DrawnGraph) -> None:
    everyone = graph.roster
    for victim in everyone:
        own = [name for name in graph.holders(victim)[:3] if name in everyone]
        alive = [name for name in everyone if name == victim or name not in own]
        assert victim in graph.cut_off(alive)  # however many drew it
        alive += own[:2]
        assert (victim in graph.cut_off(alive)) == (len(own[:2]) < 2)


def test_a_graph_is_the_same_for_everybody_who_builds_it() -> None:
    roster = COHORT[3:]
    one = DrawnGraph(COHORT, roster, seeds_of(roster), DEGREE, CONTEXT)
    other = DrawnGraph(COHORT, roster, seeds_of(roster), DEGREE, CONTEXT)
    changed = DrawnGraph(COHORT, roster, seeds_of(roster, b"x"), DEGREE, CONTEXT)
    assert [one.holders(m) for m in roster] == [other.holders(m) for m in roster]
    assert [one.holders(m) for m in roster] != [changed.holders(m) for m in roster]
    assert [one.seed(m) for m in roster] == [seeds_of((m,)) for m in roster]


def test_in_a_full_graph_everybody_is_everybodys() -> None:
    graph = FullGraph("abcde", "abd", 4)
    assert graph.roster == ("a", "b", "d")
    assert list(graph.holders("a")) == list("abcde")
    assert list(graph.dealers("e")) == list("abd")
    assert list(graph.partners("b")) == ["a", "d"]
    assert graph.index("a", "d") == (3, 5)
    assert graph.cut_off("a") == ()
