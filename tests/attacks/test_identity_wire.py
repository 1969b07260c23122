"""Impostors on the wire, against real mTLS."""

from __future__ import annotations

import grpc
import pytest
from harness.identity import CONSORTIUM, Authority, Echo, echo

from protos.v1 import audit_pb2, audit_pb2_grpc
from queries.errors import IdentityError, PolicyDenied, ServiceError
from trust.rpc.channel import TlsIdentity, connect, connect_aio
from trust.rpc.errors import translated


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def theirs() -> Authority:
    """A second, real consortium that even bears the same name."""
    return Authority()


def heads(channel: grpc.Channel, address: str) -> audit_pb2.HeadsResponse:
    with translated(address):
        return audit_pb2_grpc.AuditStub(channel).Heads(audit_pb2.HeadsRequest(), timeout=5)


def test_certificate_of_another_consortium_is_not_accepted(ours: Authority, theirs: Authority) -> None:
    key, chain = theirs.leaf("auditor", "olga")
    with echo(ours) as address, pytest.raises(IdentityError, match="does not accept this certificate"):
        connect(address, TlsIdentity(CONSORTIUM, ours.ca, chain, key))


async def test_certificate_of_another_consortium_is_not_accepted_by_aio(ours: Authority, theirs: Authority) -> None:
    key, chain = theirs.leaf("auditor", "olga")
    with echo(ours) as address, pytest.raises(IdentityError, match="does not accept this certificate"):
        await connect_aio(address, TlsIdentity(CONSORTIUM, ours.ca, chain, key))


def test_coordinator_of_another_consortium_is_recognised(ours: Authority, theirs: Authority) -> None:
    with echo(theirs) as address, pytest.raises(IdentityError, match="no coordinator of consortium 'heart-study'"):
        connect(address, ours.identity("auditor", "olga"))


def test_agent_cannot_pose_as_the_coordinator(ours: Authority) -> None:
    with echo(ours, role="agent") as address, pytest.raises(IdentityError, match="no coordinator"):
        connect(address, ours.identity("auditor", "olga"))


def test_coordinators_own_certificate_is_no_callers(ours: Authority) -> None:
    with echo(ours) as address, pytest.raises(IdentityError, match="does not accept"):
        connect(address, ours.identity("coordinator", "coordinator"))


def test_caller_without_a_certificate_is_not_let_in(ours: Authority) -> None:
    with echo(ours) as address, pytest.raises(ServiceError):
        connect(address, TlsIdentity(CONSORTIUM, ours.ca))


def test_plain_text_is_not_spoken(ours: Authority) -> None:
    with echo(ours) as address, grpc.insecure_channel(address) as channel, pytest.raises(ServiceError):
        heads(channel, address)


@pytest.mark.parametrize("role", ["agent", "analyst", "steward", "operator"])
def test_call_of_another_role_is_denied_by_rule(ours: Authority, role: str) -> None:
    with (
        echo(ours) as address,
        connect(address, ours.identity(role, "x")) as channel,
        pytest.raises(PolicyDenied, match="role") as caught,
    ):
        heads(channel, address)
    assert caught.value.rule == "role"
    assert "auditor" in caught.value.hint


def test_revocation_holds_for_unary_and_streamed_calls(ours: Authority) -> None:
    servicer = Echo(revoked=frozenset({"olga"}))
    with echo(ours, servicer) as address, connect(address, ours.identity("auditor", "olga")) as channel:
        with pytest.raises(IdentityError, match="revoked"):
            heads(channel, address)
        with pytest.raises(IdentityError, match="revoked"), translated(address):
            list(audit_pb2_grpc.AuditStub(channel).Entries(audit_pb2.EntriesRequest(), timeout=5))


def test_certificate_minted_for_another_consortium_by_our_own_authority_is_refused(ours: Authority) -> None:
    from trust.identity import keys, x509
    from trust.identity.names import Peer

    key = keys.generate_tls_key()
    peer = Peer("lung-study", "auditor", "olga")
    leaf = x509.issue_leaf(ours.issuing, ours.issuing_key, key.public_key(), peer, ours.now)
    stranger = TlsIdentity(CONSORTIUM, ours.ca, x509.to_pem(leaf, ours.issuing), keys.to_pem(key))
    with (
        echo(ours) as address,
        connect(address, stranger) as channel,
        pytest.raises(IdentityError, match="another consortium"),
    ):
        heads(channel, address)


def test_text_of_an_unexpected_failure_does_not_leave_the_coordinator(ours: Authority) -> None:
    servicer = Echo(ValueError("patient 17 is 93 years old"))
    with echo(ours, servicer) as address, connect(address, ours.identity("auditor", "olga")) as channel:
        stub = audit_pb2_grpc.AuditStub(channel)
        for call in (
            lambda: stub.Proof(audit_pb2.ProofRequest(), timeout=5),
            lambda: list(stub.Entries(audit_pb2.EntriesRequest(), timeout=5)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() == grpc.StatusCode.INTERNAL  # type: ignore[attr-defined]  # an RpcError is the call
            assert "patient" not in repr(caught.value)
            assert "patient" not in str(caught.value.trailing_metadata())  # type: ignore[attr-defined]
