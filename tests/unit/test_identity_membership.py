from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.identity import CONSORTIUM, Hospital, hospitals, payload

from protos.v1 import membership_pb2
from queries.errors import IdentityError, SignatureError
from trust.identity import keys, membership
from trust.identity.membership import Person
from trust.transcript import digest

GOVERNANCE = Ed25519PrivateKey.generate()
PUBLIC = keys.public_bytes(GOVERNANCE)
HOSPITALS = hospitals(3)
LISTED = [h.listed() for h in HOSPITALS]
ADA = Person("ada", ("analyst", "auditor"), keys.public_bytes(Ed25519PrivateKey.generate()))


def signed(data: bytes) -> bytes:
    return membership.sign(data, GOVERNANCE)


def test_document_says_what_was_built_and_is_named_by_its_bytes() -> None:
    data = payload(LISTED[::-1], [ADA])
    document = membership.verify(signed(data), PUBLIC, consortium=CONSORTIUM)
    assert document.institutions == tuple(LISTED)
    assert document.people == (ADA,)
    assert (document.epoch, document.minimum_cohort, document.colluders) == (1, 3, 1)
    assert document.hash == digest("membership", data)
    assert document.payload == data
    assert document.envelope == signed(data)
    assert document.institution("h1") == LISTED[1]
    assert document.person("ada").roles == ("analyst", "auditor")


def test_unknown_names_are_refused_in_words() -> None:
    document = membership.verify(signed(payload(LISTED, [ADA])), PUBLIC)
    with pytest.raises(IdentityError, match="'ada' is no institution in epoch 1"):
        document.institution("ada")
    with pytest.raises(IdentityError, match="'h1' is nobody in epoch 1"):
        document.person("h1")


def test_next_epoch_is_accepted_and_the_same_one_again() -> None:
    first = membership.verify(signed(payload(LISTED, [])), PUBLIC)
    second = membership.verify(signed(payload(LISTED, [ADA], previous=first)), PUBLIC, first)
    assert second.epoch == 2
    assert membership.verify(second.envelope, PUBLIC, second) == second


def test_epochs_that_were_slept_through_may_be_skipped() -> None:
    first = membership.verify(signed(payload(LISTED, [])), PUBLIC)
    second = membership.verify(signed(payload(LISTED, [ADA], previous=first)), PUBLIC)
    third = membership.verify(signed(payload(LISTED[:1], [], previous=second)), PUBLIC, first)
    assert third.epoch == 3


def test_going_back_an_epoch_is_refused() -> None:
    first = membership.verify(signed(payload(LISTED, [])), PUBLIC)
    second = membership.verify(signed(payload(LISTED, [ADA], previous=first)), PUBLIC)
    with pytest.raises(IdentityError, match="goes back from epoch 2 to 1"):
        membership.verify(first.envelope, PUBLIC, second)


def test_two_histories_are_refused() -> None:
    first = membership.verify(signed(payload(LISTED, [])), PUBLIC)
    other = membership.verify(signed(payload(LISTED, [ADA])), PUBLIC)
    with pytest.raises(IdentityError, match="does not continue"):
        membership.verify(other.envelope, PUBLIC, first)
    with pytest.raises(IdentityError, match="does not continue"):
        membership.verify(signed(payload(LISTED, [], previous=other)), PUBLIC, first)


def test_another_consortium_is_refused() -> None:
    lung = [Hospital("h0", "Hospital 0", consortium="lung").listed()]
    document = signed(payload(lung, [], consortium="lung"))
    with pytest.raises(IdentityError, match="consortium 'lung', not 'heart-study'"):
        membership.verify(document, PUBLIC, consortium=CONSORTIUM)


@pytest.mark.parametrize(
    ("institutions", "people", "complaint"),
    [
        ([LISTED[0], LISTED[0]], [], "id 'h0' twice"),
        (LISTED, [replace(ADA, id="h1")], "id 'h1' twice"),
        (LISTED, [replace(ADA, identity_key=LISTED[0].identity_key)], "identity key .* twice"),
        (LISTED, [replace(ADA, roles=())], "has no role"),
        (LISTED, [replace(ADA, identity_key=b"short")], "no Ed25519 key"),
        (LISTED, [replace(ADA, id="Ada")], "no participant id"),
        ([replace(LISTED[0], organisation=" ")], [], "no organisation name"),
        ([replace(LISTED[0], epoch_key=LISTED[1].epoch_key)], [], "epoch key of 'h0' does not verify"),
        ([replace(LISTED[0], epoch_key_signature=b"")], [], "epoch key of 'h0' does not verify"),
    ],
)
def test_document_that_contradicts_itself_is_not_built(institutions, people, complaint: str) -> None:
    with pytest.raises(IdentityError, match=complaint):
        payload(institutions, people)


def test_shared_epoch_key_is_refused() -> None:
    twin = replace(HOSPITALS[1], epoch=HOSPITALS[0].epoch)
    with pytest.raises(IdentityError, match=r"epoch key .* twice"):
        payload([LISTED[0], twin.listed()], [])


def test_one_organisation_in_two_spellings_is_refused() -> None:
    sybil = Hospital("h9", "hospital 0").listed()
    with pytest.raises(IdentityError, match="also spelled 'Hospital 0'"):
        payload([*LISTED, sybil], [])


def test_minimum_cohort_below_three_is_refused() -> None:
    with pytest.raises(IdentityError, match="at least 3"):
        payload(LISTED, [], minimum_cohort=2)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.ClearField("epoch"),
        lambda m: setattr(m, "previous_hash", bytes(32)),
        lambda m: setattr(m, "epoch", 2),
        lambda m: setattr(m, "log_key", b"short"),
        lambda m: setattr(m, "log_origin", ""),
        lambda m: setattr(m, "minimum_cohort", 1),
        lambda m: m.institutions.reverse(),
        lambda m: m.people[0].roles.append(99),
        lambda m: m.people[0].roles.append(m.people[0].roles[0]),
        lambda m: m.people[0].ClearField("roles"),
    ],
)
def test_signed_nonsense_is_refused_all_the_same(change) -> None:
    message = membership_pb2.Membership.FromString(payload(LISTED, [ADA]))
    change(message)
    with pytest.raises(IdentityError):
        membership.verify(signed(message.SerializeToString()), PUBLIC)


def test_bytes_that_are_no_document_are_refused() -> None:
    with pytest.raises(IdentityError, match="not a membership document"):
        membership.verify(signed(b"\xff\xff"), PUBLIC)
    with pytest.raises(SignatureError):
        membership.verify(b"", PUBLIC)
