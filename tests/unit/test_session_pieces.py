"""How a session puts together an answer that comes in pieces."""

from __future__ import annotations

import pytest

from analytics_client.connection import LONGEST_RELEASE_BYTES, joined
from protos.v1 import analyst_pb2
from queries.errors import ProtocolViolation

PIECE = 1 << 20


def piece(step: str, data: bytes) -> analyst_pb2.Progress:
    return analyst_pb2.Progress(step=step, release=data)


def test_pieces_come_out_whole_and_in_order() -> None:
    messages = [piece("joined", b""), piece("release", b"a" * 5), piece("release", b"b" * 5), piece("released", b"c")]
    reports = list(joined(messages))
    assert [report.step for report in reports] == ["joined", "released"]
    assert reports[1].release == b"aaaaabbbbbc"


def test_a_job_may_have_many_large_releases() -> None:
    """Each of three quarters of what one release may be."""
    pieces = LONGEST_RELEASE_BYTES * 3 // 4 // PIECE
    whole = [piece("release", bytes(PIECE))] * pieces
    sizes = [len(report.release) for report in joined([*whole, piece("round", b"c"), *whole, piece("round", b"d")])]
    assert sizes == [pieces * PIECE + 1] * 2


def test_a_coordinator_that_never_stops_sending_is_refused_before_memory_is_full() -> None:
    sent = 0

    def endless() -> object:
        nonlocal sent
        while True:
            sent += PIECE
            yield piece("release", bytes(PIECE))

    with pytest.raises(ProtocolViolation, match="more than any question"):
        list(joined(endless()))  # type: ignore[arg-type]  # a generator of pieces
    assert sent <= LONGEST_RELEASE_BYTES + PIECE
