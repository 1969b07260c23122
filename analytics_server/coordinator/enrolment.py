"""Letting newcomers in: an operator invites, a newcomer redeems the invitation once, and renews its certificate.

Enrolling gives a TLS certificate and an entry among the participants. It gives no rights: those come with the next
membership that governance signs.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
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
from analytics_server.vouching import Expected, Provider, check_token
from protos.v1 import enrolment_pb2, enrolment_pb2_grpc, log_pb2
from queries.errors import ConfigError, IdentityError
from trust.identity import enrolment, keys
from trust.identity import x509 as certificates
from trust.identity.invitation import Invitation, new_secret, secret_hash
from trust.identity.names import PARTICIPANT_ROLES, Peer, check_organisation, check_participant
from trust.identity.service import Service
from trust.identity.succession import check_reason
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
    service: Service | None = None,
    person: str = "",
) -> Invitation:
    """Record and return an invitation, with `service` for an account that no person is behind.

    With `person`, an e-mail address or "sub:" and a subject, the identity provider of the folder has to vouch for the
    one who redeems it.

    Raises IdentityError or ConfigError where it could never be redeemed.
    """
    check_participant(participant)
    if role not in PARTICIPANT_ROLES:
        raise ConfigError(f"there is no role {role!r}", hint=f"roles: {', '.join(PARTICIPANT_ROLES)}")
    if role == "agent" and not organisation:
        raise ConfigError("an agent needs an organisation", hint="--organisation 'City Hospital'")
    if organisation:
        check_organisation(organisation)
    invitation = _invitation(config, participant=participant, role=role, valid_hours=valid_hours, now=now)
    expected = None
    if person:
        if config.oidc is None:
            raise ConfigError("no identity provider can vouch for anybody", hint="set [oidc] in server.toml")
        if role == "agent" or service is not None:
            raise ConfigError("an identity provider vouches for people", hint="invite without --person")
        expected = Expected.of(config.oidc.issuer, config.oidc.client_id, person, invitation.id)
        invitation = replace(invitation, issuer=expected.issuer, client_id=expected.client_id)
    with store.begin() as uow:
        _check_free(uow, participant, organisation)
        uow.add_invitation(
            id=invitation.id,
            secret_hash=invitation.secret_hash,
            role=role,
            participant=participant,
            organisation=organisation,
            expires_at=invitation.expires_at,
            service="" if service is None else service.to_text(),
            person="" if expected is None else expected.to_text(),
        )
        event = log_pb2.Invited(participant=participant, role=role, expires_at=invitation.expires_at)
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(invited=event))])
    return invitation


def recover(
    store: Store,
    log: AuditLog,
    config: ServerConfig,
    *,
    participant: str,
    reason: str,
    valid_hours: float,
    now: datetime,
) -> Invitation:
    """Shut out whoever holds the participant's key, and return an invitation under the same id, for its rightful owner.

    Its key is in force only with the next membership that governance signs. Raises IdentityError (nobody of that id, no
    reason) or ConfigError.
    """
    check_reason(reason)
    with store.begin() as uow:
        row = uow.participant(participant)
        if row is None:
            raise IdentityError(f"{participant[:80]!r} has never enrolled", hint="invite a newcomer instead")
        invitation = _invitation(
            config, participant=participant, role=row.role, valid_hours=valid_hours, now=now, recovery=True
        )
        uow.revoke_participant(participant)
        uow.withdraw_key_change(participant)
        uow.withdraw_invitations(participant, int(now.timestamp()))
        uow.add_invitation(
            id=invitation.id,
            secret_hash=invitation.secret_hash,
            role=row.role,
            participant=participant,
            organisation=row.organisation,
            expires_at=invitation.expires_at,
            recovery_reason=reason,
        )
        event = log_pb2.Invited(
            participant=participant, role=row.role, expires_at=invitation.expires_at, recovery_reason=reason
        )
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(invited=event))])
    return invitation


def _invitation(
    config: ServerConfig, *, participant: str, role: str, valid_hours: float, now: datetime, recovery: bool = False
) -> Invitation:
    if not 0 < valid_hours <= MAX_VALID_HOURS:
        raise ConfigError(f"an invitation is valid for at most {MAX_VALID_HOURS} hours, and more than 0")
    identifier, secret = new_secret()
    return Invitation(
        consortium=config.consortium,
        address=config.enrolment_address,
        ca=config.ca().public_bytes(Encoding.DER),
        governance_key=config.governance_key,
        id=identifier,
        secret=secret,
        participant=participant,
        role=role,
        expires_at=int((now + timedelta(hours=valid_hours)).timestamp()),
        recovery=recovery,
    )


class EnrolmentDesk:
    """Issues certificates, each in one transaction with what it rests on. Blocking and thread-safe."""

    def __init__(self, config: ServerConfig, store: Store, log: AuditLog) -> None:
        self._config = config
        self._store = store
        self._log = log
        self._issuing, self._issuing_key = config.issuer()
        self._provider = None if config.oidc is None else Provider(config.oidc.issuer)

    def enrol(self, request: enrolment_pb2.EnrolRequest, now: datetime) -> enrolment_pb2.EnrolResponse:
        """Redeem an invitation. Whatever fails, nothing is stored and the invitation remains good.

        Raises InvitationError (unknown, expired, used), ClockError, SignatureError (no possession of the identity key),
        IdentityError (unsuitable keys, a name or key that is taken, nobody vouches for the person), ServiceError (the
        identity provider cannot be reached).
        """
        public_key = certificates.check_request(request.csr)
        enrolment.check_clock(request.at, int(now.timestamp()))
        enrolment.check_enrolment(request, self._config.consortium)
        hashed = secret_hash(request.invitation_id, request.secret)
        # Before the transaction: it may have to be asked for. Whoever brings no token makes us ask nobody.
        keys_of_provider = self._provider.keys() if self._provider is not None and request.id_token else {}
        with self._store.begin() as uow:
            invited = uow.redeem_invitation(request.invitation_id, hashed, int(now.timestamp()))
            self._check_epoch_key(
                invited.role,
                invited.participant,
                request.identity_key,
                request.epoch_key,
                request.epoch_key_signature,
            )
            expected, vouched = Expected.from_text(invited.person), None
            if expected is not None:
                vouched = check_token(
                    request.id_token,
                    keys_of_provider,
                    expected,
                    consortium=self._config.consortium,
                    invitation_id=invited.id,
                    identity_key=request.identity_key,
                    now=int(now.timestamp()),
                )
            leaf = self._issue(public_key, invited.role, invited.participant, now)
            if invited.recovery_reason:
                self._replace_key(uow, request, invited, public_key)
                return self._response(invited.participant, leaf)
            uow.add_participant(
                id=invited.participant,
                role=invited.role,
                organisation=invited.organisation,
                identity_key=request.identity_key,
                epoch_key=request.epoch_key,
                epoch_key_signature=request.epoch_key_signature,
                certificate_serial=certificates.serial(leaf),
                service=invited.service,
            )
            service = Service.from_text(invited.service)
            event = log_pb2.Enrolled(
                participant=invited.participant,
                role=invited.role,
                identity_key=request.identity_key,
                service=service is not None,
                vouched_by="" if expected is None else expected.issuer,
            )
            entries = [log_pb2.LogEntry(enrolled=event)]
            if service is not None:
                scoped = log_pb2.ServiceScoped(
                    participant=invited.participant, expires_at=service.expires_at, datasets=service.datasets
                )
                entries.append(log_pb2.LogEntry(service_scoped=scoped))
            if vouched is not None:
                uow.keep_proof(invited.participant, request.id_token, int(now.timestamp()))
                uow.identify(invited.participant, vouched.name, vouched.contact)
                entries.append(
                    log_pb2.LogEntry(identity_changed=log_pb2.IdentityChanged(participant=invited.participant))
                )
            self._log.append_in(uow, [stamped(invited.participant, entry) for entry in entries])
            return self._response(invited.participant, leaf)

    def renew(self, request: enrolment_pb2.RenewRequest, now: datetime) -> enrolment_pb2.EnrolResponse:
        """Issue a new certificate to someone enrolled and not revoked. Raises as `enrol` does."""
        public_key = certificates.check_request(request.csr)
        enrolment.check_clock(request.at, int(now.timestamp()))
        with self._store.read() as uow:
            row = uow.participant(request.participant)
            change = uow.pending_key_changes().get(request.participant)
        if row is None or row.revoked:
            raise IdentityError("there is no such participant", hint="ask your operator for an invitation")
        recovering = change is not None and change.reason  # the lost key is good for nothing from here on
        expected = change.new_key if change is not None and recovering else row.identity_key
        enrolment.check_renewal(request, self._config.consortium, expected)
        if row.tls_key and certificates.key_hash(public_key) != row.tls_key:
            raise IdentityError(
                "a certificate for another TLS key than the one this identity was recovered with",
                hint="renew with the profile's own key, or recover again",
            )
        return self._response(row.id, self._issue(public_key, row.role, row.id, now))

    def rotate(self, request: enrolment_pb2.RotateRequest, now: datetime) -> enrolment_pb2.RotateResponse:
        """Have the next membership list another key of someone enrolled. The same request again changes nothing.

        Raises IdentityError (nobody, revoked, or a key that was used before), ClockError, SignatureError (one of the
        two keys is not the sender's).
        """
        enrolment.check_clock(request.at, int(now.timestamp()))
        with self._store.begin() as uow:
            row = uow.participant(request.participant)
            if row is None or row.revoked:
                raise IdentityError("there is no such participant", hint="ask your operator for an invitation")
            pending = uow.pending_key_changes().get(row.id)
            if pending is not None and pending.reason:
                raise IdentityError("a recovery of this identity is under way", hint="wait for the next membership")
            enrolment.check_rotation(request, self._config.consortium, row.identity_key)
            self._check_epoch_key(row.role, row.id, request.new_key, request.epoch_key, request.epoch_key_signature)
            if pending is not None and pending.new_key == request.new_key:
                return enrolment_pb2.RotateResponse()
            uow.add_key_change(
                row.id,
                old_key=row.identity_key,
                new_key=request.new_key,
                epoch_key=request.epoch_key,
                epoch_key_signature=request.epoch_key_signature,
                old_signature=request.old_signature,
            )
            event = log_pb2.KeyChangeAsked(participant=row.id, old_key=row.identity_key, new_key=request.new_key)
            self._log.append_in(uow, [stamped(row.id, log_pb2.LogEntry(key_change_asked=event))])
        return enrolment_pb2.RotateResponse()

    def _replace_key(
        self,
        uow: UnitOfWork,
        request: enrolment_pb2.EnrolRequest,
        invited: InvitationRow,
        tls_key: EllipticCurvePublicKey,
    ) -> None:
        """Take the new key of somebody who lost the old one; the next membership puts it in force."""
        row = uow.participant(invited.participant)
        assert row is not None  # noqa: S101 - whoever is recovered has enrolled, and rows are never deleted
        reason = invited.recovery_reason
        uow.add_key_change(
            row.id,
            old_key=row.identity_key,
            new_key=request.identity_key,
            epoch_key=request.epoch_key,
            epoch_key_signature=request.epoch_key_signature,
            reason=reason,
        )
        uow.restore_participant(row.id, certificates.key_hash(tls_key))
        event = log_pb2.KeyChangeAsked(
            participant=row.id, old_key=row.identity_key, new_key=request.identity_key, reason=reason
        )
        self._log.append_in(uow, [stamped(row.id, log_pb2.LogEntry(key_change_asked=event))])

    def _check_epoch_key(
        self, role: str, participant: str, identity_key: bytes, epoch_key: bytes, signature: bytes
    ) -> None:
        if role == "agent":
            keys.verify_epoch_key(identity_key, signature, self._config.consortium, participant, epoch_key)
        elif epoch_key or signature:
            raise IdentityError(f"the role {role!r} has no epoch key")

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

    @open_to_strangers
    async def Rotate(  # noqa: N802 - named by the service definition
        self,
        request: enrolment_pb2.RotateRequest,
        context: _Context,  # noqa: ARG002 - gRPC passes it
    ) -> enrolment_pb2.RotateResponse:
        """See `EnrolmentDesk.rotate`."""
        return await asyncio.to_thread(self._desk.rotate, request, datetime.now(UTC))


def _check_free(uow: UnitOfWork, participant: str, organisation: str) -> None:
    for row in uow.participants():
        if row.id == participant:
            raise IdentityError(
                f"{participant!r} is enrolled already" + (" and revoked" if row.revoked else ""),
                hint="a lost key is replaced with: cohortium-server membership recover; else invite under another id",
            )
        if row.organisation.casefold() == organisation.casefold() and row.organisation != organisation:
            raise IdentityError(
                f"organisation {organisation!r} is also spelled {row.organisation!r}",
                hint="spell it in one way, so that it counts once in a cohort",
            )
