"""An analyst is never led back behind what was seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from analytics_client.pins import FILE, Pins
from queries.errors import ConfigError, IdentityError, LogError, SignatureError
from trust.identity import keys, membership

A, B = b"\x0a" * 32, b"\x0b" * 32
GOVERNANCE = Ed25519PrivateKey.generate()
GOVERNANCE_KEY = keys.public_bytes(GOVERNANCE)


def _membership(epoch: int, previous: bytes, *, issued_at: int = 1, signer: Ed25519PrivateKey = GOVERNANCE) -> bytes:
    payload = membership.build(
        consortium="liver",
        epoch=epoch,
        previous_hash=membership.verify(previous, GOVERNANCE_KEY).hash if previous else b"",
        issued_at=issued_at,
        institutions=(),
        people=(),
        log_key=A,
        log_origin="liver/log",
        minimum_cohort=3,
        colluders=1,
    )
    return membership.sign(payload, signer)


def _accept(folder: Path, envelope: bytes) -> int:
    return Pins(folder).accept_membership(envelope, GOVERNANCE_KEY, consortium="liver").epoch


def test_a_membership_and_its_successor_are_accepted_and_remembered(tmp_path: Path) -> None:
    first = _membership(1, b"")
    second = _membership(2, first)
    assert [_accept(tmp_path, e) for e in (first, first, second, second)] == [1, 1, 2, 2]


def test_an_older_membership_is_refused_after_a_restart(tmp_path: Path) -> None:
    first = _membership(1, b"")
    _accept(tmp_path, _membership(2, first))
    with pytest.raises(IdentityError, match="goes back from epoch 2 to 1"):
        _accept(tmp_path, first)


def test_another_membership_of_the_same_epoch_is_refused(tmp_path: Path) -> None:
    _accept(tmp_path, _membership(1, b""))
    with pytest.raises(IdentityError, match="does not continue epoch 1"):
        _accept(tmp_path, _membership(1, b"", issued_at=2))


def test_a_membership_that_the_coordinator_signed_is_refused_and_not_remembered(tmp_path: Path) -> None:
    with pytest.raises(SignatureError):
        _accept(tmp_path, _membership(1, b"", signer=Ed25519PrivateKey.generate()))
    assert not (tmp_path / FILE).exists()


def test_two_logs_of_one_size_are_a_fork(tmp_path: Path) -> None:
    Pins(tmp_path).accept_log_head(7, A, after=0)
    with pytest.raises(LogError, match="two different logs of 7 entries"):
        Pins(tmp_path).accept_log_head(7, B, after=6)


def test_a_log_that_is_no_longer_than_before_is_rewound(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    pins.accept_log_head(7, A, after=0)
    with pytest.raises(LogError, match="a log of 7 entries, but it had 7"):
        pins.accept_log_head(7, A, after=pins.log_size)


def test_an_earlier_head_may_arrive_later(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    pins.accept_log_head(9, A, after=5)
    pins.accept_log_head(7, B, after=5)
    assert Pins(tmp_path).log_size == 9


@pytest.mark.parametrize("text", ["{", json.dumps({"log_size": 1, "surprise": 2}), "[]", '{"membership": "*"}'])
def test_damaged_pins_are_not_taken_for_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        Pins(tmp_path)


def test_two_sessions_of_one_profile_do_not_undo_each_other(tmp_path: Path) -> None:
    one, other = Pins(tmp_path), Pins(tmp_path)
    one.accept_log_head(12, A, after=0)
    other.accept_log_head(11, B, after=0)
    assert Pins(tmp_path).log_size == 12
