"""Training by gradients: bounds in integers, fair samples, and the same distribution as on pooled data."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from analytics_client.agent.training import descent
from queries.errors import QueryError
from queries.schema import from_toml
from queries.subsampling import cost_of_round
from queries.training.course import make_course
from queries.training.descent import Descent
from queries.training.encode import decode_job, encode_job
from queries.training.gradients import Gradients
from queries.training.job import Job, make_job
from queries.training.newton import Released
from queries.training.plan import JobPlan, make_job_plan, stated_rho_nano, stochastic_norm
from trust.lanes import lanes_of

DATASET = from_toml(
    'name = "d"\nmax_persons = 4000\n[columns.x]\ntype = "number"\nlower = -1\nupper = 1\n'
    '[columns.z]\ntype = "number"\nlower = -1\nupper = 1\n'
    '[columns.y]\ntype = "category"\ncategories = ["no", "yes"]\n'
)
SGD = Descent("sgd", "sgd", rate=0.05, noise_multiplier=1.0, clip=1.0, batch=200.0, learning_rate=1.0)


def job(model: str = "logistic", how: Descent = SGD, **more: Any) -> Job:
    return make_job(DATASET, model, "y", (("x",), ("z",)), descent=how, **({"rounds": 20} | more))


def planned(asked: Job) -> JobPlan:
    return make_job_plan(asked, DATASET, stated_rho_nano(asked, DATASET))


def people(rows: int = 4000, seed: int = 1) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x, z = random.uniform(-1, 1, (2, rows))
    return {"x": x, "z": z, "y": (random.random(rows) < 1 / (1 + np.exp(-2 * x + z))).astype(float)}


def test_the_charge_is_of_sampled_rounds() -> None:
    plan = planned(job())
    assert plan.cost == cost_of_round(0.05, 1.0) * 21
    assert plan.epsilon() == pytest.approx(plan.cost.epsilon(DATASET.delta))
    with pytest.raises(QueryError, match="another cost"):
        make_job_plan(plan.job, DATASET, plan.rho_nano * 2)
    assert decode_job(encode_job(plan.job)) == plan.job


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate": 0.0}, "rate"), ({"clip": 0.0}, "clip"), ({"clip": math.nan}, "clip"),
        ({"noise_multiplier": 0.0}, "noise_multiplier"), ({"learning_rate": -1.0}, "learning_rate"),
        ({"hidden": (4,)}, "hidden"), ({"method": "average"}, "averaging"), ({"local_steps": 3}, "local steps"),
        ({"optimizer": "lbfgs"}, "unknown"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        job(how=replace(SGD, **change))


def test_each_row_takes_part_by_chance_of_its_own() -> None:
    """8,000 samples of 50 rows; a chi-square over rows and one over sizes, each fails by chance once in 10^6."""
    counts, sizes = np.zeros(50), []
    for _ in range(8000):
        chosen = descent.sample(50, 0.3)
        counts[chosen] += 1
        sizes.append(len(chosen))
    expected = 8000 * 0.3
    assert stats.chi2.sf((((counts - expected) ** 2) / (expected * 0.7)).sum(), 50) > 1e-6
    binomial = stats.binom(50, 0.3)
    low, high = int(binomial.ppf(0.01)), int(binomial.ppf(0.99))
    seen = np.bincount(np.clip(sizes, low, high), minlength=high + 1)[low:]
    chance = binomial.pmf(np.arange(low, high + 1))
    chance[0], chance[-1] = binomial.cdf(low), binomial.sf(high - 1)
    assert stats.chisquare(seen, chance * 8000).pvalue > 1e-6
    # A sample of fixed size, the usual slip, is found out.
    assert stats.chisquare(np.where(np.arange(len(seen)) == 15 - low, 8000, 0), chance * 8000).pvalue < 1e-6


ROWS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.one_of(
        st.floats(-2, 2, width=32),
        st.sampled_from([1e30, -1e30, 3e38, math.nan, math.inf, 1e-30]),
    ),
)


@given(ROWS, st.sampled_from([4, 13, 16, 24]), st.integers(0, 2**32))
@settings(deadline=None)
def test_no_row_is_longer_than_the_stated_norm(block: np.ndarray, bits: int, seed: int) -> None:
    norm = stochastic_norm(bits, block.shape[1])
    for row in block:
        with np.errstate(all="ignore"):
            moved = descent.bounded(row[None, :], bits, norm, np.random.default_rng(seed))
        assert sum(int(entry) ** 2 for entry in moved) <= norm**2


@pytest.mark.parametrize(
    ("persons", "rate", "bits", "ring"),
    [
        (1_000, 0.2, 16, 32),
        (10_000, 0.05, 14, 32),
        (100_000, 0.01, 14, 32),  # at 2^16, ten institutions' sums need 33 bits
        (1_000_000, 0.1, 16, 64),  # no lattice that is fine enough makes these fit
    ],
)
def test_the_lattice_is_coarser_where_that_halves_the_wire(persons: int, rate: float, bits: int, ring: int) -> None:
    how = replace(SGD, rate=rate, batch=rate * persons, hidden=(1000, 1000))
    wide = replace(DATASET, max_persons=persons)
    asked = make_job(wide, "mlp", "y", (("x",), ("z",)), descent=how, rounds=10)
    plan = make_job_plan(asked, wide, stated_rho_nano(asked, wide))
    assert plan.length > 1_000_000
    assert plan.scale_bits == bits
    assert plan.row_norm <= 1.0025 * 2**bits
    noise = plan.noise(plan.rho_nano, threshold=7, colluders=1, invited=10)
    lanes = lanes_of(plan, noise, 10)
    assert lanes.ring_bits / lanes.per_element == ring


def test_rounding_is_right_on_average() -> None:
    """The mean of 40,000 roundings, each entry's standard error at most 1/400; 6 of them fail once in 10^8."""
    random = np.random.default_rng(2)
    row = random.uniform(-0.2, 0.2, 9).astype(np.float32)
    repeated = np.repeat(row[None, :], 40_000, axis=0)
    total = descent.bounded(repeated, 4, stochastic_norm(4, 9), random)
    exact = row * (1 - 2.0**-20) * 16
    assert np.abs(total / 40_000 - exact).max() < 6 * 0.5 / math.sqrt(40_000)
    assert np.abs(np.rint(exact) - exact).max() > 6 * 0.5 / math.sqrt(40_000)  # rounding to the nearest is not


