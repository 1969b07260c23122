"""Every way in which a round is refused, one class each, under `ProtocolViolation`.

The class says which check failed, `party` whom it is attributed to ("coordinator", or an institution's id), and the
message says it to an operator. All share the stable code of `ProtocolViolation`, since what a caller does about any of
them is the same: take no further part in the round, and tell.
"""

from __future__ import annotations

from queries.errors import ProtocolViolation, QuorumError

COORDINATOR = "coordinator"


class MalformedMessage(ProtocolViolation):
    """Bytes that are not the one valid encoding of a message of this step."""


class OutOfStep(ProtocolViolation):
    """A message or call that the round's present state does not admit: repeated, early, or after its end."""


class LateMessage(OutOfStep):
    """A message for a step that the coordinator has already closed. Harmless: an honest agent may be slow."""


class UnacceptableRound(ProtocolViolation):
    """Round parameters that are unsafe, contradict themselves or fall below local policy."""


class BadSignature(ProtocolViolation):
    """A round message whose signature is not that of the institution it names."""


class BadCohort(ProtocolViolation):
    """Where neighbours are drawn: a cohort to draw from that is too small or lacks this agent."""


class BadRoster(ProtocolViolation):
    """A roster that is too small, incomplete, altered or does not carry what its dealers signed."""


class BadSurvivors(ProtocolViolation):
    """A survivor list that is too small, names strangers or misrepresents an upload."""


class BadConfirmations(ProtocolViolation):
    """Too few institutions confirmed the survivor list that this agent confirmed."""


class BadUpload(ProtocolViolation):
    """A masked vector that is truncated, over-long or not the one its manifest signs."""


class BadDealer(ProtocolViolation):
    """An institution whose shares do not open, do not match its hashes or do not reconstruct what it committed to."""


class BadShare(ProtocolViolation):
    """A helper that revealed a share other than the one its dealer gave it."""


__all__ = [
    "COORDINATOR",
    "BadCohort",
    "BadConfirmations",
    "BadDealer",
    "BadRoster",
    "BadShare",
    "BadSignature",
    "BadSurvivors",
    "BadUpload",
    "LateMessage",
    "MalformedMessage",
    "OutOfStep",
    "ProtocolViolation",
    "QuorumError",
    "UnacceptableRound",
]
