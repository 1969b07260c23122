"""Publishing what governance signs: who belongs to the consortium, and what its datasets are.

A single governor signs here; a council's members sign elsewhere what is proposed here, and it is published after.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from analytics_server.audit.log import AuditLog
from analytics_server.config import ServerConfig
from analytics_server.governance.office import Governance, current_membership, decided, stamped
from analytics_server.governance.proofs import check_vouched, needing_proof
from analytics_server.store import KeyChangeRow, Store, UnitOfWork
from protos.v1 import log_pb2
from queries import schema
from queries.errors import ConfigError, IdentityError
from trust.identity import keys, membership
from trust.identity.activity import Activity
from trust.identity.council import Council
from trust.identity.dataset import PAYLOAD_TYPE as DATASET
from trust.identity.dataset import sign_dataset, verify_dataset
from trust.identity.membership import Institution, MembershipDocument, Person
from trust.identity.service import Service
from trust.identity.succession import KeyChange


@dataclass(frozen=True, slots=True)
class Changes:
    """Who the next membership would add and remove."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    rekeyed: tuple[str, ...] = ()
    """Who gets another identity key, by rotation or recovery."""
    rescoped: tuple[str, ...] = ()
    """Service accounts that are prolonged, or get other datasets."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.rekeyed or self.rescoped)


def pending(uow: UnitOfWork, config: ServerConfig) -> Changes:
    """Return how those who are enrolled and not revoked differ from the newest membership."""
    return _changes(uow, current_membership(uow, config), *_enrolled(uow))


def publish_membership(
    store: Store, log: AuditLog, config: ServerConfig, governance: Governance, *, now: int
) -> tuple[MembershipDocument, Changes]:
    """Sign and store the next epoch: everyone enrolled and not revoked. Without any change the current one stands.

    Raises IdentityError where the result would be no valid membership, or nobody has enrolled.
    """
    if governance.key is None:
        raise ConfigError("a council governs this consortium", hint="cohortium-server council propose DIR FILE")
    seen = check_vouched(store, config)
    with store.begin() as uow:
        current = current_membership(uow, config)
        payload, changes = _next_payload(uow, config, governance, current, now=now, vouched=seen)
        if payload is None:
            assert current is not None  # noqa: S101 - without one there is a payload
            return current, changes
        return _enter(uow, log, config, membership.sign(payload, governance.key), current), changes


def propose_membership(
    store: Store, config: ServerConfig, path: Path, council: Council, *, now: int
) -> tuple[bytes, Changes]:
    """Return the next epoch for the council's members to sign. `path` is the governance folder. Changes nothing.

    Raises IdentityError as `publish_membership` does, or where there is nothing to change, ConfigError for a council
    that does not govern this consortium.
    """
    if council.governance_key != config.governance_key:
        raise ConfigError(
            "another council governs this consortium", hint="the members and threshold it was founded with"
        )
    seen = check_vouched(store, config)
    with store.read() as uow:
        current = current_membership(uow, config)
        payload, changes = _next_payload(uow, config, decided(path, config), current, now=now, vouched=seen)
    if payload is None:
        raise IdentityError("nobody joined or left: there is nothing to sign", hint="invite or revoke somebody first")
    return council.propose(membership.PAYLOAD_TYPE, payload), changes


def publish_signed(store: Store, log: AuditLog, config: ServerConfig, envelope: bytes) -> MembershipDocument:
    """Store a membership that the council has signed, if it continues the one in force.

    Raises SignatureError (too few members), IdentityError (it continues another epoch).
    """
    with store.begin() as uow:
        return _enter(uow, log, config, envelope, current_membership(uow, config))


def _next_payload(
    uow: UnitOfWork,
    config: ServerConfig,
    governance: Governance,
    current: MembershipDocument | None,
    *,
    now: int,
    vouched: frozenset[str],
) -> tuple[bytes | None, Changes]:
    """Return the next epoch to sign, None where nothing changes. `vouched`: whose ID tokens have been checked."""
    institutions, people = _enrolled(uow)
    changes = _changes(uow, current, institutions, people)
    if missing := sorted(needing_proof(uow) & {*changes.added} - vouched):
        raise IdentityError(f"{', '.join(missing)} enrolled meanwhile", hint="publish again")
    if current is None and not institutions and not people:
        raise IdentityError("nobody has enrolled yet", hint="cohortium-server invite DIR --role agent --id ID")
    says = governance.minimum_cohort, governance.colluders, governance.activities
    if current is not None and not changes and _says(current) == says and not _ending(current, now):
        return None, changes
    epoch = 1 if current is None else current.epoch + 1
    pending = uow.pending_key_changes()
    new = [_key_change(pending[name], epoch) for name in changes.rekeyed]
    payload = membership.build(
        consortium=config.consortium,
        epoch=epoch,
        previous_hash=b"" if current is None else current.hash,
        issued_at=now,
        institutions=institutions,
        people=people,
        log_key=config.log_key(),
        log_origin=config.log_origin,
        minimum_cohort=governance.minimum_cohort,
        colluders=governance.colluders,
        key_changes=(*(current.key_changes if current else ()), *new),
        valid_until=now + governance.valid_days * 86_400,
        activities=governance.activities,
    )
    return payload, changes


def _enter(
    uow: UnitOfWork, log: AuditLog, config: ServerConfig, envelope: bytes, current: MembershipDocument | None
) -> MembershipDocument:
    document = membership.verify(envelope, config.governance_key, current, consortium=config.consortium)
    if document.epoch != (1 if current is None else current.epoch + 1):
        raise IdentityError(
            f"this is epoch {document.epoch}, the one in force is {current.epoch if current else 'none'}",
            hint="propose the next one and have it signed",
        )
    uow.add_membership(document.epoch, document.hash, document.envelope)
    event = log_pb2.MembershipPublished(epoch=document.epoch, membership_hash=document.hash)
    entries = [log_pb2.LogEntry(membership_published=event)]
    for change in document.key_changes:
        if change.epoch == document.epoch:
            uow.apply_key_change(change.id, change.new_key)
            changed = log_pb2.KeyChanged(
                participant=change.id,
                old_key=change.old_key,
                new_key=change.new_key,
                reason=change.reason,
                epoch=change.epoch,
            )
            entries.append(log_pb2.LogEntry(key_changed=changed))
    log.append_in(uow, [stamped("governance", entry) for entry in entries])
    return document


def publish_dataset(store: Store, log: AuditLog, governance: Governance, text: str) -> tuple[schema.Dataset, bytes]:
    """Sign and store a dataset description written in TOML; return it and its hash. Raises SchemaError."""
    if governance.key is None:
        raise ConfigError(
            "a council governs this consortium", hint="cohortium-server council propose DIR FILE --schema"
        )
    data = schema.to_bytes(schema.from_toml(text))
    return _enter_dataset(store, log, sign_dataset(data, governance.key), keys.public_bytes(governance.key))


def propose_dataset(council: Council, text: str) -> bytes:
    """Return a dataset description written in TOML for the council's members to sign. Raises SchemaError."""
    return council.propose(DATASET, schema.to_bytes(schema.from_toml(text)))


