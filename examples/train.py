"""Private training jobs on real data, each beside pooled and local training without privacy.

    python examples/train.py logistic     tumours of the Wisconsin study (ships with scikit-learn), three hospitals
    python examples/train.py trees        the same tumours from ten measurements, by boosted trees
    python examples/train.py cox          survival in the NAFLD study, four hospitals (examples/data)
    python examples/train.py network      handwritten digits (ships with scikit-learn), three places; needs PyTorch

Each starts a coordinator and agents as separate processes on this machine. Only an example can know the pooled truth.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pooled import SCHEMAS, hospitals, pooled

from analytics_client.sandboxes import sandbox
from analytics_client.training import Trained, TrainedModel
from queries.schema import Dataset
from queries.training import newton
from queries.training.job import Job
from queries.training.plan import make_job_plan

Columns = dict[str, np.ndarray]


def without_privacy(job: Job, dataset: Dataset, values: Columns) -> newton.Fit:
    """Fit the same job to rows at hand, exactly."""
    plan = make_job_plan(job, dataset, 10**9)
    theta, releases = newton.initial(plan), []
    for _ in range(20):
        releases.append(newton.Released(theta, plan.sums(values, theta) / 2.0**plan.scale_bits, 0.0))
        theta = newton.advance(plan, releases[-1])
    return newton.fit(plan, releases)


def show(model: Trained, everyone: newton.Fit, alone: newton.Fit) -> None:
    """Print the private coefficients beside those of pooled data, and of the first institution alone."""
    if not isinstance(model, TrainedModel):
        raise TypeError("a regression by Newton steps has intervals")
    print(f"\n{'':24}{'private':>10}  {'95% interval':>20}{'pooled':>10}{'alone':>10}")
    rows = zip(model.coefficients, everyone.coefficients, alone.coefficients, strict=True)
    for private, exact, local in rows:
        interval = f"{private.low:.3f} to {private.high:.3f}"
        print(f"{private.name:24}{private.value:10.3f}  {interval:>20}{exact.value:10.3f}{local.value:10.3f}")


def logistic() -> None:
    """Which tumours are malignant, from two measurements, at epsilon 16: few persons need much.

    A quarter of the persons is held out, and tells what the model is worth.
    """
    bounds: dict[str, tuple[float, float]] = {"radius": (5, 30), "texture": (5, 45)}
    frame, schema = tumours(bounds)
    asked: dict[str, Any] = {"dataset": "tumours", "label": "tumour", "features": list(bounds), "ridge": 0.01}
    asked |= {"split": "example", "held_out": 0.25}
    with tempfile.TemporaryDirectory() as folder:
        files = written(Path(folder), schema, frame)
        with sandbox(files[0], files[1:], epsilon=40.0) as session:
            print(session.explain_job("logistic", epsilon=16.0, rounds=8, **asked))
            model = session.train("logistic", epsilon=16.0, rounds=8, **asked)
            worth = session.evaluate(model, epsilon=4.0)
    print(model)
    print(worth)
    codes = {name: frame[name].to_numpy(float) for name in bounds}
    codes["tumour"] = (frame["tumour"] == "malignant").to_numpy(float)
    alone = {name: column[::3] for name, column in codes.items()}
    dataset = model.plan.dataset
    show(model, without_privacy(model.job, dataset, codes), without_privacy(model.job, dataset, alone))


def tumours(bounds: dict[str, tuple[float, float]]) -> tuple[pd.DataFrame, str]:
    """Return the Wisconsin tumours with these measurements, and a schema with their bounds."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True).frame
    frame = pd.DataFrame({name: data[f"mean {name.replace('_', ' ')}"] for name in bounds})
    frame["tumour"] = data["target"].map({1: "benign", 0: "malignant"})
    schema = 'name = "tumours"\nmax_persons = 1000\n[columns.tumour]\ntype = "category"\n'
    schema += 'categories = ["benign", "malignant"]\n'
    schema += "".join(f'[columns.{n}]\ntype = "number"\nlower = {a}\nupper = {b}\n' for n, (a, b) in bounds.items())
    return frame, schema


