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
from dataclasses import dataclass, replace
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
from trust.identity.council import Council
from trust.identity.dataset import PAYLOAD_TYPE as DATASET
from trust.identity.dataset import sign_dataset, verify_dataset
from trust.identity.membership import Institution, MembershipDocument, Person
from trust.identity.names import check_consortium

FOLDER = "governance"
COUNCIL = "council.toml"
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
    key: Ed25519PrivateKey | None
    """None where a council governs: then documents are proposed, signed elsewhere, and published."""


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
    council: Council | None = None,
) -> ServerConfig:
    """Found a consortium: keys, CA, empty store, first log entry. Raises ConfigError and then leaves nothing behind.

    With a council there is no governance key: what governance says is signed by its members, each on an own machine.
    """
    check_consortium(consortium)
    if minimum_cohort < membership.MINIMUM_COHORT or colluders < 1:
        raise ConfigError(
            f"a cohort has at least {membership.MINIMUM_COHORT} institutions, and at least one may collude",
            hint="the defaults are --minimum-cohort 3 --colluders 1",
        )
    with _new_folder(folder) as server:
        inside = governance is None or governance.resolve() == (folder / FOLDER).resolve()
        with _new_folder(server / FOLDER if inside or governance is None else governance) as office:
            _make_authorities(server, office, consortium, now, council)
            files.write_new(
                office / FILE,
                _TEMPLATE.format(consortium=consortium, minimum_cohort=minimum_cohort, colluders=colluders).encode(),
                secret=False,
            )
            if council is not None:
                files.write_new(office / COUNCIL, _council_text(council), secret=False)
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
    if (path / COUNCIL).exists():
        if load_council(path / COUNCIL).governance_key != config.governance_key:
            raise ConfigError(f"the council in {path} does not govern consortium {config.consortium!r}")
        return _decided(path, config)
    if not (path / SIGNING_KEY).exists():
        raise ConfigError(
            f"there are no governance keys in {path}", hint="name the folder they were moved to: --governance FOLDER"
        )
    key = keys.load_signing_key(path / SIGNING_KEY)
    if keys.public_bytes(key) != config.governance_key:
        raise ConfigError(
            f"the keys in {path} do not govern consortium {config.consortium!r}", hint="name another folder"
        )
    return replace(_decided(path, config), key=key)


def _decided(path: Path, config: ServerConfig) -> Governance:
    try:
        decided = tomllib.loads(files.read(path / FILE).decode())
        governance = Governance(decided["consortium"], decided["minimum_cohort"], decided["colluders"], None)
    except (ValueError, KeyError):
        raise ConfigError(f"{path / FILE} is damaged", hint="compare docs/operating.md") from None
    numbers = (governance.minimum_cohort, governance.colluders)
    if governance.consortium != config.consortium or not all(type(n) is int and 1 <= n < 1000 for n in numbers):
        raise ConfigError(
            f"{path / FILE} does not fit consortium {config.consortium!r}", hint="compare docs/operating.md"
        )
    return governance


def load_council(path: Path) -> Council:
    """Read a council: `threshold = 2` and `[members]` with a public key in hex for each name. Raises ConfigError."""
    try:
        read = tomllib.loads(files.read(path).decode())
        threshold, members = read["threshold"], [bytes.fromhex(key) for key in read["members"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} describes no council", hint='threshold = 2, then [members] with lines like ada = "HEX KEY"'
        ) from error
    if type(threshold) is not int:
        raise ConfigError(f"{path} describes no council", hint="threshold is a number of members")
    return Council.of(threshold, members)


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
    if governance.key is None:
        raise ConfigError("a council governs this consortium", hint="cohortium-server council propose DIR FILE")
    with store.begin() as uow:
        current = current_membership(uow, config)
        payload, changes = _next_payload(uow, config, governance, current, now)
        if payload is None:
            assert current is not None  # noqa: S101 - without one there is a payload
            return current, changes
        return _enter(uow, log, config, membership.sign(payload, governance.key), current), changes


def propose_membership(
    store: Store, config: ServerConfig, path: Path, council: Council, *, now: int
) -> tuple[bytes, Changes]:
    """Return the next epoch for the council's members to sign. `path` is the governance folder. Changes nothing.

    Raises IdentityError as `publish_membership` does, or where there is nothing to change, ConfigError for a council
    that does not govern this consortium.
    """
    if council.governance_key != config.governance_key:
        raise ConfigError(
            "another council governs this consortium", hint="the members and threshold it was founded with"
        )
    with store.read() as uow:
        payload, changes = _next_payload(uow, config, _decided(path, config), current_membership(uow, config), now)
    if payload is None:
        raise IdentityError("nobody joined or left: there is nothing to sign", hint="invite or revoke somebody first")
    return council.propose(membership.PAYLOAD_TYPE, payload), changes


def publish_signed(store: Store, log: AuditLog, config: ServerConfig, envelope: bytes) -> MembershipDocument:
    """Store a membership that the council has signed, if it continues the one in force.

    Raises SignatureError (too few members), IdentityError (it continues another epoch).
    """
    with store.begin() as uow:
        return _enter(uow, log, config, envelope, current_membership(uow, config))


