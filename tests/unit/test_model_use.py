"""A model in use: scikit-learn takes its estimators, pictures draw it, weights are saved, with what each cannot do."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness.jobs import run

from analytics_client.result import Cost
from analytics_client.training import EvaluationResult, Trained, model_of
from analytics_client.training.rounds import Round, VerifiedRounds
from queries.errors import QueryError
from queries.schema import from_toml
from queries.training.evaluation import evaluate
from queries.training.job import make_job
from queries.training.options import Clusters, Trees
from queries.training.plan import make_job_plan

DATASET = from_toml(
    'name = "d"\nmax_persons = 10000\n[columns.x]\ntype = "number"\nlower = -1\nupper = 1\n'
    '[columns.k]\ntype = "category"\ncategories = ["a", "b", "c"]\n'
    '[columns.y]\ntype = "category"\ncategories = ["no", "yes"]\n'
    '[columns.v]\ntype = "number"\nlower = 0\nupper = 10\n'
)


def frame(rows: int = 800) -> pd.DataFrame:
    random = np.random.default_rng(4)
    x, k = random.uniform(-1, 1, rows), random.integers(0, 3, rows)
    y = random.random(rows) < 1 / (1 + np.exp(-3 * x))
    v = np.clip(5 + 2 * x + k + random.normal(0, 0.5, rows), 0, 10)
    return pd.DataFrame({"x": x, "k": np.array(list("abc"))[k], "y": np.where(y, "yes", "no"), "v": v})


def codes(given: pd.DataFrame) -> dict[str, np.ndarray]:
    keys = {"k": ["a", "b", "c"], "y": ["no", "yes"]}
    return {
        name: given[name].map(keys[name].index).to_numpy(float) if name in keys else given[name].to_numpy(float)
        for name in given
    }


def trained(model: str, label: str, features: str, **more: Any) -> Trained:
    job = make_job(DATASET, model, label, tuple((name,) for name in features), **more)
    plan = make_job_plan(job, DATASET, 4 * 10**9)
    releases = run(plan, codes(frame()))
    logged = tuple(Round(n + 1, n, ("a", "b", "c"), 3, 10 + n) for n in range(len(releases)))
    rounds = VerifiedRounds(logged, tuple(releases), releases[-1].theta, False, 99, b"", b"")
    return model_of(plan, rounds, bytes(32))


def logistic() -> Trained:
    return trained("logistic", "y", "xk", rounds=8)


@pytest.mark.parametrize("model", ["logistic", "multinomial", "boosting"])
def test_a_classifier_for_scikit_learn(model: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    from sklearn.inspection import permutation_importance
    from sklearn.utils.validation import check_is_fitted

    more: dict[str, Any] = {"trees": Trees(8, 2)} if model == "boosting" else {"rounds": 8}
    label, features = ("k", "xv") if model == "multinomial" else ("y", "xk")
    found = trained(model, label, features, **more)
    estimator, rows = found.to_sklearn(), frame()
    check_is_fitted(estimator)
    keys = list(DATASET.categorical(label).keys)
    assert estimator.classes_.tolist() == keys
    assert estimator.feature_names_in_.tolist() == list(features)
    assert estimator.predict_proba(rows).shape == (800, len(keys))
    assert np.array_equal(estimator.predict_proba(rows), found.predict(rows))
    assert np.array_equal(estimator.predict_proba(rows[list(features)].to_numpy()), found.predict(rows))
    guessed = estimator.predict(rows)
    assert estimator.score(rows, rows[label]) == metrics.accuracy_score(rows[label], guessed) > 0.5
    assert metrics.get_scorer("neg_log_loss")(estimator, rows, rows[label]) < 0
    tried = permutation_importance(estimator, rows[list(features)], rows[label], n_repeats=1, random_state=0)
    assert tried.importances_mean.shape == (len(features),)
    again = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(again.predict_proba(rows), estimator.predict_proba(rows))
    with pytest.raises(ValueError, match="columns are expected"):
        estimator.predict(np.zeros((3, 5)))
    with pytest.raises(QueryError, match="trained already"):
        estimator.fit(rows, rows[label])


def test_a_regressor_and_a_clusterer() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rows = frame()
    regressor = trained("linear", "v", "xk").to_sklearn()
    assert regressor.score(rows, rows["v"]) == metrics.r2_score(rows["v"], regressor.predict(rows)) > 0.8
    clusterer = trained("kmeans", "", "xv", rounds=5, clusters=Clusters(3)).to_sklearn()
    assert set(clusterer.predict(rows)) <= {0, 1, 2}


def test_nothing_unfitted_predicts() -> None:
    exceptions = pytest.importorskip("sklearn.exceptions")
    from analytics_client.training.estimator import FederatedClassifier

    with pytest.raises(exceptions.NotFittedError):
        FederatedClassifier().predict(frame())


def test_missing_columns_are_named() -> None:
    with pytest.raises(QueryError, match="needs column 'k'"):
        logistic().predict(frame()[["x"]])


@pytest.mark.parametrize(
    ("model", "kind", "drawn"),
    [("logistic", "forest", 3), ("logistic", "curve", 8), ("kmeans", "forest", 6), ("boosting", "gains", 2)],
)
def test_pictures(model: str, kind: str, drawn: int) -> None:
    pytest.importorskip("matplotlib").use("agg")
    found = {
        "logistic": logistic,
        "kmeans": lambda: trained("kmeans", "", "xv", rounds=5, clusters=Clusters(3)),
        "boosting": lambda: trained("boosting", "y", "xk", trees=Trees(3, 2, splits="histogram")),
    }[model]()
    axes = found.plot(kind)  # type: ignore[arg-type]
    assert axes.get_title(loc="left").startswith(f"train {model}")
    shown = {
        "forest": lambda: len(axes.get_yticks()),
        "curve": lambda: len(axes.lines[0].get_xdata()),
        "gains": lambda: len(axes.patches),
    }[kind]()
    assert shown == drawn
    if kind == "curve":
        assert axes.lines[0].get_ydata()[-1] < axes.lines[0].get_ydata()[0] == pytest.approx(np.log(2), abs=1e-6)


def test_pictures_that_there_are_not() -> None:
    pytest.importorskip("matplotlib").use("agg")
    with pytest.raises(QueryError, match="no gains"):
        logistic().plot("gains")
    with pytest.raises(QueryError, match="no picture"):
        logistic().plot("pie")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="no coefficients"):
        trained("boosting", "y", "xk", trees=Trees(3, 2)).plot("forest")


def test_calibration_is_drawn_with_its_intervals() -> None:
    pytest.importorskip("matplotlib").use("agg")
    model = logistic()
    job = make_job(DATASET, "logistic", "y", (("x",), ("k",)), rounds=1)
    plan = make_job_plan(replace(job, scored=tuple(model.theta.tolist())), DATASET, 10**9)
    found = evaluate(plan, plan.sums(codes(frame()), np.zeros(1)) / 2.0**plan.scale_bits, 1.0)
    result = EvaluationResult(found, job.shape, "d", "00", Cost(1.0, 2.0, 1e-6), ("a",), 3)
    axes = result.plot()
    assert len(axes.containers[0][0].get_xdata()) == len(found.calibration) > 5


def test_weights_are_saved_with_what_they_are(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    model = trained("boosting", "y", "xk", trees=Trees(3, 2))
    model.save(tmp_path / "w.safetensors")
    with safetensors.safe_open(tmp_path / "w.safetensors", "np") as stored:
        assert np.array_equal(stored.get_tensor("theta"), model.theta)
        assert json.loads(stored.metadata()["cohortium"])["model"] == "boosting"
