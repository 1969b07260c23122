"""What analysts could still spend, as institutions stated it with their last decisions: read from the log, for people.

It lags behind: a round that came to nothing gave budget back, a steward may have renewed it. No institution relies on
it; each decides by its own ledger. Must not know: connections, rounds.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from analytics_server.coordinator.database import Database
from analytics_server.store import UnitOfWork
from protos.v1 import agent_pb2
from trust.tlog.entries import decode


class Mirror:
    """Reads what is left from the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def left(self, dataset: str, analyst: str) -> dict[str, int]:
        """Return per institution how much rho, in units of 1e-9, the analyst could still spend of a dataset.

        Institutions that have not decided on the dataset yet are not in it.
        """

        def read(uow: UnitOfWork) -> dict[str, int]:
            found: dict[str, int] = {}
            for row in uow.newest_allowances(dataset):
                if (said := _decision(row.leaf)) is not None:
                    found[said.institution] = said.rho_nano_left_all
            for row in uow.newest_allowances(dataset, analyst):
                if (said := _decision(row.leaf)) is not None:
                    found[said.institution] = min(said.rho_nano_left, found.get(said.institution, said.rho_nano_left))
            return found

        return await self._database.read(read)


def _decision(leaf: bytes) -> agent_pb2.Decision | None:
    """Return what an institution signed; None where that is from before budgets were stated, or cannot be read."""
    answer, decision = agent_pb2.Answer(), agent_pb2.Decision()
    try:
        answer.ParseFromString(decode(leaf).decided.statement)
        decision.ParseFromString(answer.decision)
    except DecodeError:
        return None
    stated = decision.rho_nano_left or decision.rho_nano_left_all or decision.budget_permille
    return decision if stated else None
