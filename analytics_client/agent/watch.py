"""`cohortium-agent witness`: a witness of the log that holds no data, for an ethics board or a data protection officer.

Its folder is an auditor's. The last head is kept there in `witness.json`, durable before the cosignature leaves; which
log it is of, and whose key counts, says the membership that governance signed. Must not know: entries. It sees none.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc

from analytics_client import enrolment, evidence
from analytics_client import profile as profiles
from analytics_client.audit import AuditReader
from analytics_client.pins import Pins
from protos.v1 import audit_pb2, audit_pb2_grpc
from queries.errors import ConfigError, ServiceError
from trust.identity import files
from trust.rpc import channel as channels
from trust.rpc.errors import translated
from trust.tlog.witness import Witness

FILE = "witness.json"
LOCK = "witness.lock"
WAIT_S = 30
RETRY_S = 5.0


def watch(folder: Path, *, once: bool, say: Callable[[str], None], wait_s: int = WAIT_S) -> None:
    """Cosign every head that continues the last one, until interrupted; with `once` the present one.

    Raise LogError on a fork, a rewind or a gap: nothing is cosigned from there on. Raise ConfigError where the folder
    is no auditor's or another witness runs in it. A coordinator that cannot be reached is asked again.
    """
    profile = profiles.load(folder)
    if profile.role != "auditor":
        raise ConfigError(
            f"{folder} is the folder of a {profile.role}, not of an auditor",
            hint="the operator runs: cohortium-server invite DIR --role auditor --id NAME",
        )
    with _alone(folder):
        while True:
            try:
                enrolment.renew_if_due(profile)
                with channels.connect(profile.address, profile.tls()) as channel:
                    _watch(profile, channel, once=once, say=say, wait_s=wait_s)
                    return
            except ServiceError as error:
                if once:
                    raise
                say(f"not connected: {error.message}; trying again in {RETRY_S:g} s")
                time.sleep(RETRY_S)


def _watch(
    profile: profiles.Profile, channel: grpc.Channel, *, once: bool, say: Callable[[str], None], wait_s: int
) -> None:
    reader = AuditReader(channel, profile.address)
    stub = audit_pb2_grpc.AuditStub(channel)
    line = ""
    while True:
        own, envelopes = _witness(profile, reader)
        request = audit_pb2.WitnessRequest(size=own.size, cosignature=line, wait_s=0 if once else wait_s)
        with translated(profile.address):
            found = stub.Witness(request, timeout=wait_s + channels.CALL_DEADLINE_S)
        if once and line:
            return
        before = own.size
        with evidence.kept(profile.folder, profile.id, envelopes, profile.governance_key):
            line = own.advance(
                found.checkpoint,
                own.size,
                list(found.consistency),
                persist=partial(_keep, profile, found.checkpoint),
            )
        if own.size > before or once:
            say(f"cosigned the head of {own.size} entries of {own.origin}")


def _witness(profile: profiles.Profile, reader: AuditReader) -> tuple[Witness, list[bytes]]:
    """Return this witness with the head it saw last, and the membership whose log key it goes by."""
    envelopes = reader.heads().memberships
    if not envelopes:
        raise ServiceError("no membership has been published yet", hint="wait for the operator to publish it")
    pins = Pins(profile.folder)
    document = pins.accept_membership(envelopes[-1], profile.governance_key, consortium=profile.consortium)
    document.person(profile.id)
    size, root, note = _kept(profile.folder / FILE)
    own = Witness(
        name=profile.id,
        key=profile.identity_key(),
        origin=document.log_origin,
        log_key=document.log_key,
        size=size,
        root=root,
        note=note,
    )
    return own, [document.envelope]


def _keep(profile: profiles.Profile, note: bytes, size: int, root: bytes) -> None:
    kept = {"size": size, "root": root.hex(), "note": base64.b64encode(note).decode()}
    files.replace(profile.folder / FILE, json.dumps(kept).encode(), secret=False)


def _kept(path: Path) -> tuple[int, bytes, bytes]:
    if not path.exists():
        return 0, b"", b""
    try:
        kept = json.loads(files.read(path))
        size, root = int(kept["size"]), bytes.fromhex(kept["root"])
        note = base64.b64decode(kept.get("note", ""))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged", hint="restore it: without it a rewound log goes unseen") from error
    return size, root, note


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    held = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigError(f"a witness is already running in {folder}", hint="stop it first") from None
    finally:
        os.close(held)
