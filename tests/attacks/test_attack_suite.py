"""Every attack of the report, in small, against a live consortium; and its success where a defence is taken away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adversary import outside, suite
from adversary.suite import Field
from adversary.town import town
from harness.consortium import Consortium
from harness.noiseless import remove_noise
from numpy.typing import NDArray

from analytics_client.agent import responder, schedule
from analytics_client.agent.ledger import Ledger, Reservation
from analytics_client.agent.noise import share
from analytics_client.agent.responder import Responder
from queries.accounting import NANO, Budget, Curve
from queries.errors import PolicyDenied
from trust.noise import gaussian
from trust.noise.stream import Stream


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with town(tmp_path_factory.mktemp("town")) as built:
        yield built


@pytest.mark.parametrize("attack", suite.GENEROUS, ids=lambda attack: str(attack.__name__))
def test_the_attack_gains_no_more_than_the_promise(
    running: Consortium, attack: suite.Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the bound is 0 a leak is complete, and 25 right guesses of 25 prove it; else a few trials show that it runs.
    watching = attack in {suite.payload, suite.error_text, suite.progress}
    outcome = attack(Field(running, monkeypatch, trials=25 if watching else 8))
    assert outcome.rows_recovered == 0
    assert outcome.holds


# --- where a defence is taken away each must succeed, or its silence above means nothing ------------------------------


@pytest.mark.parametrize(
    "attack",
    [suite.differencing, suite.differencing_of_sums, suite.one_hot, suite.rare_key],
    ids=lambda attack: str(attack.__name__),
)
def test_without_noise_the_attack_always_wins(
    running: Consortium, attack: suite.Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_noise(monkeypatch)
    outcome = attack(Field(running, monkeypatch, trials=25))
    assert outcome.advantage == 1
    assert outcome.rows_recovered == 25
    assert not outcome.holds


def test_without_noise_every_patient_is_recovered_one_by_one(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_noise(monkeypatch)
    assert suite.one_hot_of_everybody(Field(running, monkeypatch, trials=1)).rows_recovered >= 40


def test_noise_that_does_not_reach_the_last_bits_gives_the_exact_sum_away(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(length: int, variance: Fraction, scale: Fraction | None) -> NDArray[np.int64]:
        return (share(length, variance, scale) >> 30) << 30

    monkeypatch.setattr(responder, "share", coarse)
    outcome = suite.low_bits(Field(running, monkeypatch, trials=20))
    assert outcome.advantage == 1
    assert outcome.rows_recovered == 20


@pytest.mark.parametrize("attack", [suite.replay, suite.two_sets], ids=lambda attack: str(attack.__name__))
def test_a_ledger_that_forgets_what_it_answered_lets_a_request_be_answered_twice(
    running: Consortium, attack: suite.Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch)
    assert not attack(Field(running, monkeypatch, trials=2)).holds


def slow_source(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have the data of one world take longer."""
    original = Responder._vector

    def slow(responder: Responder, ask: Any, plan: Any, *rest: Any) -> Any:
        if plan.dataset.name == "benign":
            time.sleep(seconds)
        return original(responder, ask, plan, *rest)

    patch.setattr(Responder, "_vector", slow)


def test_without_its_schedule_a_source_that_takes_longer_for_a_person_is_told_by_its_time(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_source(monkeypatch, 0.5)  # far more than other work on the machine adds to an answer
    monkeypatch.setattr(schedule, "wait", lambda _since, **_steps: None)
    outcome = suite.timing(Field(running, monkeypatch, trials=50))
    assert outcome.advantage > 0.8
    assert not outcome.holds


@pytest.mark.parametrize("attack", [suite.error_text, suite.progress], ids=lambda attack: str(attack.__name__))
def test_an_agent_that_refuses_by_what_is_in_its_data_is_told_by_what_is_said(
    running: Consortium, attack: suite.Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Responder._allow

    def allow(responder: Responder, policy: Any, verified: Any, *rest: Any) -> Any:
        if verified.dataset == "benign" and responder._me in {"ash", "birch"}:
            raise PolicyDenied("fewer than 3 patients match", rule="small cells")
        return original(responder, policy, verified, *rest)

    monkeypatch.setattr(Responder, "_allow", allow)
    outcome = attack(Field(running, monkeypatch, trials=40))
    assert outcome.advantage > 0.8
    assert not outcome.holds


def test_a_fork_that_keeps_its_parents_key_repeats_its_noise(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = bytes(32)
    monkeypatch.setattr(outside, "share", lambda length, variance: gaussian.draw(length, variance, Stream(kept)))
    assert suite.fork(Field(running, monkeypatch, trials=1)).rows_recovered > 0


def test_the_watcher_sees_larger_messages_of_a_larger_question(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = outside.Watcher(monkeypatch)
    with running.session() as session:
        one = watcher.sizes(session, "SELECT COUNT(*) AS x FROM absent", 0.1)
        many = watcher.sizes(session, "SELECT diagnosis, COUNT(*) AS x FROM absent GROUP BY diagnosis", 0.1)
    assert min(len(one), len(many)) >= 5 * 4  # answer, ready, upload, manifest, confirm of each of four at least
    assert max(size for _, kind, size in one if kind == "upload") < max(s for _, kind, s in many if kind == "upload")


def test_a_budget_ends_the_same_query_and_a_race_for_what_is_left(tmp_path: Path) -> None:
    epsilon = 1.0
    with town(tmp_path, epsilon=epsilon, copies=2) as tight:
        budget = rho_that_fits(epsilon)
        with pytest.MonkeyPatch.context() as patch:
            field = Field(tight, patch, trials=1)
            race = suite.racing(field, budget_rho=budget, each=budget / 3, threads=4, world="sickly")
            assert race.advantage > 0
            assert race.holds
            assert suite.repeated(field, budget_rho=budget, each=budget / 4, times=8, worlds=2).holds
            forget(patch)
            race = suite.racing(field, budget_rho=budget, each=budget / 3, threads=4, world="sickly")
            assert not race.holds
            assert not suite.repeated(field, budget_rho=budget, each=budget / 4, times=8, worlds=1).holds


def rho_that_fits(epsilon: float) -> float:
    """The largest rho that a whole budget admits, by the same order that the ledger reads it at."""
    return Budget(epsilon, 1e-6).left(Curve.zero()) / NANO


def forget(patch: pytest.MonkeyPatch) -> None:
    """Take the ledger's memory away: it admits everything and keeps nothing."""
    granted = Reservation(rho_nano_before=0, rho_nano_after=0)
    patch.setattr(Ledger, "reserve", lambda *_a, **_k: granted)
    for step in ("upload", "reveal", "release"):
        patch.setattr(Ledger, step, lambda *_a, **_k: None)
