"""Evaluations on the way of a job: when they come, what they cost, what they measure, and when they end it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_client.agent.training import descent, rounds
from analytics_client.jobs import JobAsked, job_of
from queries.errors import QueryError, QuorumError
from queries.schema import from_toml
from queries.training.descent import Descent
from queries.training.evaluation import evaluate, headline
from queries.training.job import make_job
from queries.training.newton import Released
from queries.training.options import Clusters
from queries.training.plan import JobPlan, make_job_plan, stated_rho_nano
from queries.training.way import Way
from trust import question

DATASET = from_toml(
    'name = "d"\nmax_persons = 10000\n[columns.x]\ntype = "number"\nlower = -1\nupper = 1\n'
    '[columns.y]\ntype = "category"\ncategories = ["no", "yes"]\n'
)
SGD = Descent("sgd", "sgd", rate=0.25, noise_multiplier=1.0, clip=1.0, batch=500.0, learning_rate=1.0)
AVERAGE = replace(SGD, method="average", rate=1.0, local_steps=5, local_rate=0.1)


def people(rows: int = 4000) -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    x = random.uniform(-1, 1, rows)
    return {"x": x, "y": (random.random(rows) < 1 / (1 + np.exp(-2.5 * x))).astype(float)}


def planned(rho_nano: int = 10**9, **more: Any) -> JobPlan:
    job = make_job(DATASET, "logistic", "y", (("x",),), **more)
    return make_job_plan(job, DATASET, rho_nano if job.descent is None else stated_rho_nano(job, DATASET))


def release(plan: JobPlan, way: Way, slot: int, values: dict[str, np.ndarray]) -> Released:
    part = plan.of_slot(slot)
    return Released(way.theta, part.sums(values, way.theta) / 2.0**part.scale_bits, 0.0, 3)


def test_evaluations_come_after_every_few_rounds_and_the_last() -> None:
    plan, values = planned(rounds=7, spare_rounds=2, evaluate_every=3), people()
    way, slots, ends = Way(plan), [], []
    while (slot := way.slot) is not None:
        assert way.expects(slot)
        found = release(plan, way, slot, values)
        slots.append(slot)
        ends.append(way.ends_with(slot, found))
        way.take(slot, found)
    assert slots == [0, 1, 2, 9, 3, 4, 5, 10, 6, 11]
    assert ends == [False] * 9 + [True]
    assert plan.slots == 12
    assert plan.cost.nano == (plan.round_cost * 12).nano


@given(st.integers(1, 30), st.integers(0, 3), st.data())
def test_whatever_fails_the_way_is_one_that_the_analyst_expects(rounds: int, spare: int, data: st.DataObject) -> None:
    plan = planned(rounds=rounds, spare_rounds=spare, evaluate_every=data.draw(st.integers(1, rounds)))
    way, seen, values = Way(plan), Way(plan), people(10)
    asked: list[int] = []
    try:
        while (slot := way.slot) is not None:
            assert slot not in asked
            asked.append(slot)
            if data.draw(st.booleans()):
                way.skip(slot)
                continue
            found = release(plan, way, slot, values)
            assert seen.expects(slot)
            for taken in (way, seen):
                taken.take(slot, found)
            if data.draw(st.booleans()):  # a restart: all that is known are the releases
                assert seen.slot is None or seen.slot not in asked
    except QuorumError:
        assert len([slot for slot in asked if slot < plan.trains]) == plan.trains
    else:
        assert way.trained == rounds
        assert set(asked) >= set(range(plan.trains, plan.slots))


def test_a_release_out_of_turn_is_not_expected() -> None:
    plan, values = planned(rounds=4, spare_rounds=1, evaluate_every=2, patience=1), people()
    way = Way(plan)
    assert not way.expects(5)  # an evaluation of a model that is not there yet
    assert not way.expects(7)
    way.take(1, release(plan, way, 1, values))
    assert not way.expects(0)
    assert not way.expects(1)
    way.take(2, release(plan, way, 2, values))
    assert way.expects(5)
    assert not way.expects(6)
    way.take(5, release(plan, way, 5, values))
    assert not way.expects(5)
    assert way.expects(3)
    assert not Way(planned(rounds=1, spare_rounds=3)).expects(4)


def test_the_measure_is_that_of_the_model_then() -> None:
    plan, values = planned(rounds=3, spare_rounds=0, evaluate_every=1), people()
    way = Way(plan)
    losses = []
    while (slot := way.slot) is not None:
        found = release(plan, way, slot, values)
        if slot >= plan.trains:
            name, value = headline(plan.of_slot(slot), found.sums)
            assert name == "loss"
            eta = way.theta[0] + way.theta[1] * values["x"]
            assert value == pytest.approx(np.mean(np.logaddexp(0, eta) - values["y"] * eta), abs=5e-3)
            told = evaluate(plan.of_slot(slot), found.sums, 0.0)
            assert told["persons"].value == pytest.approx(4000)
            losses.append(value)
        way.take(slot, found)
    assert losses[0] > losses[-1]


def test_patience_ends_it() -> None:
    plan = planned(rounds=10, spare_rounds=0, evaluate_every=1, patience=2)
    assert plan.evaluation is not None
    values, way, flip = people(), Way(plan), people()
    flip["y"] = 1 - flip["y"]
    for number in range(10):
        slot = way.slot
        assert slot is not None
        way.take(slot, release(plan, way, slot, values))
        slot = way.slot
        assert slot is not None
        found = release(plan, way, slot, values if number < 3 else flip)  # from then on the loss is worse than ever
        assert way.ends_with(slot, found) == (number == 4)
        way.take(slot, found)
        if number == 4:
            break
    assert way.over
    assert way.slot is None
    assert not way.expects(5)
    assert way.trained == 5


@pytest.mark.parametrize("how", [SGD, AVERAGE])
def test_evaluations_in_a_job_by_gradients_cost_what_its_rounds_do(how: Descent) -> None:
    plan = planned(rounds=6, spare_rounds=1, evaluate_every=2, descent=how)
    plain = planned(rounds=9, spare_rounds=1, descent=how)
    part = plan.evaluation
    assert part is not None
    assert plan.cost.nano == plain.cost.nano
    assert plan.rho_nano == plain.rho_nano
    values, theta = people(), np.array([0.0, 2.0])
    noise = part.noise(plan.rho_nano, threshold=3, colluders=0, invited=3)
    least = float(noise.central_variance) / 4.0**noise.refine_bits
    assert least >= how.noise_multiplier**2 * part.row_norm**2 * (1 - 1e-9)
    found = descent.scores(part, how.rate, values, theta) / 2.0**part.scale_bits
    persons = evaluate(part, found, 0.0)["persons"].value
    # 4000 persons at 0.25: beyond 6 standard deviations of 27 once in 5e8.
    assert abs(persons - 4000 * how.rate) <= 6 * (4000 * how.rate * (1 - how.rate)) ** 0.5 + 1e-6


def test_epsilon_buys_the_evaluations_too() -> None:
    asked: JobAsked = {
        "dataset": "d", "label": "y", "features": ["x"], "method": "sgd", "rate": 0.1, "clip": 1.0,
        "learning_rate": 0.5, "rounds": 20,
    }  # fmt: skip
    evaluated: JobAsked = {**asked, "evaluate_every": 4}
    for told in (asked, evaluated):
        job = job_of("logistic", DATASET, told, 2.0)
        assert make_job_plan(job, DATASET, stated_rho_nano(job, DATASET)).epsilon() <= 2.0
    plain, more = (job_of("logistic", DATASET, told, 2.0).descent for told in (asked, evaluated))
    assert plain is not None
    assert more is not None
    assert more.noise_multiplier > plain.noise_multiplier


def test_the_held_out_are_evaluated_and_nobody_is_in_both() -> None:
    plan, values = planned(rounds=2, evaluate_every=1, split="a", held_out=0.3), people()
    assert plan.evaluation is not None
    trained, held = (rounds._part(values, part, b"salt" * 8) for part in (plan, plan.evaluation))
    assert len(trained["x"]) + len(held["x"]) == 4000
    assert not set(trained["x"]) & set(held["x"])
    assert 800 < len(held["x"]) < 1600


def test_a_policy_knows_of_the_evaluations() -> None:
    assert question._job_operations(planned(rounds=2, evaluate_every=1)) == {"train", "evaluate"}
    assert question._job_operations(planned(rounds=2)) == {"train"}


@pytest.mark.parametrize(
    ("model", "asked", "said"),
    [
        ("logistic", {"evaluate_every": -1}, "evaluate_every"),
        ("logistic", {"evaluate_every": 9}, "evaluate_every"),
        ("logistic", {"patience": 2}, "needs evaluate_every"),
        ("logistic", {"evaluate_every": 2, "patience": -1}, "patience"),
        ("kmeans", {"evaluate_every": 1}, "not evaluated"),
    ],
)
def test_bad_wishes_are_refused(model: str, asked: dict[str, Any], said: str) -> None:
    how = {"clusters": Clusters(2)} if model == "kmeans" else {}
    with pytest.raises(QueryError, match=said):
        make_job(DATASET, model, "y" if model == "logistic" else "", (("x",),), rounds=8, **how, **asked)
