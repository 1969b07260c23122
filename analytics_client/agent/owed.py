"""What the log owes this institution: every decision that led to an answer stands in it, exactly as it was signed.

A coordinator logs decisions before it asks anybody to reveal, so whoever was asked to reveal may demand to see its own
under the next head. One that is recorded otherwise, or not shown, is a lie about this institution; nothing is answered
under such a head. What is owed outlives connections, for a coordinator could end those as it likes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from google.protobuf.message import DecodeError

from protos.v1 import agent_pb2, analyst_pb2
from queries.errors import LogError
from trust import ed25519, logged
from trust.tlog.entries import decode
from trust.tlog.merkle import leaf_hash, verify_inclusion
from trust.transcript import frame

_REMEMBERED = 4096
"""Decisions that were shown before they were owed: of rounds in progress, and of those that came to nothing."""


class Owed:
    """Statements by round id, from when the round's end showed that they must be in the log until they were shown."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owed: dict[bytes, bytes] = {}
        self._shown: dict[bytes, None] = {}

    def add(self, round_id: bytes, statement: bytes) -> None:
        """From here on the log must show this statement, unless it has."""
        with self._lock:
            if round_id not in self._shown:
                self._owed[round_id] = statement

    def due(self) -> dict[bytes, bytes]:
        """Return what is owed now: whatever head is sent later must show it."""
        with self._lock:
            return dict(self._owed)

    def named(self) -> list[agent_pb2.OwnDecision]:
        """Return what a coordinator has to look up that did not hear those decisions."""
        return [
            agent_pb2.OwnDecision(round_id=round_id, request_id=_read(statement)[1].request_id)
            for round_id, statement in self.due().items()
        ]

    def check(
        self,
        proofs: Iterable[analyst_pb2.LogProof],
        due: Mapping[bytes, bytes],
        *,
        institution: str,
        keys: Callable[[], Iterable[bytes]],
        size: int,
        root: bytes,
    ) -> None:
        """Hold entries shown under a head (`size`, `root`) against what this institution signed, with one of `keys`.

        Raise LogError where one is not its own word as it gave it, or where one that is `due` is not among them.
        """
        shown = set()
        for proof in proofs:
            verify_inclusion(leaf_hash(proof.leaf), proof.seq, size, list(proof.hashes), root)
            entry = decode(proof.leaf)
            entry.DiscardUnknownFields()  # those of later versions
            answer, decision = _read(entry.decided.statement)
            if due.get(decision.round_id) != entry.decided.statement:
                _check_signature(answer, keys())
            if (
                entry.WhichOneof("event") != "decided"
                or entry.actor != institution
                or entry.decided != logged.decided(decision, entry.decided.statement)
                or entry.decided.institution != institution
            ):
                raise LogError(
                    f"the log records another decision of {institution} than it signed (entry {proof.seq})",
                    hint="nothing is answered under such a log: tell the auditor, who finds the entry by verifying",
                )
            shown.add(decision.round_id)
        with self._lock:  # what an earlier head showed, that was still being read when this one came, is not due twice
            missing = due.keys() - shown - self._shown.keys()
        if missing:
            raise LogError(
                f"the coordinator does not show that the log holds {len(missing)} decisions of {institution} "
                "on rounds that were revealed",
                hint="nothing is answered under such a log: tell the auditor",
            )
        with self._lock:
            for round_id in shown:
                self._owed.pop(round_id, None)
                self._shown[round_id] = None
            while len(self._shown) > _REMEMBERED:
                del self._shown[next(iter(self._shown))]


def _read(statement: bytes) -> tuple[agent_pb2.Answer, agent_pb2.Decision]:
    try:
        answer = agent_pb2.Answer.FromString(statement)
        return answer, agent_pb2.Decision.FromString(answer.decision)
    except DecodeError as error:
        raise LogError("a decision in the log cannot be read", hint="tell the auditor") from error


def _check_signature(answer: agent_pb2.Answer, keys: Iterable[bytes]) -> None:
    for key in keys:
        try:
            ed25519.verify(key, answer.signature, frame("decision", answer.decision))
        except ed25519.InvalidSignature:
            continue
        return
    raise LogError(
        "the log records a decision of this institution that it did not sign",
        hint="nothing is answered under such a log: tell the auditor",
    )
