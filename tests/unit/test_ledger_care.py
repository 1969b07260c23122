"""What looks after the ledger: old copies, clocks set back, renewals, days, and what is said in the log."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from analytics_client.agent import ledger_care as care
from analytics_client.agent.grants import Limits
from analytics_client.agent.ledger import Ledger, Reservation
from queries.accounting import Budget, Curve, epsilon_to_rho_nano
from queries.errors import BudgetError, ClockError, ConfigError, PolicyDenied

DELTA = 1e-6
GRANT = epsilon_to_rho_nano(1.0, DELTA)


def limits(grants: int = 2, per_day: int | None = None) -> Limits:
    budget = Budget(Curve.from_rho_nano(GRANT * grants).epsilon(DELTA) * 1.0000001, DELTA)
    return Limits(budget, budget, per_day)


def ids(number: int) -> tuple[bytes, bytes]:
    return number.to_bytes(32, "big"), number.to_bytes(16, "big")


def reserve(ledger: Ledger, number: int, **other: Any) -> Reservation:
    request_id, round_id = ids(number)
    values: dict[str, Any] = {
        "request_id": request_id, "digest": b"d", "dataset": "patients", "analyst": "ada", "rho_nano": GRANT,
        "charge": Curve.from_rho_nano(GRANT), "budgets": limits(), "round_id": round_id,
    } | other  # fmt: skip
    return ledger.reserve(**values)


def answer(ledger: Ledger, number: int, **other: Any) -> None:
    reserve(ledger, number, **other)
    ledger.upload(*ids(number))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def _copy(path: Path, to: Path) -> None:
    to.mkdir()
    for part in path.parent.glob("ledger*"):
        shutil.copy(part, to / part.name)


def _restore(path: Path, old: Path) -> None:
    for part in path.parent.glob("ledger.sqlite*"):
        part.unlink()
    for part in old.iterdir():
        shutil.copy(part, path.parent / part.name)


def test_an_old_copy_serves_nothing_until_a_steward_says_why(path: Path, tmp_path: Path) -> None:
    with Ledger.open(path) as ledger:
        answer(ledger, 1, head=(5, b"five"))
    _copy(path, tmp_path / "backup")
    with Ledger.open(path) as ledger:
        answer(ledger, 2, head=(9, b"nine"))
        care.compare(ledger, 9, b"nine")  # what it knows is no finding
    _restore(path, tmp_path / "backup")
    with Ledger.open(path) as ledger:
        assert ledger.head() == (5, b"five")
        with pytest.raises(ConfigError, match="old copy"):
            care.compare(ledger, 9, b"nine")
    with pytest.raises(ConfigError, match="old copy") as refused:  # and it is remembered
        Ledger.open(path)
    assert "--acknowledge" in refused.value.hint
    with Ledger.read(path) as ledger:
        with pytest.raises(ConfigError, match="reason"):
            care.acknowledge(ledger, "  ")
        care.acknowledge(ledger, "disk replaced, budgets halved")
    with Ledger.open(path) as ledger:
        assert ledger.head() == (9, b"nine")  # never cosigns anew what it has cosigned
        assert "disk replaced" in ledger.notes()[-1].text
        assert [s.about for s in care.unsent(ledger)] == ["ledger"]
        with pytest.raises(ConfigError, match="nothing to acknowledge"):
            care.acknowledge(ledger, "again")


def test_the_newest_copy_put_back_serves_at_once(path: Path, tmp_path: Path) -> None:
    with Ledger.open(path) as ledger:
        answer(ledger, 1, head=(5, b"five"))
    _copy(path, tmp_path / "old")
    with Ledger.open(path) as ledger:
        answer(ledger, 2, head=(9, b"nine"))
    _copy(path, tmp_path / "new")
    _restore(path, tmp_path / "old")
    with Ledger.open(path) as ledger, pytest.raises(ConfigError):
        care.compare(ledger, 9, b"nine")
    _restore(path, tmp_path / "new")
    with Ledger.open(path) as ledger:
        care.compare(ledger, 9, b"nine")


def test_another_root_under_the_known_size_is_an_old_copy_too(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.set_head(5, b"five")
        with pytest.raises(ConfigError):
            care.compare(ledger, 5, b"other")


def test_an_acknowledged_loss_is_not_asked_about_twice(path: Path) -> None:
    with Ledger.open(path) as ledger:
        answer(ledger, 1, head=(5, b"five"))
    path.unlink()
    with Ledger.acknowledge_loss(path, "fire in the cellar") as ledger:
        care.compare(ledger, 5, b"five")
        assert ledger.head() == (5, b"five")
        with pytest.raises(ConfigError):  # only once
            care.compare(ledger, 6, b"six")


def test_a_clock_set_back_answers_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with Ledger.open(path) as ledger:
        reserve(ledger, 1)
        monkeypatch.setattr(time, "time", lambda: now - care.CLOCK_SLACK_S / 2)
        reserve(ledger, 2)
        ledger.release(*ids(2))
        monkeypatch.setattr(time, "time", lambda: now - 2 * care.CLOCK_SLACK_S)
        with pytest.raises(ClockError, match="set back") as refused:
            reserve(ledger, 3)
        assert "NTP" in refused.value.hint
        care.acknowledge(ledger, "the clock had been ahead for an hour")
        reserve(ledger, 3)


def test_a_renewal_gives_the_charged_part_back_and_keeps_history(path: Path) -> None:
    with Ledger.open(path) as ledger:
        answer(ledger, 1)
        answer(ledger, 2, analyst="bob")
        with pytest.raises(BudgetError):
            reserve(ledger, 3)
        with pytest.raises(ConfigError, match="reason"):
            care.renew(ledger, "patients", None, "")
        assert care.renew(ledger, "patients", None, "new data set of 2027") == ("", "ada", "bob")
        assert all(not any(a.spent.nano) and a.rho_nano == 0 for a in ledger.accounts())
        assert len(ledger.history()) == 2
        answer(ledger, 3)
        assert "new data set of 2027" in care.unsent(ledger)[-1].text
    with Ledger.open(path) as ledger:  # and it still adds up
        reserve(ledger, 4)
        with pytest.raises(BudgetError):
            reserve(ledger, 5)


def test_renewing_one_analyst_leaves_the_dataset_total(path: Path) -> None:
    with Ledger.open(path) as ledger:
        answer(ledger, 1)
        assert care.renew(ledger, "patients", "ada", "agreed") == ("ada",)
        spent = {a.analyst: a.rho_nano for a in ledger.accounts()}
        assert spent == {"": GRANT, "ada": 0}
        with pytest.raises(ConfigError, match="nothing to renew"):
            care.renew(ledger, "patients", "ada", "agreed")
        with pytest.raises(ConfigError, match="nothing to renew"):
            care.renew(ledger, "patiens", None, "typing")


def test_what_is_reserved_during_a_renewal_is_neither_lost_nor_won(path: Path) -> None:
    with Ledger.open(path) as ledger:
        answer(ledger, 1)
        reserve(ledger, 2)
        care.renew(ledger, "patients", None, "new period")
        assert {a.rho_nano for a in ledger.accounts()} == {GRANT}
        ledger.release(*ids(2))
        assert {a.rho_nano for a in ledger.accounts()} == {0}
        assert not any(any(a.spent.nano) for a in ledger.accounts())
    Ledger.open(path).close()


def test_a_day_holds_so_many_answers_and_released_ones_do_not_count(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = limits(100, per_day=2)
    now = time.time()
    with Ledger.open(path) as ledger:
        reserve(ledger, 1, budgets=some)
        ledger.release(*ids(1))
        answer(ledger, 2, budgets=some)
        answer(ledger, 3, budgets=some)
        with pytest.raises(PolicyDenied, match="at most 2 queries") as refused:
            reserve(ledger, 4, budgets=some)
        assert refused.value.rule == "per-day"
        reserve(ledger, 5, budgets=some, analyst="bob")
        monkeypatch.setattr(time, "time", lambda: now + care.DAY_S + 2)
        reserve(ledger, 6, budgets=some)


def test_statements_wait_until_they_are_confirmed(path: Path) -> None:
    with Ledger.open(path) as ledger:
        with ledger.transaction() as connection:
            care.state(connection, "one", about="policy", subject=b"1" * 32)
            care.state(connection, "two", about="policy", subject=b"2" * 32)
        first, second = care.unsent(ledger)
        assert (first.text, second.text) == ("one", "two")
        assert care.latest_subject(ledger, "policy") == b"2" * 32
        assert care.latest_subject(ledger, "ledger") == b""
        care.sent(ledger, first.number)
    with Ledger.open(path) as ledger:
        assert care.unsent(ledger) == [second]
