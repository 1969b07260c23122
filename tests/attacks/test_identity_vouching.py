"""A person's identity provider vouches for the key that enrols, and every way to borrow its word for another fails."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.identity import serving
from harness.identity_provider import CLIENT, as_browser, identity_provider
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from typer.testing import CliRunner

from analytics_client import device_flow
from analytics_client.cli import app as client_app
from analytics_client.device_flow import Prompt
from analytics_client.enrolment import enrol
from analytics_server import governance, vouching
from analytics_server.cli import app as server_app
from analytics_server.config import load
from analytics_server.coordinator.enrolment import EnrolmentServicer, invite
from analytics_server.vouching import Expected, check_token
from protos.v1 import enrolment_pb2_grpc, log_pb2
from queries.errors import ConfigError, IdentityError, InvitationError, ServiceError
from trust.identity import keys
from trust.identity.enrolment import vouching_nonce
from trust.rpc.server import enrolment_credentials
from trust.tlog.entries import decode

NOW = int(time.time())
HEART = "heart-study"
ISSUER = "https://login.example.org/realms/research"
INVITATION = "00112233aabbccdd"
KEY = keys.public_bytes(Ed25519PrivateKey.generate())
SIGNER = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
JWKS: dict[str, Any] = {"keys": [SIGNER.as_dict(private=False)]}
EXPECTED = Expected.of(ISSUER, CLIENT, "Ada@hospital.example", INVITATION)


def claims(**changed: object) -> dict[str, Any]:
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": CLIENT,
        "sub": "user-17",
        "iat": NOW,
        "exp": NOW + 300,
        "nonce": vouching_nonce(HEART, INVITATION, KEY),
        "email": "ada@hospital.example",
        "email_verified": True,
        "name": "Ada",
    }
    return {name: value for name, value in (good | changed).items() if value is not None}


def sign(said: dict[str, Any], key: Any = SIGNER, alg: str = "RS256", kid: str = "one") -> str:
    return jwt.encode({"alg": alg, "kid": kid}, said, key)


def check(token: str, *, expected: Expected = EXPECTED, now: int = NOW, jwks: Any = None) -> vouching.Vouched:
    return check_token(
        token,
        JWKS if jwks is None else jwks,
        expected,
        consortium=HEART,
        invitation_id=INVITATION,
        identity_key=KEY,
        now=now,
    )


def test_honest_token_vouches() -> None:
    assert check(sign(claims())) == vouching.Vouched("Ada", "ada@hospital.example")
    assert check(sign(claims(aud=[CLIENT, "other"], azp=CLIENT))).name == "Ada"
    by_subject = Expected.of(ISSUER, CLIENT, "sub:user-17", INVITATION)
    assert check(sign(claims(email=None, email_verified=None)), expected=by_subject).contact == ""


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"iss": "https://login.example.org/realms/other"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "another-application"}, "another application"),
        ({"aud": None}, "another application"),
        ({"aud": {"cohortium": 1}}, "another application"),
        ({"aud": [CLIENT, "other"]}, "asked for by another"),
        ({"azp": "other"}, "asked for by another"),
        ({"exp": NOW - 301}, "not valid now"),
        ({"exp": None}, "not valid now"),
        ({"exp": "tomorrow"}, "not valid now"),
        ({"exp": True}, "not valid now"),
        ({"iat": NOW + 301, "exp": NOW + 900}, "not valid now"),
        ({"iat": NOW - 3601}, "too old"),
        ({"nonce": None}, "does not vouch"),
        ({"nonce": "x"}, "does not vouch"),
        ({"nonce": 7}, "does not vouch"),
        ({"nonce": vouching_nonce(HEART, "another", KEY)}, "does not vouch"),
        ({"nonce": vouching_nonce("lung-study", INVITATION, KEY)}, "does not vouch"),
        ({"nonce": vouching_nonce(HEART, INVITATION, bytes(32))}, "does not vouch"),
        ({"email": "eve@hospital.example"}, "another person"),
        ({"email": None}, "another person"),
        ({"email": ["ada@hospital.example"]}, "another person"),
        ({"email_verified": False}, "has verified"),
        ({"email_verified": "true"}, "has verified"),
        ({"email_verified": None}, "has verified"),
    ],
)
def test_token_with_a_wrong_claim_is_refused(changed: dict[str, object], match: str) -> None:
    with pytest.raises(IdentityError, match=match):
        check(sign(claims(**changed)))


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def without_signature(alg: str) -> str:
    return f"{part({'alg': alg, 'kid': 'one'})}.{part(claims())}."


def by_public_key(alg: str, secret: bytes) -> str:
    """Sign by HMAC with the provider's public key as the secret, as libraries have been tricked into verifying."""
    text = f"{part({'alg': alg, 'kid': 'one'})}.{part(claims())}"
    mac = hmac.new(secret, text.encode(), getattr(hashlib, f"sha{alg[2:]}")).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


