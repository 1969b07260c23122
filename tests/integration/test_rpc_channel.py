"""Channels, ports and errors over real mTLS on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from harness.identity import CONSORTIUM, Authority, Echo, echo

from protos.v1 import audit_pb2, audit_pb2_grpc
from queries import errors
from trust.rpc import channel as channels
from trust.rpc.channel import TlsIdentity, connect, connect_aio
from trust.rpc.errors import translated
from trust.rpc.server import bind, mutual_credentials, new_server


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def address(authority: Authority) -> Iterator[str]:
    with echo(authority) as bound:
        yield bound


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


@contextmanager
def mute() -> Iterator[str]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def plain_http() -> Iterator[str]:
    """A port that answers everything with an HTTP/1.1 error, in plain text."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_call_reaches_the_coordinator_in_the_callers_name(authority: Authority, address: str) -> None:
    with connect(address, authority.identity("auditor", "olga")) as channel:
        response = audit_pb2_grpc.AuditStub(channel).Heads(audit_pb2.HeadsRequest(), timeout=5)
    assert response.checkpoint == b"spiffe://heart-study/auditor/olga"


async def test_aio_call_does_too(authority: Authority, address: str) -> None:
    channel = await connect_aio(address, authority.identity("auditor", "olga"))
    response = await audit_pb2_grpc.AuditStub(channel).Heads(audit_pb2.HeadsRequest(), timeout=5)
    await channel.close(None)
    assert response.checkpoint == b"spiffe://heart-study/auditor/olga"


def test_address_may_change_while_the_consortium_is_the_identity(authority: Authority, address: str) -> None:
    renamed = f"localhost:{address.rpartition(':')[2]}"
    with connect(renamed, authority.identity("auditor", "olga")) as channel:
        audit_pb2_grpc.AuditStub(channel).Heads(audit_pb2.HeadsRequest(), timeout=5)


@pytest.mark.parametrize("error", [errors.PolicyDenied("no", rule="r", hint="h"), errors.LogError("entry 3")])
def test_error_of_a_method_arrives_as_itself(authority: Authority, error: errors.CohortiumError) -> None:
    with echo(authority, Echo(error)) as address, connect(address, authority.identity("auditor", "olga")) as channel:
        stub = audit_pb2_grpc.AuditStub(channel)
        with pytest.raises(type(error)) as caught, translated(address):
            stub.Proof(audit_pb2.ProofRequest(), timeout=5)
        assert str(caught.value) == str(error)
        with pytest.raises(type(error)), translated(address):
            list(stub.Entries(audit_pb2.EntriesRequest(), timeout=5))


async def test_error_arrives_through_aio_as_well(authority: Authority) -> None:
    error = errors.ProtocolViolation("lied", party="h1")
    with echo(authority, Echo(error)) as address:
        channel = await connect_aio(address, authority.identity("auditor", "olga"))
        stub = audit_pb2_grpc.AuditStub(channel)
        with pytest.raises(errors.ProtocolViolation) as caught, translated(address):
            await stub.Proof(audit_pb2.ProofRequest(), timeout=5)
        assert caught.value.party == "h1"
        pages = stub.Entries(audit_pb2.EntriesRequest(), timeout=5)
        assert (await anext(aiter(pages))).tree_size == 1
        with pytest.raises(errors.ProtocolViolation), translated(address):
            await anext(aiter(pages))
        await channel.close(None)


def test_nobody_at_the_address_is_told_at_once(authority: Authority) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with within(5), pytest.raises(errors.ServiceError, match=address) as caught:
            connect(address, authority.identity("auditor", "olga"))
    assert "refused" in caught.value.message


async def test_nobody_at_the_address_is_told_at_once_by_aio(authority: Authority) -> None:
    with within(5), pytest.raises(errors.ServiceError, match=r"127\.0\.0\.1:1"):
        await connect_aio("127.0.0.1:1", authority.identity("auditor", "olga"))