def test_a_round_is_distributed_like_one_on_pooled_data() -> None:
    """Sums of three institutions against one with all rows: 600 rounds each, two-sample tests at 10^-6 each entry."""
    plan, values = planned(job()), people()
    theta = np.array([0.1, -0.3, 0.2])
    cuts = [slice(0, 500), slice(500, 1500), slice(1500, 4000)]
    parts = [{name: column[cut] for name, column in values.items()} for cut in cuts]
    apart = np.array([sum(descent.sums(plan, part, theta) for part in parts) for _ in range(600)])
    pooled = np.array([descent.sums(plan, values, theta) for _ in range(600)])
    for place in range(plan.length):
        assert stats.ks_2samp(apart[:, place], pooled[:, place]).pvalue > 1e-6
    statistic = plan.statistic
    assert isinstance(statistic, Gradients)
    rows = statistic.rows(values, theta)
    clipped = rows / np.maximum(np.linalg.norm(rows, axis=1), 1)[:, None]
    mean = apart.mean(axis=0) / 2.0**plan.scale_bits
    error = np.sqrt(0.05 * (clipped**2).sum(axis=0) / 600)
    assert np.abs(mean - 0.05 * clipped.sum(axis=0)).max() < 6 * error.max()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_it_learns(optimizer: str) -> None:
    how = replace(SGD, optimizer=optimizer, learning_rate={"sgd": 2.0, "momentum": 0.3, "adam": 0.1}[optimizer])
    plan, values = planned(job(how=how, rounds=150)), people()
    course, random = make_course(plan), np.random.default_rng(3)
    for _ in range(150):
        exact = descent.sums(plan, values, course.theta) / 2.0**plan.scale_bits
        course.take(Released(course.theta, exact + random.normal(0, 1.0, plan.length), 1.0, 3))
    assert course.theta[1] > 0.8
    assert course.theta[2] < -0.3


@pytest.mark.parametrize("proximal", [0.0, 0.1])
def test_averaging_learns(proximal: float) -> None:
    how = Descent("average", "sgd", 1.0, 0.5, 2.0, 1.0, 1.0, local_steps=60, local_rate=0.2, proximal=proximal)
    plan, values = planned(job(how=how, rounds=8)), people()
    assert plan.delta_squared == (2 * plan.row_norm) ** 2
    parts = [{name: column[start::3] for name, column in values.items()} for start in range(3)]
    course = make_course(plan)
    for _ in range(8):
        exact = sum(descent.sums(plan, part, course.theta) for part in parts) / 2.0**plan.scale_bits
        course.take(Released(course.theta, exact, 0.0, 3))
    assert course.theta[1] == pytest.approx(2.0, abs=0.5)


def test_divergence_is_said() -> None:
    course = make_course(planned(job(how=replace(SGD, learning_rate=1e6))))
    with pytest.raises(QueryError, match="diverged"):
        course.take(Released(course.theta, np.full(3, 1e9), 0.0, 3))
    assert np.array_equal(course.theta, np.zeros(3))


def test_gradients_of_a_network_are_those_of_its_loss() -> None:
    pytest.importorskip("torch")
    how = replace(SGD, hidden=(5, 4), clip=0.7, seed=9)
    plan = planned(job("mlp", how))
    statistic = plan.statistic
    assert isinstance(statistic, Gradients)
    values = {name: column[:6] for name, column in people().items()}
    theta = statistic.initial()

    def loss(at: np.ndarray) -> np.ndarray:
        chances = statistic.mean(statistic.design.matrix(values), at)
        return -np.log(chances[np.arange(6), values["y"].astype(int)])

    found = descent.local_gradients(statistic).rows(values, theta)
    for place in range(0, len(theta), 7):
        step = np.zeros_like(theta)
        step[place] = 1e-5
        slope = (loss(theta + step) - loss(theta - step)) / 2e-5
        assert found[:, place] * 0.7 == pytest.approx(slope, abs=2e-5)


def test_an_agent_without_torch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "analytics_client.agent.training.networks", None)
    statistic = planned(job("mlp", replace(SGD, hidden=(3,)))).statistic
    assert isinstance(statistic, Gradients)
    with pytest.raises(QueryError, match="without PyTorch"):
        descent.local_gradients(statistic)
