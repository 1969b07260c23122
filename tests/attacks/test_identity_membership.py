"""A coordinator, a governance or an insider that lies about who belongs, and requests in the wrong hands."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.identity import CONSORTIUM, Hospital, hospitals, payload
from sqlalchemy import create_engine, text

from analytics_server import governance
from analytics_server.config import ServerConfig
from protos.v1 import membership_pb2
from queries.errors import IdentityError, SignatureError
from queries.schema import Categorical, Column, Dataset, to_bytes
from trust.identity import envelope, keys, membership
from trust.identity.dataset import sign_dataset
from trust.identity.membership import Person
from trust.identity.requests import PAYLOAD_TYPE, build_request, verify_request

GOVERNANCE, COORDINATOR, ADA = (Ed25519PrivateKey.generate() for _ in range(3))
PUBLIC = keys.public_bytes(GOVERNANCE)
LISTED = [h.listed() for h in hospitals(3)]
PEOPLE = [Person("ada", ("analyst",), keys.public_bytes(ADA))]
DOCUMENT = membership.verify(membership.sign(payload(LISTED, PEOPLE), GOVERNANCE), PUBLIC)
NOW = 1_800_000_000


def request(key: Ed25519PrivateKey, *, consortium: str = CONSORTIUM) -> bytes:
    _, signed = build_request(
        key=key,
        consortium=consortium,
        analyst="ada",
        purpose="audit",
        dataset="patients",
        schema_hash=bytes(32),
        query=b"q",
        rho_nano=1,
        minimum_cohort=3,
        now=NOW,
    )
    return signed


def test_membership_signed_by_the_coordinator_is_refused() -> None:
    with pytest.raises(SignatureError):
        membership.verify(membership.sign(payload(LISTED, PEOPLE), COORDINATOR), PUBLIC)


def test_signature_of_governance_over_something_else_is_no_membership() -> None:
    dataset = sign_dataset(to_bytes(Dataset("patients", (Column("sex", Categorical(("f", "m"))),))), GOVERNANCE)
    with pytest.raises(SignatureError, match="expected a signed"):
        membership.verify(dataset, PUBLIC)


def test_governance_cannot_swap_an_institutions_epoch_key() -> None:
    message = membership_pb2.Membership.FromString(payload(LISTED, PEOPLE))
    message.institutions[1].epoch_key = Hospital("h1", "Hospital 1").listed().epoch_key
    with pytest.raises(SignatureError, match="epoch key of 'h1'"):
        membership.verify(membership.sign(message.SerializeToString(), GOVERNANCE), PUBLIC)


def test_epoch_key_of_another_consortium_cannot_be_reused() -> None:
    lung = replace(hospitals(1)[0], consortium="lung-study")
    with pytest.raises(SignatureError, match="epoch key"):
        payload([lung.listed()], [])


def test_coordinator_cannot_ask_in_an_analysts_name() -> None:
    with pytest.raises(SignatureError):
        verify_request(request(COORDINATOR), DOCUMENT, CONSORTIUM, NOW)


def test_request_to_one_consortium_is_none_to_another() -> None:
    with pytest.raises(IdentityError, match="consortium 'lung-study'"):
        verify_request(request(ADA, consortium="lung-study"), DOCUMENT, CONSORTIUM, NOW)
    with pytest.raises(IdentityError, match="not 'lung-study'"):
        verify_request(request(ADA), DOCUMENT, "lung-study", NOW)


def test_altered_request_is_refused_bit_by_bit() -> None:
    signed = request(ADA)
    body = envelope.unverified_payload(signed, PAYLOAD_TYPE)
    start = signed.index(body)
    for position in range(start, start + len(body)):
        flipped = bytearray(signed)
        flipped[position] ^= 1
        with pytest.raises((IdentityError, SignatureError)):
            verify_request(bytes(flipped), DOCUMENT, CONSORTIUM, NOW)


def test_revoked_analysts_request_is_refused_under_the_next_epoch() -> None:
    document = membership.verify(membership.sign(payload(LISTED, [], previous=DOCUMENT), GOVERNANCE), PUBLIC, DOCUMENT)
    with pytest.raises(IdentityError, match="nobody in epoch 2"):
        verify_request(request(ADA), document, CONSORTIUM, NOW)


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return governance.initialise(
        tmp_path / "server",
        consortium=CONSORTIUM,
        address="localhost:7443",
        enrolment_address="localhost:7444",
        governance=None,
        store="state.sqlite",
        minimum_cohort=3,
        colluders=1,
        now=datetime.now(UTC),
    )


def test_keys_swapped_in_the_database_are_not_signed(config: ServerConfig) -> None:
    office = governance.open_governance(config.folder / "governance", config)
    with governance.opened(config) as (store, log):
        with store.begin() as uow:
            for listed in LISTED:
                uow.add_participant(
                    id=listed.id,
                    role="agent",
                    organisation=listed.organisation,
                    identity_key=listed.identity_key,
                    epoch_key=listed.epoch_key,
                    epoch_key_signature=listed.epoch_key_signature,
                    certificate_serial="1",
                )
        governance.publish_membership(store, log, config, office, now=NOW)
    mallory = Hospital("h1", "Hospital 1").listed()
    engine = create_engine(config.store_url)
    with engine.begin() as raw:
        if engine.dialect.name == "sqlite":
            for trigger in raw.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all():
                raw.execute(text(f"DROP TRIGGER {trigger}"))
        else:
            raw.execute(text("ALTER TABLE participant DISABLE TRIGGER USER"))
        raw.execute(
            text("UPDATE participant SET identity_key = :i, epoch_key = :e, epoch_key_signature = :s WHERE id = 'h1'"),
            {"i": mallory.identity_key, "e": mallory.epoch_key, "s": mallory.epoch_key_signature},
        )
    engine.dispose()
    with governance.opened(config) as (store, log):
        with pytest.raises(IdentityError, match="other keys for 'h1'"):
            governance.publish_membership(store, log, config, office, now=NOW)
        with store.read() as uow, pytest.raises(IdentityError, match="other keys for 'h1'"):
            governance.pending(uow, config)


def test_membership_planted_in_the_database_is_noticed(config: ServerConfig) -> None:
    office = governance.open_governance(config.folder / "governance", config)
    planted = membership.sign(payload(LISTED, PEOPLE), COORDINATOR)
    with governance.opened(config) as (store, log):
        with store.begin() as uow:
            uow.add_membership(1, bytes(32), planted)
        with pytest.raises(SignatureError):
            governance.publish_membership(store, log, config, office, now=NOW)
