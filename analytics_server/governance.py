"""What governance does: found a consortium, publish who belongs to it and what its datasets are.

Its keys live in a folder of their own that can be taken off the coordinator's machine; only the functions here read
them, and the running coordinator never does.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from analytics_server import config as folders
from analytics_server.audit.log import AuditLog
from analytics_server.config import ServerConfig
from analytics_server.store import Store, UnitOfWork
from protos.v1 import log_pb2
from queries import schema
from queries.errors import ConfigError, IdentityError
from trust.identity import files, keys, membership
from trust.identity import x509 as certificates
from trust.identity.dataset import sign_dataset
from trust.identity.membership import Institution, MembershipDocument, Person
from trust.identity.names import check_consortium

FOLDER = "governance"
ROOT_KEY, SIGNING_KEY, FILE = "ca.key", "governance.key", "governance.toml"
RENEW_ISSUING_BEFORE = timedelta(days=365)
_TEMPLATE = """\
# What governance decided for consortium {consortium}; goes into every membership it signs.
consortium = "{consortium}"
# No answer comes from fewer than this many institutions of different organisations; at least 3.
minimum_cohort = {minimum_cohort}
# How many institutions may collude with the coordinator without learning about a single other one.
colluders = {colluders}
"""


@dataclass(frozen=True, slots=True)
class Governance:
    """A governance folder, read: the signing key and what was decided."""

    consortium: str
    minimum_cohort: int
    colluders: int
    key: Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Changes:
    """Who the next membership would add and remove."""

    added: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


@contextmanager
def opened(config: ServerConfig) -> Iterator[tuple[Store, AuditLog]]:
    """Open the store and log of a coordinator's folder, beside a coordinator that may be running."""
    store = Store.open(config.store_url)
    try:
        yield store, AuditLog(store, config.log_signer(), config.log_origin)
    finally:
        store.close()


def initialise(
    folder: Path,
    *,
    consortium: str,
    address: str,
    enrolment_address: str,
    governance: Path | None,
    store: str,
    minimum_cohort: int,
    colluders: int,
    now: datetime,
) -> ServerConfig:
    """Found a consortium: keys, CA, empty store, first log entry. Raises ConfigError and then leaves nothing behind."""
    check_consortium(consortium)
    if minimum_cohort < membership.MINIMUM_COHORT or colluders < 1:
        raise ConfigError(
            f"a cohort has at least {membership.MINIMUM_COHORT} institutions, and at least one may collude",
            hint="the defaults are --minimum-cohort 3 --colluders 1",
        )
    with _new_folder(folder) as server:
        inside = governance is None or governance.resolve() == (folder / FOLDER).resolve()
        with _new_folder(server / FOLDER if inside or governance is None else governance) as office:
            _make_authorities(server, office, consortium, now)
            files.write_new(
                office / FILE,
                _TEMPLATE.format(consortium=consortium, minimum_cohort=minimum_cohort, colluders=colluders).encode(),
                secret=False,
            )
            text = folders.render(
                consortium=consortium,
                address=address,
                enrolment_address=enrolment_address,
                store=store,
                log_origin=f"cohortium/{consortium}",
            )
            files.write_new(server / folders.FILE, text, secret=True)
            folders.write_server_certificate(server, consortium, (address, enrolment_address), now)
            _start_log(folders.load(server))
    return folders.load(folder)


def open_governance(path: Path, config: ServerConfig) -> Governance:
    """Read a governance folder. Raises ConfigError where it is absent or of another consortium."""
    if not (path / SIGNING_KEY).exists():
        raise ConfigError(
            f"there are no governance keys in {path}", hint="name the folder they were moved to: --governance FOLDER"
        )
    key = keys.load_signing_key(path / SIGNING_KEY)
    if keys.public_bytes(key) != config.governance_key:
        raise ConfigError(
            f"the keys in {path} do not govern consortium {config.consortium!r}", hint="name another folder"
        )
    try:
        decided = tomllib.loads(files.read(path / FILE).decode())
        governance = Governance(decided["consortium"], decided["minimum_cohort"], decided["colluders"], key)
    except (ValueError, KeyError):
        raise ConfigError(f"{path / FILE} is damaged", hint="compare docs/operating.md") from None
    numbers = (governance.minimum_cohort, governance.colluders)
    if governance.consortium != config.consortium or not all(type(n) is int and 1 <= n < 1000 for n in numbers):
        raise ConfigError(
            f"{path / FILE} does not fit consortium {config.consortium!r}", hint="compare docs/operating.md"
        )
    return governance