PUBLIC_PEM = SIGNER.as_pem(private=False)
OTHER = RSAKey.generate_key(2048, {"kid": "one"})


def altered() -> str:
    head, _, signature = sign(claims(email="eve@hospital.example")).split(".")
    return f"{head}.{part(claims())}.{signature}"


def with_own_key() -> str:
    """Bring the key along, in the header: `jwk` and `jku` are the token's word on itself."""
    return jwt.encode({"alg": "RS256", "kid": "one", "jwk": OTHER.as_dict(private=False)}, claims(), OTHER)


@pytest.mark.parametrize(
    "token",
    [
        without_signature("none"),
        without_signature("None"),
        without_signature("RS256"),
        by_public_key("HS256", PUBLIC_PEM),
        by_public_key("HS512", PUBLIC_PEM),
        by_public_key("HS256", PUBLIC_PEM.strip()),
        by_public_key("HS256", json.dumps(SIGNER.as_dict(private=False)).encode()),
        sign(claims(), OTHER),
        sign(claims(), OTHER, kid="two"),
        sign(claims(), ECKey.generate_key("P-256", {"kid": "one"}), "ES256"),
        with_own_key(),
        altered(),
        sign(claims())[:-8],
        "a.b.c",
        "a.b.c.d.e",
        "",
        "x" * 20_000,
    ],
)
def test_token_that_the_provider_did_not_sign_is_refused(token: str) -> None:
    with pytest.raises(IdentityError, match=r"not signed by|missing, or too long"):
        check(token)


