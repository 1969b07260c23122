"""The states of both sides of a round, and which event leads from which state to which.

What is not in these tables is refused as OutOfStep. docs/secure-aggregation.md prints them; a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class AgentState(Enum):
    """Where an agent stands. REFUSED is reached from any state by any refusal, CLOSED from any by `close`."""

    ANNOUNCED = "announced"
    REGISTERED = "registered"
    JOINED = "joined"
    ROSTERED = "rostered"
    UPLOADING = "uploading"
    UPLOADED = "uploaded"
    CONFIRMED = "confirmed"
    REVEALED = "revealed"
    COMPLAINED = "complained"
    REFUSED = "refused"
    CLOSED = "closed"


class CoordinatorState(Enum):
    """Where a coordinator stands. FAILED is reached from any state when the round cannot go on."""

    REGISTERING = "registering"
    JOINING = "joining"
    UPLOADING = "uploading"
    CONFIRMING = "confirming"
    REVEALING = "revealing"
    FINISHED = "finished"
    FAILED = "failed"


A, C = AgentState, CoordinatorState

AGENT_STEPS: Mapping[tuple[AgentState, str], AgentState] = {
    (A.ANNOUNCED, "join"): A.JOINED,
    (A.ANNOUNCED, "register"): A.REGISTERED,  # instead, where neighbours are drawn
    (A.REGISTERED, "cohort"): A.JOINED,
    (A.JOINED, "roster"): A.ROSTERED,  # COMPLAINED instead, when a dealer's shares are bad
    (A.ROSTERED, "upload"): A.UPLOADING,
    (A.UPLOADING, "manifest"): A.UPLOADED,  # only after the last chunk
    (A.ROSTERED, "survivors"): A.CONFIRMED,  # an agent that could not upload still helps the others
    (A.UPLOADING, "survivors"): A.CONFIRMED,
    (A.UPLOADED, "survivors"): A.CONFIRMED,
    (A.CONFIRMED, "confirmations"): A.REVEALED,
}

COORDINATOR_STEPS: Mapping[tuple[CoordinatorState, str], CoordinatorState] = {
    (C.REGISTERING, "register"): C.REGISTERING,  # the beginning where neighbours are drawn
    (C.REGISTERING, "close registration"): C.JOINING,
    (C.JOINING, "join"): C.JOINING,
    (C.JOINING, "close joins"): C.UPLOADING,
    (C.UPLOADING, "complaint"): C.UPLOADING,
    (C.UPLOADING, "upload"): C.UPLOADING,
    (C.UPLOADING, "close uploads"): C.CONFIRMING,
    (C.CONFIRMING, "confirm"): C.CONFIRMING,
    (C.CONFIRMING, "close confirms"): C.REVEALING,
    (C.REVEALING, "reveal"): C.REVEALING,
    (C.REVEALING, "result"): C.FINISHED,
}
"""Messages of a step that is already closed are LateMessage; everything else that is missing here is OutOfStep."""
