"""How a round ends, for whom: who dropped out, what institutions decided, and the two ways of giving no sum."""

from __future__ import annotations

from dataclasses import dataclass

from protos.v1 import agent_pb2
from queries.errors import CohortiumError


@dataclass(frozen=True, slots=True)
class Dropout:
    """An institution that did not finish the round: at which step, and why."""

    institution: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class SignedDecision:
    """An institution's own word on a request, as it signed it."""

    decision: agent_pb2.Decision
    statement: bytes
    """Exact bytes of the `Answer` parts: decision and signature."""


class RoundFailed(Exception):
    """The round is over without a sum. `charged`: masked vectors were sent, and their senders have spent budget."""

    def __init__(self, error: CohortiumError, *, charged: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.charged = charged


class RoundRestart(Exception):
    """Members were found cheating before anything was revealed: begin a new round without `accused`."""

    def __init__(self, accused: tuple[str, ...]) -> None:
        super().__init__(", ".join(accused))
        self.accused = accused
