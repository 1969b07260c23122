"""A small consortium's audit log, made by the real parts: governance, members, store, log key, witnesses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from analytics_server.audit.log import AuditLog
from analytics_server.store import Store
from harness.stores import new_url
from protos.v1 import agent_pb2, analyst_pb2, log_pb2
from trust.identity import envelope as dsse
from trust.identity import keys, membership
from trust.identity.activity import Activity
from trust.identity.requests import PAYLOAD_TYPE
from trust.release import release_hash, request_envelope_hash
from trust.tlog import notes
from trust.tlog.checkpoint import parse
from trust.tlog.witness import Witness
from trust.transcript import frame

CONSORTIUM = "north"
ORIGIN = "north/log"
INSTITUTIONS = ("alpha", "beta", "gamma")
START_MS = 1_760_000_000_000


@dataclass
class World:
    """Everything that a test needs to write a log and to verify it. `store` is open."""

    store: Store
    governance: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    log_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    identities: dict[str, Ed25519PrivateKey] = field(
        default_factory=lambda: {name: Ed25519PrivateKey.generate() for name in INSTITUTIONS}
    )
    analyst: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    now_ms: int = START_MS

    def __post_init__(self) -> None:
        self.log = AuditLog(self.store, notes.Signer(ORIGIN, self.log_key), ORIGIN)
        self.documents: list[membership.MembershipDocument] = []
        self.witnesses = {
            name: Witness(
                name=name,
                key=key,
                origin=ORIGIN,
                log_key=keys.public_bytes(self.log_key),
                clock=lambda: self.now_ms / 1000,
            )
            for name, key in self.identities.items()
        }

    @property
    def governance_key(self) -> bytes:
        return keys.public_bytes(self.governance)

    @property
    def memberships(self) -> list[bytes]:
        return [document.envelope for document in self.documents]

    def begin(self) -> None:
        """Start the log and publish the first membership."""
        self.append(
            log_pb2.LogEntry(log_started=log_pb2.LogStarted(consortium=CONSORTIUM, governance_key=self.governance_key))
        )
        self.publish()

    def publish(self, activities: Sequence[Activity] = ()) -> None:
        """Publish the next membership epoch, in which purposes belong to these processing activities."""
        previous = self.documents[-1] if self.documents else None
        institutions = []
        for name, key in self.identities.items():
            epoch_key = keys.public_bytes(X25519PrivateKey.generate())
            signature = keys.sign_epoch_key(key, CONSORTIUM, name, epoch_key)
            institutions.append(
                membership.Institution(name, f"Hospital {name}", keys.public_bytes(key), epoch_key, signature)
            )
        payload = membership.build(
            consortium=CONSORTIUM,
            epoch=previous.epoch + 1 if previous else 1,
            previous_hash=previous.hash if previous else b"",
            issued_at=self.now_ms // 1000,
            institutions=institutions,
            people=[],
            log_key=keys.public_bytes(self.log_key),
            log_origin=ORIGIN,
            minimum_cohort=3,
            colluders=1,
            activities=activities,
        )
        document = membership.verify(membership.sign(payload, self.governance), self.governance_key, previous)
        self.documents.append(document)
        with self.store.begin() as uow:
            uow.add_membership(document.epoch, document.hash, document.envelope)
            self.log.append_in(
                uow,
                [
                    self.stamped(
                        log_pb2.LogEntry(
                            membership_published=log_pb2.MembershipPublished(
                                epoch=document.epoch, membership_hash=document.hash
                            )
                        )
                    )
                ],
            )

    def stamped(self, entry: log_pb2.LogEntry) -> log_pb2.LogEntry:
        self.now_ms += 7
        entry.at_ms = self.now_ms
        entry.actor = entry.actor or "coordinator"
        return entry

    def append(self, *entries: log_pb2.LogEntry) -> int:
        """Append in one transaction; return the first sequence number."""
        return self.log.append([self.stamped(entry) for entry in entries])

    def query(
        self,
        *,
        dataset: str = "patients",
        analyst: str = "ana",
        denied_by: str = "",
        rule: str = "no rule",
        shape: str = "count(*) by sex",
        purpose: str = "sepsis study",
        rho_nano: int = 1_000_000,
        survivors: tuple[str, ...] = INSTITUTIONS,
        budget_permille: int = 0,
        after_s: float = 0,
        epoch: int = 0,
        activity: tuple[str, str] = ("", ""),
    ) -> bytes:
        """Log a whole request as the coordinator does: asked; decided; ended and released, or failed."""
        self.now_ms += int(after_s * 1000)
        payload = os.urandom(32)
        request_id, release = os.urandom(32), os.urandom(200)
        envelope = dsse.sign(PAYLOAD_TYPE, payload, self.analyst)
        with self.store.begin() as uow:
            uow.add_request(
                request_id=request_id, analyst=analyst, dataset=dataset, envelope=envelope, expires_at=self.now_ms
            )
        self.append(
            log_pb2.LogEntry(
                actor=analyst,
                requested=log_pb2.Requested(
                    request_id=request_id,
                    envelope_hash=request_envelope_hash(payload),
                    analyst=analyst,
                    dataset=dataset,
                    purpose=purpose,
                    shape=shape,
                    rho_nano=rho_nano,
                    minimum_cohort=3,
                    activity=activity[0],
                    category=activity[1],
                ),
            )
        )
        self.append(
            *(
                self.decision(
                    request_id, name, name != denied_by, rule=rule, budget_permille=budget_permille, epoch=epoch
                )
                for name in INSTITUTIONS
            )
        )
        if denied_by:
            self.append(log_pb2.LogEntry(failed=log_pb2.Failed(request_id=request_id, reason="denied")))
            with self.store.begin() as uow:
                uow.finish_request(request_id, "failed", failure=analyst_pb2.Progress().SerializeToString())
            return request_id
        self.append(
            log_pb2.LogEntry(
                round_ended=log_pb2.RoundEnded(
                    request_id=request_id, round_id=os.urandom(32), survivors=survivors, outcome="released"
                )
            ),
            log_pb2.LogEntry(
                released=log_pb2.Released(
                    request_id=request_id,
                    release_hash=release_hash(release),
                    mechanism="discrete gaussian",
                    rho_nano=rho_nano,
                    survivors=len(survivors),
                )
            ),
        )
        with self.store.begin() as uow:
            uow.finish_request(request_id, "released", analyst_pb2.Progress(release=release).SerializeToString())
        return request_id

    def decision(
        self,
        request_id: bytes,
        institution: str,
        allowed: bool,
        *,
        rule: str = "no rule",
        budget_permille: int = 0,
        epoch: int = 0,
    ) -> log_pb2.LogEntry:
        """An institution's own signed decision, as it is logged. `rule` is the one that denied."""
        rule = "rule 1" if allowed else rule
        decision = agent_pb2.Decision(
            institution=institution,
            request_id=request_id,
            allowed=allowed,
            rule=rule,
            budget_permille=budget_permille,
            epoch=epoch,
        ).SerializeToString(deterministic=True)
        signature = self.identities[institution].sign(frame("decision", decision))
        statement = agent_pb2.Answer(decision=decision, signature=signature).SerializeToString(deterministic=True)
        return log_pb2.LogEntry(
            actor=institution,
            decided=log_pb2.Decided(
                request_id=request_id, institution=institution, allowed=allowed, rule=rule, statement=statement
            ),
        )

    def witness(self, *institutions: str) -> bytes:
        """Have institutions cosign the newest head; return its note with their lines."""
        for name in institutions or INSTITUTIONS:
            with self.store.begin() as uow:
                head = self.log.head(uow)
                own = self.witnesses[name]
                proof = uow.consistency(own.size, head.size) if 0 < own.size < head.size else []
                line = own.advance(head.note, own.size, proof, persist=lambda *_: None)
                self.log.add_cosignature(uow, head.size, name, keys.public_bytes(self.identities[name]), line)
        with self.store.read() as uow:
            newest = uow.latest_checkpoint()
            assert newest is not None
            assert parse(notes.parse(newest.note).text).size == newest.size
            return self.log.cosigned(uow, newest)

    def checkpoints(self) -> list[bytes]:
        """Every signed head with its cosignatures."""
        with self.store.read() as uow:
            return [note for _, note in self.log.cosigned_checkpoints(uow, 0, 1_000_000)]

    def entries(self) -> list[tuple[int, bytes]]:
        """Every entry."""
        with self.store.read() as uow:
            return [(row.seq, row.leaf) for row in uow.leaves(0, 1_000_000)]


def new_world(folder: Path, *, queries: int = 2, witnessed: bool = True) -> World:
    """A log in a new store (see `stores`) with some queries, the second one denied, and cosignatures at the end."""
    world = World(Store.create(new_url(folder)))
    world.begin()
    for number in range(queries):
        world.query(denied_by="beta" if number % 2 else "")
    if witnessed:
        world.witness()
    return world