@pytest.fixture
def late(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address at which the coordinator comes up after the first attempt, before the diagnosis of its failure."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    up = ExitStack()
    look = channels.diagnose

    def diagnose(where: str, identity: TlsIdentity) -> errors.CohortiumError | None:
        if not started:
            started.append(up.enter_context(echo(authority, address=address)))
        return look(where, identity)

    started: list[str] = []
    monkeypatch.setattr(channels, "diagnose", diagnose)
    with up:
        yield address
    assert started


def test_a_coordinator_that_just_came_up_is_not_taken_for_one_that_refuses(authority: Authority, late: str) -> None:
    """An agent that took it so would never try again."""
    with connect(late, authority.identity("auditor", "olga"), timeout=30) as channel:
        assert audit_pb2_grpc.AuditStub(channel).Heads(audit_pb2.HeadsRequest(), timeout=10).checkpoint


async def test_nor_by_aio(authority: Authority, late: str) -> None:
    channel = await connect_aio(late, authority.identity("auditor", "olga"), timeout=30)
    assert (await audit_pb2_grpc.AuditStub(channel).Heads(audit_pb2.HeadsRequest(), timeout=10)).checkpoint
    await channel.close(None)


async def test_a_slow_coordinator_is_not_taken_for_one_that_refuses(authority: Authority, address: str) -> None:
    """No time at all: the handshake cannot be over."""
    with pytest.raises(errors.ServiceError, match="did not answer in time"):
        await connect_aio(address, authority.identity("auditor", "olga"), timeout=0)


@pytest.mark.parametrize("address", ["no-such-host.invalid:7443", "192.0.2.1:7443"])
def test_host_that_cannot_be_reached_is_told_within_five_seconds(authority: Authority, address: str) -> None:
    with within(5), pytest.raises(errors.ServiceError, match=address):
        connect(address, authority.identity("auditor", "olga"))


def test_port_that_says_nothing_is_told_within_five_seconds(authority: Authority) -> None:
    with mute() as address, within(5), pytest.raises(errors.ServiceError, match="no answer"):
        connect(address, authority.identity("auditor", "olga"))


def test_port_without_tls_is_told_as_such(authority: Authority) -> None:
    with plain_http() as address, within(5), pytest.raises(errors.ServiceError, match="speaks no TLS"):
        connect(address, authority.identity("auditor", "olga"))


def test_expired_certificate_of_ours_is_told_with_its_date(authority: Authority, address: str) -> None:
    old = authority.identity("auditor", "olga", now=datetime.now(UTC) - timedelta(days=200))
    with within(5), pytest.raises(errors.IdentityError, match="certificate expired on 20"):
        connect(address, old)


def test_clock_far_behind_is_told_as_a_clock(authority: Authority, address: str) -> None:
    early = authority.identity("auditor", "olga", now=datetime.now(UTC) + timedelta(days=1))
    with within(5), pytest.raises(errors.ClockError, match="not valid yet"):
        connect(address, early)


def test_coordinators_expired_certificate_is_told_as_a_clock() -> None:
    old = Authority(now=datetime.now(UTC) - timedelta(days=200))
    with echo(old) as address, within(5), pytest.raises(errors.ClockError, match="expired"):
        connect(address, old.identity("auditor", "olga", now=datetime.now(UTC)))


def test_newcomers_channel_to_a_port_for_members_is_told(authority: Authority, address: str) -> None:
    with within(5), pytest.raises(errors.ServiceError, match="accepts no newcomers"):
        connect(address, TlsIdentity(CONSORTIUM, authority.ca))


async def test_taken_port_is_told_in_one_line(authority: Authority, address: str) -> None:
    key, chain = authority.leaf("coordinator", "coordinator")
    with pytest.raises(errors.ConfigError, match=r"port \d+ of 127.0.0.1 is taken"):
        bind(new_server(), address, mutual_credentials(key, chain, authority.ca))


@pytest.mark.parametrize(("listen", "why"), [("192.0.2.1:7443", "cannot listen on"), ("no-such.invalid:1", "no host")])
async def test_address_of_another_machine_is_told_in_one_line(authority: Authority, listen: str, why: str) -> None:
    key, chain = authority.leaf("coordinator", "coordinator")
    with pytest.raises(errors.ConfigError, match=why):
        bind(new_server(), listen, mutual_credentials(key, chain, authority.ca))
