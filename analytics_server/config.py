"""The coordinator's folder: `server.toml`, its keys and certificates. The governance folder is not read here."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from pydantic import BaseModel, ConfigDict, ValidationError

from queries.errors import CohortiumError, ConfigError
from trust.identity import files, keys
from trust.identity import x509 as certificates
from trust.identity.names import Peer, check_consortium
from trust.rpc.channel import split_address
from trust.tlog import notes

FILE = "server.toml"
CA, GOVERNANCE_KEY = "ca.pem", "governance.pub"
ISSUING_KEY, ISSUING_CERTIFICATE = "issuing-ca.key", "issuing-ca.pem"
TLS_KEY, TLS_CERTIFICATE = "server-tls.key", "server-tls.pem"
LOG_KEY, STATE = "log.key", "state.sqlite"
RENEW_BEFORE = timedelta(days=30)

_TEMPLATE = """\
# The coordinator of consortium {consortium}. Made by `cohortium-server init`; change addresses and store as needed.

consortium = {consortium}

# What participants dial. Their certificates bind the consortium, not the address, so it may change.
address = {address}
# Where newcomers redeem invitations.
enrolment_address = {enrolment_address}

# What this process listens on.
listen = {listen}
enrolment_listen = {enrolment_listen}

# A file in this folder, or a URL: postgresql+psycopg://user@host/database
store = {store}

# First line of every checkpoint of the audit log; part of every membership. Never change it.
log_origin = {log_origin}

# An OpenID Connect provider that may have to vouch for people who enrol: cohortium-server invite --person EMAIL
# [oidc]
# issuer = "https://login.example.org/realms/research"
# client_id = "cohortium"
"""


class Oidc(BaseModel):
    """The identity provider that vouches for people: its issuer (https) and what the consortium is called there."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    issuer: str
    client_id: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    consortium: str
    address: str
    enrolment_address: str
    listen: str
    enrolment_listen: str
    store: str
    log_origin: str
    oidc: Oidc | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """What a server shows and what it demands, in PEM."""

    key: bytes = field(repr=False)
    chain: bytes = field(repr=False)
    ca: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A coordinator's folder, read. `governance_key` is the raw Ed25519 public key it checks publications against."""

    folder: Path
    consortium: str
    address: str
    enrolment_address: str
    listen: str
    enrolment_listen: str
    store_url: str = field(repr=False)  # may hold a password
    log_origin: str
    governance_key: bytes
    oidc: Oidc | None = None

    def log_signer(self) -> notes.Signer:
        """Return the signer of checkpoints."""
        return notes.Signer(self.log_origin, keys.load_signing_key(self.folder / LOG_KEY))

    def log_key(self) -> bytes:
        """Return the raw public key of `log_signer`."""
        return keys.public_bytes(keys.load_signing_key(self.folder / LOG_KEY))

    def ca(self) -> x509.Certificate:
        """Return the consortium's root certificate."""
        return read_certificate(self.folder / CA)

    def issuer(self) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
        """Return the issuing CA's certificate and key."""
        return read_certificate(self.folder / ISSUING_CERTIFICATE), keys.load_tls_key(self.folder / ISSUING_KEY)

    def tls(self) -> Tls:
        """Return the server's key and chain, after renewing a certificate with less than 30 days to go."""
        now = datetime.now(UTC)
        if read_certificate(self.folder / TLS_CERTIFICATE).not_valid_after_utc - now < RENEW_BEFORE:
            write_server_certificate(self.folder, self.consortium, (self.address, self.enrolment_address), now)
        return Tls(
            key=files.read_secret(self.folder / TLS_KEY),
            chain=files.read(self.folder / TLS_CERTIFICATE),
            ca=files.read(self.folder / CA),
        )


def load(folder: Path) -> ServerConfig:
    """Read a coordinator's folder. Raises ConfigError naming the file and the key that are wrong."""
    path = folder / FILE
    if not path.exists():
        raise ConfigError(f"{folder} is no coordinator's folder", hint="cohortium-server init DIR --name CONSORTIUM")
    try:
        read = _File.model_validate(tomllib.loads(files.read(path).decode()))
        check_consortium(read.consortium)
        for address in (read.address, read.enrolment_address, read.listen, read.enrolment_listen):
            split_address(address)
        if read.oidc is not None and not read.oidc.issuer.startswith("https://"):
            raise ConfigError("oidc.issuer is an address that begins with https://")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg'].lower()}", hint="compare docs/operating.md") from None
    except CohortiumError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None
    return ServerConfig(
        folder=folder,
        consortium=read.consortium,
        address=read.address,
        enrolment_address=read.enrolment_address,
        listen=read.listen,
        enrolment_listen=read.enrolment_listen,
        store_url=store_url(folder, read.store),
        log_origin=read.log_origin,
        governance_key=_read_public(folder / GOVERNANCE_KEY),
        oidc=read.oidc,
    )


def render(*, consortium: str, address: str, enrolment_address: str, store: str, log_origin: str) -> bytes:
    """Return the text of a new `server.toml`."""
    values = {
        "consortium": consortium,
        "address": address,
        "enrolment_address": enrolment_address,
        "listen": _listen_on(address),
        "enrolment_listen": _listen_on(enrolment_address),
        "store": store,
        "log_origin": log_origin,
    }
    # A JSON string without non-ASCII escapes beyond \uXXXX is a TOML basic string.
    return _TEMPLATE.format(**{name: json.dumps(value) for name, value in values.items()}).encode()


def store_url(folder: Path, store: str) -> str:
    """Return the URL that `store` names: itself, or an SQLite file in the folder."""
    return store if "://" in store else f"sqlite:///{(folder / store).absolute()}"


def write_server_certificate(folder: Path, consortium: str, addresses: tuple[str, ...], now: datetime) -> None:
    """Issue the coordinator's TLS certificate for the key in the folder."""
    issuing, issuing_key = read_certificate(folder / ISSUING_CERTIFICATE), keys.load_tls_key(folder / ISSUING_KEY)
    hosts = tuple(dict.fromkeys(split_address(address)[0] for address in addresses))
    leaf = certificates.issue_leaf(
        issuing,
        issuing_key,
        keys.load_tls_key(folder / TLS_KEY).public_key(),
        Peer(consortium, "coordinator", "coordinator"),
        now,
        hosts=hosts,
    )
    files.replace(folder / TLS_CERTIFICATE, certificates.to_pem(leaf, issuing), secret=False)


def read_certificate(path: Path) -> x509.Certificate:
    """Return the first certificate of a PEM file. Raises ConfigError where there is none."""
    try:
        return x509.load_pem_x509_certificates(files.read(path))[0]
    except ValueError:
        raise ConfigError(f"{path} is no certificate", hint="restore it from a back-up") from None


def _read_public(path: Path) -> bytes:
    try:
        key = bytes.fromhex(files.read(path).decode().strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError(f"{path} is no public key", hint="restore it from a back-up")
    return key


def _listen_on(address: str) -> str:
    """Listen on loopback for a loopback address, and on every interface for any other."""
    host, port = split_address(address)
    if host in {"localhost", "127.0.0.1"}:
        return f"127.0.0.1:{port}"
    return f"[::1]:{port}" if host == "::1" else f"0.0.0.0:{port}"
