"""Authorities, members and a real gRPC server in a thread, for tests about who is who."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protos.v1 import audit_pb2, audit_pb2_grpc
from trust.identity import keys, membership, x509
from trust.identity.membership import Institution, MembershipDocument, Person
from trust.identity.names import Peer
from trust.rpc import server as rpc
from trust.rpc.channel import TlsIdentity

CONSORTIUM = "heart-study"


class Authority:
    """The root and issuing CA of a consortium, made at `now`."""

    def __init__(self, consortium: str = CONSORTIUM, now: datetime | None = None) -> None:
        self.consortium = consortium
        self.now = now or datetime.now(UTC)
        root_key, self.issuing_key = keys.generate_tls_key(), keys.generate_tls_key()
        self.root = x509.make_root(consortium, root_key, self.now)
        self.issuing = x509.make_issuing(self.root, root_key, self.issuing_key.public_key(), consortium, self.now)
        self.ca = x509.to_pem(self.root)

    def leaf(self, role: str, participant: str, now: datetime | None = None) -> tuple[bytes, bytes]:
        """A fresh key and its chain, both PEM."""
        key = keys.generate_tls_key()
        peer = Peer(self.consortium, role, participant)
        leaf = x509.issue_leaf(self.issuing, self.issuing_key, key.public_key(), peer, now or self.now)
        return keys.to_pem(key), x509.to_pem(leaf, self.issuing)

    def identity(self, role: str, participant: str, now: datetime | None = None) -> TlsIdentity:
        """What a client with such a leaf brings."""
        key, chain = self.leaf(role, participant, now)
        return TlsIdentity(self.consortium, self.ca, chain, key)


@dataclass
class Hospital:
    """An institution with its private keys."""

    id: str
    organisation: str
    consortium: str = CONSORTIUM
    identity: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    epoch: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)

    def listed(self) -> Institution:
        """As a membership lists it."""
        epoch_key = keys.public_bytes(self.epoch)
        signature = keys.sign_epoch_key(self.identity, self.consortium, self.id, epoch_key)
        return Institution(self.id, self.organisation, keys.public_bytes(self.identity), epoch_key, signature)


def hospitals(count: int) -> list[Hospital]:
    """Institutions h0, h1, ... of as many organisations."""
    return [Hospital(f"h{i}", f"Hospital {i}") for i in range(count)]


def payload(
    institutions: list[Institution],
    people: list[Person],
    *,
    previous: MembershipDocument | None = None,
    consortium: str = CONSORTIUM,
    minimum_cohort: int = 3,
) -> bytes:
    """The next epoch's bytes, unsigned."""
    return membership.build(
        consortium=consortium,
        epoch=1 if previous is None else previous.epoch + 1,
        previous_hash=b"" if previous is None else previous.hash,
        issued_at=1_700_000_000,
        institutions=institutions,
        people=people,
        log_key=bytes(range(32)),
        log_origin=f"cohortium/{consortium}",
        minimum_cohort=minimum_cohort,
        colluders=1,
    )


class Echo(audit_pb2_grpc.AuditServicer):
    """Answers Heads with the caller's SPIFFE URI; Proof raises `error`; Entries raises it after one page."""

    def __init__(self, error: Exception | None = None, revoked: frozenset[str] = frozenset()) -> None:
        self.error = error
        self.gate = rpc.Gate(CONSORTIUM, lambda peer: peer.id in revoked)

    @rpc.serves("auditor")
    async def Heads(self, request, context):  # noqa: N802, ARG002 - the service definition names it and gRPC calls it
        return audit_pb2.HeadsResponse(checkpoint=rpc.peer(context).uri.encode())

    @rpc.serves("auditor")
    async def Proof(self, request, context):  # noqa: N802, ARG002 - as above
        raise self.error

    @rpc.serves("auditor")
    async def Entries(self, request, context):  # noqa: N802, ARG002 - as above
        yield audit_pb2.EntriesPage(tree_size=1)
        raise self.error


@contextmanager
def serving(
    add: Callable[[grpc.aio.Server], None], credentials: grpc.ServerCredentials, address: str = "127.0.0.1:0"
) -> Iterator[str]:
    """Serve in a thread with a loop of its own; gives the address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, int]:
        server = rpc.new_server()
        add(server)
        port = rpc.bind(server, address, credentials)
        await server.start()
        return server, port

    try:
        server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def echo(
    authority: Authority, servicer: Echo | None = None, *, role: str = "coordinator", address: str = "127.0.0.1:0"
) -> Iterator[str]:
    """Serve Echo over mTLS with a leaf of this role."""
    key, chain = authority.leaf(role, "coordinator")
    chosen = servicer or Echo()
    with serving(
        lambda server: audit_pb2_grpc.add_AuditServicer_to_server(chosen, server),
        rpc.mutual_credentials(key, chain, authority.ca),
        address,
    ) as bound:
        yield bound
