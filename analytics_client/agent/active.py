"""A round in the agent's hands, from its yes to its end. Must not know: how it is judged, how messages travel."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from queries.errors import RoundError
from trust.secagg import AgentRound
from trust.secagg.masks import Ring


@dataclass(eq=False)
class ActiveRound:
    """A round this agent has joined. `vector` is being computed while the others join."""

    core: AgentRound
    request_id: bytes  # as the ledger knows it: of a job, the round's
    vector: Future[Ring] = field(repr=False)
    analyst: str = ""
    analyst_key: bytes = field(default=b"", repr=False)
    statement: bytes = field(default=b"", repr=False)
    """The decision, as it was signed: the log will have to show it."""
    broken_off: str = ""
    """Why it ends before its time."""
    sent: bool = False
    times: int = 1  # within a doubling, at which it may leave: see `schedule`
    since: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> bytes:
        """Return the round id."""
        return self.core.round_id

    def check(self) -> None:
        """Raise RoundError where the round has been broken off: nothing more leaves for it."""
        if self.broken_off:
            raise RoundError(f"the round was broken off: {self.broken_off}")
