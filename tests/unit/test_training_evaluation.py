"""What a model is worth, from one sum: equal to scikit-learn's and lifelines' measures, with intervals that cover."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from queries.errors import QueryError
from queries.schema import from_toml
from queries.training.encode import decode_job, encode_job
from queries.training.evaluation import Evaluation, evaluate
from queries.training.job import Job, make_job
from queries.training.plan import JobPlan, make_job_plan
from queries.training.scores import BINS, RISKS, Scores

DATASET = from_toml(
    'name = "d"\nmax_persons = 10000\n[columns.x]\ntype = "number"\nlower = -1\nupper = 1\n'
    '[columns.y]\ntype = "category"\ncategories = ["no", "yes"]\n'
    '[columns.k]\ntype = "category"\ncategories = ["a", "b", "c"]\n'
    '[columns.v]\ntype = "number"\nlower = 0\nupper = 10\n'
)


def people(rows: int = 3000) -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    x = random.uniform(-1, 1, rows)
    y = (random.random(rows) < 1 / (1 + np.exp(-2.5 * x))).astype(float)
    k = (np.stack([0 * x, x, -2 * x]) + random.gumbel(size=(3, rows))).argmax(axis=0).astype(float)
    v = np.clip(5 + 2 * x + random.normal(0, 1, rows), 0, 10)
    return {"x": x, "y": y, "k": k, "v": v}


def scored(model: str, label: str, theta: list[float], **more: Any) -> JobPlan:
    job = make_job(DATASET, model, label, (("x",),), rounds=1, **more)
    return make_job_plan(replace(job, scored=tuple(theta)), DATASET, 2 * 10**9)


def measured(plan: JobPlan, values: dict[str, np.ndarray], noise: float = 0.0, seed: int = 0) -> Evaluation:
    exact = plan.sums(values, np.zeros(1)) / 2.0**plan.scale_bits
    return evaluate(plan, exact + np.random.default_rng(seed).normal(0, noise, plan.length), noise)


def test_two_classes() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    values = people()
    found = measured(scored("logistic", "y", [0.1, 2.0]), values)
    chance = 1 / (1 + np.exp(-(0.1 + 2 * values["x"])))
    assert found["persons"].value == pytest.approx(3000)
    assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(values["y"], chance >= 0.5))
    assert found["auc"].value == pytest.approx(metrics.roc_auc_score(values["y"], np.floor(chance * BINS)))
    assert found["auc"].value == pytest.approx(metrics.roc_auc_score(values["y"], chance), abs=2e-3)
    assert found["brier"].value == pytest.approx(metrics.brier_score_loss(values["y"], chance), abs=2e-3)
    assert found["loss"].value == pytest.approx(metrics.log_loss(values["y"], chance), abs=5e-3)
    for middle, share, low, high in found.calibration:
        chosen = np.floor(chance * BINS) == round(middle * BINS - 0.5)
        assert share == pytest.approx(values["y"][chosen].mean())
        assert low == high == share


def test_many_classes() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    values, theta = people(), [0.0, 1.0, 0.1, -2.0]
    found = measured(scored("multinomial", "k", theta), values)
    guessed = np.stack([0 * values["x"], values["x"], 0.1 - 2 * values["x"]]).argmax(axis=0)
    assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(values["k"], guessed))
    assert found.table == pytest.approx(metrics.confusion_matrix(values["k"], guessed).T)


def test_numbers() -> None:
    values = people()
    found = measured(scored("linear", "v", [0.0, 0.35]), values)
    error = 5 + 5 * 0.35 * values["x"] - values["v"]
    assert found["rmse"].value == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)
    assert found["bias"].value == pytest.approx(error.mean(), rel=1e-6)
    assert found["r2"].value == pytest.approx(1 - (error**2).mean() / values["v"].var(), rel=1e-6)


def test_times() -> None:
    lifelines = pytest.importorskip("lifelines.utils")
    random, x = np.random.default_rng(6), people()["x"]
    time = np.minimum(random.exponential(3 * np.exp(-x)), 10)
    event = (time < 10) & (random.random(len(x)) < 0.8)
    edges = tuple(np.linspace(0, 10, 401).tolist())
    plan = scored("cox", "v", [0.8], event="y", edges=edges)
    found = measured(plan, {"x": x, "v": time, "y": event.astype(float)})
    assert found["events"].value == pytest.approx(event.sum())
    assert found["c_index"].value == pytest.approx(lifelines.concordance_index(time, -x, event), abs=0.01)
    rounded = np.floor((x + 1) / 2 * RISKS)
    assert found["c_index"].value == pytest.approx(lifelines.concordance_index(time, -rounded, event), abs=2e-3)


def test_intervals_cover_the_pooled_value() -> None:
    """150 releases, 3 measures: 25 misses or fewer of 7.5 expected; more have probability below 10^-6 each."""
    values, plan = people(), scored("logistic", "y", [0.1, 2.0])
    truth = measured(plan, values)
    hits = dict.fromkeys(("accuracy", "auc", "brier"), 0)
    exact = dict.fromkeys(hits, 0)
    for seed in range(150):
        found = measured(plan, values, noise=8.0, seed=seed)
        for name in hits:
            hits[name] += found[name].low <= truth[name].value <= found[name].high
            exact[name] += abs(found[name].value - truth[name].value) < 1e-9
    assert min(hits.values()) >= 125
    assert max(exact.values()) == 0


def test_measures_stay_where_they_can_be() -> None:
    values = {name: column[:40] for name, column in people().items()}
    plan = scored("logistic", "y", [0.1, 9.0])
    held = 0
    for seed in range(30):
        found = measured(plan, values, noise=3.0, seed=seed)
        for name in ("accuracy", "auc", "specificity", "brier"):
            metric = found[name]
            held += metric.value in (0.0, 1.0)
            assert np.isnan(metric.value) or 0 <= metric.low <= metric.value <= metric.high <= 1
    assert held > 0  # the noise did lead outside


def test_each_person_is_one_cell() -> None:
    plan = scored("logistic", "y", [0.1, 2.0])
    values = {"x": np.array([0.3, np.nan, 0.2]), "y": np.array([1.0, 1.0, np.nan])}
    assert isinstance(plan.statistic, Scores)
    assert plan.sums(values, np.zeros(1)).sum() == 1 << plan.scale_bits  # what is no number is in no cell


def test_bad_evaluations() -> None:
    with pytest.raises(QueryError, match="another size"):
        scored("logistic", "y", [0.1])
    with pytest.raises(QueryError, match="finite"):
        scored("logistic", "y", [0.1, float("nan")])
    with pytest.raises(QueryError, match="split needs a name"):
        make_job(DATASET, "logistic", "y", (("x",),), held_out=0.5)
    job: Job = scored("logistic", "y", [0.1, 2.0], split="a", held_out=0.25).job
    assert decode_job(encode_job(job)) == job
