"""Training jobs in the ledger: one hold before the first round, every round once, the rest returns at the end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_client.agent.grants import Limits
from analytics_client.agent.ledger import Ledger
from analytics_client.agent.ledger_jobs import JobHold
from queries.accounting import Budget, Curve
from queries.errors import BudgetError, ProtocolViolation, RoundError

ROUND = 1_000_000
CURVE = Curve.from_rho_nano(ROUND)
PLENTY = Limits(Budget(10.0, 1e-6), Budget(10.0, 1e-6))


def hold(slots: int = 3, *, name: bytes = b"j", expires_at: int = 2**40) -> JobHold:
    charge = Curve(tuple(slots * nano for nano in CURVE.nano))
    return JobHold(name * 32, b"d" * 32, slots, charge, slots * ROUND + (slots > 1), expires_at)


def begin(ledger: Ledger, number: int, job: JobHold, *, attempt: int = 0, limits: Limits = PLENTY) -> tuple[int, int]:
    reserved = ledger.reserve(
        request_id=job.id[:31] + bytes([number]),
        digest=job.digest,
        dataset="d",
        analyst="ada",
        charge=CURVE,
        rho_nano=ROUND,
        budgets=limits,
        round_id=job.id[:30] + bytes([number, attempt]),
        job=job,
    )
    return reserved.rho_nano_before, reserved.rho_nano_after


def finish(ledger: Ledger, number: int, job: JobHold, attempt: int = 0) -> None:
    ids = job.id[:31] + bytes([number]), job.id[:30] + bytes([number, attempt])
    ledger.upload(*ids)
    ledger.reveal(*ids)


def spent(ledger: Ledger) -> list[int]:
    return [account.rho_nano for account in ledger.accounts()]


def test_all_is_held_before_the_first_round_and_the_rest_returns(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l.sqlite") as ledger:
        job = hold()
        assert begin(ledger, 0, job) == (0, 3 * ROUND + 1)
        assert spent(ledger) == [3 * ROUND + 1] * 2
        finish(ledger, 0, job)
        assert begin(ledger, 1, job) == (0, 3 * ROUND + 1)
        assert spent(ledger) == [3 * ROUND + 1] * 2
        finish(ledger, 1, job)
        assert ledger.end_job(job.id, "done")
        assert spent(ledger) == [2 * ROUND] * 2
        assert not ledger.end_job(job.id, "done")
        assert [(entry.used, entry.reason) for entry in ledger.jobs()] == [(2, "done")]
        with pytest.raises(RoundError, match="ended here: done"):
            begin(ledger, 2, job)
    Ledger.open(tmp_path / "l.sqlite").close()  # it adds up


def test_a_round_is_answered_once_and_no_more_than_were_paid(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l.sqlite") as ledger:
        job = hold(2)
        begin(ledger, 0, job)
        finish(ledger, 0, job)
        with pytest.raises(RoundError, match="already answered"):
            begin(ledger, 0, job, attempt=1)
        begin(ledger, 1, job)
        begin(ledger, 1, job, attempt=1)  # the round was begun anew before anything was sent
        finish(ledger, 1, job, attempt=1)
        with pytest.raises(RoundError, match="all rounds"):
            begin(ledger, 2, job)


def test_a_job_that_does_not_fit_holds_nothing(tmp_path: Path) -> None:
    small = Limits(Budget(CURVE.epsilon(1e-6) * 1.2, 1e-6), Budget(10.0, 1e-6))
    with Ledger.open(tmp_path / "l.sqlite") as ledger:
        with pytest.raises(BudgetError, match="does not cover"):
            begin(ledger, 0, hold(9), limits=small)
        assert ledger.accounts() == ()
        assert ledger.jobs() == ()


def test_a_round_that_sent_nothing_stays_with_the_job(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l.sqlite") as ledger:
        job = hold(1)
        begin(ledger, 0, job)
        ledger.release(job.id[:31] + b"\x00", job.id[:30] + b"\x00\x00")
        assert spent(ledger) == [ROUND] * 2
        begin(ledger, 0, job, attempt=1)
        assert ledger.end_job(job.id, "stopped")
        assert spent(ledger) == [ROUND] * 2  # the round in hand is still reserved
        ledger.release(job.id[:31] + b"\x00", job.id[:30] + b"\x00\x01")
        assert spent(ledger) == [0] * 2


def test_a_process_that_dies_keeps_the_job_and_frees_its_round(tmp_path: Path) -> None:
    job = hold(3)
    with Ledger.open(tmp_path / "l.sqlite") as ledger:
        begin(ledger, 0, job)
        finish(ledger, 0, job)
        begin(ledger, 1, job)
    with Ledger.open(tmp_path / "l.sqlite") as ledger:
        assert [(entry.used, entry.reason) for entry in ledger.jobs()] == [(1, "")]
        begin(ledger, 1, job, attempt=1)


def test_an_expired_job_ends(tmp_path: Path) -> None:
    job = hold(3, expires_at=int(time.time()) - 1)
    with Ledger.open(tmp_path / "l.sqlite") as ledger:
        begin(ledger, 0, job)
        finish(ledger, 0, job)
    with Ledger.open(tmp_path / "l.sqlite") as ledger:
        assert spent(ledger) == [ROUND] * 2
        assert ledger.jobs()[0].reason == "it expired"


def test_another_job_under_a_known_id_is_refused(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l.sqlite") as ledger:
        begin(ledger, 0, hold(3))
        with pytest.raises(ProtocolViolation, match="another job"):
            begin(ledger, 1, hold(4))


STEPS = st.lists(st.sampled_from(["begin", "finish", "release", "end", "reopen"]), max_size=14)


@given(STEPS)
@settings(max_examples=40, deadline=None)
def test_whatever_happens_it_adds_up(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    path = tmp_path_factory.mktemp("ledger") / "l.sqlite"
    job, number, attempt, charged, open_, ended = hold(4), 0, 0, 0, False, False
    ledger = Ledger.open(path)
    try:
        for step in steps:
            ids = job.id[:31] + bytes([number]), job.id[:30] + bytes([number, attempt])
            match step:
                case "begin" if not open_ and not ended and charged < 4:
                    begin(ledger, number, job, attempt=attempt)
                    open_ = True
                case "finish" if open_:
                    ledger.upload(*ids)
                    charged, number, attempt, open_ = charged + 1, number + 1, 0, False
                case "release" if open_:
                    ledger.release(*ids)
                    attempt, open_ = attempt + 1, False
                case "end":
                    ended = ledger.end_job(job.id, "done") or ended
                case "reopen":
                    ledger.close()
                    ledger = Ledger.open(path)  # checks every account against the requests and jobs
                    attempt, open_ = attempt + open_, False
        started = charged or open_ or attempt
        expected = charged * ROUND + (ROUND if open_ else 0) if ended else (4 * ROUND + 1 if started else 0)
        assert spent(ledger) == [expected] * 2 or (expected == 0 and spent(ledger) in ([], [0, 0]))
    finally:
        ledger.close()
