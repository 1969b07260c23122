"""What the consortium has published, verified once and kept in memory: the membership in force and every dataset.

The coordinator checks governance's signatures like everyone else; it could not publish on its own. Must not know:
connections, rounds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import MappingProxyType

from analytics_server.store import UnitOfWork
from queries.errors import IdentityError, UnknownName
from queries.policy import ANY, Policy, Rule
from queries.schema import Dataset
from trust.identity import membership
from trust.identity.dataset import verify_dataset
from trust.identity.membership import MembershipDocument
from trust.identity.names import Peer
from trust.rpc.server import Gate
from trust.secagg import Member


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset description in force, with the exact envelope that participants verify."""

    dataset: Dataset
    schema_hash: bytes
    envelope: bytes


class Directory:
    """The membership in force and the published datasets. `reload` after another process published."""

    def __init__(self, consortium: str, governance_key: bytes) -> None:
        self.consortium = consortium
        self.gate = Gate(consortium, self._is_shut_out)
        """Who may call at all: this consortium's participants, unless they are revoked."""
        self.governance_key = governance_key
        self.membership: MembershipDocument | None = None
        self.membership_envelope = b""
        self.datasets: MappingProxyType[str, Published] = MappingProxyType({})
        self.members: MappingProxyType[str, Member] = MappingProxyType({})
        self._revoked: frozenset[str] = frozenset()
        self._tls_keys: MappingProxyType[str, str] = MappingProxyType({})

    def reload(self, uow: UnitOfWork) -> bool:
        """Read and verify what is published now; return whether anything is new."""
        before = self.membership_envelope, dict(self.datasets), self._revoked, dict(self._tls_keys)
        envelope = uow.latest_membership()
        if envelope is not None and envelope != self.membership_envelope:
            self.membership = membership.verify(envelope, self.governance_key, consortium=self.consortium)
            self.membership_envelope = envelope
            self.members = MappingProxyType(
                {i.id: Member(i.id, i.organisation, i.identity_key, i.epoch_key) for i in self.membership.institutions}
            )
        published = {}
        for name, row in uow.datasets().items():
            known = self.datasets.get(name)
            if known is not None and known.envelope == row.envelope:
                published[name] = known
                continue
            dataset, schema_hash = verify_dataset(row.envelope, self.governance_key)
            published[name] = Published(dataset, schema_hash, row.envelope)
        self.datasets = MappingProxyType(published)
        participants = uow.participants()
        self._tls_keys = MappingProxyType({p.id: p.tls_key for p in participants if p.tls_key})
        self._revoked = frozenset(p.id for p in participants if p.revoked)
        return before != (self.membership_envelope, dict(self.datasets), self._revoked, dict(self._tls_keys))

    def in_force(self) -> MembershipDocument:
        """Return the membership; raise IdentityError where none has been published yet."""
        if self.membership is None:
            raise IdentityError(
                "this consortium has no membership yet",
                hint="the operator runs: cohortium-server membership publish",
            )
        return self.membership

    def is_revoked(self, participant: str) -> bool:
        """Whether the participant was revoked, whatever the membership in force still says."""
        return participant in self._revoked

    def may_ask(self, analyst: str) -> bool:
        """Whether requests of this analyst that are running may go on."""
        membership = self.membership
        return not self.is_revoked(analyst) and membership is not None and analyst in membership.identity_keys

    def _is_shut_out(self, peer: Peer) -> bool:
        """Whether the peer was revoked, has ended, or comes with a certificate from before its key was lost."""
        person = self.membership.find_person(peer.id) if self.membership is not None else None
        if person is not None and person.service is not None and time.time() > person.service.expires_at:
            return True
        return self.is_revoked(peer.id) or self._tls_keys.get(peer.id, peer.tls_key) != peer.tls_key

    def is_member(self, peer: Peer) -> bool:
        """Whether the membership in force names the peer."""
        membership = self.membership
        if membership is None:
            return False
        if peer.role == "agent":
            return peer.id in self.members
        return any(person.id == peer.id for person in membership.people)

    def require_member(self, peer: Peer) -> MembershipDocument:
        """Return the membership in force; raise IdentityError where it does not name the peer."""
        membership = self.in_force()
        if not self.is_member(peer):
            raise IdentityError(
                f"{peer.id!r} is enrolled but not yet in the membership (epoch {membership.epoch})",
                hint="the operator runs: cohortium-server membership publish",
            )
        return membership

    def coordinator_policy(self) -> Policy:
        """The coordinator's own policy: every analyst of the membership may ask; institutions decide for their data."""
        document = self.in_force()
        rule = Rule("member-analysts", (ANY,), (ANY,), (ANY,), (ANY,), (ANY,))
        return Policy((rule,), minimum_cohort=document.minimum_cohort, colluders=document.colluders)

    def dataset(self, name: str) -> Published:
        """Return a published dataset; raise UnknownName, suggesting the nearest, where there is none."""
        try:
            return self.datasets[name]
        except KeyError:
            raise UnknownName("dataset", name, self.datasets) from None
