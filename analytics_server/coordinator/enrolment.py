"""Letting newcomers in: an operator invites, a newcomer redeems the invitation once, and renews its certificate.

Enrolling gives a TLS certificate and an entry among the participants. It gives no rights: those come with the next
membership that governance signs.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from analytics_server.audit.log import AuditLog
from analytics_server.config import ServerConfig
from analytics_server.governance import stamped
from analytics_server.store import InvitationRow, Store, UnitOfWork
from protos.v1 import enrolment_pb2, enrolment_pb2_grpc, log_pb2
from queries.errors import ConfigError, IdentityError
from trust.identity import enrolment, keys
from trust.identity import x509 as certificates
from trust.identity.invitation import Invitation, new_secret, secret_hash
from trust.identity.names import PARTICIPANT_ROLES, Peer, check_organisation, check_participant
from trust.rpc.server import open_to_strangers

MAX_VALID_HOURS = 24 * 30
_Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


def invite(
    store: Store,
    log: AuditLog,
    config: ServerConfig,
    *,
    role: str,
    participant: str,
    organisation: str,
    valid_hours: float,
    now: datetime,
) -> Invitation:
    """Record and return an invitation. Raises IdentityError or ConfigError where it could never be redeemed."""
    check_participant(participant)
    if role not in PARTICIPANT_ROLES:
        raise ConfigError(f"there is no role {role!r}", hint=f"roles: {', '.join(PARTICIPANT_ROLES)}")
    if role == "agent" and not organisation:
        raise ConfigError("an agent needs an organisation", hint="--organisation 'City Hospital'")
    if organisation:
        check_organisation(organisation)
    if not 0 < valid_hours <= MAX_VALID_HOURS:
        raise ConfigError(f"an invitation is valid for at most {MAX_VALID_HOURS} hours, and more than 0")
    identifier, secret = new_secret()
    invitation = Invitation(
        consortium=config.consortium,
        address=config.enrolment_address,
        ca=config.ca().public_bytes(Encoding.DER),
        governance_key=config.governance_key,
        id=identifier,
        secret=secret,
        participant=participant,
        role=role,
        expires_at=int((now + timedelta(hours=valid_hours)).timestamp()),
    )
    with store.begin() as uow:
        _check_free(uow, participant, organisation)
        uow.add_invitation(
            id=identifier,
            secret_hash=invitation.secret_hash,
            role=role,
            participant=participant,
            organisation=organisation,
            expires_at=invitation.expires_at,
        )
        event = log_pb2.Invited(participant=participant, role=role, expires_at=invitation.expires_at)
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(invited=event))])
    return invitation


class EnrolmentDesk:
    """Issues certificates, each in one transaction with what it rests on. Blocking and thread-safe."""

    def __init__(self, config: ServerConfig, store: Store, log: AuditLog) -> None:
        self._config = config
        self._store = store
        self._log = log
        self._issuing, self._issuing_key = config.issuer()

    def enrol(self, request: enrolment_pb2.EnrolRequest, now: datetime) -> enrolment_pb2.EnrolResponse:
        """Redeem an invitation. Whatever fails, nothing is stored and the invitation remains good.

        Raises InvitationError (unknown, expired, used), ClockError, SignatureError (no possession of the identity key),
        IdentityError (unsuitable keys, or a name or key that is taken).
        """
        public_key = certificates.check_request(request.csr)
        enrolment.check_clock(request.at, int(now.timestamp()))
        enrolment.check_enrolment(request, self._config.consortium)
        hashed = secret_hash(request.invitation_id, request.secret)
        with self._store.begin() as uow:
            invited = uow.redeem_invitation(request.invitation_id, hashed, int(now.timestamp()))
            self._check_epoch_key(request, invited)
            leaf = self._issue(public_key, invited.role, invited.participant, now)
            uow.add_participant(
                id=invited.participant,
                role=invited.role,
                organisation=invited.organisation,
                identity_key=request.identity_key,
                epoch_key=request.epoch_key,
                epoch_key_signature=request.epoch_key_signature,
                certificate_serial=certificates.serial(leaf),
            )
            event = log_pb2.Enrolled(
                participant=invited.participant, role=invited.role, identity_key=request.identity_key
            )
            self._log.append_in(uow, [stamped(invited.participant, log_pb2.LogEntry(enrolled=event))])
            return self._response(invited.participant, leaf)

    def renew(self, request: enrolment_pb2.RenewRequest, now: datetime) -> enrolment_pb2.EnrolResponse:
        """Issue a new certificate to someone enrolled and not revoked. Raises as `enrol` does."""
        public_key = certificates.check_request(request.csr)
        enrolment.check_clock(request.at, int(now.timestamp()))
        with self._store.read() as uow:
            row = uow.participant(request.participant)
        if row is None or row.revoked:
            raise IdentityError("there is no such participant", hint="ask your operator for an invitation")
        enrolment.check_renewal(request, self._config.consortium, row.identity_key)
        return self._response(row.id, self._issue(public_key, row.role, row.id, now))

    def _check_epoch_key(self, request: enrolment_pb2.EnrolRequest, invited: InvitationRow) -> None:
        if invited.role == "agent":
            keys.verify_epoch_key(
                request.identity_key,
                request.epoch_key_signature,
                self._config.consortium,
                invited.participant,
                request.epoch_key,
            )
        elif request.epoch_key or request.epoch_key_signature:
            raise IdentityError(f"the invitation is for the role {invited.role!r}, which has no epoch key")

    def _issue(self, key: EllipticCurvePublicKey, role: str, participant: str, now: datetime) -> x509.Certificate:
        peer = Peer(self._config.consortium, role, participant)
        return certificates.issue_leaf(self._issuing, self._issuing_key, key, peer, now)

    def _response(self, participant: str, leaf: x509.Certificate) -> enrolment_pb2.EnrolResponse:
        return enrolment_pb2.EnrolResponse(
            participant=participant,
            consortium=self._config.consortium,
            certificate_chain=certificates.to_pem(leaf, self._issuing),
            address=self._config.address,
        )


class EnrolmentServicer(enrolment_pb2_grpc.EnrolmentServicer):
    """The only service open to strangers, on a port of its own."""

    def __init__(self, config: ServerConfig, store: Store, log: AuditLog) -> None:
        self._desk = EnrolmentDesk(config, store, log)

    @open_to_strangers
    async def Enrol(  # noqa: N802 - named by the service definition
        self,
        request: enrolment_pb2.EnrolRequest,
        context: _Context,  # noqa: ARG002 - gRPC passes it
    ) -> enrolment_pb2.EnrolResponse:
        """See `EnrolmentDesk.enrol`."""
        return await asyncio.to_thread(self._desk.enrol, request, datetime.now(UTC))

    @open_to_strangers
    async def Renew(  # noqa: N802 - named by the service definition
        self,
        request: enrolment_pb2.RenewRequest,
        context: _Context,  # noqa: ARG002 - gRPC passes it
    ) -> enrolment_pb2.EnrolResponse:
        """See `EnrolmentDesk.renew`."""
        return await asyncio.to_thread(self._desk.renew, request, datetime.now(UTC))


def _check_free(uow: UnitOfWork, participant: str, organisation: str) -> None:
    for row in uow.participants():
        if row.id == participant:
            raise IdentityError(
                f"{participant!r} is enrolled already" + (" and revoked" if row.revoked else ""),
                hint="invite under another id; an id is never given twice",
            )
        if row.organisation.casefold() == organisation.casefold() and row.organisation != organisation:
            raise IdentityError(
                f"organisation {organisation!r} is also spelled {row.organisation!r}",
                hint="spell it in one way, so that it counts once in a cohort",
            )
