"""Founding a consortium: its keys, its certificate authority, an empty audit log."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from analytics_server import config as folders
from analytics_server.audit.log import AuditLog
from analytics_server.config import ServerConfig
from analytics_server.governance.office import COUNCIL, FILE, FOLDER, SIGNING_KEY, VALID_DAYS, stamped
from analytics_server.store import Store
from protos.v1 import log_pb2
from queries.errors import ConfigError
from trust.identity import files, keys, membership
from trust.identity import x509 as certificates
from trust.identity.council import Council
from trust.identity.names import check_consortium

ROOT_KEY = "ca.key"
RENEW_ISSUING_BEFORE = timedelta(days=365)
_TEMPLATE = """\
# What governance decided for consortium {consortium}; goes into every membership it signs.
consortium = "{consortium}"
# No answer comes from fewer than this many institutions of different organisations; at least 3.
minimum_cohort = {minimum_cohort}
# How many institutions may collude with the coordinator without learning about a single other one.
colluders = {colluders}
# After so many days without a new membership nobody answers under the last one: a withheld revocation ends with it.
valid_days = {valid_days}

# The record of processing activities (GDPR art. 30): the log says of every request which one its purpose belongs to.
# [activities.sepsis-registry]
# category = "research"
# legal_basis = "GDPR art. 9(2)(j)"
# purposes = ["sepsis outcomes", "sepsis incidence"]
"""


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
                _TEMPLATE.format(
                    consortium=consortium, minimum_cohort=minimum_cohort, colluders=colluders, valid_days=VALID_DAYS
                ).encode(),
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
