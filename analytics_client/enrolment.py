"""Joining a consortium with an invitation, and renewing the TLS certificate later. The same for agents and people.

Keys are made in a temporary folder beside the final one, which takes its name only when the coordinator has answered:
there is a whole profile or none. Must not know: what the role then does.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from analytics_client import profile as profiles
from analytics_client.profile import Profile
from protos.v1 import enrolment_pb2, enrolment_pb2_grpc
from queries.errors import ConfigError, IdentityError, InvitationError, ServiceError
from trust.identity import enrolment, files, keys
from trust.identity import x509 as certificates
from trust.identity.invitation import Invitation
from trust.identity.names import Peer
from trust.rpc.channel import CALL_DEADLINE_S, TlsIdentity, connect
from trust.rpc.errors import translated

RENEW_BEFORE = timedelta(days=30)


SignIn: TypeAlias = "Callable[[str, str, str], str]"
"""Has a person sign in: issuer, client id and nonce to an ID token."""


def enrol(token: str, folder: Path, *, roles: Collection[str], sign_in: SignIn | None = None) -> Profile:
    """Redeem an invitation into a new profile folder and return the profile.

    `sign_in` is used where the invitation demands that an identity provider vouches for the person.

    `roles` are those the caller can serve. Raises InvitationError (token damaged, expired, used, or for another role),
    ConfigError (the folder is in use), ServiceError (nobody at the address, within 5 s), ClockError, IdentityError.
    """
    invitation = Invitation.from_token(token)
    check_usable(invitation, roles)
    if invitation.recovery and invitation.role == "agent":
        raise InvitationError(
            "this invitation replaces the lost key of an agent, whose folder has the ledger",
            hint="cohortium-agent recover TOKEN DIR, in that folder or in one restored from its back-up",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists already", hint="choose a new folder; a profile is never overwritten")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}", hint="check the folder's permissions") from None
    try:
        profile = enrol_into(building, invitation, sign_in)
        building.replace(folder)
        files.sync_directory(folder.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return replace(profile, folder=folder)


def renew(profile: Profile) -> None:
    """Replace the profile's TLS certificate by a new one for the same key; works after expiry too.

    Raises ServiceError, ClockError, or IdentityError where the participant has been revoked.
    """
    identity = TlsIdentity(profile.consortium, files.read(profile.folder / profiles.CA))
    tls_key = keys.load_tls_key(profile.folder / profiles.TLS_KEY)
    request = enrolment_pb2.RenewRequest(
        participant=profile.id, csr=certificates.make_request(tls_key), at=int(time.time())
    )
    with connect(profile.enrolment_address, identity) as channel, translated(profile.enrolment_address):
        stub, following = enrolment_pb2_grpc.EnrolmentStub(channel), profile.next_identity_key()
        enrolment.prove_renewal(request, profile.consortium, profile.identity_key())
        try:
            response = stub.Renew(request, timeout=CALL_DEADLINE_S)
        except grpc.RpcError:
            if following is None:
                raise
            # The rotated key may be in force by now, which is only seen once there is a certificate to connect with.
            enrolment.prove_renewal(request, profile.consortium, following)
            response = stub.Renew(request, timeout=CALL_DEADLINE_S)
    root = x509.load_pem_x509_certificate(identity.ca)
    _check_certificate(response, root, Peer(profile.consortium, profile.role, profile.id), request.csr)
    files.replace(profile.folder / profiles.CERTIFICATE, response.certificate_chain, secret=False)


def renew_if_due(profile: Profile) -> bool:
    """Renew where less than 30 days are left, and say whether it was. Raises as `renew` does once it has expired."""
    left = profile.certificate_ends() - datetime.now(UTC)
    if left > RENEW_BEFORE:
        return False
    try:
        renew(profile)
    except ServiceError:
        if left > timedelta():
            return False  # there is time to try again
        raise
    return True


def check_usable(invitation: Invitation, roles: Collection[str]) -> None:
    """Raise InvitationError where the invitation is for another role than these, or has expired by this clock."""
    if invitation.role not in roles:
        command = "cohortium-agent enrol" if invitation.role == "agent" else "cohortium enrol"
        raise InvitationError(f"this invitation is for the role {invitation.role!r}", hint=f"use it with: {command}")
    if invitation.expires_at <= time.time():
        end = datetime.fromtimestamp(invitation.expires_at, UTC)
        raise InvitationError(
            f"the invitation expired on {end:%Y-%m-%d at %H:%M} UTC by this machine's clock",
            hint="check the clock, or ask the operator for a new invitation",
        )


def enrol_into(building: Path, invitation: Invitation, sign_in: SignIn | None = None) -> Profile:
    """Make keys in an empty folder, redeem the invitation, and write the profile. Raises as `enrol` does."""
    root = x509.load_der_x509_certificate(invitation.ca)
    identity_key, tls_key = Ed25519PrivateKey.generate(), keys.generate_tls_key()
    keys.save(building / profiles.IDENTITY_KEY, identity_key)
    keys.save(building / profiles.TLS_KEY, tls_key)
    files.write_new(building / profiles.CA, certificates.to_pem(root), secret=False)
    request = enrolment_pb2.EnrolRequest(
        invitation_id=invitation.id,
        secret=invitation.secret,
        csr=certificates.make_request(tls_key),
        identity_key=keys.public_bytes(identity_key),
        at=int(time.time()),
    )
    if invitation.role == "agent":
        epoch_key = X25519PrivateKey.generate()
        keys.save(building / profiles.EPOCH_KEY, epoch_key)
        request.epoch_key = keys.public_bytes(epoch_key)
        request.epoch_key_signature = keys.sign_epoch_key(
            identity_key, invitation.consortium, invitation.participant, request.epoch_key
        )
    if invitation.issuer:
        if sign_in is None:
            raise InvitationError(f"{invitation.issuer} has to vouch for you", hint="use: cohortium enrol TOKEN")
        nonce = enrolment.vouching_nonce(invitation.consortium, invitation.id, request.identity_key)
        request.id_token = sign_in(invitation.issuer, invitation.client_id, nonce)
        request.at = int(time.time())  # signing in takes a while
    enrolment.prove_enrolment(request, invitation.consortium, identity_key)
    response = _redeem(invitation, request, identity_key, certificates.to_pem(root))
    peer = Peer(invitation.consortium, invitation.role, invitation.participant)
    _check_certificate(response, root, peer, request.csr)
    files.write_new(building / profiles.CERTIFICATE, response.certificate_chain, secret=False)
    profile = Profile(
        folder=building,
        id=invitation.participant,
        role=invitation.role,
        consortium=invitation.consortium,
        address=response.address,
        enrolment_address=invitation.address,
        governance_key=invitation.governance_key,
    )
    profiles.save(profile)
    return profile


def _redeem(
    invitation: Invitation, request: enrolment_pb2.EnrolRequest, identity_key: Ed25519PrivateKey, ca: bytes
) -> enrolment_pb2.EnrolResponse:
    address = invitation.address
    with connect(address, TlsIdentity(invitation.consortium, ca)) as channel:
        stub = enrolment_pb2_grpc.EnrolmentStub(channel)
        try:
            with translated(address):
                response: enrolment_pb2.EnrolResponse = stub.Enrol(request, timeout=CALL_DEADLINE_S)
        except ServiceError as lost:
            # The answer may have been lost after the invitation was used up. Whoever holds the key then is enrolled.
            again = enrolment_pb2.RenewRequest(participant=invitation.participant, csr=request.csr, at=int(time.time()))
            enrolment.prove_renewal(again, invitation.consortium, identity_key)
            try:
                response = stub.Renew(again, timeout=CALL_DEADLINE_S)
            except grpc.RpcError:
                raise lost from None
        return response


def _check_certificate(response: enrolment_pb2.EnrolResponse, root: x509.Certificate, peer: Peer, csr: bytes) -> None:
    """Raise IdentityError unless the answer is a certificate of this consortium for this peer and its own key."""
    leaf = certificates.verify_chain(response.certificate_chain, root, datetime.now(UTC))
    named = certificates.peer_of(leaf)
    same_key = leaf.public_key() == x509.load_pem_x509_csr(csr).public_key()
    if (named.consortium, named.role, named.id) != (peer.consortium, peer.role, peer.id) or not same_key:
        raise IdentityError("the coordinator issued a certificate for somebody else", hint="tell your operator")
