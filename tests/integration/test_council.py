"""Governance by two of three: what they publish is accepted everywhere, what one alone signs is refused everywhere."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from analytics_server import governance
from analytics_server.cli import app
from analytics_server.coordinator.enrolment import EnrolmentDesk, invite
from protos.v1 import enrolment_pb2, envelope_pb2
from queries.errors import CohortiumError, ConfigError, IdentityError, SignatureError
from trust.identity import enrolment, keys, membership, x509
from trust.identity.council import Council, add_signature, verify_governed
from trust.identity.dataset import verify_dataset

KIND = "application/vnd.test"
MEMBERS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 6)]
PUBLIC = [keys.public_bytes(member) for member in MEMBERS]
SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
"""


def signed(council: Council, signers: list[int], payload: bytes = b"what they say") -> bytes:
    envelope = council.propose(KIND, payload)
    for number in signers:
        envelope = add_signature(envelope, MEMBERS[number])
    return envelope


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.sets(st.integers(0, 4)), st.integers(1, 5))
def test_a_quorum_decides_and_fewer_do_not(members: int, signers: set[int], threshold: int) -> None:
    threshold = min(threshold, members)
    council = Council.of(threshold, PUBLIC[:members])
    able = sorted(number for number in signers if number < members)
    envelope = signed(council, able)
    if len(able) >= threshold:
        assert verify_governed(envelope, KIND, council.governance_key) == b"what they say"
    else:
        with pytest.raises(SignatureError, match="must"):
            verify_governed(envelope, KIND, council.governance_key)


TWO_OF_THREE = Council.of(2, PUBLIC[:3])


def altered(change: object) -> bytes:
    envelope = envelope_pb2.Envelope.FromString(signed(TWO_OF_THREE, [0, 1]))
    change(envelope)  # type: ignore[operator]  # a function of the envelope
    return envelope.SerializeToString()


def smaller_threshold(envelope: envelope_pb2.Envelope) -> None:
    envelope.council.threshold = 1
    del envelope.signatures[1]


def own_council(envelope: envelope_pb2.Envelope) -> None:
    mine = Council.of(1, [PUBLIC[4]])
    envelope.ParseFromString(add_signature(mine.propose(KIND, b"what they say"), MEMBERS[4]))


def signed_twice(envelope: envelope_pb2.Envelope) -> None:
    envelope.signatures[1].CopyFrom(envelope.signatures[0])


def renamed_twice(envelope: envelope_pb2.Envelope) -> None:
    envelope.signatures[1].signature = envelope.signatures[0].signature


def another_payload(envelope: envelope_pb2.Envelope) -> None:
    envelope.payload += b"!"


def another_type(envelope: envelope_pb2.Envelope) -> None:
    envelope.payload_type = "application/vnd.other"


def stranger(envelope: envelope_pb2.Envelope) -> None:
    message = b"anything"
    envelope.signatures.add(key_id=keys.key_id(PUBLIC[4]), signature=MEMBERS[4].sign(message))


def without_council(envelope: envelope_pb2.Envelope) -> None:
    envelope.ClearField("council")
    del envelope.signatures[1]


def one_bad_signature(envelope: envelope_pb2.Envelope) -> None:
    envelope.signatures[0].signature = bytes(64)


def unsorted(envelope: envelope_pb2.Envelope) -> None:
    envelope.council.keys[:] = envelope.council.keys[::-1]


