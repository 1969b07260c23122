"""What is decided about one participant: shutting out, and who is behind an id."""

from __future__ import annotations

import time
from collections.abc import Iterable

from analytics_server.audit.log import AuditLog
from analytics_server.governance.office import stamped
from analytics_server.store import Store
from protos.v1 import log_pb2
from queries.errors import IdentityError
from trust.identity.service import Service


def revoke(store: Store, log: AuditLog, participant: str, reason: str) -> None:
    """Shut a participant out from its next call on; the next membership leaves it out. Raises IdentityError."""
    with store.begin() as uow:
        uow.revoke_participant(participant)
        uow.withdraw_key_change(participant)
        uow.withdraw_invitations(participant, int(time.time()))
        event = log_pb2.Revoked(participant=participant, reason=reason)
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(revoked=event))])


def scope_service(
    store: Store, log: AuditLog, participant: str, *, datasets: Iterable[str], expires_at: int, now: int
) -> Service:
    """Have the next membership let a service account ask of these datasets until then. Raises IdentityError."""
    with store.begin() as uow:
        row = uow.participant(participant)
        if row is None or not row.service:
            raise IdentityError(f"{participant[:80]!r} is no service account", hint="cohortium-server service list")
        service = Service.of(row.role, datasets, expires_at, now=now)
        uow.scope_service(participant, service.to_text())
        event = log_pb2.ServiceScoped(participant=participant, expires_at=expires_at, datasets=service.datasets)
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(service_scoped=event))])
    return service


def identify(store: Store, log: AuditLog, participant: str, name: str, contact: str) -> None:
    """Write down who is behind an id; the log says that, not who. Raises IdentityError on an unknown id."""
    with store.begin() as uow:
        row = uow.participant(participant)
        if row is not None and row.service:
            raise IdentityError(f"no person is behind service account {participant!r}")
        uow.identify(participant, name, contact)
        event = log_pb2.IdentityChanged(participant=participant)
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(identity_changed=event))])


def erase_identity(store: Store, log: AuditLog, participant: str) -> None:
    """Forget who is behind an id. Every entry, proof and signature stays valid. Raises IdentityError on nobody."""
    with store.begin() as uow:
        uow.erase_identity(participant)
        event = log_pb2.IdentityChanged(participant=participant, erased=True)
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(identity_changed=event))])
    store.scrub()
