"""Posting lists: what is encoded comes back, and what is common to several is what their sets have in common."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from analytics_server.store import postings
from analytics_server.store.postings import BLOCK, FIELDS

PLACES = st.one_of(
    st.sets(st.integers(0, BLOCK - 1), min_size=1, max_size=300),
    st.builds(lambda step, first: set(range(first, BLOCK, step)), st.integers(1, 20), st.integers(0, 19)),
)


@given(PLACES)
@example(set(range(255)))
@example(set(range(256)))
@example(set(range(BLOCK)))
@example({BLOCK - 1})
def test_places_come_back_from_the_shorter_of_two_encodings(places: set[int]) -> None:
    encoded = postings.encode(sorted(places))
    assert postings.common([encoded]) == sorted(places)
    assert len(encoded) == min(2 * len(places), BLOCK // 8)


@given(st.lists(PLACES, min_size=1, max_size=4))
def test_common_places_are_those_of_the_sets(sets: list[set[int]]) -> None:
    encoded = [postings.encode(sorted(places)) for places in sets]
    assert postings.common(encoded) == sorted(set.intersection(*sets))


@given(st.lists(st.tuples(*(st.sampled_from(["", "a", "b"]) for _ in FIELDS)), min_size=1, max_size=50), st.integers(0))
def test_lists_of_a_block_say_where_each_value_stands(rows: list[tuple[str, ...]], block: int) -> None:
    first = block * BLOCK
    lists = postings.of_block(enumerate(rows, first))
    for column, field in enumerate(FIELDS):
        for value in ("a", "b"):
            stands = [place for place, row in enumerate(rows) if row[column] == value]
            assert (postings.common([lists[field, value]]) if stands else []) == stands
            assert ((field, value) in lists) == bool(stands)
        assert (field, "") not in lists
