"""Keys that follow each other under one id, against everybody who would like to slip one in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from analytics_server import governance
from analytics_server.audit.log import AuditLog
from analytics_server.config import ServerConfig
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.enrolment import EnrolmentDesk, invite, recover
from analytics_server.store import Store
from protos.v1 import enrolment_pb2
from queries.errors import ConfigError, IdentityError, InvitationError, SignatureError
from trust.identity import enrolment, keys, membership, x509
from trust.identity.council import Council, add_signature
from trust.identity.invitation import Invitation
from trust.identity.membership import MembershipDocument, Person
from trust.identity.names import Peer
from trust.identity.requests import build_request, verify_request
from trust.identity.succession import KeyChange, check_changes, sign_rotation
from trust.tlog.entries import decode

NOW = datetime.now(UTC)
AT = int(NOW.timestamp())
HEART = "heart-study"
COUNCIL_KEYS = [Ed25519PrivateKey.generate() for _ in range(3)]


class Office:
    """A coordinator's folder under one governor, with ada and bob enrolled and published."""

    def __init__(self, config: ServerConfig, store: Store, log: AuditLog) -> None:
        self.config, self.store, self.log = config, store, log
        self.desk = EnrolmentDesk(config, store, log)
        self.ada, self.bob = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()

    def enrol(self, participant: str, key: Ed25519PrivateKey, tls: object = None) -> None:
        invitation = invite(
            self.store,
            self.log,
            self.config,
            role="analyst",
            participant=participant,
            organisation="",
            valid_hours=1,
            now=NOW,
        )
        self.redeem(invitation, key, tls)

    def redeem(self, invitation: Invitation, key: Ed25519PrivateKey, tls: object = None) -> None:
        request = enrolment_pb2.EnrolRequest(
            invitation_id=invitation.id,
            secret=invitation.secret,
            csr=x509.make_request(tls or keys.generate_tls_key()),  # type: ignore[arg-type]  # a TLS key
            identity_key=keys.public_bytes(key),
            at=AT,
        )
        enrolment.prove_enrolment(request, HEART, key)
        self.desk.enrol(request, NOW)

    def recover(self, participant: str = "ada", reason: str = "stolen laptop") -> Invitation:
        return recover(
            self.store, self.log, self.config, participant=participant, reason=reason, valid_hours=1, now=NOW
        )

    def rotate(self, participant: str, old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> None:
        self.desk.rotate(rotation(participant, old, new), NOW)

    def publish(self) -> MembershipDocument:
        office = governance.open_governance(self.config.folder / governance.FOLDER, self.config)
        return governance.publish_membership(self.store, self.log, self.config, office, now=AT)[0]

    def events(self, kind: str) -> list[object]:
        with self.store.read() as uow:
            entries = [decode(row.leaf) for row in uow.leaves(0, 1000)]
        return [getattr(entry, kind) for entry in entries if entry.WhichOneof("event") == kind]


def rotation(participant: str, old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> enrolment_pb2.RotateRequest:
    public = keys.public_bytes(new)
    request = enrolment_pb2.RotateRequest(
        participant=participant, new_key=public, old_signature=sign_rotation(old, HEART, participant, public), at=AT
    )
    enrolment.prove_rotation(request, HEART, new)
    return request


def found(folder: Path, council: Council | None = None) -> ServerConfig:
    return governance.initialise(
        folder,
        consortium=HEART,
        address="localhost:7443",
        enrolment_address="localhost:7444",
        governance=None,
        store="state.sqlite",
        minimum_cohort=3,
        colluders=1,
        now=NOW,
        council=council,
    )


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    config = found(tmp_path / "server")
    with governance.opened(config) as (store, log):
        made = Office(config, store, log)
        made.enrol("ada", made.ada)
        made.enrol("bob", made.bob)
        made.publish()
        yield made


def ask(document: MembershipDocument, analyst: str, key: Ed25519PrivateKey) -> None:
    _, envelope = build_request(
        key=key,
        consortium=HEART,
        analyst=analyst,
        purpose="test",
        dataset="d",
        schema_hash=bytes(32),
        query=b"q",
        rho_nano=1,
        minimum_cohort=3,
        now=AT,
    )
    verify_request(envelope, document, HEART, AT)


def test_recovered_key_signs_and_the_lost_one_does_not(office: Office) -> None:
    before, new = office.publish(), Ed25519PrivateKey.generate()
    office.redeem(office.recover(), new)
    after = office.publish()
    membership.verify(after.envelope, office.config.governance_key, before)
    ask(after, "ada", new)
    with pytest.raises(SignatureError):
        ask(after, "ada", office.ada)
    (change,) = office.events("key_changed")
    assert (change.participant, change.reason, change.epoch) == ("ada", "stolen laptop", after.epoch)
    assert [event.recovery_reason for event in office.events("invited")] == ["", "", "stolen laptop"]


def test_lost_key_is_shut_out_from_the_moment_of_the_recovery(office: Office) -> None:
    lost, new = keys.generate_tls_key(), keys.generate_tls_key()
    directory = Directory(HEART, office.config.governance_key)
    invitation = office.recover()
    with office.store.read() as uow:
        directory.reload(uow)
    assert directory.gate.revoked(Peer(HEART, "analyst", "ada", tls_key=x509.key_hash(lost.public_key())))
    office.redeem(invitation, Ed25519PrivateKey.generate(), new)
    with office.store.read() as uow:
        directory.reload(uow)
    for key, refused in ((lost, True), (new, False)):
        peer = Peer(HEART, "analyst", "ada", tls_key=x509.key_hash(key.public_key()))
        assert directory.gate.revoked(peer) is refused
    assert not directory.gate.revoked(Peer(HEART, "analyst", "bob", tls_key="any"))


def test_lost_key_gets_no_certificate_and_rotates_nothing(office: Office) -> None:
    new = Ed25519PrivateKey.generate()
    office.redeem(office.recover(), new, tls := keys.generate_tls_key())
    for key, tls_key, error in (
        (office.ada, tls, SignatureError),
        (new, keys.generate_tls_key(), IdentityError),
    ):
        request = enrolment_pb2.RenewRequest(participant="ada", csr=x509.make_request(tls_key), at=AT)
        enrolment.prove_renewal(request, HEART, key)
        with pytest.raises(error):
            office.desk.renew(request, NOW)
    with pytest.raises(IdentityError, match="is under way"):
        office.rotate("ada", office.ada, Ed25519PrivateKey.generate())
    office.publish()
    with pytest.raises(SignatureError):
        office.rotate("ada", office.ada, Ed25519PrivateKey.generate())


def test_recovery_beats_a_rotation_by_the_thief(office: Office) -> None:
    thief, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    office.rotate("ada", office.ada, thief)
    office.redeem(office.recover(), new)
    after = office.publish()
    assert after.person("ada").identity_key == keys.public_bytes(new)
    office.redeem(office.recover(reason="again"), last := Ed25519PrivateKey.generate())
    assert office.publish().person("ada").identity_key == keys.public_bytes(last)


def test_recovery_of_a_thief_that_was_already_published(office: Office) -> None:
    thief, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    office.rotate("ada", office.ada, thief)
    stolen = office.publish()
    office.redeem(office.recover(), new)
    after = office.publish()
    membership.verify(after.envelope, office.config.governance_key, stolen)
    ask(after, "ada", new)
    for key in (office.ada, thief):
        with pytest.raises(SignatureError):
            ask(after, "ada", key)


def test_old_recovery_cannot_be_replayed(office: Office) -> None:
    first, second = office.recover(), office.recover(reason="the first one was lost in the post")
    with pytest.raises(InvitationError, match="has been used"):
        office.redeem(first, Ed25519PrivateKey.generate())
    office.redeem(second, Ed25519PrivateKey.generate())
    with pytest.raises(InvitationError, match="has been used"):
        office.redeem(second, Ed25519PrivateKey.generate())


def test_recovery_ends_with_a_later_revocation(office: Office) -> None:
    invitation = office.recover()
    governance.revoke(office.store, office.log, "ada", "left")
    with pytest.raises(InvitationError, match="has been used"):
        office.redeem(invitation, Ed25519PrivateKey.generate())
    assert "ada" not in office.publish().identity_keys


def test_revocation_between_recovery_and_publication_withdraws_the_key(office: Office) -> None:
    office.redeem(office.recover(), Ed25519PrivateKey.generate())
    governance.revoke(office.store, office.log, "ada", "left")
    document = office.publish()
    assert "ada" not in document.identity_keys
    assert not document.key_changes


def test_recovery_needs_somebody_and_a_reason(office: Office) -> None:
    with pytest.raises(IdentityError, match="never enrolled"):
        office.recover("eve")
    for reason in ("", " ", "two\nlines", "x" * 201):
        with pytest.raises(IdentityError, match="needs a reason"):
            office.recover(reason=reason)
    with pytest.raises(ConfigError, match="hours"):
        recover(office.store, office.log, office.config, participant="ada", reason="x", valid_hours=0, now=NOW)
    assert office.desk is not None
    with office.store.read() as uow:
        row = uow.participant("ada")
    assert row is not None
    assert not row.revoked  # a refused recovery shuts nobody out


@pytest.mark.parametrize("taken", ["own", "bob", "given up"])
def test_recovered_key_is_a_new_one(office: Office, taken: str) -> None:
    gone = Ed25519PrivateKey.generate()
    office.rotate("bob", office.bob, gone)
    office.publish()
    key = {"own": office.ada, "bob": gone, "given up": office.bob}[taken]
    invitation = office.recover()
    with pytest.raises(IdentityError, match="is, or was, somebody's"):
        office.redeem(invitation, key)
    office.redeem(invitation, Ed25519PrivateKey.generate())  # nothing was used up


def test_nobody_rotates_the_key_of_another(office: Office) -> None:
    with pytest.raises(SignatureError):
        office.rotate("ada", office.bob, Ed25519PrivateKey.generate())
    with pytest.raises(IdentityError, match="no such participant"):
        office.rotate("eve", office.bob, Ed25519PrivateKey.generate())


@pytest.mark.parametrize("field", ["participant", "new_key", "old_signature", "proof", "at", "epoch_key"])
def test_no_field_of_a_rotation_can_be_changed(office: Office, field: str) -> None:
    request = rotation("ada", office.ada, Ed25519PrivateKey.generate())
    changed: dict[str, object] = {
        "participant": "bob",
        "new_key": keys.public_bytes(Ed25519PrivateKey.generate()),
        "old_signature": bytes(64),
        "proof": bytes(64),
        "at": AT + 1,
        "epoch_key": bytes(32),
    }
    setattr(request, field, changed[field])
    with pytest.raises(SignatureError):
        office.desk.rotate(request, NOW)
    assert not office.publish().key_changes


def test_rotation_of_yesterday_and_of_a_revoked_are_refused(office: Office) -> None:
    request = rotation("ada", office.ada, Ed25519PrivateKey.generate())
    with pytest.raises(IdentityError, match="clock"):
        office.desk.rotate(request, NOW + timedelta(days=1))
    governance.revoke(office.store, office.log, "ada", "left")
    with pytest.raises(IdentityError, match="no such participant"):
        office.desk.rotate(request, NOW)


def test_rotation_that_was_lost_on_the_way_can_be_sent_again(office: Office) -> None:
    new = Ed25519PrivateKey.generate()
    office.rotate("ada", office.ada, new)
    office.rotate("ada", office.ada, new)
    assert len(office.events("key_change_asked")) == 1
    assert office.publish().person("ada").identity_key == keys.public_bytes(new)


# --- what a participant refuses of governance itself -----------------------------------------------------------------

A, B, C, D = (bytes([number]) * 32 for number in range(1, 5))


def recovered(participant: str, epoch: int, old: bytes, new: bytes) -> KeyChange:
    return KeyChange(participant, epoch, old, new, reason="lost")


@pytest.mark.parametrize(
    ("changes", "current", "match"),
    [
        ([], {"ada": A, "bob": B}, ""),
        ([recovered("ada", 2, A, B)], {"ada": B}, ""),
        ([recovered("ada", 2, A, B)], {}, ""),
        ([recovered("ada", 2, A, B)], {"ada": A}, "given up"),
        ([recovered("ada", 2, A, B)], {"ada": C}, "given up"),
        ([recovered("ada", 2, A, B)], {"ada": B, "bob": A}, "was 'ada'"),
        ([recovered("ada", 2, A, B), recovered("ada", 3, C, D)], {"ada": D}, "do not follow"),
        ([recovered("ada", 2, A, B), recovered("ada", 3, B, A)], {"ada": A}, "comes back"),
        ([recovered("ada", 2, A, B), recovered("bob", 3, C, B)], {"ada": B}, "comes back"),
        ([recovered("ada", 2, A, B), recovered("bob", 3, B, C)], {"ada": B}, "comes back"),
        ([recovered("ada", 3, A, B), recovered("ada", 2, B, C)], {"ada": C}, "out of order"),
        ([recovered("ada", 4, A, B)], {"ada": B}, "out of order"),
        ([recovered("ada", 2, A, A)], {"ada": A}, "no two"),
        ([KeyChange("ada", 2, A, B)], {"ada": B}, "needs a reason"),
        ([KeyChange("ada", 2, A, B, bytes(64), "both")], {"ada": B}, "both"),
        ([KeyChange("ada", 2, A, B, bytes(64))], {"ada": B}, "does not verify"),
    ],
)
def test_changes_lead_to_the_keys_that_are_listed(
    changes: list[KeyChange], current: dict[str, bytes], match: str
) -> None:
    if not match:
        check_changes(HEART, 3, changes, current)
        return
    with pytest.raises(IdentityError, match=match):
        check_changes(HEART, 3, changes, current)


def make(
    key: Ed25519PrivateKey, people: dict[str, bytes], changes: list[KeyChange], previous: MembershipDocument | None
) -> bytes:
    payload = membership.build(
        consortium=HEART,
        epoch=1 if previous is None else previous.epoch + 1,
        previous_hash=b"" if previous is None else previous.hash,
        issued_at=AT,
        institutions=[],
        people=[Person(name, ("analyst",), public) for name, public in people.items()],
        log_key=bytes(range(32)),
        log_origin="cohortium/x",
        minimum_cohort=3,
        colluders=1,
        key_changes=changes,
    )
    return membership.sign(payload, key)


def test_governance_changes_no_key_in_silence_and_forgets_no_change() -> None:
    governor = Ed25519PrivateKey.generate()
    public = keys.public_bytes(governor)
    first = membership.verify(make(governor, {"ada": A, "bob": C}, [], None), public)
    with pytest.raises(IdentityError, match="no key change says why"):
        membership.verify(make(governor, {"ada": B, "bob": C}, [], first), public, first)
    change = recovered("ada", 2, A, B)
    second = membership.verify(make(governor, {"ada": B, "bob": C}, [change], first), public, first)
    with pytest.raises(IdentityError, match="forgets or alters"):
        membership.verify(make(governor, {"ada": B, "bob": C}, [], second), public, second)
    third = make(governor, {"ada": B, "bob": C}, [change], second)
    membership.verify(third, public, second)
    membership.verify(third, public, first)  # an epoch slept through
    other = membership.verify(make(governor, {"ada": bytes([9]) * 32, "bob": C}, [], None), public)
    jump = make(governor, {"ada": D, "bob": C}, [change, recovered("ada", 3, B, D)], second)
    with pytest.raises(IdentityError, match="no key change says why"):  # what is told begins at a key never seen
        membership.verify(jump, public, other)


def test_recovery_without_a_quorum_is_refused(tmp_path: Path) -> None:
    council = Council.of(2, [keys.public_bytes(key) for key in COUNCIL_KEYS])
    config = found(tmp_path / "server", council)
    path = tmp_path / "server" / governance.FOLDER
    with governance.opened(config) as (store, log):
        office = Office(config, store, log)
        office.enrol("ada", office.ada)

        def proposed() -> bytes:
            return governance.propose_membership(store, config, path, council, now=AT)[0]

        first = proposed()
        for key in COUNCIL_KEYS[:2]:
            first = add_signature(first, key)
        before = governance.publish_signed(store, log, config, first)
        office.redeem(office.recover(), new := Ed25519PrivateKey.generate())
        alone = add_signature(proposed(), COUNCIL_KEYS[0])
        with pytest.raises(SignatureError, match="1 of 3 members have signed, 2 must"):
            governance.publish_signed(store, log, config, alone)
        with pytest.raises(SignatureError, match="2 must"):
            membership.verify(alone, config.governance_key, before)
        assert not office.events("key_changed")
        after = governance.publish_signed(store, log, config, add_signature(alone, COUNCIL_KEYS[2]))
        assert after.person("ada").identity_key == keys.public_bytes(new)
        with pytest.raises(IdentityError, match="epoch"):  # the same signed recovery, once more
            governance.publish_signed(store, log, config, add_signature(alone, COUNCIL_KEYS[2]))


def test_members_of_the_council_see_a_recovery_before_they_sign(tmp_path: Path) -> None:
    from trust.identity.council import describe

    council = Council.of(2, [keys.public_bytes(key) for key in COUNCIL_KEYS])
    config = found(tmp_path / "server", council)
    path = tmp_path / "server" / governance.FOLDER
    with governance.opened(config) as (store, log):
        office = Office(config, store, log)
        office.enrol("ada", office.ada)
        first = governance.propose_membership(store, config, path, council, now=AT)[0]
        for key in COUNCIL_KEYS[:2]:
            first = add_signature(first, key)
        governance.publish_signed(store, log, config, first)
        office.redeem(office.recover(), Ed25519PrivateKey.generate())
        lines = describe(governance.propose_membership(store, config, path, council, now=AT)[0])
    assert any("ada" in line and "RECOVERED BY YOU: stolen laptop" in line for line in lines)


def test_nothing_is_asked_under_a_membership_past_its_end(office: Office) -> None:
    document = office.publish()
    assert document.valid_until - AT == 90 * 86_400
    ask(document, "ada", office.ada)
    _, envelope = build_request(
        key=office.ada,
        consortium=HEART,
        analyst="ada",
        purpose="test",
        dataset="d",
        schema_hash=bytes(32),
        query=b"q",
        rho_nano=1,
        minimum_cohort=3,
        now=document.valid_until + 1,
    )
    with pytest.raises(IdentityError, match=r"epoch 1.* ended"):
        verify_request(envelope, document, HEART, document.valid_until + 1)
    key = governance.open_governance(office.config.folder / governance.FOLDER, office.config)
    late = AT + 61 * 86_400  # in its last third it is signed anew, though nobody came or went
    assert governance.publish_membership(office.store, office.log, office.config, key, now=AT)[0].epoch == 1
    assert governance.publish_membership(office.store, office.log, office.config, key, now=late)[0].epoch == 2
