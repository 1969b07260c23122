"""Invitations redeemed over the real enrolment port, on each database."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from harness.identity import serving

from analytics_client import enrolment as joining
from analytics_client import profile as profiles
from analytics_client.enrolment import enrol, renew, renew_if_due
from analytics_server import governance
from analytics_server.config import ServerConfig
from analytics_server.coordinator.enrolment import EnrolmentServicer, invite
from protos.v1 import enrolment_pb2_grpc, log_pb2
from queries.errors import CohortiumError, ConfigError, IdentityError, InvitationError, ServiceError
from trust.identity import keys
from trust.identity.invitation import Invitation
from trust.identity.x509 import peer_of
from trust.rpc.server import enrolment_credentials

ROLES = ("agent", "analyst", "auditor", "steward", "operator")


class Office:
    """A founded consortium whose enrolment port is open."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.config: ServerConfig = governance.initialise(
            folder / "server",
            consortium="heart-study",
            address="127.0.0.1:7443",
            enrolment_address="127.0.0.1:0",
            governance=None,
            store=store,
            minimum_cohort=3,
            colluders=1,
            now=datetime.now(UTC),
        )

    @contextmanager
    def open(self) -> Iterator[Office]:
        tls = self.config.tls()
        with governance.opened(self.config) as (self.store, self.log):
            servicer = EnrolmentServicer(self.config, self.store, self.log)
            with serving(
                lambda server: enrolment_pb2_grpc.add_EnrolmentServicer_to_server(servicer, server),
                enrolment_credentials(tls.key, tls.chain),
            ) as address:
                self.config = replace(self.config, enrolment_address=address)
                yield self

    def invite(
        self, participant: str, role: str = "agent", *, now: datetime | None = None, hours: float = 1
    ) -> Invitation:
        return invite(
            self.store,
            self.log,
            self.config,
            role=role,
            participant=participant,
            organisation=f"Hospital {participant}" if role == "agent" else "",
            valid_hours=hours,
            now=now or datetime.now(UTC),
        )

    def events(self, kind: str) -> list[log_pb2.LogEntry]:
        with self.store.read() as uow:
            entries = [log_pb2.LogEntry.FromString(row.leaf) for row in uow.leaves(0, 10_000)]
        return [entry for entry in entries if entry.WhichOneof("event") == kind]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with Office(tmp_path, "state.sqlite").open() as opened:
        yield opened


@pytest.fixture
def any_office(tmp_path: Path, store_url: str) -> Iterator[Office]:
    with Office(tmp_path, store_url).open() as opened:
        yield opened