def _next_payload(
    uow: UnitOfWork, config: ServerConfig, governance: Governance, current: MembershipDocument | None, now: int
) -> tuple[bytes | None, Changes]:
    """Return the next epoch to sign, None where nothing changes."""
    institutions, people = _enrolled(uow)
    changes = _changes(current, institutions, people)
    if current is None and not institutions and not people:
        raise IdentityError("nobody has enrolled yet", hint="cohortium-server invite DIR --role agent --id ID")
    if current is not None and not changes and _says(current) == (governance.minimum_cohort, governance.colluders):
        return None, changes
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
    return payload, changes


def _enter(
    uow: UnitOfWork, log: AuditLog, config: ServerConfig, envelope: bytes, current: MembershipDocument | None
) -> MembershipDocument:
    document = membership.verify(envelope, config.governance_key, current, consortium=config.consortium)
    if document.epoch != (1 if current is None else current.epoch + 1):
        raise IdentityError(
            f"this is epoch {document.epoch}, the one in force is {current.epoch if current else 'none'}",
            hint="propose the next one and have it signed",
        )
    uow.add_membership(document.epoch, document.hash, document.envelope)
    event = log_pb2.MembershipPublished(epoch=document.epoch, membership_hash=document.hash)
    log.append_in(uow, [stamped("governance", log_pb2.LogEntry(membership_published=event))])
    return document


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
    if governance.key is None:
        raise ConfigError(
            "a council governs this consortium", hint="cohortium-server council propose DIR FILE --schema"
        )
    data = schema.to_bytes(schema.from_toml(text))
    return _enter_dataset(store, log, sign_dataset(data, governance.key), keys.public_bytes(governance.key))


def propose_dataset(council: Council, text: str) -> bytes:
    """Return a dataset description written in TOML for the council's members to sign. Raises SchemaError."""
    return council.propose(DATASET, schema.to_bytes(schema.from_toml(text)))


def publish_signed_dataset(
    store: Store, log: AuditLog, config: ServerConfig, envelope: bytes
) -> tuple[schema.Dataset, bytes]:
    """Store a dataset description that the council has signed. Raises SignatureError where too few have."""
    return _enter_dataset(store, log, envelope, config.governance_key)


def _enter_dataset(store: Store, log: AuditLog, envelope: bytes, governance_key: bytes) -> tuple[schema.Dataset, bytes]:
    dataset, name_hash = verify_dataset(envelope, governance_key)
    with store.begin() as uow:
        uow.add_dataset(dataset.name, name_hash, envelope)
        event = log_pb2.DatasetPublished(dataset=dataset.name, schema_hash=name_hash)
        log.append_in(uow, [stamped("governance", log_pb2.LogEntry(dataset_published=event))])
    return dataset, name_hash


def revoke(store: Store, log: AuditLog, participant: str, reason: str) -> None:
    """Shut a participant out from its next call on; the next membership leaves it out. Raises IdentityError."""
    with store.begin() as uow:
        uow.revoke_participant(participant)
        event = log_pb2.Revoked(participant=participant, reason=reason)
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(revoked=event))])


def identify(store: Store, log: AuditLog, participant: str, name: str, contact: str) -> None:
    """Write down who is behind an id; the log says that, not who. Raises IdentityError on an unknown id."""
    with store.begin() as uow:
        uow.identify(participant, name, contact)
        event = log_pb2.IdentityChanged(participant=participant)
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(identity_changed=event))])


def erase_identity(store: Store, log: AuditLog, participant: str) -> None:
    """Forget who is behind an id. Every entry, proof and signature stays valid. Raises IdentityError on nobody."""
    with store.begin() as uow:
        uow.erase_identity(participant)
        event = log_pb2.IdentityChanged(participant=participant, erased=True)
        log.append_in(uow, [stamped("operator", log_pb2.LogEntry(identity_changed=event))])
    store.scrub()


def stamped(actor: str, entry: log_pb2.LogEntry) -> log_pb2.LogEntry:
    """Return the entry with its actor and the present moment filled in."""
    entry.actor, entry.at_ms = actor, time.time_ns() // 1_000_000
    return entry


def _make_authorities(server: Path, office: Path, consortium: str, now: datetime, council: Council | None) -> None:
    root_key, issuing_key = keys.generate_tls_key(), keys.generate_tls_key()
    root = certificates.make_root(consortium, root_key, now)
    issuing = certificates.make_issuing(root, root_key, issuing_key.public_key(), consortium, now)
    keys.save(office / ROOT_KEY, root_key)
    if council is None:
        signing_key = Ed25519PrivateKey.generate()
        keys.save(office / SIGNING_KEY, signing_key)
        public = keys.public_bytes(signing_key)
    else:
        public = council.governance_key
    keys.save(server / folders.ISSUING_KEY, issuing_key)
    keys.save(server / folders.TLS_KEY, keys.generate_tls_key())
    keys.save(server / folders.LOG_KEY, Ed25519PrivateKey.generate())
    files.write_new(server / folders.ISSUING_CERTIFICATE, certificates.to_pem(issuing), secret=False)
    files.write_new(server / folders.GOVERNANCE_KEY, public.hex().encode() + b"\n", secret=False)
    for folder in (server, office):
        files.write_new(folder / folders.CA, certificates.to_pem(root), secret=False)


def _council_text(council: Council) -> bytes:
    lines = [f'member{number} = "{key.hex()}"' for number, key in enumerate(council.keys, 1)]
    return "\n".join([f"threshold = {council.threshold}", "[members]", *lines, ""]).encode()


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
