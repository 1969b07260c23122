"""What single entries of a log claim, held to whose word it is: decisions, statements, memberships, activities.

A part of `verify`, which says what else is checked. Pure: no files, no network, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from analytics_client.audit.history import NOTHING_GONE, Gone, Keys
from protos.v1 import agent_pb2, log_pb2
from queries.errors import CohortiumError
from trust.identity import keys as identity_keys
from trust.identity.membership import MembershipDocument
from trust.identity.requests import SKEW
from trust.tlog.merkle import EMPTY_ROOT
from trust.tlog.stored import MAX_FINDINGS, Finding
from trust.transcript import frame

SKEW_MS = SKEW * 1000
"""By how much clocks may differ."""
INSPECTED = frozenset(("membership_published", "requested", "decided", "stated", "shard_expired"))
"""Kinds of entries that hold somebody's signature or its hash, follow from one, or say what is not there any more."""


@dataclass
class Claims:
    """Reads entries in turn, and keeps what is wrong with them."""

    keys: Keys
    gone: Gone = NOTHING_GONE
    expired: set[int] = field(default_factory=set)
    """Where shards ended of which an entry says that they were deleted."""
    roots: dict[int, bytes] = field(default_factory=lambda: {0: EMPTY_ROOT})
    findings: list[Finding] = field(default_factory=list)
    statements: int = 0
    last_ms: int = 0
    strange_heads: list[tuple[int, str, int, int]] = field(default_factory=list)
    published_ms: dict[int, int] = field(default_factory=dict)
    activities: dict[int, dict[str, tuple[str, str]] | None] = field(default_factory=dict)

    def find(self, text: str, first: int | None = None, last: int | None = None, *, follows: bool = False) -> None:
        """Keep a finding, unless there are too many."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(text, first, first if last is None else last, follows))

    def inspect(self, kind: str, seq: int, entry: log_pb2.LogEntry) -> None:
        """Hold an entry of one of the kinds INSPECTED to what it rests on."""
        self.last_ms = entry.at_ms
        if kind == "membership_published":
            self._inspect_membership(seq, entry.membership_published)
            self.published_ms.setdefault(entry.membership_published.epoch, entry.at_ms)
        elif kind == "requested" and self.keys.published:
            self._inspect_activity(seq, entry.requested)
        elif kind == "decided" and entry.decided.institution and self.keys.documents:
            self._inspect_decision(seq, entry.decided)
        elif kind == "shard_expired":
            self.expired.add(entry.shard_expired.end)
        elif kind == "stated" and self.keys.documents:
            self._inspect_statement(seq, entry.stated)

    def _inspect_membership(self, seq: int, event: log_pb2.MembershipPublished) -> None:
        document = self.keys.document(event.epoch)
        if document is None or document.hash != event.membership_hash:
            self.find(f"records a membership of epoch {event.epoch} that governance's signature does not confirm", seq)
        self.keys.published.append((seq, event.epoch))

    def _inspect_activity(self, seq: int, event: log_pb2.Requested) -> None:
        """A request belongs to the processing activity that governance put its purpose under."""
        said = event.activity, event.category
        for _, epoch in reversed(self.keys.published):
            if epoch not in self.activities:
                self.activities[epoch] = _activities(self.keys.document(epoch))
            known = self.activities[epoch]
            if known is None or known.get(event.purpose, ("", "")) == said:
                return
            if self.last_ms > self.published_ms[epoch] + SKEW_MS:
                break  # else a coordinator may have read it under the one before
        else:
            if self.gone.size:
                return  # the one before was published in what is gone
        self.find("puts a request under another processing activity than governance did for its purpose", seq)

    def _inspect_decision(self, seq: int, event: log_pb2.Decided) -> None:
        """A recorded decision is the institution's own signed word, or somebody made it up."""
        if not event.statement:
            self.find(f"records a decision of {event.institution} without its signed statement", seq)
            return
        answer, decision = agent_pb2.Answer(), agent_pb2.Decision()
        try:
            answer.ParseFromString(event.statement)
            decision.ParseFromString(answer.decision)
        except DecodeError:
            self.find(f"the statement of {event.institution} cannot be read", seq)
            return
        if (
            decision.institution,
            decision.request_id,
            decision.allowed,
            decision.rule or decision.code,
            decision.rho_nano_before,
            decision.rho_nano_after,
            decision.policy_hash,
        ) != (
            event.institution,
            event.request_id,
            event.allowed,
            event.rule,
            event.rho_nano_before,
            event.rho_nano_after,
            event.policy_hash,
        ):
            self.find(f"records another decision than {event.institution} signed", seq)
            return
        self._inspect_epoch(seq, decision)
        root = self.roots.get(decision.log_size)
        if decision.log_size >= max(self.gone.size, 1) and root is None and len(self.strange_heads) < MAX_FINDINGS:
            self.strange_heads.append((seq, event.institution, decision.log_size, self.last_ms))
        if decision.log_size and root is not None and root != decision.log_root:
            shown = f"{event.institution} decided under another log: it was shown another head of that size"
            self.find(shown, seq, follows=True)
        self._inspect_signature(
            seq, event.institution, answer.signature, frame("decision", answer.decision), "decision"
        )

    def _inspect_epoch(self, seq: int, decision: agent_pb2.Decision) -> None:
        """An institution that decides under an epoch long after the next was published was not shown that one."""
        following = self.published_ms.get(decision.epoch + 1) if decision.epoch else None
        if following is not None and self.last_ms > following + SKEW_MS:
            self.find(
                f"{decision.institution} decided under membership epoch {decision.epoch}, though epoch "
                f"{decision.epoch + 1} was published {(self.last_ms - following) // 60_000} minutes before: it was "
                "withheld",
                seq,
            )

    def _inspect_statement(self, seq: int, event: log_pb2.Stated) -> None:
        """So is what an institution said of itself."""
        statement, content = agent_pb2.Statement(), agent_pb2.StatementContent()
        try:
            statement.ParseFromString(event.statement)
            content.ParseFromString(statement.content)
        except DecodeError:
            self.find(f"the statement of {event.institution} cannot be read", seq)
            return
        if (content.institution, content.about, content.text, content.subject) != (
            event.institution,
            event.about,
            event.text,
            event.subject,
        ):
            self.find(f"records another statement than {event.institution} signed", seq)
            return
        message = frame("statement", statement.content)
        self._inspect_signature(seq, event.institution, statement.signature, message, "statement")

    def _inspect_signature(self, seq: int, institution: str, signature: bytes, message: bytes, what: str) -> None:
        for key in self.keys.identity_keys(institution):
            try:
                identity_keys.verify(key, signature, message, what=f"a {what}")
            except CohortiumError:
                continue
            self.statements += 1
            return
        self.find(f"the {what} is not signed by {institution}", seq)


def _activities(document: MembershipDocument | None) -> dict[str, tuple[str, str]] | None:
    """Return name and category of the processing activity of each purpose; None where the membership is not known."""
    if document is None:
        return None
    return {purpose: (each.name, each.category) for each in document.activities for purpose in each.purposes}
