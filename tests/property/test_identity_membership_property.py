from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.identity import hospitals, payload
from hypothesis import given, settings
from hypothesis import strategies as st

from queries.errors import CohortiumError
from trust.identity import keys, membership
from trust.identity.membership import Person

GOVERNANCE = Ed25519PrivateKey.generate()
PUBLIC = keys.public_bytes(GOVERNANCE)
LISTED = [h.listed() for h in hospitals(6)]
PEOPLE = [Person(f"p{i}", ("analyst",), keys.public_bytes(Ed25519PrivateKey.generate())) for i in range(6)]
subsets = st.lists(st.integers(0, 5), unique=True)


@given(st.lists(st.tuples(subsets, subsets), min_size=1, max_size=4), st.data())
@settings(max_examples=50)
def test_any_chain_of_memberships_is_followed_forwards_only(steps, data) -> None:
    chain: list[membership.MembershipDocument] = []
    for institutions, people in steps:
        previous = chain[-1] if chain else None
        bytes_ = payload([LISTED[i] for i in institutions], [PEOPLE[i] for i in people], previous=previous)
        chain.append(membership.verify(membership.sign(bytes_, GOVERNANCE), PUBLIC, previous))
        assert [i.id for i in chain[-1].institutions] == sorted(f"h{i}" for i in institutions)
        assert [p.id for p in chain[-1].people] == sorted(f"p{i}" for i in people)
    seen = data.draw(st.integers(0, len(chain) - 1))
    shown = data.draw(st.integers(0, len(chain) - 1))
    try:
        document = membership.verify(chain[shown].envelope, PUBLIC, chain[seen])
    except CohortiumError:
        assert shown < seen
    else:
        assert shown >= seen
        assert document == chain[shown]


@given(st.binary(max_size=300))
def test_signed_garbage_is_refused_as_a_membership(garbage: bytes) -> None:
    try:
        membership.verify(membership.sign(garbage, GOVERNANCE), PUBLIC)
    except CohortiumError:
        return
    raise AssertionError("garbage is a membership")
