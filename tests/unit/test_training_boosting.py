"""Trees from noisy histograms: what plain loops over pooled rows give, and near scikit-learn's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness.jobs import run

from queries.errors import QueryError
from queries.schema import Dataset, from_toml
from queries.training import forest
from queries.training.boosting import CODES, Boosting
from queries.training.encode import decode_job, encode_job
from queries.training.evaluation import evaluate
from queries.training.job import Job, make_job
from queries.training.options import Trees
from queries.training.plan import JobPlan, make_job_plan

DATASET = from_toml(
    'name = "d"\nmax_persons = 10000\n[columns.x]\ntype = "number"\nlower = 0\nupper = 10\n'
    '[columns.v]\ntype = "number"\nlower = -5\nupper = 5\n'
    '[columns.k]\ntype = "category"\ncategories = ["a", "b", "c"]\n'
    '[columns.y]\ntype = "category"\ncategories = ["no", "yes"]\n'
)


def people(rows: int = 2000) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    x, k = random.uniform(0, 10, rows), random.integers(0, 3, rows).astype(float)
    logit = 2 * np.sign(x - 4) * (k == 1) + (k == 2) - 0.5
    y = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(float)
    return {"x": x, "k": k, "y": y, "v": np.clip(2 * np.sign(x - 4) * (k != 0) + random.normal(0, 0.5, rows), -5, 5)}


def asked(label: str = "y", columns: str = "xk", **how: Any) -> Job:
    trees = Trees(**({"count": 6, "depth": 3, "bins": 10, "splits": "histogram"} | how))
    return make_job(DATASET, "boosting", label, tuple((name,) for name in columns), trees=trees)


def planned(job: Job, rho: float = 1.0, dataset: Dataset = DATASET) -> JobPlan:
    return make_job_plan(job, dataset, int(rho * 1e9))


def boosting(plan: JobPlan) -> Boosting:
    assert isinstance(plan.statistic, Boosting)
    return plan.statistic


@pytest.mark.parametrize("label", ["y", "v"])
def test_without_noise_the_first_tree_is_what_loops_find(label: str) -> None:
    """Depth 2, one tree: gradients, gains, splits and leaves from the definition, row by row."""
    plan = planned(asked(label, count=1, depth=2, smoothing=0.5))
    values, smooth = people(), 0.5 * (0.25 if label == "y" else 1.0)
    grown = forest.fit(plan, run(plan, values))
    bins = {"x": np.minimum(np.floor(values["x"]), 9), "k": values["k"]}
    gradient = 0.5 - values["y"] if label == "y" else -values["v"] / 5
    weight = np.full(len(gradient), 0.25 if label == "y" else 1.0)

    def score(rows: np.ndarray) -> float:
        return float(gradient[rows].sum() ** 2 / (weight[rows].sum() + smooth))

    def best(rows: np.ndarray) -> tuple[np.ndarray, int]:
        choices = []
        for column, name in enumerate("xk"):
            for cut in range(9 if name == "x" else 3):
                right = rows & (bins[name] > cut if name == "x" else bins[name] == cut)
                left = rows & ~right
                if right.any() and left.any():
                    choices.append(
                        (score(right) + score(left) - score(rows), -column, -cut, right, column * CODES + cut)
                    )
        chosen = max(choices, key=lambda choice: choice[:3])
        return chosen[3], chosen[4]

    everyone = np.ones(len(gradient), dtype=bool)
    right, root = best(everyone)
    leaves, codes = [], [root]
    for part in (everyone & ~right, right):
        inner, code = best(part)
        codes.append(code)
        leaves += [-gradient[rows].sum() / (weight[rows].sum() + smooth) for rows in (part & ~inner, inner)]
    assert boosting(plan).codes(grown.theta)[0].tolist() == codes
    assert grown.theta[-4:] == pytest.approx(leaves, rel=1e-6)


@pytest.mark.parametrize("splits", ["random", "histogram"])
def test_split_over_institutions_it_is_the_pooled_model(splits: str) -> None:
    plan, values = planned(asked(splits=splits)), people()
    whole = run(plan, values)
    parts = [{name: column[start::3] for name, column in values.items()} for start in range(3)]
    for release in whole:
        exact = sum(plan.sums(part, release.theta) for part in parts)
        assert np.array_equal(exact, plan.sums(values, release.theta))
    assert forest.fit(plan, whole).trees == 6


def test_losses_fall_and_are_those_of_the_rows() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    plan, values = planned(asked()), people()
    releases = run(plan, values)
    grown = forest.fit(plan, releases)
    assert grown.losses[0] == pytest.approx(np.log(2), abs=1e-6)
    for place in (4, 12, 23):
        chance = plan.statistic.predict(values, releases[place].theta)
        assert grown.losses[place] == pytest.approx(metrics.log_loss(values["y"], chance), abs=1e-6)
    assert grown.losses[-1] < grown.losses[4] < grown.losses[0]
    assert set(grown.gains) == {"x", "k"}
    assert min(grown.gains.values()) > 10


@pytest.mark.parametrize(("splits", "trees", "depth"), [("histogram", 10, 3), ("random", 60, 4)])
def test_without_noise_it_ranks_as_scikit_learn_s(splits: str, trees: int, depth: int) -> None:
    """Breast cancer, held-out third: AUC within 0.02 of HistGradientBoosting with as many trees of the depth."""
    datasets, ensemble = pytest.importorskip("sklearn.datasets"), pytest.importorskip("sklearn.ensemble")
    metrics = pytest.importorskip("sklearn.metrics")
    table = datasets.load_breast_cancer(as_frame=True).frame
    columns = [name for name in table.columns if name.startswith("mean")]
    text = 'name = "t"\nmax_persons = 1000\n[columns.y]\ntype = "category"\ncategories = ["0", "1"]\n'
    names = [name.replace(" ", "_") for name in columns]
    for name, column in zip(names, columns, strict=True):
        text += f'[columns.{name}]\ntype = "number"\nlower = 0\nupper = {1.1 * table[column].max():.4f}\n'
    dataset = from_toml(text)
    how = Trees(trees, depth, splits=splits)  # type: ignore[arg-type]
    job = make_job(dataset, "boosting", "y", tuple((name,) for name in names), trees=how)
    plan = planned(job, dataset=dataset)
    values = {name: table[column].to_numpy(float) for name, column in zip(names, columns, strict=True)}
    values["y"] = table["target"].to_numpy(float)
    held = np.arange(len(table)) % 3 == 0
    train, test = ({name: column[part] for name, column in values.items()} for part in (~held, held))
    model = forest.fit(plan, run(plan, train)).theta
    theirs = ensemble.HistGradientBoostingClassifier(max_iter=trees, max_depth=depth, random_state=0)
    theirs.fit(table[columns][~held], values["y"][~held])
    ours = metrics.roc_auc_score(test["y"], plan.statistic.predict(test, model)[:, 1])
    assert abs(ours - metrics.roc_auc_score(test["y"], theirs.predict_proba(table[columns][held])[:, 1])) < 0.02
    noisy = planned(job, rho=2.0, dataset=dataset)
    private = forest.fit(noisy, run(noisy, train, noise=True))
    assert not np.array_equal(private.theta, model)


@pytest.mark.parametrize("splits", ["random", "histogram"])
def test_the_first_tree_of_three_categories_has_a_leaf_for_each(splits: str) -> None:
    """Leaves from the definition: -sum(p - y) / (sum(p (1 - p)) + smoothing) of the rows that reach them, p = 1/3."""
    plan, values = planned(asked("k", "xv", count=1, depth=2, smoothing=0.5, splits=splits)), people()
    statistic = boosting(plan)
    theta = forest.fit(plan, run(plan, values)).theta
    reached = statistic.reached(statistic.binned(values), statistic.codes(theta)[0], 2)
    leaves = theta[-12:].reshape(4, 3)
    for leaf in np.unique(reached):
        here = values["k"][reached == leaf]
        for key in range(3):
            expected = -(len(here) / 3 - (here == key).sum()) / (len(here) * 2 / 9 + 0.5 * 0.25)
            assert leaves[leaf, key] == pytest.approx(np.clip(expected, -4, 4), rel=1e-6)


@pytest.mark.parametrize(
    ("data", "how"),
    [
        ("digits", Trees(20, 5, splits="random")),
        ("wine", Trees(10, 3, splits="histogram")),
    ],
)
def test_many_categories_as_well_as_scikit_learn_s(data: str, how: Trees) -> None:
    """A held-out third: accuracy within 0.06 of HistGradientBoosting with as many trees a category, of the depth."""
    datasets, ensemble = pytest.importorskip("sklearn.datasets"), pytest.importorskip("sklearn.ensemble")
    x, label = getattr(datasets, f"load_{data}")(return_X_y=True)
    if data == "digits":  # the first five
        x, label = x[label < 5], label[label < 5]
        x = x.reshape(-1, 4, 2, 4, 2).sum(axis=(2, 4)).reshape(-1, 16)  # squares of four pixels
    names = [f"f{place}" for place in range(x.shape[1])]
    keys = ", ".join(f'"{key}"' for key in range(label.max() + 1))
    text = f'name = "t"\nmax_persons = 2000\n[columns.y]\ntype = "category"\ncategories = [{keys}]\n'
    for name, column in zip(names, x.T, strict=True):
        text += f'[columns.{name}]\ntype = "number"\nlower = {column.min()}\nupper = {column.max() + 0.1}\n'
    dataset = from_toml(text)
    job = make_job(dataset, "boosting", "y", tuple((name,) for name in names), trees=how)
    plan = planned(job, rho=20.0, dataset=dataset)
    values = dict(zip(names, x.T, strict=True)) | {"y": label.astype(float)}
    held = np.arange(len(x)) % 3 == 0
    train, test = ({name: column[part] for name, column in values.items()} for part in (~held, held))
    theta = forest.fit(plan, run(plan, train)).theta
    theirs = ensemble.HistGradientBoostingClassifier(
        max_iter=how.count, max_depth=how.depth, learning_rate=how.learning_rate, random_state=0
    ).fit(x[~held], label[~held])
    chance = plan.statistic.predict(test, theta)
    assert chance.sum(axis=1) == pytest.approx(1)
    right = (chance.argmax(axis=1) == label[held]).mean()
    assert right > theirs.score(x[held], label[held]) - 0.06
    noisy = plan.statistic.predict(test, forest.fit(plan, run(plan, train, noise=True)).theta)
    assert not np.array_equal(noisy, chance)


def test_noise_that_hides_every_split_makes_none() -> None:
    plan = planned(asked(), rho=1e-4)
    grown = forest.fit(plan, run(plan, people(300), noise=True))
    assert (boosting(plan).codes(grown.theta) < 0).mean() > 0.5
    assert np.isfinite(grown.theta).all()


def test_whatever_model_is_sent_a_row_is_bounded() -> None:
    plan, random = planned(asked()), np.random.default_rng(1)
    for scale in (1.0, 1e3, 1e18, 1e300):
        theta = random.normal(0, 1, plan.statistic.width) * scale
        moved = plan.sums({name: column[:1] for name, column in people().items()}, theta)
        assert sum(int(entry) ** 2 for entry in moved) <= plan.row_norm**2


def test_predictions_in_the_label_s_unit_and_of_missing_values() -> None:
    plan, values = planned(asked("v", count=12)), people()
    theta = forest.fit(plan, run(plan, values)).theta
    predicted = plan.statistic.predict(values, theta)
    assert np.corrcoef(predicted, values["v"])[0, 1] > 0.9
    assert plan.statistic.predict({"x": np.array([np.nan]), "k": np.array([1.0])}, theta) == pytest.approx(
        [np.nan], nan_ok=True
    )


def test_trees_are_evaluated_like_any_model() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    plan, values = planned(asked()), people()
    theta = forest.fit(plan, run(plan, values)).theta
    job = replace(plan.job, scored=tuple(theta.tolist()), rounds=1)
    assert decode_job(encode_job(job)) == job
    scored = planned(job)
    found = evaluate(scored, scored.sums(values, np.zeros(1)) / 2.0**scored.scale_bits, 0.0)
    chance = plan.statistic.predict(values, theta)[:, 1]
    assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(values["y"], chance >= 0.5))
    assert found["auc"].value == pytest.approx(metrics.roc_auc_score(values["y"], chance), abs=0.01)


def test_random_trees_ask_questions_that_divide() -> None:
    plan = planned(asked(splits="random", count=20, depth=4))
    frame = pd.DataFrame(people())
    statistic = boosting(plan)
    bins, codes = (
        statistic.binned({name: frame[name].to_numpy() for name in "xk"}),
        statistic.codes(statistic.initial()),
    )
    reached = [len(np.unique(statistic.reached(bins, tree, 4))) for tree in codes]
    assert np.mean(reached) > 12  # of 16 leaves, most hold someone
    assert {int(code) // CODES for code in codes[codes >= 0]} == {0, 1}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"count": 0}, "trees must be"),
        ({"depth": 9}, "depth must be"),
        ({"bins": 1}, "bins must be"),
        ({"learning_rate": 0.0}, "learning_rate must be"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"smoothing": -1.0}, "smoothing must be"),
        ({"splits": "best"}, "unknown way"),
        ({"label": "x", "columns": "x"}, "both predicted"),
    ],
)
def test_bad_trees_are_refused(what: dict[str, Any], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        asked(**what)


def test_rounds_follow_from_the_trees() -> None:
    assert asked(count=5, depth=2).rounds == 15
    assert asked(count=5, depth=2, splits="random").rounds == 5
    with pytest.raises(QueryError, match="take 24 rounds"):
        make_job(DATASET, "boosting", "y", (("x",),), trees=asked().trees, rounds=7)
    with pytest.raises(QueryError, match="how many trees"):
        make_job(DATASET, "boosting", "y", (("x",),))
    plan = planned(asked())
    releases = run(plan, people(50))[:3]
    with pytest.raises(QueryError, match="before its first tree"):
        forest.fit(plan, releases)
