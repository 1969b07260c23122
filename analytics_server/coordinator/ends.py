"""How a request's end is told: as it is stored, and as the analyst reads it. Must not know: how requests run."""

from __future__ import annotations

from analytics_server.coordinator.rounds import Round
from analytics_server.store import RequestRow
from protos.v1 import analyst_pb2
from queries.errors import CohortiumError

SHOWN_DROPOUTS = 5


def failure_of(request_id: bytes, error: CohortiumError, *, charged: bool = False) -> analyst_pb2.Progress:
    """Return the report of a request that ended in an error."""
    failure = analyst_pb2.Failure(code=error.code, message=error.message, hint=error.hint, charged=charged)
    return analyst_pb2.Progress(request_id=request_id, step="failed", failure=failure)


def stored_end(row: RequestRow) -> analyst_pb2.Progress | None:
    """The end of a request as it was reported, or None while it runs."""
    stored = row.release if row.state == "released" else row.failure
    return None if stored is None else analyst_pb2.Progress.FromString(stored)


def dropped_out(round_: Round) -> str:
    """Say who left a round that came to nothing, when and why: a few of them, in half a line each."""
    said = [f"{d.institution} dropped out at {d.step} ({d.reason})" for d in round_.losses]
    more = [f"and {len(said) - SHOWN_DROPOUTS} more"] if len(said) > SHOWN_DROPOUTS else []
    return "".join(f"; {words}" for words in said[:SHOWN_DROPOUTS] + more)
