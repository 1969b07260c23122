"""A participant is never led back behind what it has seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analytics_client.pins import FILE, Pins
from queries.errors import ConfigError, IdentityError, LogError

A, B = b"\x0a" * 32, b"\x0b" * 32


def test_pins_survive_a_restart(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    pins.membership(2, A)
    pins.log_head(7, B, after=3)
    again = Pins(tmp_path).seen
    assert (again.epoch, again.membership_hash, again.log_size, again.log_root) == (2, A.hex(), 7, B.hex())


def test_an_older_membership_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    Pins(tmp_path).membership(3, A)
    with pytest.raises(IdentityError, match="epoch 2, but epoch 3"):
        Pins(tmp_path).membership(2, B)


def test_a_second_membership_of_one_epoch_is_refused(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    pins.membership(3, A)
    pins.membership(3, A)
    with pytest.raises(IdentityError, match="another membership of epoch 3"):
        pins.membership(3, B)


def test_two_logs_of_one_size_are_a_fork(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    pins.log_head(7, A, after=0)
    with pytest.raises(LogError, match="two different logs of 7 entries"):
        pins.log_head(7, B, after=6)


def test_a_log_that_is_no_longer_than_before_is_rewound(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    pins.log_head(7, A, after=0)
    with pytest.raises(LogError, match="a log of 6 entries, but it had 7"):
        pins.log_head(6, B, after=7)


def test_an_earlier_head_may_arrive_later(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    pins.log_head(9, A, after=5)
    pins.log_head(7, B, after=5)
    assert pins.seen.log_size == 9


@pytest.mark.parametrize("text", ["{", json.dumps({"epoch": 1, "surprise": 2}), "[]"])
def test_damaged_pins_are_not_taken_for_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        Pins(tmp_path)