def current_membership(uow: UnitOfWork, config: ServerConfig) -> MembershipDocument | None:
    """Return the newest published membership, verified, or None before the first."""
    envelope = uow.latest_membership()
    if envelope is None:
        return None
    return membership.verify(envelope, config.governance_key, consortium=config.consortium)


def pending(uow: UnitOfWork, config: ServerConfig) -> Changes:
    """Return how those who are enrolled and not revoked differ from the newest membership."""
    return _changes(current_membership(uow, config), *_enrolled(uow))


def publish_membership(
    store: Store, log: AuditLog, config: ServerConfig, governance: Governance, *, now: int
) -> tuple[MembershipDocument, Changes]:
    """Sign and store the next epoch: everyone enrolled and not revoked. Without any change the current one stands.

    Raises IdentityError where the result would be no valid membership, or nobody has enrolled.
    """
    with store.begin() as uow:
        current = current_membership(uow, config)
        institutions, people = _enrolled(uow)
        changes = _changes(current, institutions, people)
        if current is None and not institutions and not people:
            raise IdentityError("nobody has enrolled yet", hint="cohortium-server invite DIR --role agent --id ID")
        if current is not None and not changes and _says(current) == (governance.minimum_cohort, governance.colluders):
            return current, changes
        payload = membership.build(
            consortium=config.consortium,
            epoch=1 if current is None else current.epoch + 1,
            previous_hash=b"" if current is None else current.hash,
            issued_at=now,
            institutions=institutions,
            people=people,
            log_key=config.log_key(),
            log_origin=config.log_origin,
            minimum_cohort=governance.minimum_cohort,
            colluders=governance.colluders,
        )
        document = membership.verify(
            membership.sign(payload, governance.key), config.governance_key, current, consortium=config.consortium
        )
        uow.add_membership(document.epoch, document.hash, document.envelope)
        event = log_pb2.MembershipPublished(epoch=document.epoch, membership_hash=document.hash)
        log.append_in(uow, [stamped("governance", log_pb2.LogEntry(membership_published=event))])
    return document, changes


def renew_issuing_authority(path: Path, config: ServerConfig, now: datetime) -> bool:
    """Extend the issuing CA by two years, for the same key, where less than one is left; say whether it was.

    `path` is the governance folder, which holds the root's key. A running coordinator uses it after its next start.
    """
    issuing, issuing_key = config.issuer()
    if issuing.not_valid_after_utc - now > RENEW_ISSUING_BEFORE:
        return False
    root_key = keys.load_tls_key(path / ROOT_KEY)
    renewed = certificates.make_issuing(config.ca(), root_key, issuing_key.public_key(), config.consortium, now)
    files.replace(config.folder / folders.ISSUING_CERTIFICATE, certificates.to_pem(renewed), secret=False)
    folders.write_server_certificate(config.folder, config.consortium, (config.address, config.enrolment_address), now)
    return True


def publish_dataset(store: Store, log: AuditLog, governance: Governance, text: str) -> tuple[schema.Dataset, bytes]:
    """Sign and store a dataset description written in TOML; return it and its hash. Raises SchemaError."""
    dataset = schema.from_toml(text)
    data = schema.to_bytes(dataset)
    name_hash = schema.schema_hash(data)
    with store.begin() as uow:
        uow.add_dataset(dataset.name, name_hash, sign_dataset(data, governance.key))
        event = log_pb2.DatasetPublished(dataset=dataset.name, schema_hash=name_hash)
        log.append_in(uow, [stamped("governance", log_pb2.LogEntry(dataset_published=event))])
    return dataset, name_hash


