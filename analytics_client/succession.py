"""Another identity key under the same id: rotated while the old one is at hand, recovered where it is lost.

New keys wait in a folder beside those in force. Rotated keys take their place once governance has signed a membership
that lists them (`Profile.take_up`); recovered ones at once, because there is nothing else to sign with. Ledger, pins
and settings stay where they are. Must not know: what the role does with its keys.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from analytics_client import profile as profiles
from analytics_client.enrolment import check_usable, enrol_into
from analytics_client.profile import Profile
from protos.v1 import enrolment_pb2, enrolment_pb2_grpc
from queries.errors import ConfigError, InvitationError
from trust.identity import enrolment, files, keys
from trust.identity.invitation import Invitation
from trust.identity.succession import sign_rotation
from trust.rpc.channel import CALL_DEADLINE_S, TlsIdentity, connect
from trust.rpc.errors import translated

LEDGER = "ledger.sqlite"


def rotate(profile: Profile) -> bytes:
    """Ask for another identity key, made here, and return its raw public half.

    The old key signs until a membership lists the new one. Asked again before that, the same key is asked for again.
    Raises ServiceError, ClockError, IdentityError (revoked, or a recovery is under way).
    """
    old, new = profile.identity_key(), _next_keys(profile)
    request = enrolment_pb2.RotateRequest(
        participant=profile.id,
        new_key=keys.public_bytes(new),
        old_signature=sign_rotation(old, profile.consortium, profile.id, keys.public_bytes(new)),
        at=int(time.time()),
    )
    if profile.role == "agent":
        epoch_key = keys.public_bytes(keys.load_epoch_key(profile.folder / profiles.NEXT / profiles.EPOCH_KEY))
        request.epoch_key = epoch_key
        request.epoch_key_signature = keys.sign_epoch_key(new, profile.consortium, profile.id, epoch_key)
    enrolment.prove_rotation(request, profile.consortium, new)
    identity = TlsIdentity(profile.consortium, files.read(profile.folder / profiles.CA))
    with connect(profile.enrolment_address, identity) as channel, translated(profile.enrolment_address):
        enrolment_pb2_grpc.EnrolmentStub(channel).Rotate(request, timeout=CALL_DEADLINE_S)
    return request.new_key


def recover(token: str, folder: Path, *, roles: Collection[str]) -> Profile:
    """Redeem an invitation that replaces a lost key, in the folder of whoever lost it; everything else in it stays.

    Raises InvitationError (not a recovery, or for somebody else), ConfigError, and what `enrolment.enrol` raises.
    """
    invitation = Invitation.from_token(token)
    check_usable(invitation, roles)
    if not invitation.recovery:
        raise InvitationError("this invitation is for a newcomer", hint="use it with enrol, in a new folder")
    _check_folder(folder, invitation)
    building = Path(tempfile.mkdtemp(prefix=f".{profiles.NEXT}.", dir=folder))
    try:
        enrol_into(building, invitation)
        shutil.rmtree(folder / profiles.NEXT, ignore_errors=True)  # a rotation that the recovery has withdrawn
        files.write_new(building / profiles.READY, b"", secret=False)
        building.replace(folder / profiles.NEXT)
        files.sync_directory(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return profiles.load(folder)


def _check_folder(folder: Path, invitation: Invitation) -> None:
    if invitation.role == "agent" and not (folder / LEDGER).exists():
        raise ConfigError(
            f"{folder} has no ledger: without it, what was spent would be forgotten",
            hint="restore the agent's folder from its back-up first",
        )
    if not (folder / profiles.FILE).exists():
        if invitation.role == "agent":
            return  # the ledger was restored, and nothing else
        raise ConfigError(f"{folder} is no participant's folder", hint="use the invitation with: cohortium enrol TOKEN")
    known = profiles.load(folder)
    if (known.id, known.consortium, known.governance_key) != (
        invitation.participant,
        invitation.consortium,
        invitation.governance_key,
    ):
        raise InvitationError(
            f"this invitation is for {invitation.participant} of {invitation.consortium}, "
            f"the folder is of {known.id} of {known.consortium}",
            hint="name the right folder",
        )


def _next_keys(profile: Profile) -> Ed25519PrivateKey:
    """Return the identity key that waits, made with an agent's epoch key where there is none yet."""
    waiting = profile.next_identity_key()
    if waiting is not None:
        return waiting
    building = Path(tempfile.mkdtemp(prefix=f".{profiles.NEXT}.", dir=profile.folder))
    key = Ed25519PrivateKey.generate()
    try:
        keys.save(building / profiles.IDENTITY_KEY, key)
        if profile.role == "agent":
            keys.save(building / profiles.EPOCH_KEY, X25519PrivateKey.generate())
        building.replace(profile.folder / profiles.NEXT)
        files.sync_directory(profile.folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return key
