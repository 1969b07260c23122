from __future__ import annotations

import re
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from harness.identity import Authority

from queries.errors import InvitationError
from trust.identity.invitation import PREFIX, Invitation, new_secret, secret_hash

ID, SECRET = new_secret()
INVITATION = Invitation(
    consortium="heart-study",
    address="coordinator.example.org:7444",
    ca=Authority().root.public_bytes(Encoding.DER),
    governance_key=bytes(range(32)),
    id=ID,
    secret=SECRET,
    participant="h1",
    role="agent",
    expires_at=1_800_000_000,
)
TOKEN = INVITATION.to_token()


def test_token_carries_everything_in_one_word() -> None:
    assert Invitation.from_token(TOKEN) == INVITATION
    assert re.fullmatch(r"cohortium-invite-v1\.[A-Za-z0-9_-]+", TOKEN)
    assert len(TOKEN) < 1000


def test_line_breaks_and_spaces_of_a_mail_do_no_harm() -> None:
    folded = "\n  ".join(TOKEN[i : i + 60] for i in range(0, len(TOKEN), 60))
    assert Invitation.from_token(f"  {folded}\r\n") == INVITATION


def test_every_cut_is_told_as_such() -> None:
    for length in range(len(PREFIX) + 3, len(TOKEN)):
        with pytest.raises(InvitationError, match="cut short"):
            Invitation.from_token(TOKEN[:length])


def test_typing_error_is_told_as_such() -> None:
    for position in range(len(PREFIX) + 8, len(TOKEN) - 1, 17):
        other = "A" if TOKEN[position] != "A" else "B"
        with pytest.raises(InvitationError, match="typing error"):
            Invitation.from_token(TOKEN[:position] + other + TOKEN[position + 1 :])


@pytest.mark.parametrize("text", ["", "hello", "cohortium-invite-v2." + TOKEN[len(PREFIX) :], TOKEN[3:]])
def test_something_else_is_no_invitation(text: str) -> None:
    with pytest.raises(InvitationError, match="not an invitation"):
        Invitation.from_token(text)


def test_anything_appended_is_refused_whatever_the_length() -> None:
    for filler in range(4):  # the lengths modulo 3 decide how base64 ends
        token = replace(INVITATION, address="a" * filler).to_token()
        for appended in ("A", "AA", "AAA", "="):
            with pytest.raises(InvitationError, match="typing error"):
                Invitation.from_token(token + appended)


@pytest.mark.parametrize("text", [TOKEN + "\u00e4", TOKEN.replace("-", "+"), PREFIX, PREFIX + "A"])
def test_damage_at_the_edges_is_refused(text: str) -> None:
    if text != TOKEN:
        with pytest.raises(InvitationError):
            Invitation.from_token(text)


def test_giant_text_is_refused() -> None:
    with pytest.raises(InvitationError, match="too long"):
        Invitation.from_token(PREFIX + "A" * 20_000)


@pytest.mark.parametrize(
    "change",
    [{"role": "coordinator"}, {"role": ""}, {"governance_key": b"short"}, {"ca": b""}, {"consortium": "A"}],
)
def test_content_that_no_operator_makes_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvitationError, match="malformed"):
        Invitation.from_token(replace(INVITATION, **change).to_token())


def test_secret_is_not_shown_and_is_stored_hashed() -> None:
    assert SECRET.hex() not in repr(INVITATION)
    assert repr(SECRET) not in repr(INVITATION)
    assert len(SECRET) == 32
    assert INVITATION.secret_hash == secret_hash(ID, SECRET)
    assert secret_hash("other", SECRET) != secret_hash(ID, SECRET)