def test_symmetric_and_encryption_keys_of_the_provider_sign_nothing() -> None:
    secret = {"kty": "oct", "kid": "one", "k": base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")}
    with pytest.raises(IdentityError, match="not signed"):
        check(by_public_key("HS256", b"s" * 32), jwks={"keys": [secret]})
    with pytest.raises(IdentityError, match="not signed"):
        check(sign(claims()), jwks={"keys": [SIGNER.as_dict(private=False) | {"use": "enc"}]})
    for none in ({}, {"keys": []}, {"keys": [{}]}, {"keys": "x"}):
        with pytest.raises(IdentityError, match="not signed"):
            check(sign(claims()), jwks=none)


def test_who_is_invited_is_not_written_down() -> None:
    for person in ("", "sub:", "ada", "two\nlines@x", "a@" + "b" * 400):
        with pytest.raises(ConfigError, match="names nobody"):
            Expected.of(ISSUER, CLIENT, person, INVITATION)
    text = EXPECTED.to_text()
    assert "ada" not in text.lower()
    assert Expected.from_text(text) == EXPECTED
    assert Expected.of(ISSUER, CLIENT, "ada@hospital.example", "another").hash != EXPECTED.hash


# --- against a provider that runs ------------------------------------------------------------------------------------


class Running:
    """A founded consortium with an open enrolment port, and an identity provider beside it."""

    def __init__(self, folder: Path, provider: dict[str, Any]) -> None:
        self.folder, self.provider = folder, provider
        self.seen: list[Prompt] = []
        governance.initialise(
            folder / "server",
            consortium=HEART,
            address="127.0.0.1:7443",
            enrolment_address="127.0.0.1:0",
            governance=None,
            store="state.sqlite",
            minimum_cohort=3,
            colluders=1,
            now=datetime.now(UTC),
        )
        file = folder / "server" / "server.toml"
        with file.open("a") as text:
            text.write(f'\n[oidc]\nissuer = "{provider["issuer"]}"\nclient_id = "{CLIENT}"\n')
        self.config = load(folder / "server")

    def token(self, participant: str = "ada", person: str = "ada@hospital.example") -> str:
        with governance.opened(self.config) as (store, log):
            made = invite(
                store,
                log,
                self.config,
                role="analyst",
                participant=participant,
                organisation="",
                valid_hours=1,
                now=datetime.now(UTC),
                person=person,
            )
        return replace(made, address=self.address).to_token()

    def sign_in(self, issuer: str, client_id: str, nonce: str, /, *, deny: bool = False, **said: object) -> str:
        def tell(prompt: Prompt) -> None:
            self.seen.append(prompt)
            as_browser(self.provider, prompt.code, deny=deny, **said)

        return device_flow.sign_in(issuer, client_id, nonce, tell=tell)

    def publish(self) -> list[str]:
        office = governance.open_governance(self.config.folder / governance.FOLDER, self.config)
        with governance.opened(self.config) as (store, log):
            document, _ = governance.publish_membership(store, log, self.config, office, now=int(time.time()))
        return sorted(document.identity_keys)

    def events(self) -> list[log_pb2.LogEntry]:
        with governance.opened(self.config) as (store, _), store.read() as uow:
            return [decode(row.leaf) for row in uow.leaves(0, 1000)]


ADA = {"sub": "user-17", "email": "ada@hospital.example", "email_verified": True, "name": "Ada Lovelace"}
EVE = {"sub": "user-66", "email": "eve@hospital.example", "email_verified": True}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with identity_provider(tmp_path_factory.mktemp("login") / "provider") as running:
        yield running


@pytest.fixture
def running(tmp_path: Path, provider: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setenv("SSL_CERT_FILE", provider["ca"])
    built = Running(tmp_path, provider)
    tls = built.config.tls()
    with governance.opened(built.config) as (store, log):
        servicer = EnrolmentServicer(built.config, store, log)
        with serving(
            lambda server: enrolment_pb2_grpc.add_EnrolmentServicer_to_server(servicer, server),
            enrolment_credentials(tls.key, tls.chain),
        ) as built.address:
            yield built


def test_person_signs_in_enrols_and_is_published(running: Running) -> None:
    joined = enrol(
        running.token(),
        running.folder / "ada",
        roles=["analyst"],
        sign_in=lambda *a: running.sign_in(*a, **ADA),
    )
    assert joined.id == "ada"
    assert running.seen[0].address == f"{running.provider['issuer']}/activate"
    assert running.publish() == ["ada"]
    entries = running.events()
    assert [e.enrolled.vouched_by for e in entries if e.HasField("enrolled")] == [running.provider["issuer"]]
    assert not any(b"ovelace" in e.SerializeToString() or b"hospital.example" in e.SerializeToString() for e in entries)
    with governance.opened(running.config) as (store, log):
        with store.read() as uow:
            known = uow.identity("ada")
            assert known is not None
            assert (known.name, known.contact) == ("Ada Lovelace", "ada@hospital.example")
            assert uow.proof("ada") is not None
        governance.erase_identity(store, log, "ada")
        with store.read() as uow:
            assert uow.proof("ada") is None


def test_somebody_else_who_signs_in_does_not_enrol_and_the_invitation_stays_good(running: Running) -> None:
    token = running.token()
    for said, match in (
        (EVE, "another person"),
        (ADA | {"email_verified": False}, "verified"),
        (ADA | {"aud": "another"}, "another application"),
        (ADA | {"nonce": "x"}, "does not vouch"),
        (ADA | {"exp": NOW - 4000, "iat": NOW - 5000}, "not valid now"),
    ):
        with pytest.raises(IdentityError, match=match):
            enrol(
                token,
                running.folder / "ada",
                roles=["analyst"],
                sign_in=lambda *a, said=said: running.sign_in(*a, **said),
            )
        assert not (running.folder / "ada").exists()
    with pytest.raises(IdentityError, match="refused"):
        enrol(
            token,
            running.folder / "ada",
            roles=["analyst"],
            sign_in=lambda *a: running.sign_in(*a, deny=True),
        )
    enrol(token, running.folder / "ada", roles=["analyst"], sign_in=lambda *a: running.sign_in(*a, **ADA))


def test_token_that_enrolled_one_key_enrols_no_other(running: Running) -> None:
    kept: list[str] = []

    def keep(*a: str) -> str:
        kept.append(running.sign_in(*a, **ADA))
        return kept[0]

    first, second = running.token(), running.token("ada2")
    enrol(first, running.folder / "ada", roles=["analyst"], sign_in=keep)
    for token, error in ((first, InvitationError), (second, IdentityError)):
        with pytest.raises(error):
            enrol(token, running.folder / "again", roles=["analyst"], sign_in=lambda *_: kept[0])


def test_nobody_enrols_without_signing_in(running: Running) -> None:
    token = running.token()
    with pytest.raises(InvitationError, match="has to vouch"):
        enrol(token, running.folder / "ada", roles=["analyst"])
    with pytest.raises(IdentityError, match="missing"):
        enrol(token, running.folder / "ada", roles=["analyst"], sign_in=lambda *_: "")


def test_governance_does_not_believe_the_coordinator(running: Running) -> None:
    """The coordinator swaps the key after the enrolment, or makes up who enrolled: nothing is signed."""
    swap = sa.text("UPDATE participant SET identity_key = :key")
    enrol(running.token(), running.folder / "ada", roles=["analyst"], sign_in=lambda *a: running.sign_in(*a, **ADA))
    with governance.opened(running.config) as (store, _), store.begin() as uow:
        row = uow.participant("ada")
        assert row is not None
        uow._connection.execute(swap, {"key": bytes(range(32))})
    with pytest.raises(IdentityError, match="not the person who was invited"):
        running.publish()
    with governance.opened(running.config) as (store, _), store.begin() as uow:
        uow._connection.execute(swap, {"key": row.identity_key})
        uow._connection.exec_driver_sql("DELETE FROM identity_proof")
    with pytest.raises(IdentityError, match="nothing shows"):
        running.publish()


def test_the_command_shows_where_to_sign_in(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def browser() -> None:
        end = time.monotonic() + 30
        while not said and time.monotonic() < end:
            time.sleep(0.02)
        as_browser(running.provider, said[0], **ADA)

    sign_in = device_flow.sign_in

    def watched(issuer: str, client_id: str, nonce: str, *, tell: Any) -> str:
        def both(prompt: Prompt) -> None:
            tell(prompt)
            said.append(prompt.code)

        return sign_in(issuer, client_id, nonce, tell=both)

    monkeypatch.setattr(device_flow, "sign_in", watched)
    person = threading.Thread(target=browser, daemon=True)
    person.start()
    done = CliRunner().invoke(client_app, ["enrol", running.token(), "--profile", str(running.folder / "ada")])
    person.join(30)
    assert done.exit_code == 0, (done.output, done.exception)
    assert f"Sign in at {running.provider['issuer']}/activate with the code {said[0]}" in done.output
    assert "You are ada" in done.output


def test_what_cannot_vouch_is_said_at_the_invitation(running: Running, tmp_path: Path) -> None:
    server = str(running.config.folder)
    for words, match in (
        (["--role", "agent", "--organisation", "X", "--person", "ada@x.example"], "vouches for people"),
        (["--role", "analyst", "--person", "nobody"], "names nobody"),
        (["--role", "analyst", "--person", "a@b.c", "--service-days", "3", "--datasets", "d"], "vouches for people"),
    ):
        done = CliRunner().invoke(server_app, ["invite", server, "--id", "ada", *words])
        assert match in str(done.exception)
    file = running.config.folder / "server.toml"
    text = file.read_text()
    file.write_text(text.replace('issuer = "https://127', 'issuer = "http://127'))
    with pytest.raises(ConfigError, match="https"):
        load(running.config.folder)
    file.write_text(text[: text.index("\n[oidc]")])
    done = CliRunner().invoke(server_app, ["invite", server, "--id", "a", "--role", "analyst", "--person", "a@b.c"])
    assert "[oidc]" in str(done.exception)


def test_provider_that_is_down_or_lies_about_itself_vouches_for_nobody(provider: dict[str, Any]) -> None:
    for issuer in ("https://127.0.0.1:9", provider["issuer"]):  # nobody there; a certificate that is not trusted here
        with pytest.raises(ServiceError, match="does not answer"):
            vouching.Provider(issuer).keys()
        with pytest.raises(ServiceError, match="does not answer"):
            device_flow.sign_in(issuer, CLIENT, "n", tell=lambda _: None)


def test_provider_under_another_name_is_refused(provider: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", provider["ca"])
    assert vouching.Provider(provider["issuer"]).keys()["keys"]
    with pytest.raises(ServiceError, match="describes another issuer"):
        vouching.Provider(provider["issuer"] + "/").keys()
    for wrong in ("http://127.0.0.1:1", "file:///etc/passwd", "localhost"):
        with pytest.raises(ConfigError, match="https"):
            vouching.Provider(wrong).keys()
        with pytest.raises(ConfigError, match="https"):
            device_flow.sign_in(wrong, CLIENT, "n", tell=lambda _: None)
