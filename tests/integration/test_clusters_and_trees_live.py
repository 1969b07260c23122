"""Clusters and trees over real gRPC, ledgers and stores: what the pooled rows give, as tables, cards and estimators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.consortium import Consortium, consortium
from harness.data import needs_data
from harness.jobs import run
from harness.noiseless import remove_noise
from harness.training import POISSON, party_files, poisson_pooled
from typer.testing import CliRunner, Result

from analytics_client.cli import app
from analytics_client.training import ClusterModel, TreeModel
from queries.errors import BudgetError, ConfigError, QueryError
from queries.training import clusters, forest

pytestmark = needs_data
GROUPS = {"dataset": "awards", "features": ["num_awards", "math"], "clusters": 3, "rounds": 30}
TREES = {"dataset": "awards", "label": "num_awards", "features": ["prog", "math"], "trees": 4, "depth": 2}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with consortium(
        tmp_path_factory.mktemp("grown"), [POISSON], party_files("poisson", "awards"), epsilon=100_000.0
    ) as running:
        yield running


def pooled() -> dict[str, np.ndarray]:
    frame = poisson_pooled()
    codes = {"General": 0.0, "Academic": 1.0, "Vocational": 2.0}
    return {
        "num_awards": frame["num_awards"].to_numpy(float),
        "math": frame["math"].to_numpy(float),
        "prog": frame["prog"].map(codes).to_numpy(float),
    }


def test_clusters_are_those_of_the_pooled_rows(built: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    remove_noise(monkeypatch)
    with built.session() as session:
        model = session.train("kmeans", rho=1.0, **GROUPS)
        with pytest.raises(QueryError, match="spread tells its worth"):
            session.evaluate(model, rho=0.1)
    assert isinstance(model, ClusterModel)
    own = clusters.fit(model.plan, run(model.plan, pooled()))
    assert model.theta == pytest.approx(own.theta, abs=1e-9)
    assert sum(cluster.size for cluster in model.clusters) == pytest.approx(200, abs=1e-6)
    assert len(model.losses) == 30
    labels = model.to_sklearn().predict(poisson_pooled())
    assert np.bincount(labels, minlength=3) == pytest.approx([cluster.size for cluster in model.clusters], abs=1e-6)
    assert "cluster" in str(model)
    assert "| 0 |" in model.card()
    assert list(model.to_pandas().columns) == ["size", "clear", "num_awards", "math"]


@pytest.mark.parametrize("splits", ["random", "histogram"])
def test_trees_are_those_of_the_pooled_rows(built: Consortium, monkeypatch: pytest.MonkeyPatch, splits: str) -> None:
    remove_noise(monkeypatch)
    with built.session() as session:
        model = session.train("boosting", rho=1.0, splits=splits, **TREES)
        worth = session.evaluate(model, rho=0.5)
    assert isinstance(model, TreeModel)
    assert model.complete
    own = forest.fit(model.plan, run(model.plan, pooled()))
    assert model.theta == pytest.approx(own.theta, abs=1e-9)
    frame = poisson_pooled()
    error = np.sqrt(np.mean((model.predict(frame) - frame["num_awards"]) ** 2))
    assert worth["rmse"].value == pytest.approx(error, rel=1e-5)
    assert "complete trees" in str(model)
    assert f"4 of 4 trees of depth 2, {splits}" in model.card()
    assert model.to_dict()["trees"] == 4


def test_trees_of_many_categories_are_evaluated_as_they_grow(
    built: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_noise(monkeypatch)
    asked = TREES | {"label": "prog", "features": ["math", "num_awards"], "evaluate_every": 2}
    with built.session() as session:
        model = session.train("boosting", rho=1.0, splits="random", **asked)
    assert isinstance(model, TreeModel)
    chance = model.predict(poisson_pooled())
    assert chance.shape == (200, 3)
    assert chance.sum(axis=1) == pytest.approx(1)
    right = (chance.argmax(axis=1) == pooled()["prog"]).mean()
    assert right > 0.55  # the largest category has 105 of 200
    assert [each.round.number for each in model.evaluations] == [2, 4]
    assert model.evaluations[-1].evaluation["accuracy"].value == pytest.approx(right, abs=1e-6)
    guessed = model.to_sklearn().predict(poisson_pooled())
    assert set(guessed) <= {"General", "Academic", "Vocational"}
    assert "Evaluated on the way" in model.card()


def test_clusters_over_categories(built: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    remove_noise(monkeypatch)
    with built.session() as session:
        model = session.train("kmeans", rho=1.0, **(GROUPS | {"features": ["math", "prog"]}))
    assert isinstance(model, ClusterModel)
    assert model.theta == pytest.approx(clusters.fit(model.plan, run(model.plan, pooled())).theta, abs=1e-9)
    labels = model.to_sklearn().predict(poisson_pooled())
    shares = model.to_pandas()[["prog=General", "prog=Academic", "prog=Vocational"]]
    for number, row in enumerate(shares.to_numpy()):
        if model.clusters[number].clear:
            assert row == pytest.approx([(pooled()["prog"][labels == number] == code).mean() for code in range(3)])


def test_with_noise_explain_and_model_agree(built: Consortium) -> None:
    with built.session() as session:
        explained = session.explain_job("kmeans", epsilon=8.0, **GROUPS)
        model = session.train("kmeans", epsilon=8.0, **GROUPS)
        again = session.model(model.request_id[:12])
        hopeless = session.explain_job("kmeans", epsilon=0.01, **GROUPS)
        drowned = session.explain_job("boosting", epsilon=0.01, **TREES)
    assert again.to_dict() == model.to_dict()
    assert model.cost.epsilon < explained.cost.epsilon <= 8.0  # the spare round was given back
    assert "sizes ±" in str(explained)
    assert "spend more" in hopeless.warning
    assert "spend more" in drowned.warning


@pytest.mark.parametrize(
    ("model", "asked", "said"),
    [
        ("kmeans", {"dataset": "awards", "features": ["math"]}, "how many clusters"),
        ("boosting", {"dataset": "awards", "label": "math", "features": ["prog"], "trees": 4}, "how deep"),
        ("boosting", {"dataset": "awards", "features": ["prog"], "trees": 4, "depth": 2}, "what to predict"),
        ("linear", {"dataset": "awards", "label": "math", "features": ["prog"], "depth": 2}, "only boosting has depth"),
        ("linear", {"dataset": "awards", "label": "math", "features": ["prog"], "clusters": 2}, "only kmeans"),
        ("boosting", TREES | {"splits": "best"}, "no splits of kind 'best'"),
    ],
)
def test_bad_jobs_say_what_is_missing(built: Consortium, model: str, asked: dict[str, object], said: str) -> None:
    with built.session() as session, pytest.raises(QueryError, match=said):
        session.explain_job(model, epsilon=1.0, **asked)  # type: ignore[arg-type]


def test_the_commands_train_evaluate_and_draw(built: Consortium, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("agg")
    (tmp_path / "job.toml").write_text(
        'dataset = "awards"\nmodel = "boosting"\nlabel = "num_awards"\nfeatures = ["prog", "math"]\n'
        'trees = 3\ndepth = 2\nepsilon = 20\nsplit = "cli"\nheld_out = 0.3\n'
        'institutions = ["hospital-a", "hospital-b", "hospital-c"]\n'
    )
    profile = ["--profile", str(built.folder / "ada")]

    def typed(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, *profile])

    def printed(told: Result) -> dict[str, Any]:
        """The JSON among what agents and coordinator log, who run in this process too."""
        assert told.exit_code == 0, told.output
        return json.JSONDecoder().raw_decode(told.output[told.output.index("{\n") :])[0]

    refused = typed("train", str(tmp_path / "job.toml"), "--plot", str(tmp_path / "job.docx"))
    assert isinstance(refused.exception, ConfigError)  # before anything was asked
    explained = typed("train", str(tmp_path / "job.toml"), "--explain")
    assert "the noise in a leaf" in explained.output
    trained = typed("train", str(tmp_path / "job.toml"), "--plot", str(tmp_path / "curve.svg"), "--json")
    found = printed(trained)
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")
    assert (found["trees"], len(found["losses"])) == (3, 3)
    job = found["request_id"][:12]
    early = printed(typed("model", job, "--rounds", "2", "--json"))
    assert early["losses"] == found["losses"][:2]
    worth = typed("evaluate", job, "--epsilon", "5")
    assert worth.exit_code == 0, worth.output
    assert "rmse" in worth.output
    no_cost = typed("evaluate", job)
    assert isinstance(no_cost.exception, BudgetError)
    no_chances = typed("evaluate", job, "--epsilon", "5", "--plot", str(tmp_path / "c.png"))
    assert isinstance(no_chances.exception, QueryError)  # a number is not calibrated; what was paid for is printed
    assert "rmse" in no_chances.output
