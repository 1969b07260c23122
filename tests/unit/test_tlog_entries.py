"""Every kind of entry can be searched for and read by a person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.v1 import log_pb2
from queries.errors import LogError
from trust.tlog import entries


def entry(kind: str) -> log_pb2.LogEntry:
    made = log_pb2.LogEntry(at_ms=1_760_000_000_000, actor="ana")
    getattr(made, kind).SetInParent()
    return made


@pytest.mark.parametrize("kind", entries.KINDS)
def test_every_kind_has_a_sentence_and_columns(kind: str) -> None:
    made = entry(kind)
    assert entries.sentence(3, made).startswith("     3  2025-10-09 08:53:20  ana: ")
    assert entries.columns(made).kind == kind
    assert entries.decode(entries.encode(made)) == made


def test_columns_of_a_request() -> None:
    made = entry("requested")
    made.requested.MergeFrom(
        log_pb2.Requested(request_id=b"\x01\xff", analyst="ana", purpose="p", dataset="d", rho_nano=5)
    )
    found = entries.columns(made)
    assert (found.analyst, found.purpose, found.dataset, found.request_id, found.rho_nano, found.outcome) == (
        "ana",
        "p",
        "d",
        "01ff",
        5,
        "",
    )


@pytest.mark.parametrize(("allowed", "outcome"), [(True, "allowed"), (False, "denied")])
def test_outcome_of_a_decision(allowed: bool, outcome: str) -> None:
    made = entry("decided")
    made.decided.allowed = allowed
    assert entries.columns(made).outcome == outcome
    assert outcome in entries.sentence(0, made)


def test_a_newer_kind_is_read_as_unknown() -> None:
    newer = log_pb2.LogEntry(at_ms=5, actor="x").SerializeToString() + b"\xfa\x06\x00"  # field 111, a message
    decoded = entries.decode(newer)
    assert entries.columns(decoded).kind == entries.UNKNOWN
    assert "cannot read" in entries.sentence(1, decoded)


def test_names_cannot_drive_the_terminal() -> None:
    made = entry("requested")
    made.requested.purpose = made.requested.dataset = "\x1b[2J\x07\u202e"
    assert entries.sentence(0, made).isprintable()


def test_impossible_times_are_said_to_be_so() -> None:
    made = entry("failed")
    made.at_ms = 1 << 62
    assert "impossible time" in entries.sentence(0, made)


@pytest.mark.parametrize("leaf", [b"\xff", b"\x08", b"\x12\x05ab"])
def test_other_bytes_are_no_entry(leaf: bytes) -> None:
    with pytest.raises(LogError, match="not an entry"):
        entries.decode(leaf)


@pytest.mark.parametrize(
    "made",
    [
        log_pb2.LogEntry(at_ms=1, actor="a"),
        log_pb2.LogEntry(at_ms=1, log_read=log_pb2.LogRead()),
        log_pb2.LogEntry(actor="a", log_read=log_pb2.LogRead()),
    ],
)
def test_incomplete_entries_are_refused(made: log_pb2.LogEntry) -> None:
    with pytest.raises(LogError, match="needs a time, an actor and an event"):
        entries.encode(made)


LEAVES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda at, actor, what: entries.encode(
            log_pb2.LogEntry(at_ms=at, actor=actor, log_read=log_pb2.LogRead(what=what))
        ),
        st.integers(1, 1 << 60),
        st.text(min_size=1, max_size=5),
        st.one_of(st.text(max_size=20), st.sampled_from(["x" * 130, "y" * 16_384, "z" * 100_000])),
    ),
)


@given(st.lists(LEAVES, max_size=30), st.integers(0, 600))
def test_leaves_parsed_together_are_what_each_is_alone(leaves: list[bytes], others: int) -> None:
    leaves = [entries.encode(entry("requested"))] * others + leaves
    expected = []
    for leaf in leaves:
        try:
            expected.append(entries.decode(leaf))
        except LogError:
            expected.append(None)
    found = list(entries.decode_all(leaves))
    assert found == expected
    assert [e and e.SerializeToString() for e in found] == [e and e.SerializeToString() for e in expected]


def test_leaf_that_ends_early_does_not_reach_into_the_next() -> None:
    whole = entries.encode(entry("requested"))
    found = list(entries.decode_all([whole, b"\x12\x05", whole]))
    assert found == [entry("requested"), None, entry("requested")]
