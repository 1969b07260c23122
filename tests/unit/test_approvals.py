"""The queue of questions that a steward must approve: one approval, one answer; waiting costs nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytics_client.agent import approvals
from analytics_client.agent import ledger_care as care
from analytics_client.agent.approvals import Question
from analytics_client.agent.grants import Limits
from analytics_client.agent.ledger import Ledger
from queries.accounting import Budget, Curve
from queries.errors import AwaitingApproval, ConfigError, PolicyDenied

QUESTION = Question(b"q" * 32, "ada", "patients", "study", "count(*)", 1000, "by hand")
PLENTY = Limits(Budget(50, 1e-6), Budget(50, 1e-6))


def ids(number: int) -> tuple[bytes, bytes]:
    return number.to_bytes(32, "big"), number.to_bytes(16, "big")


def ask(ledger: Ledger, number: int, question: Question = QUESTION, **other: Any) -> None:
    request_id, round_id = ids(number)
    approvals.require(ledger, question, request_id)
    ledger.reserve(
        request_id=request_id, digest=b"d", dataset=question.dataset, analyst=question.analyst, rho_nano=1000,
        charge=Curve.from_rho_nano(1000), budgets=PLENTY, round_id=round_id, approval=question.id, **other,
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened


def test_a_question_waits_is_approved_and_answered_once(ledger: Ledger) -> None:
    for number in (1, 2):
        with pytest.raises(AwaitingApproval) as waits:
            ask(ledger, number)
        assert "nothing is spent" in waits.value.hint
    assert ledger.accounts() == ()
    (waiting,) = approvals.queue(ledger)
    assert replace(waiting, at=0, expires_at=0) == QUESTION
    approvals.decide(ledger, waiting.name, approve=True, reason="agreed with the board")
    assert approvals.queue(ledger) == ()
    ask(ledger, 3)
    ledger.upload(*ids(3))
    with pytest.raises(AwaitingApproval):
        ask(ledger, 4)
    assert "agreed with the board" in care.unsent(ledger)[-1].text


def test_a_round_that_came_to_nothing_leaves_the_approval(ledger: Ledger) -> None:
    with pytest.raises(AwaitingApproval):
        ask(ledger, 1)
    approvals.decide(ledger, QUESTION.name, approve=True, reason="yes")
    ask(ledger, 2)
    with pytest.raises(AwaitingApproval):  # while it is being answered, it is taken
        ask(ledger, 3)
    # asking meanwhile has put the question into the queue again
    approvals.decide(ledger, QUESTION.name, approve=True, reason="yes")
    ledger.release(*ids(2))
    ask(ledger, 4)
    ledger.release(*ids(4))
    ask(ledger, 5)
    ledger.upload(*ids(5))


def test_a_denial_says_why_and_stands(ledger: Ledger) -> None:
    with pytest.raises(AwaitingApproval):
        ask(ledger, 1)
    approvals.decide(ledger, QUESTION.name, approve=False, reason="outside the protocol")
    for number in (2, 3):
        with pytest.raises(PolicyDenied, match="outside the protocol") as denied:
            ask(ledger, number)
        assert not isinstance(denied.value, AwaitingApproval)


def test_an_approval_can_be_withdrawn_before_it_is_used(ledger: Ledger) -> None:
    with pytest.raises(AwaitingApproval):
        ask(ledger, 1)
    approvals.decide(ledger, QUESTION.name, approve=True, reason="yes")
    approvals.decide(ledger, QUESTION.name, approve=False, reason="no, after all")
    with pytest.raises(PolicyDenied, match="after all"):
        ask(ledger, 2)


def test_approvals_and_waiting_questions_expire(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with pytest.raises(AwaitingApproval):
        ask(ledger, 1)
    approvals.decide(ledger, QUESTION.name, approve=True, reason="yes")
    monkeypatch.setattr(time, "time", lambda: now + approvals.HOLDS_S + 10)
    with pytest.raises(AwaitingApproval):
        ask(ledger, 2)
    assert len(approvals.queue(ledger)) == 1
    monkeypatch.setattr(time, "time", lambda: now + approvals.HOLDS_S + approvals.WAITS_S + 20)
    assert approvals.queue(ledger) == ()
    with pytest.raises(ConfigError):
        approvals.decide(ledger, QUESTION.name, approve=True, reason="too late")


def test_an_approval_taken_between_looking_and_reserving_is_not_used_twice(ledger: Ledger) -> None:
    with pytest.raises(AwaitingApproval):
        ask(ledger, 1)
    approvals.decide(ledger, QUESTION.name, approve=True, reason="yes")
    approvals.require(ledger, QUESTION, ids(2)[0])
    approvals.require(ledger, QUESTION, ids(3)[0])
    ask(ledger, 2)
    with pytest.raises(AwaitingApproval), ledger.transaction() as connection:
        approvals.use(connection, QUESTION.id, ids(3)[0])


def test_one_analyst_cannot_flood_the_queue(ledger: Ledger) -> None:
    for number in range(approvals.MAX_WAITING):
        with pytest.raises(AwaitingApproval):
            ask(ledger, number, replace(QUESTION, id=number.to_bytes(32, "big")))
    with pytest.raises(PolicyDenied, match="too many"):
        ask(ledger, 99, replace(QUESTION, id=b"z" * 32))
    with pytest.raises(AwaitingApproval):
        ask(ledger, 100, replace(QUESTION, id=b"y" * 32, analyst="bob"))


@pytest.mark.parametrize("name", ["", "00", "zz", "7171717171717172"])
def test_what_is_not_in_the_queue_cannot_be_decided(ledger: Ledger, name: str) -> None:
    with pytest.raises(AwaitingApproval):
        ask(ledger, 1)
    with pytest.raises(ConfigError, match="begins with"):
        approvals.decide(ledger, name, approve=True, reason="yes")