def trees() -> None:
    """Which tumours are malignant, from ten measurements, by 40 trees of depth 3, at epsilon 4."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    bounds: dict[str, tuple[float, float]] = {
        "radius": (5, 30), "texture": (5, 45), "perimeter": (40, 200), "area": (100, 2600), "smoothness": (0, 0.2),
        "compactness": (0, 0.4), "concavity": (0, 0.5), "concave_points": (0, 0.25), "symmetry": (0.1, 0.35),
        "fractal_dimension": (0.04, 0.1),
    }  # fmt: skip
    frame, schema = tumours(bounds)
    frame = frame.iloc[np.random.default_rng(0).permutation(len(frame))]
    train, test = frame[:400], frame[400:]
    with tempfile.TemporaryDirectory() as folder:
        files = written(Path(folder), schema, train)
        with sandbox(files[0], files[1:], epsilon=20.0) as session:
            asked: dict[str, Any] = {"dataset": "tumours", "label": "tumour", "features": list(bounds)}
            asked |= {"trees": 40, "depth": 3, "epsilon": 4.0}
            print(session.explain_job("boosting", **asked))
            model = session.train("boosting", **asked)
    print(model)
    ranked = {"private": float(roc_auc_score(test["tumour"], model.to_sklearn().predict_proba(test)[:, 1]))}
    for name, rows in (("pooled", train), ("alone", train[::3])):
        free = HistGradientBoostingClassifier(max_iter=40, max_depth=3, random_state=0)
        free.fit(rows[list(bounds)], rows["tumour"])
        ranked[name] = float(roc_auc_score(test["tumour"], free.predict_proba(test[list(bounds)])[:, 1]))
    print(f"AUC on {len(test)} others:", ", ".join(f"{name} {area:.3f}" for name, area in ranked.items()))


def cox() -> None:
    """Whether sex and the disease shorten life in the NAFLD study, at epsilon 4."""
    asked: dict[str, Any] = {
        "dataset": "patients",
        "label": "followup",
        "event": "died",
        "features": ["sex", "study_group"],
        "times": list(range(0, 7501, 500)),
    }
    with sandbox(SCHEMAS, hospitals(), epsilon=20.0) as session:
        print(session.explain_job("cox", epsilon=4.0, rounds=6, **asked))
        model = session.train("cox", epsilon=4.0, rounds=6, **asked)
        worth = session.evaluate(model, epsilon=1.0)
    print(model)
    print(worth)
    frame = pooled("patients").dropna(subset=list(model.job.columns))
    keys = {"sex": ["female", "male"], "study_group": ["case", "control"], "died": ["no", "yes"]}
    codes = {
        name: frame[name].map(keys[name].index).to_numpy(float) if name in keys else frame[name].to_numpy(float)
        for name in model.job.columns
    }
    alone = {name: column[: len(frame) // 4] for name, column in codes.items()}
    dataset = model.plan.dataset
    show(model, without_privacy(model.job, dataset, codes), without_privacy(model.job, dataset, alone))


def network() -> None:
    """Which digit, by a network of one hidden layer, at epsilon 8."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    pixels, digit = load_digits(return_X_y=True)
    names = [f"p{place}" for place in range(64) if pixels[:, place].max() > 0]
    order = np.random.default_rng(0).permutation(len(digit))
    frame = pd.DataFrame({name: pixels[order, int(name[1:])] for name in names})
    frame["digit"] = digit[order]
    schema = 'name = "digits"\nmax_persons = 2000\n[columns.digit]\ntype = "category"\n'
    schema += f"categories = {[str(number) for number in range(10)]}\n".replace("'", '"')
    schema += "".join(f'[columns.{name}]\ntype = "number"\nlower = 0\nupper = 16\n' for name in names)
    train, test = frame[:1400], frame[1400:]
    with tempfile.TemporaryDirectory() as folder:
        files = written(Path(folder), schema, train)
        with sandbox(files[0], files[1:], epsilon=20.0) as session:
            model = session.train(
                "mlp", dataset="digits", label="digit", features=names, hidden=[32], method="sgd",
                optimizer="momentum", rate=0.2, batch=280.0, clip=1.0, learning_rate=0.5, momentum=0.8, rounds=80,
                epsilon=8.0,
                on_progress=lambda p: print(".", end="", flush=True) if p.step == "round" else None,
            )  # fmt: skip
    print(f"\n{model}")
    right = {"private": float((model.predict(test).argmax(axis=1) == test["digit"]).mean())}
    for name, rows in (("pooled", train), ("alone", train[::3])):
        free = MLPClassifier((32,), max_iter=400, random_state=0).fit(rows[names], rows["digit"])
        right[name] = float(free.score(test[names], test["digit"]))
    print("right of 397 digits:", ", ".join(f"{name} {share:.1%}" for name, share in right.items()))


def written(folder: Path, schema: str, frame: pd.DataFrame) -> list[Path]:
    """Write the schema, and every third row to each of three institutions' files."""
    (folder / "schema.toml").write_text(schema)
    paths = [folder / "schema.toml"]
    for start, name in enumerate(("north", "south", "west")):
        paths.append(folder / f"{name}.csv")
        frame[start::3].to_csv(paths[-1], index=False)
    return paths


if __name__ == "__main__":
    jobs = {"logistic": logistic, "trees": trees, "cox": cox, "network": network}
    if len(sys.argv) != 2 or sys.argv[1] not in jobs:
        sys.exit(f"usage: python examples/train.py {'|'.join(jobs)}")
    jobs[sys.argv[1]]()
