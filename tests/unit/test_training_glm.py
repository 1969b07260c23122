"""Regressions by released sums, with zero noise: what the pooled data give, to a millionth."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from harness.data import CNSIM_SCHEMA, cnsim_pooled, needs_data
from harness.training import GAUSSIAN, POISSON, SURVIVAL, gaussian_pooled, poisson_pooled, survival_pooled
from numpy.typing import NDArray

from queries.errors import QueryError
from queries.schema import Categorical, Dataset, from_toml
from queries.training import newton
from queries.training.job import Job, make_job
from queries.training.plan import make_job_plan

sm = pytest.importorskip("statsmodels.api")
smf = pytest.importorskip("statsmodels.formula.api")

CLOSE = 1e-6


def codes(frame: pd.DataFrame, dataset: Dataset, job: Job) -> dict[str, NDArray[np.float64]]:
    out = {}
    for name in job.columns:
        kind = dataset.column(name).kind
        if isinstance(kind, Categorical):
            keys = {key: float(code) for code, key in enumerate(kind.keys)}
            out[name] = frame[name].map(lambda value, keys=keys: keys[str(value)]).to_numpy(float)
        else:
            out[name] = frame[name].to_numpy(float)
    return out


def trained(dataset: Dataset, job: Job, values: Mapping[str, NDArray[np.float64]]) -> newton.Fit:
    plan = make_job_plan(job, dataset, 10**9)
    theta = newton.initial(plan)
    releases = []
    for _ in range(job.rounds):
        sums = plan.sums(values, theta) / 2.0**plan.scale_bits
        releases.append(newton.Released(theta, sums, 0.0))
        theta = newton.advance(plan, releases[-1])
    return newton.fit(plan, releases)


def value(fit: newton.Fit, name: str) -> float:
    return next(c.value for c in fit.coefficients if c.name == name)


def error(fit: newton.Fit, name: str) -> float:
    return next(c.standard_error for c in fit.coefficients if c.name == name)


@needs_data
def test_poisson_equals_what_vantage6_publishes() -> None:
    dataset, frame = from_toml(POISSON), poisson_pooled()
    job = make_job(dataset, "poisson", "num_awards", (("prog",), ("math",)), rounds=24)
    fit = trained(dataset, job, codes(frame, dataset, job))
    model = smf.glm("num_awards ~ C(prog, Treatment('General')) + math", frame, family=sm.families.Poisson()).fit()
    reference = dict(zip(["(intercept)", "prog=Academic", "prog=Vocational", "math"], model.params, strict=True))
    for name, expected in reference.items():
        assert value(fit, name) == pytest.approx(expected, rel=CLOSE)
    assert error(fit, "math") == pytest.approx(model.bse["math"], rel=CLOSE)
    assert value(fit, "(intercept)") == pytest.approx(-5.24712, abs=5e-6)
    assert value(fit, "math") == pytest.approx(0.07015, abs=5e-6)
    assert fit.deviance == pytest.approx(189.4496, abs=5e-5)
    assert fit.null_deviance == pytest.approx(287.6722, abs=5e-5)


@needs_data
def test_linear_needs_one_round() -> None:
    dataset, frame = from_toml(GAUSSIAN), gaussian_pooled()
    job = make_job(dataset, "linear", "volume", (("girth",),))
    assert job.rounds == 1
    fit = trained(dataset, job, codes(frame, dataset, job))
    model = smf.ols("volume ~ girth", frame).fit()
    assert value(fit, "girth") == pytest.approx(model.params["girth"], rel=CLOSE)
    assert value(fit, "(intercept)") == pytest.approx(model.params["Intercept"], rel=CLOSE)
    assert error(fit, "girth") == pytest.approx(model.bse["girth"], rel=CLOSE)
    assert fit.deviance == pytest.approx(model.ssr, rel=CLOSE)
    assert fit.null_deviance == pytest.approx(model.centered_tss, rel=CLOSE)


@needs_data
def test_logistic_with_interaction() -> None:
    dataset = from_toml(CNSIM_SCHEMA)
    names = ["gender", "bmi", "lab_hdl", "dis_diab"]
    frame = cnsim_pooled()[names].dropna()
    terms = (("gender",), ("bmi",), ("gender", "bmi"), ("lab_hdl",))
    job = make_job(dataset, "logistic", "dis_diab", terms, rounds=24)
    fit = trained(dataset, job, codes(frame.astype({"gender": int, "dis_diab": int}), dataset, job))
    model = smf.glm("dis_diab ~ gender * bmi + lab_hdl", frame, family=sm.families.Binomial()).fit()
    for ours, theirs in [("(intercept)", "Intercept"), ("gender=1", "gender"), ("bmi", "bmi"),
                         ("bmi:gender=1", "gender:bmi"), ("lab_hdl", "lab_hdl")]:  # fmt: skip
        assert value(fit, ours) == pytest.approx(model.params[theirs], rel=CLOSE, abs=1e-9)
        assert error(fit, ours) == pytest.approx(model.bse[theirs], rel=CLOSE)
    assert fit.deviance == pytest.approx(1036.031, abs=5e-4)
    assert fit.count - len(fit.coefficients) == pytest.approx(7480, abs=0.01)


@needs_data
def test_cox_equals_the_partial_likelihood_where_times_are_apart() -> None:
    lifelines = pytest.importorskip("lifelines")
    dataset, frame = from_toml(SURVIVAL), survival_pooled()
    times = np.unique(frame["eventtime"])
    edges = (0.0, *((times[1:] + times[:-1]) / 2).tolist(), 10.0)
    job = make_job(dataset, "cox", "eventtime", (("sex",), ("age",)), event="status", edges=edges, rounds=14)
    fit = trained(dataset, job, codes(frame, dataset, job))
    model = lifelines.CoxPHFitter().fit(
        frame[["eventtime", "status", "sex", "age"]], "eventtime", "status", fit_options={"precision": 1e-12}
    )
    assert value(fit, "sex=1") == pytest.approx(model.params_["sex"], rel=CLOSE)
    assert value(fit, "age") == pytest.approx(model.params_["age"], rel=CLOSE)
    assert error(fit, "age") == pytest.approx(model.standard_errors_["age"], rel=CLOSE)
    assert fit.log_likelihood == pytest.approx(model.log_likelihood_, rel=CLOSE)


def test_multinomial() -> None:
    random = np.random.default_rng(5)
    dataset = from_toml(
        'name = "d"\n[columns.x]\ntype = "number"\nlower = -3\nupper = 3\n'
        '[columns.y]\ntype = "category"\ncategories = ["a", "b", "c"]\n'
    )
    x = random.uniform(-3, 3, 4000)
    scores = np.stack([np.zeros_like(x), 0.5 + x, -0.5 - 0.7 * x], axis=1) + random.gumbel(size=(len(x), 3))
    y = scores.argmax(axis=1)
    job = make_job(dataset, "multinomial", "y", (("x",),), rounds=24)
    fit = trained(dataset, job, {"x": x, "y": y.astype(float)})
    model = sm.MNLogit(y, sm.add_constant(x)).fit(disp=0, tol=1e-12)
    expected = np.asarray(model.params)
    assert value(fit, "b: (intercept)") == pytest.approx(expected[0, 0], rel=CLOSE)
    assert value(fit, "c: x") == pytest.approx(expected[1, 1], rel=CLOSE)
    assert error(fit, "c: x") == pytest.approx(np.asarray(model.bse)[1, 1], rel=CLOSE)


def simulated(random: np.random.Generator, rows: int) -> dict[str, NDArray[np.float64]]:
    x, z = random.uniform(-1, 1, rows), (random.random(rows) < 0.4).astype(float)
    chance = 1 / (1 + np.exp(-(-0.4 + 0.8 * x - 0.6 * z)))
    return {"x": x, "z": z, "y": (random.random(rows) < chance).astype(float)}


SIMULATED = from_toml(
    'name = "d"\nmax_persons = 100000\n[columns.x]\ntype = "number"\nlower = -1\nupper = 1\n'
    '[columns.z]\ntype = "category"\ncategories = ["no", "yes"]\n'
    '[columns.y]\ntype = "category"\ncategories = ["no", "yes"]\n'
)


def test_intervals_cover_the_truth_and_the_pooled_fit() -> None:
    """120 jobs, 3 coefficients. With 95% coverage fewer than 84% of 120 has probability below 1e-6 each."""
    random = np.random.default_rng(11)
    job = make_job(SIMULATED, "logistic", "y", (("x",), ("z",)), rounds=6, spare_rounds=0)
    plan = make_job_plan(job, SIMULATED, 20_000_000)
    deviation = math.sqrt(plan.delta_squared * 10**9 / (2 * plan.round_rho_nano)) / 2.0**plan.scale_bits
    truth = {"(intercept)": -0.4, "x": 0.8, "z=yes": -0.6}
    hits = dict.fromkeys(truth, 0)
    naive = dict.fromkeys(truth, 0)
    jobs = 120
    for _ in range(jobs):
        values = simulated(random, 3000)
        theta, releases = newton.initial(plan), []
        for _ in range(job.rounds):
            exact = plan.sums(values, theta) / 2.0**plan.scale_bits
            releases.append(newton.Released(theta, exact + random.normal(0, deviation, plan.length), deviation))
            theta = newton.advance(plan, releases[-1])
        for coefficient in newton.fit(plan, releases).coefficients:
            true = truth[coefficient.name]
            hits[coefficient.name] += coefficient.low <= true <= coefficient.high
            sampling = 1.96 * math.sqrt(max(coefficient.standard_error**2 - coefficient.noise_error**2, 0))
            naive[coefficient.name] += abs(coefficient.value - true) <= sampling
    assert min(hits.values()) >= 0.84 * jobs
    assert min(naive.values()) < 0.84 * jobs  # an interval that forgets the noise is found out


def test_separable_classes_diverge_with_advice() -> None:
    x = np.linspace(-1, 1, 400)
    values = {"x": x, "z": np.zeros(400), "y": (x > 0).astype(float)}
    job = make_job(SIMULATED, "logistic", "y", (("x",),), rounds=60)
    with pytest.raises(QueryError, match="diverged") as error_:
        trained(SIMULATED, job, {name: values[name] for name in job.columns})
    assert "ridge" in error_.value.hint
    penalised = make_job(SIMULATED, "logistic", "y", (("x",),), rounds=20, ridge=0.01)
    fit = trained(SIMULATED, penalised, {name: values[name] for name in penalised.columns})
    assert 0 < value(fit, "x") < 50


def test_values_that_are_no_numbers_add_nothing() -> None:
    plan = make_job_plan(make_job(SIMULATED, "logistic", "y", (("x",),)), SIMULATED, 10**9)
    theta = np.array([0.1, 0.2])
    good = {"x": np.array([0.5, -0.25]), "y": np.array([1.0, 0.0])}
    bad = {"x": np.array([0.5, np.nan, -0.25]), "y": np.array([1.0, 1.0, 0.0])}
    assert np.array_equal(plan.sums(good, theta), plan.sums(bad, theta))


def test_constant_feature_keeps_the_others_finite() -> None:
    random = np.random.default_rng(3)
    values = simulated(random, 2000)
    values["z"] = np.zeros(2000)
    job = make_job(SIMULATED, "logistic", "y", (("x",), ("z",)), rounds=12)
    fit = trained(SIMULATED, job, values)
    assert value(fit, "x") == pytest.approx(0.8, abs=0.3)
    assert all(math.isfinite(c.value) for c in fit.coefficients)


def test_what_noise_hides_is_said() -> None:
    """Too few persons for the noise, and too few rounds: either way the fit says that its intervals do not hold."""
    random = np.random.default_rng(8)
    values = simulated(random, 60)
    job = make_job(SIMULATED, "logistic", "y", (("x",), ("z",)), rounds=6, spare_rounds=0)
    plan = make_job_plan(job, SIMULATED, 20_000_000)
    deviation = math.sqrt(plan.delta_squared * 10**9 / (2 * plan.round_rho_nano)) / 2.0**plan.scale_bits
    theta, releases = newton.initial(plan), []
    for _ in range(job.rounds):
        exact = plan.sums(values, theta) / 2.0**plan.scale_bits
        releases.append(newton.Released(theta, exact + random.normal(0, deviation, plan.length), deviation))
        theta = newton.advance(plan, releases[-1])
    assert not newton.fit(plan, releases).converged
    short = make_job(SIMULATED, "logistic", "y", (("x",), ("z",)), rounds=1)
    assert not trained(SIMULATED, short, simulated(random, 3000)).converged
    long = make_job(SIMULATED, "logistic", "y", (("x",), ("z",)), rounds=10)
    assert trained(SIMULATED, long, simulated(random, 3000)).converged