@pytest.mark.parametrize("role", ROLES)
def test_newcomer_gets_a_complete_private_folder(office: Office, role: str) -> None:
    invitation = office.invite("newcomer", role)
    profile = enrol(invitation.to_token(), office.folder / "mine", roles=[role])
    assert profile == profiles.load(office.folder / "mine")
    assert (profile.id, profile.role, profile.consortium) == ("newcomer", role, "heart-study")
    assert profile.address == "127.0.0.1:7443"
    assert profile.governance_key == office.config.governance_key
    secrets = {"identity.key", "tls.key"} | ({"epoch.key"} if role == "agent" else set())
    names = {path.name for path in profile.folder.iterdir()}
    assert names == secrets | {"ca.pem", "certificate.pem", "participant.json"}
    for name in secrets:
        assert stat.S_IMODE((profile.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(profile.folder.stat().st_mode) == 0o700
    assert [path.name for path in office.folder.iterdir() if path.name.startswith(".")] == []
    leaf = x509.load_pem_x509_certificate((profile.folder / "certificate.pem").read_bytes())
    assert peer_of(leaf).uri == f"spiffe://heart-study/{role}/newcomer"


def test_enrolment_is_stored_and_logged_with_the_key(office: Office) -> None:
    profile = enrol(office.invite("h1").to_token(), office.folder / "h1", roles=["agent"])
    public = keys.public_bytes(profile.identity_key())
    with office.store.read() as uow:
        row = uow.participant("h1")
    assert row is not None
    assert (row.role, row.organisation, row.identity_key) == ("agent", "Hospital h1", public)
    assert row.epoch_key == keys.public_bytes(profile.epoch_key())
    [invited], [enrolled] = office.events("invited"), office.events("enrolled")
    assert (invited.actor, invited.invited.participant) == ("operator", "h1")
    assert (enrolled.actor, enrolled.enrolled.identity_key) == ("h1", public)


def test_of_fifty_that_redeem_one_invitation_at_once_one_gets_in(any_office: Office) -> None:
    token = any_office.invite("h1").to_token()

    def attempt(number: int) -> str:
        try:
            enrol(token, any_office.folder / f"attempt-{number}", roles=["agent"])
        except InvitationError as error:
            return error.message
        return "enrolled"

    with ThreadPoolExecutor(25) as pool:
        outcomes = list(pool.map(attempt, range(50)))
    assert sorted(outcomes) == ["enrolled"] + ["this invitation has been used"] * 49
    assert len(list(any_office.folder.glob("attempt-*"))) == 1
    assert len(any_office.events("enrolled")) == 1


def test_used_invitation_is_refused_and_leaves_no_folder(office: Office) -> None:
    token = office.invite("h1").to_token()
    enrol(token, office.folder / "first", roles=["agent"])
    with pytest.raises(InvitationError, match="has been used"):
        enrol(token, office.folder / "second", roles=["agent"])
    assert {path.name for path in office.folder.iterdir()} <= {"server", "first", "state.sqlite"}


def test_expired_invitation_is_refused_on_both_sides(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    token = office.invite("h1", now=datetime.now(UTC) - timedelta(hours=2)).to_token()
    with pytest.raises(InvitationError, match="expired on 20"):
        enrol(token, office.folder / "h1", roles=["agent"])
    monkeypatch.setattr(joining, "check_usable", lambda *_: None)  # a newcomer that does not look
    with pytest.raises(InvitationError, match="expired"):
        enrol(token, office.folder / "h1", roles=["agent"])
    assert office.events("enrolled") == []


def test_unknown_invitation_and_wrong_secret_are_refused_alike(office: Office) -> None:
    good = office.invite("h1")
    words = set()
    for forged in (replace(good, secret=bytes(32)), replace(good, id="0" * 16)):
        with pytest.raises(InvitationError, match="unknown here") as caught:
            enrol(forged.to_token(), office.folder / "h1", roles=["agent"])
        words.add(str(caught.value))
    assert len(words) == 1
    enrol(good.to_token(), office.folder / "h1", roles=["agent"])


def test_second_agent_of_one_name_is_refused_and_the_first_stands(office: Office) -> None:
    first, second = office.invite("h1"), office.invite("h1")
    mine = enrol(first.to_token(), office.folder / "mine", roles=["agent"])
    with pytest.raises(IdentityError, match="'h1' is already enrolled") as caught:
        enrol(second.to_token(), office.folder / "theirs", roles=["agent"])
    assert caught.value.hint
    with office.store.read() as uow:
        row = uow.participant("h1")
    assert row is not None
    assert row.identity_key == keys.public_bytes(mine.identity_key())
    with pytest.raises(IdentityError, match="enrolled already"):
        office.invite("h1")


def test_failed_redemption_leaves_the_invitation_good(office: Office) -> None:
    invitation = office.invite("h1")
    taken = office.invite("h1")
    office_key = enrol(taken.to_token(), office.folder / "h1", roles=["agent"])
    assert office_key
    with pytest.raises(IdentityError, match="already enrolled"):
        enrol(invitation.to_token(), office.folder / "again", roles=["agent"])
    # The refusal rolled the redemption back: the same invitation is refused for the name again, not as used.
    with pytest.raises(IdentityError, match="already enrolled"):
        enrol(invitation.to_token(), office.folder / "again", roles=["agent"])


@pytest.mark.parametrize(("seconds", "words"), [(1200, "20 minutes ahead of"), (-7200 * 3, "6 hours behind")])
def test_wrong_clock_is_told_by_how_much_and_costs_no_invitation(
    office: Office, monkeypatch: pytest.MonkeyPatch, seconds: int, words: str
) -> None:
    token = office.invite("h1", hours=24).to_token()
    with monkeypatch.context() as patch:
        # Only the newcomer's own clock: gRPC in this process goes on with the true one.
        patch.setattr(joining, "time", SimpleNamespace(time=lambda: time.time() + seconds))
        with pytest.raises(CohortiumError, match=words) as caught:
            enrol(token, office.folder / "h1", roles=["agent"])
        assert caught.value.code == "clock"
    enrol(token, office.folder / "h1", roles=["agent"])


def test_invitation_for_another_role_names_the_right_command(office: Office) -> None:
    with pytest.raises(InvitationError, match="for the role 'agent'") as caught:
        enrol(office.invite("h1").to_token(), office.folder / "x", roles=["analyst", "auditor"])
    assert "cohortium-agent enrol" in caught.value.hint


def test_existing_folder_is_never_touched(office: Office) -> None:
    folder = office.folder / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    token = office.invite("h1").to_token()
    with pytest.raises(ConfigError, match="exists already"):
        enrol(token, folder, roles=["agent"])
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    assert enrol(token, folder, roles=["agent"]).folder == folder


def test_coordinator_that_is_down_is_told_within_five_seconds(tmp_path: Path) -> None:
    office = Office(tmp_path, "state.sqlite")
    with office.open():
        token = office.invite("h1").to_token()
    address = office.config.enrolment_address
    started = time.monotonic()
    with pytest.raises(ServiceError, match=address):
        enrol(token, tmp_path / "h1", roles=["agent"])
    assert time.monotonic() - started < 5
    assert not (tmp_path / "h1").exists()


def test_invitation_of_another_consortium_at_this_address_is_recognised(office: Office, tmp_path: Path) -> None:
    other = Office(tmp_path / "other", "state.sqlite")
    with governance.opened(other.config) as (other.store, other.log):
        invitation = replace(other.invite("h1"), address=office.config.enrolment_address)
    with pytest.raises(IdentityError, match="no coordinator of consortium"):
        enrol(invitation.to_token(), office.folder / "h1", roles=["agent"])


def test_answer_lost_after_the_invitation_was_used_still_gives_the_certificate(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analytics_server.coordinator.enrolment import EnrolmentDesk

    honest = EnrolmentDesk.enrol

    def lose_the_answer(self, request, now):
        honest(self, request, now)
        raise ServiceError("the connection broke")

    monkeypatch.setattr(EnrolmentDesk, "enrol", lose_the_answer)
    profile = enrol(office.invite("h1").to_token(), office.folder / "h1", roles=["agent"])
    assert profile.id == "h1"
    assert len(office.events("enrolled")) == 1


def test_renewal_gives_a_new_certificate_for_the_same_key(office: Office) -> None:
    profile = enrol(office.invite("ada", "analyst").to_token(), office.folder / "ada", roles=["analyst"])
    path = profile.folder / "certificate.pem"
    before = x509.load_pem_x509_certificate(path.read_bytes())
    assert not renew_if_due(profile)
    renew(profile)
    after = x509.load_pem_x509_certificate(path.read_bytes())
    assert after.serial_number != before.serial_number
    assert after.public_key() == before.public_key()
    assert peer_of(after).uri == peer_of(before).uri


def test_certificate_is_renewed_when_little_time_is_left(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = enrol(office.invite("ada", "analyst").to_token(), office.folder / "ada", roles=["analyst"])
    monkeypatch.setattr(joining, "RENEW_BEFORE", timedelta(days=91))
    assert renew_if_due(profile)


def test_revoked_participant_gets_no_new_certificate(office: Office) -> None:
    profile = enrol(office.invite("ada", "analyst").to_token(), office.folder / "ada", roles=["analyst"])
    governance.revoke(office.store, office.log, "ada", "left")
    with pytest.raises(IdentityError, match="no such participant"):
        renew(profile)
    [revoked] = office.events("revoked")
    assert (revoked.actor, revoked.revoked.participant, revoked.revoked.reason) == ("operator", "ada", "left")


def test_profile_that_is_none_or_damaged_is_told(office: Office, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no participant's folder"):
        profiles.load(tmp_path / "nothing")
    profile = enrol(office.invite("ada", "analyst").to_token(), office.folder / "ada", roles=["analyst"])
    with pytest.raises(ConfigError, match=r"epoch\.key is missing"):
        profile.epoch_key()
    (profile.folder / "tls.key").chmod(0o644)
    with pytest.raises(ConfigError, match="open to other users"):
        profile.tls()
    for damage in ("", "[]", "{}", '{"id": 1}'):
        (profile.folder / "participant.json").write_text(damage)
        with pytest.raises(ConfigError, match="damaged"):
            profiles.load(profile.folder)
