"""An analyst believes a released answer only where it agrees with everything public."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from analytics_client.verification import VerifiedRelease, verify_release
from protos.v1 import analyst_pb2, log_pb2, query_pb2
from queries import ir, schema
from queries.errors import CohortiumError, IdentityError, LogError, ProtocolViolation
from queries.plan import make_plan
from trust.identity import keys, membership
from trust.release import release_hash
from trust.tlog import notes
from trust.tlog.checkpoint import Checkpoint
from trust.tlog.merkle import leaf_hash, node_hash

ORIGIN = "liver/log"
LOG = Ed25519PrivateKey.generate()
PATIENTS = schema.from_toml('name = "patients"\n[columns.age]\ntype = "integer"\nlower = 0\nupper = 100\n')
PLAN = make_plan(ir.Query("patients", (ir.NamedAggregate("n", ir.Count()),)), PATIENTS)
RHO_NANO = 10_000_000
REQUEST = b"\x01" * 32


def _institution(name: str, organisation: str) -> membership.Institution:
    identity, epoch = Ed25519PrivateKey.generate(), keys.public_bytes(X25519PrivateKey.generate())
    signature = keys.sign_epoch_key(identity, "liver", name, epoch)
    return membership.Institution(name, organisation, keys.public_bytes(identity), epoch, signature)


def _membership(*organisations: str) -> membership.MembershipDocument:
    governance = Ed25519PrivateKey.generate()
    payload = membership.build(
        consortium="liver",
        epoch=1,
        previous_hash=b"",
        issued_at=1,
        institutions=[_institution(f"h{i}", name) for i, name in enumerate(organisations)],
        people=(),
        log_key=keys.public_bytes(LOG),
        log_origin=ORIGIN,
        minimum_cohort=3,
        colluders=1,
    )
    return membership.verify(membership.sign(payload, governance), keys.public_bytes(governance))


MEMBERSHIP = _membership("A", "B", "C", "D")


def _release(**changes: Any) -> query_pb2.Release:
    noise = PLAN.noise(RHO_NANO, threshold=3, colluders=1, invited=4)
    fields: dict[str, Any] = {
        "request_id": REQUEST,
        "sums": [12345],
        "refine_bits": noise.refine_bits,
        "invited": 4,
        "threshold": 3,
        "colluders": 1,
        "survivors": ["h0", "h1", "h3"],
        "rho_nano": RHO_NANO,
    }
    return query_pb2.Release(**(fields | changes))


def _progress(
    release: query_pb2.Release,
    *,
    leaf: bytes | None = None,
    signer: Ed25519PrivateKey = LOG,
    change_proof: Callable[[analyst_pb2.LogProof], None] = lambda _: None,
) -> analyst_pb2.Progress:
    """A release as an honest coordinator sends it: the second of two entries, under a signed head."""
    exact = release.SerializeToString(deterministic=True)
    if leaf is None:
        leaf = log_pb2.LogEntry(
            at_ms=1,
            actor="coordinator",
            released=log_pb2.Released(request_id=REQUEST, release_hash=release_hash(exact)),
        ).SerializeToString(deterministic=True)
    other = leaf_hash(b"an earlier entry")
    root = node_hash(other, leaf_hash(leaf))
    note = notes.sign(Checkpoint(ORIGIN, 2, root).text(), notes.Signer(ORIGIN, signer))
    proof = analyst_pb2.LogProof(seq=1, leaf=leaf, hashes=[other])
    change_proof(proof)
    return analyst_pb2.Progress(request_id=REQUEST, step="released", release=exact, checkpoint=note, proof=proof)


def _verify(
    progress: analyst_pb2.Progress, members: membership.MembershipDocument = MEMBERSHIP, **changes: Any
) -> VerifiedRelease:
    fields: dict[str, Any] = {"request_id": REQUEST, "plan": PLAN, "rho_nano": RHO_NANO, "membership": members}
    return verify_release(progress, **(fields | changes))


def test_an_honest_release_is_believed() -> None:
    verified = _verify(_progress(_release()))
    assert list(verified.release.sums) == [12345]
    assert (verified.log_seq, verified.log_size) == (1, 2)
    assert verified.noise == PLAN.noise(RHO_NANO, threshold=3, colluders=1, invited=4)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"request_id": b"\x02" * 32}, ProtocolViolation, "another request"),
        ({"rho_nano": RHO_NANO + 1}, ProtocolViolation, "another privacy cost"),
        ({"sums": []}, ProtocolViolation, "released 0 numbers where the query has 1"),
        ({"sums": [1, 2]}, ProtocolViolation, "released 2 numbers where the query has 1"),
        ({"survivors": ["h0", "h1", "h1"]}, ProtocolViolation, "impossible cohort"),
        ({"survivors": ["h0", "h1", "h2", "h3"], "invited": 3}, ProtocolViolation, "impossible cohort"),
        ({"invited": 5, "threshold": 4}, ProtocolViolation, "impossible cohort"),
        ({"survivors": ["h0", "h1"]}, ProtocolViolation, "only 2 institutions"),
        ({"survivors": ["h0", "h1", "nobody"]}, IdentityError, "nobody"),
        ({"threshold": 2}, ProtocolViolation, "other parameters"),
        ({"colluders": 0}, ProtocolViolation, "other parameters"),
        ({"refine_bits": 7}, ProtocolViolation, "another lattice"),
    ],
)
def test_a_release_that_contradicts_the_request_or_the_membership_is_refused(
    changes: dict[str, Any], error: type[CohortiumError], says: str
) -> None:
    with pytest.raises(error, match=says):
        _verify(_progress(_release(**changes)))


def test_institutions_of_one_organisation_count_once() -> None:
    with pytest.raises(ProtocolViolation, match="only 2 organisations"):
        _verify(_progress(_release()), _membership("A", "A", "B", "B"))


def test_bytes_that_are_no_release_are_refused() -> None:
    progress = _progress(_release())
    progress.release = b"\xff\xff"
    with pytest.raises(ProtocolViolation, match="cannot be read"):
        _verify(progress)


def test_a_release_that_differs_from_the_logged_one_is_refused() -> None:
    progress = _progress(_release())
    progress.release = _release(sums=[54321]).SerializeToString(deterministic=True)
    with pytest.raises(LogError, match="records another release"):
        _verify(progress)


def _leaf(**event: Any) -> bytes:
    return log_pb2.LogEntry(at_ms=1, actor="coordinator", **event).SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "leaf",
    [
        _leaf(failed=log_pb2.Failed(request_id=REQUEST)),
        _leaf(released=log_pb2.Released(request_id=b"\x02" * 32)),
    ],
)
def test_an_entry_about_something_else_is_no_proof(leaf: bytes) -> None:
    with pytest.raises(LogError, match="is not the release of this request"):
        _verify(_progress(_release(), leaf=leaf))


def test_a_head_that_the_log_did_not_sign_is_refused() -> None:
    with pytest.raises(LogError):
        _verify(_progress(_release(), signer=Ed25519PrivateKey.generate()))


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: proof.ClearField("hashes"),
        lambda proof: proof.hashes.append(b"\x00" * 32),
        lambda proof: setattr(proof, "seq", 0),
        lambda proof: setattr(proof, "seq", 2),
        lambda proof: setattr(proof, "leaf", proof.leaf + b"\x00"),
    ],
)
def test_a_proof_that_does_not_lead_to_the_head_is_refused(change: Callable[[analyst_pb2.LogProof], None]) -> None:
    with pytest.raises(LogError):
        _verify(_progress(_release(), change_proof=change))
