"""What the coordinator passes on of the heads that parties have seen (`trust.tlog.gossip`). It judges nothing."""

from __future__ import annotations

from analytics_server.coordinator.rounds import Round
from analytics_server.store import UnitOfWork
from protos.v1 import analyst_pb2
from trust.identity.requests import VerifiedRequest


def seen_size(verified: VerifiedRequest) -> int:
    """Return the size of the head that a request's analyst has seen, 0 for none."""
    return verified.seen.size if verified.seen is not None else 0


def show_witnessed(progress: analyst_pb2.Progress, round_: Round, uow: UnitOfWork, size: int) -> None:
    """Add to a release the survivors' signed decisions, and proofs from the heads in them to the one of `size`."""
    decisions = [round_.decisions[survivor] for survivor in round_.survivors]
    progress.statements.extend(signed.statement for signed in decisions)
    for seen in sorted({signed.decision.log_size for signed in decisions}):
        if 0 < seen < size:
            progress.consistency.add(old_size=seen, hashes=uow.consistency(seen, size))
