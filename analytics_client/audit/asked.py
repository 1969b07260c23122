"""Entries put together into what people ask about: a request, who decided what about it, how it ended, what it cost.

Reads what a leaf says and nothing else; whether the leaf is to be believed is `verify`'s business. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from google.protobuf.message import DecodeError

from analytics_client.audit.history import Entry
from protos.v1 import agent_pb2, log_pb2
from queries.errors import LogError
from trust.tlog.entries import decode

Outcome = Literal["released", "denied", "failed", "running"]


@dataclass(frozen=True, slots=True)
class Decision:
    """An institution's word on a request; "" as the institution stands for the coordinator's own policy.

    `spent_before` and `spent_after` are what the analyst had used of the dataset there, as rho in units of 1e-9.
    """

    seq: int
    at_ms: int
    institution: str
    allowed: bool
    rule: str
    spent_before: int
    spent_after: int
    statement: bytes = field(repr=False)

    def signed(self) -> agent_pb2.Decision:
        """Return what the institution signed; an empty one where that cannot be read, which `verify` names."""
        answer, decision = agent_pb2.Answer(), agent_pb2.Decision()
        try:
            answer.ParseFromString(self.statement)
            decision.ParseFromString(answer.decision)
        except DecodeError:
            return agent_pb2.Decision()
        return decision


@dataclass
class Asked:
    """One request. Times are unix milliseconds, costs rho in units of 1e-9; `shape` holds no literal."""

    request_id: bytes
    seq: int
    at_ms: int
    analyst: str
    purpose: str
    dataset: str
    shape: str
    rho_nano: int
    minimum_cohort: int
    decisions: list[Decision] = field(default_factory=list)
    survivors: tuple[str, ...] = ()
    releases: int = 0
    last_seq: int = 0
    ended_ms: int = 0
    failure: str = ""
    _released_nano: int = 0
    _charged: bool = False

    @property
    def outcome(self) -> Outcome:
        """How it ended: denied where it failed because somebody said no."""
        if self.failure:
            return "denied" if not self.releases and self.denials() else "failed"
        return "released" if self.releases else "running"

    @property
    def spent_nano(self) -> int:
        """What it cost: nothing without a charge; of a job, the rounds that were released.

        One whose end is not in the log yet counts in full as soon as somebody allowed it.
        """
        if self._charged or (self.outcome == "running" and any(d.allowed for d in self.decisions)):
            return self.rho_nano
        return min(self.rho_nano, self._released_nano)

    def denials(self) -> list[Decision]:
        """Return the decisions that said no, in their order."""
        return [d for d in self.decisions if not d.allowed]

    def allowed_by(self) -> frozenset[str]:
        """Return the institutions that said yes."""
        return frozenset(d.institution for d in self.decisions if d.allowed)


def requests(entries: Iterable[Entry]) -> list[Asked]:
    """Return every request of the log in the order asked. Entries about requests that are not there are left out."""
    found: dict[bytes, Asked] = {}
    for seq, leaf in entries:
        try:
            entry = decode(leaf)
        except LogError:
            continue  # `verify` names it
        kind = entry.WhichOneof("event")
        if kind == "requested":
            event = entry.requested
            found.setdefault(event.request_id, _asked(seq, entry.at_ms, event))
        elif kind in {"decided", "round_ended", "released", "failed"}:
            about = found.get(getattr(entry, kind).request_id)
            if about is not None:
                _add(about, seq, entry, kind)
    return list(found.values())


def _asked(seq: int, at_ms: int, event: log_pb2.Requested) -> Asked:
    return Asked(
        request_id=event.request_id,
        seq=seq,
        at_ms=at_ms,
        analyst=event.analyst,
        purpose=event.purpose,
        dataset=event.dataset,
        shape=event.shape,
        rho_nano=event.rho_nano,
        minimum_cohort=event.minimum_cohort,
        last_seq=seq,
    )


def _add(asked: Asked, seq: int, entry: log_pb2.LogEntry, kind: str) -> None:
    asked.last_seq = seq
    if kind == "decided":
        d = entry.decided
        asked.decisions.append(
            Decision(
                seq, entry.at_ms, d.institution, d.allowed, d.rule, d.rho_nano_before, d.rho_nano_after, d.statement
            )
        )
        return
    asked.ended_ms = entry.at_ms
    if kind == "round_ended":
        asked.survivors = tuple(entry.round_ended.survivors)
    elif kind == "released":
        asked.releases += 1
        asked._released_nano += entry.released.rho_nano
    else:
        asked.failure = entry.failed.reason or "no reason given"
        asked._charged = entry.failed.charged