@pytest.mark.parametrize(
    "change",
    [
        smaller_threshold, own_council, signed_twice, renamed_twice, another_payload, another_type, stranger,
        without_council, one_bad_signature, unsorted,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_what_is_not_two_of_these_three_is_refused(change: object) -> None:
    verify_governed(signed(TWO_OF_THREE, [0, 1]), KIND, TWO_OF_THREE.governance_key)
    with pytest.raises(SignatureError):
        verify_governed(altered(change), KIND, TWO_OF_THREE.governance_key)


def test_a_single_governor_s_word_is_not_a_council_s() -> None:
    from trust.identity import envelope as dsse

    alone = dsse.sign(KIND, b"x", MEMBERS[0])
    assert verify_governed(alone, KIND, PUBLIC[0]) == b"x"
    with pytest.raises(SignatureError):
        verify_governed(alone, KIND, TWO_OF_THREE.governance_key)


def test_signing_twice_or_as_a_stranger_is_refused() -> None:
    envelope = signed(TWO_OF_THREE, [0])
    with pytest.raises(SignatureError, match="already"):
        add_signature(envelope, MEMBERS[0])
    with pytest.raises(SignatureError, match="no member"):
        add_signature(envelope, MEMBERS[4])


@pytest.mark.parametrize(("threshold", "count"), [(0, 3), (4, 3), (1, 0), (1, 33)])
def test_impossible_councils(threshold: int, count: int) -> None:
    members = [keys.public_bytes(Ed25519PrivateKey.generate()) for _ in range(count)]
    with pytest.raises(ConfigError):
        Council.of(threshold, members)


# --- a consortium governed so ----------------------------------------------------------------------------------------


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


@pytest.fixture
def founded(tmp_path: Path) -> Path:
    public = [
        json.loads(run("council", "keygen", str(tmp_path / f"{name}.key"), "--json"))["public"]
        for name in ("ada", "bob", "eve")
    ]
    members = "\n".join(f'{name} = "{key}"' for name, key in zip(("ada", "bob", "eve"), public, strict=True))
    (tmp_path / "council.toml").write_text(f"threshold = 2\n[members]\n{members}\n")
    run("init", str(tmp_path / "server"), "--name", "north", "--council", str(tmp_path / "council.toml"))
    return tmp_path


def enrolled(folder: Path, name: str) -> None:
    """An auditor, by way of the real desk."""
    from analytics_server.config import load

    config = load(folder / "server")
    now = datetime.now(UTC)
    with governance.opened(config) as (store, log):
        invitation = invite(
            store, log, config, role="auditor", participant=name, organisation=name, valid_hours=1, now=now
        )
        key = Ed25519PrivateKey.generate()
        request = enrolment_pb2.EnrolRequest(
            invitation_id=invitation.id,
            secret=invitation.secret,
            csr=x509.make_request(keys.generate_tls_key()),
            identity_key=keys.public_bytes(key),
            at=int(time.time()),
        )
        enrolment.prove_enrolment(request, config.consortium, key)
        EnrolmentDesk(config, store, log).enrol(request, now)


def test_two_of_three_publish_a_membership_and_a_dataset(founded: Path) -> None:
    from analytics_server.config import load

    server, file = str(founded / "server"), str(founded / "next.dsse")
    assert not (founded / "server" / "governance" / "governance.key").exists()
    enrolled(founded, "olga")
    with pytest.raises(ConfigError, match="council"):
        run("membership", "publish", server)
    assert "+ olga" in run("council", "propose", server, file)
    shown = run("council", "sign", file, "--key", str(founded / "ada.key"))
    assert "olga, person" in shown
    assert "1 signatures, 2 needed" in shown
    with pytest.raises(SignatureError, match="1 of 3 members have signed, 2 must"):
        run("council", "publish", server, file)
    run("council", "sign", file, "--key", str(founded / "eve.key"))
    assert json.loads(run("council", "publish", server, file, "--json"))["epoch"] == 1
    with pytest.raises(CohortiumError):
        run("council", "publish", server, file)  # once is enough
    config = load(founded / "server")
    with governance.opened(config) as (store, _), store.read() as uow:
        document = membership.verify(uow.memberships()[0], config.governance_key, consortium="north")
    assert [person.id for person in document.people] == ["olga"]
    with pytest.raises(IdentityError, match="nothing to sign"):
        run("council", "propose", server, str(founded / "again.dsse"))
    (founded / "people.toml").write_text(SCHEMA)
    dataset = str(founded / "people.dsse")
    run("council", "propose", server, dataset, "--schema", str(founded / "people.toml"))
    for name in ("bob", "eve"):
        assert "dataset people, columns: age" in run("council", "sign", dataset, "--key", str(founded / f"{name}.key"))
    assert json.loads(run("council", "publish", server, dataset, "--json"))["dataset"] == "people"
    with governance.opened(config) as (store, _), store.read() as uow:
        assert verify_dataset(uow.datasets()["people"].envelope, config.governance_key)[0].name == "people"


def test_an_epoch_that_was_overtaken_is_refused(founded: Path) -> None:
    server = str(founded / "server")
    enrolled(founded, "olga")
    for number, name in enumerate(("first", "second")):
        file = str(founded / f"{name}.dsse")
        run("council", "propose", server, file)
        for member in ("ada", "bob"):
            run("council", "sign", file, "--key", str(founded / f"{member}.key"))
        time.sleep(1.1 - number)  # another second, another document
    run("council", "publish", server, str(founded / "first.dsse"))
    with pytest.raises(IdentityError):
        run("council", "publish", server, str(founded / "second.dsse"))