def publish_signed_dataset(
    store: Store, log: AuditLog, config: ServerConfig, envelope: bytes
) -> tuple[schema.Dataset, bytes]:
    """Store a dataset description that the council has signed. Raises SignatureError where too few have."""
    return _enter_dataset(store, log, envelope, config.governance_key)


def _enter_dataset(store: Store, log: AuditLog, envelope: bytes, governance_key: bytes) -> tuple[schema.Dataset, bytes]:
    dataset, name_hash = verify_dataset(envelope, governance_key)
    with store.begin() as uow:
        uow.add_dataset(dataset.name, name_hash, envelope)
        event = log_pb2.DatasetPublished(dataset=dataset.name, schema_hash=name_hash)
        log.append_in(uow, [stamped("governance", log_pb2.LogEntry(dataset_published=event))])
    return dataset, name_hash


def _enrolled(uow: UnitOfWork) -> tuple[tuple[Institution, ...], tuple[Person, ...]]:
    """Return who belongs to the next membership, with the keys that it gives them."""
    pending = uow.pending_key_changes()
    institutions, people = [], []
    for row in uow.participants():
        if row.revoked:
            continue
        change = pending.get(row.id)
        key = row.identity_key if change is None else change.new_key
        if row.role != "agent":
            people.append(Person(row.id, (row.role,), key, Service.from_text(row.service)))
        elif change is None:
            institutions.append(Institution(row.id, row.organisation, key, row.epoch_key, row.epoch_key_signature))
        else:
            institutions.append(
                Institution(row.id, row.organisation, key, change.epoch_key, change.epoch_key_signature)
            )
    return tuple(institutions), tuple(people)


def _key_change(row: KeyChangeRow, epoch: int) -> KeyChange:
    return KeyChange(row.participant, epoch, row.old_key, row.new_key, row.old_signature, row.reason)


def _by_id(institutions: tuple[Institution, ...], people: tuple[Person, ...]) -> dict[str, Institution | Person]:
    participants: tuple[Institution | Person, ...] = (*institutions, *people)
    return {p.id: p for p in participants}


def _says(document: MembershipDocument) -> tuple[int, int, tuple[Activity, ...]]:
    return document.minimum_cohort, document.colluders, document.activities


def _ending(document: MembershipDocument, now: int) -> bool:
    """Whether less than a third of the document's time is left."""
    return document.valid_until - now < (document.valid_until - document.issued_at) / 3


def _changes(
    uow: UnitOfWork,
    current: MembershipDocument | None,
    institutions: tuple[Institution, ...],
    people: tuple[Person, ...],
) -> Changes:
    before: dict[str, Institution | Person] = {}
    if current is not None:
        before = _by_id(current.institutions, current.people)
    after = _by_id(institutions, people)
    rekeyed = sorted(uow.pending_key_changes().keys() & after.keys())
    rescoped = []
    for name in sorted(before.keys() & after.keys()):
        was, will = before[name], after[name]
        if isinstance(was, Person) and isinstance(will, Person) and was.service and will.service:
            rescoped += [name] if was.service != will.service else []
            was = replace(was, service=will.service)
        if was != will and name not in rekeyed:
            raise IdentityError(
                f"the store holds other keys for {name!r} than the membership that governance signed",
                hint="nothing changes them by design: have an auditor look before anything is signed",
            )
    return Changes(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        rekeyed=tuple(rekeyed),
        rescoped=tuple(rescoped),
    )