def revoke(store: Store, log: AuditLog, participant: str, reason: str) -> None:
    """Shut a participant out from its next call on; the next membership leaves it out. Raises IdentityError."""
    with store.begin() as uow:
        uow.revoke_participant(participant)
        event = log_pb2.Revoked(participant=participant, reason=reason)
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(revoked=event))])


def stamped(actor: str, entry: log_pb2.LogEntry) -> log_pb2.LogEntry:
    """Return the entry with its actor and the present moment filled in."""
    entry.actor, entry.at_ms = actor, time.time_ns() // 1_000_000
    return entry


def _make_authorities(server: Path, office: Path, consortium: str, now: datetime) -> None:
    root_key, issuing_key, signing_key = keys.generate_tls_key(), keys.generate_tls_key(), Ed25519PrivateKey.generate()
    root = certificates.make_root(consortium, root_key, now)
    issuing = certificates.make_issuing(root, root_key, issuing_key.public_key(), consortium, now)
    keys.save(office / ROOT_KEY, root_key)
    keys.save(office / SIGNING_KEY, signing_key)
    keys.save(server / folders.ISSUING_KEY, issuing_key)
    keys.save(server / folders.TLS_KEY, keys.generate_tls_key())
    keys.save(server / folders.LOG_KEY, Ed25519PrivateKey.generate())
    files.write_new(server / folders.ISSUING_CERTIFICATE, certificates.to_pem(issuing), secret=False)
    public = keys.public_bytes(signing_key)
    files.write_new(server / folders.GOVERNANCE_KEY, public.hex().encode() + b"\n", secret=False)
    for folder in (server, office):
        files.write_new(folder / folders.CA, certificates.to_pem(root), secret=False)


def _start_log(config: ServerConfig) -> None:
    store = Store.create(config.store_url)
    try:
        log = AuditLog(store, config.log_signer(), config.log_origin)
        event = log_pb2.LogStarted(consortium=config.consortium, governance_key=config.governance_key)
        with store.begin() as uow:
            log.append_in(uow, [stamped("governance", log_pb2.LogEntry(log_started=event))])
    finally:
        store.close()


def _enrolled(uow: UnitOfWork) -> tuple[tuple[Institution, ...], tuple[Person, ...]]:
    rows = [row for row in uow.participants() if not row.revoked]
    institutions = tuple(
        Institution(row.id, row.organisation, row.identity_key, row.epoch_key, row.epoch_key_signature)
        for row in rows
        if row.role == "agent"
    )
    return institutions, tuple(Person(row.id, (row.role,), row.identity_key) for row in rows if row.role != "agent")


def _by_id(institutions: tuple[Institution, ...], people: tuple[Person, ...]) -> dict[str, Institution | Person]:
    participants: tuple[Institution | Person, ...] = (*institutions, *people)
    return {p.id: p for p in participants}


def _says(document: MembershipDocument) -> tuple[int, int]:
    return document.minimum_cohort, document.colluders


def _changes(
    current: MembershipDocument | None, institutions: tuple[Institution, ...], people: tuple[Person, ...]
) -> Changes:
    before: dict[str, Institution | Person] = {}
    if current is not None:
        before = _by_id(current.institutions, current.people)
    after = _by_id(institutions, people)
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            raise IdentityError(
                f"the store holds other keys for {name!r} than the membership that governance signed",
                hint="nothing changes them by design: have an auditor look before anything is signed",
            )
    return Changes(
        added=tuple(sorted(after.keys() - before.keys())), removed=tuple(sorted(before.keys() - after.keys()))
    )


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a private folder that takes its place under this name only when everything in it is complete."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists already", hint="choose a new folder; nothing is ever overwritten")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}", hint="check the folder's permissions") from None
    try:
        yield building
        building.replace(folder)
        files.sync_directory(folder.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
