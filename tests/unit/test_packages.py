"""Models of packages: adapters give true gradients, and only what a steward pinned is ever imported."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from harness.packages import install, make_wheel

from analytics_client.agent.config import load as load_config
from analytics_client.agent.training import descent
from analytics_client.agent.training.packages import Installed, PackageGradients, load
from analytics_client.models import check_gradient, width_of
from queries.errors import ConfigError, PolicyDenied, QueryError
from queries.schema import from_toml
from queries.training.descent import Descent
from queries.training.encode import decode_job, encode_job
from queries.training.gradients import Gradients
from queries.training.job import Job, make_job
from queries.training.options import Package
from queries.training.plan import JobPlan, make_job_plan, stated_rho_nano

DATASET = from_toml(
    'name = "d"\nmax_persons = 4000\n[columns.x]\ntype = "number"\nlower = 0\nupper = 2\n'
    '[columns.z]\ntype = "category"\ncategories = ["a", "b"]\n'
    '[columns.y]\ntype = "category"\ncategories = ["no", "yes"]\n'
    '[columns.v]\ntype = "number"\nlower = 0\nupper = 10\n'
)
SGD = Descent("sgd", "sgd", 0.5, 1.0, 2.0, 200.0, 1.0, seed=4)
HASH = "ab" * 32
PACKAGE = Package("tiny-net", HASH, ((3, 0.5), (1, 0.0)))
LINEAR = """
import numpy as np

class Linear:
    blocks = ((INPUTS, 0.5), (1, 0.0))
    def loss(self, theta, x, y):
        return float(np.logaddexp(0, -(2 * y - 1) * (theta[:-1] @ x + theta[-1])))
    def gradient(self, theta, x, y):
        slope = -(2 * y - 1) / (1 + np.exp((2 * y - 1) * (theta[:-1] @ x + theta[-1])))
        return np.append(slope * x, slope)

def model(inputs, outputs):
    if inputs != INPUTS:
        raise ValueError("other columns")
    return Linear()
"""


def job(package: Package = PACKAGE, label: str = "y", how: Descent = SGD, terms: Any = (("x",), ("z",))) -> Job:
    return make_job(DATASET, "package", label, terms, rounds=20, descent=how, package=package)


def planned(asked: Job) -> JobPlan:
    return make_job_plan(asked, DATASET, stated_rho_nano(asked, DATASET))


def statistic_of(asked: Job) -> Gradients:
    statistic = planned(asked).statistic
    assert isinstance(statistic, Gradients)
    return statistic


def people(rows: int = 40) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {
        "x": random.uniform(0, 2, rows), "z": random.integers(0, 2, rows).astype(float),
        "y": random.integers(0, 2, rows).astype(float), "v": random.uniform(0, 10, rows),
    }  # fmt: skip


# --- the job ---------------------------------------------------------------------------------------------------------


def test_a_job_names_a_package_and_has_one_encoding() -> None:
    plan = planned(job())
    assert decode_job(encode_job(plan.job)) == plan.job
    assert plan.length == 4
    assert plan.job.shape == "train package tiny-net by sgd y ~ x + z where x, y, z"
    start = statistic_of(plan.job).initial()
    assert np.abs(start[:3]).max() <= 0.5
    assert start[:3].all()
    assert start[3] == 0
    assert np.array_equal(start, statistic_of(plan.job).initial())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../x"}, "named by"), ({"name": ""}, "named by"), ({"sha256": "ab"}, "SHA-256"),
        ({"sha256": "AB" * 32}, "SHA-256"), ({"blocks": ()}, "blocks"), ({"blocks": ((0, 1.0),)}, "blocks"),
        ({"blocks": ((3, -1.0),)}, "blocks"), ({"blocks": ((3, float("nan")),)}, "blocks"),
        ({"blocks": ((1, 0.0),) * 1001}, "blocks"), ({"blocks": ((16_000_000, 0.0),) * 2}, "at most"),
    ],
)  # fmt: skip
def test_impossible_packages_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        planned(job(replace(PACKAGE, **change)))


def test_other_models_name_no_package() -> None:
    with pytest.raises(QueryError, match="package"):
        make_job(DATASET, "logistic", "y", (("x",),), package=PACKAGE)
    with pytest.raises(QueryError, match="package"):
        make_job(DATASET, "package", "y", (("x",),), descent=SGD)
    with pytest.raises(QueryError, match="trained by gradients"):
        make_job(DATASET, "package", "y", (("x",),), package=PACKAGE)
    with pytest.raises(QueryError, match="cannot evaluate"):
        make_job_plan(replace(job(), scored=(0.0,) * 4, rounds=1), DATASET, 10**9)


# --- adapters --------------------------------------------------------------------------------------------------------


def adapted(kind: str, outputs: int) -> Any:
    if kind == "pytorch":
        torch = pytest.importorskip("torch")
        from analytics_client.models.pytorch import TorchModel

        return TorchModel(torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, outputs)))
    if kind == "jax":
        jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
        from analytics_client.models.jax import JaxModel

        template = {"a": np.zeros((5, 4)), "b": np.zeros(4), "c": np.zeros((4, outputs))}
        return JaxModel(lambda p, x: jnp.tanh(x @ p["a"] + p["b"]) @ p["c"], template)
    pytest.importorskip("sklearn")
    from analytics_client.models.sklearn import SgdModel

    return SgdModel(5, outputs)


@pytest.mark.parametrize(
    ("kind", "outputs"), [("pytorch", 3), ("pytorch", 1), ("jax", 3), ("jax", 1), ("sklearn", 2), ("sklearn", 3)]
)
def test_an_adapter_gives_the_gradient_of_its_loss(kind: str, outputs: int) -> None:
    model, random = adapted(kind, outputs), np.random.default_rng(3)
    theta = random.normal(0, 0.4, width_of(model)).astype(np.float32)
    for y in range(max(outputs, 2)):
        x = random.uniform(-1, 1, 5).astype(np.float32)
        x.flags.writeable = theta.flags.writeable = False
        target = float(y) if outputs > 1 else 0.3 * y
        assert check_gradient(model, theta, x, target) < 0.05
    turned = SimpleNamespace(gradient=lambda *at: -model.gradient(*at), loss=model.loss)
    assert check_gradient(turned, theta, x, target) > 0.05


def test_torch_and_jax_agree() -> None:
    ours, theirs = adapted("pytorch", 3), adapted("jax", 3)
    assert [count for count, _ in ours.blocks] == [20, 4, 12, 3]
    assert theirs.blocks == ((20, pytest.approx(5**-0.5)), (4, 0.0), (12, 0.5))
    random = np.random.default_rng(5)
    a, b, c = random.normal(0, 0.5, (5, 4)), random.normal(0, 0.5, 4), random.normal(0, 0.5, (4, 3))
    x = random.uniform(-1, 1, 5).astype(np.float32)
    torchs = np.concatenate([a.T.ravel(), b, c.T.ravel(), np.zeros(3)]).astype(np.float32)
    jaxs = np.concatenate([a.ravel(), b, c.ravel()]).astype(np.float32)
    assert ours.loss(torchs, x, 2.0) == pytest.approx(theirs.loss(jaxs, x, 2.0), rel=1e-5)
    assert ours.gradient(torchs, x, 2.0)[20:24] == pytest.approx(theirs.gradient(jaxs, x, 2.0)[20:24], abs=1e-6)
    assert ours.predict(torchs, x[None, :]) == pytest.approx(theirs.predict(jaxs, x[None, :]), abs=1e-6)


def test_scikit_learns_classifier_takes_the_same_steps() -> None:
    """Descent on the adapter's gradients is `SGDClassifier.partial_fit` row by row."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    model, random = adapted("sklearn", 3), np.random.default_rng(7)
    x, y = random.uniform(-1, 1, (30, 5)).astype(np.float32), random.integers(0, 3, 30)
    theta = np.zeros(width_of(model), dtype=np.float32)
    reference = linear_model.SGDClassifier(loss="log_loss", penalty=None, learning_rate="constant", eta0=0.1)
    for row, label in zip(x, y, strict=True):
        theta = theta - np.float32(0.1) * model.gradient(theta, row, float(label))
        reference.partial_fit(row[None, :].astype(float), [label], classes=[0, 1, 2])
    assert theta[:15] == pytest.approx(reference.coef_.ravel(), abs=1e-5)
    assert (model.classifier(theta).predict(x) == reference.predict(x)).all()


def test_a_module_that_mixes_persons_is_refused() -> None:
    torch = pytest.importorskip("torch")
    from analytics_client.models.pytorch import TorchModel

    with pytest.raises(ValueError, match="mixes persons"):
        TorchModel(torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4)))


# --- rows ------------------------------------------------------------------------------------------------------------


class Odd:
    """Fails, or answers with something else, for some rows; keeps what it saw."""

    blocks = PACKAGE.blocks

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def gradient(self, theta: np.ndarray, x: np.ndarray, _y: float) -> Any:
        self.seen.append(x.shape)
        with pytest.raises(ValueError, match="read-only"):
            theta[0] = 1.0
        answers: list[Any] = [np.ones(4), np.ones(3), np.full(4, np.nan), "no", None]
        if len(self.seen) == 6:
            raise RuntimeError("the package broke")
        return answers[(len(self.seen) - 1) % 5]

    def loss(self, *_at: Any) -> float:
        return 0.0


def test_a_row_that_fails_adds_nothing_and_no_other_notices() -> None:
    asked = job(replace(PACKAGE, blocks=((4, 0.5),)), terms=(("x",), ("z",), ("v",)))
    plan = planned(asked)
    statistic = statistic_of(asked)
    model = Odd()
    gradients = PackageGradients(statistic, model)
    values = people(6)
    found = gradients.rows(values, statistic.initial())
    assert model.seen == [(3,)] * 6  # each person alone
    assert found[0] == pytest.approx(0.5)
    assert np.isnan(found[1:]).any(axis=1).all()
    total = descent.bounded(found, plan.scale_bits, plan.row_norm, np.random.default_rng(1))
    assert np.abs(total).max() <= plan.row_norm
    assert total.any()
    values["x"][:] = np.nan
    assert np.isnan(gradients.rows(values, statistic.initial())).all()
    assert not gradients.mean(values, statistic.initial().astype(np.float32)).any()


# --- what is installed -----------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are installed to and imported from."""
    target = tmp_path / "site"
    target.mkdir()
    monkeypatch.syspath_prepend(target)
    return target


def installed(site: Path, name: str) -> Installed:
    wheel, sha256 = make_wheel(site.parent, name, LINEAR.replace("INPUTS", "2"))
    install(wheel, site)
    return Installed(name.replace("_", "-"), sha256, wheel)


def test_an_installed_model_is_trained(site: Path) -> None:
    allowed = installed(site, "cohortium_test_one")
    package = Package(allowed.name, allowed.sha256, ((2, 0.5), (1, 0.0)))
    statistic = statistic_of(job(package))
    gradients = descent.local_gradients(statistic, (allowed,))
    values, theta = people(), statistic.initial()
    glm = make_job(DATASET, "logistic", "y", (("x",), ("z",)), rounds=20, descent=SGD)
    expected = statistic_of(glm).rows(values, np.array([theta[2], theta[0], theta[1]]))
    assert gradients.rows(values, theta)[:, [2, 0, 1]] == pytest.approx(expected, abs=1e-5)
    for other, said in (
        (replace(package, sha256="00" * 32), "package hash differs"),
        (replace(package, name="another"), "no model 'another' is allowed"),
    ):
        with pytest.raises(PolicyDenied, match=said) as refused:
            descent.local_gradients(statistic_of(job(other)), (allowed,))
        assert refused.value.rule == "models"
    with pytest.raises(QueryError, match="other blocks"):
        descent.local_gradients(statistic_of(job(replace(package, blocks=((3, 0.5),)))), (allowed,))
    with pytest.raises(QueryError, match="cannot be made for these columns"):
        descent.local_gradients(statistic_of(job(package, terms=(("x",),))), (allowed,))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("file", "package hash differs"), ("wheel", "package hash differs"), ("shadow", "package hash differs"),
        ("data", "package hash differs"), ("uninstalled", "not installed as agreed"),
        ("missing wheel", "not installed as agreed"), ("no wheel", "not installed as agreed"),
    ],
)  # fmt: skip
def test_nothing_but_the_pinned_wheel_is_imported(
    site: Path, tmp_path: Path, fault: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"cohortium_test_{fault.replace(' ', '_')}"
    allowed = installed(site, name)
    match fault:
        case "file":
            (site / f"{name}.py").write_text("raise AssertionError('imported')")
        case "wheel":
            allowed.wheel.write_bytes(allowed.wheel.read_bytes() + b"\0")
        case "shadow":
            front = tmp_path / "front"
            front.mkdir()
            (front / f"{name}.py").write_text("raise AssertionError('imported')")
            monkeypatch.syspath_prepend(front)
        case "uninstalled":
            allowed = replace(allowed, name="cohortium-test-nowhere")
        case "missing wheel":
            allowed.wheel.unlink()
        case "no wheel":
            allowed.wheel.write_bytes(b"no zip")
            allowed = replace(allowed, sha256=hashlib.sha256(b"no zip").hexdigest())
        case "data":
            entry = f"[cohortium.models]\n{allowed.name} = os:system\n"
            (site / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(entry)
    with pytest.raises(PolicyDenied, match=said):
        load(allowed)
    assert name not in sys.modules


def test_agent_toml_names_models(tmp_path: Path) -> None:
    text = f'[[models]]\nname = "tiny-net"\nwheel = "tiny.whl"\nsha256 = "{HASH}"\n'
    (tmp_path / "agent.toml").write_text(text)
    from analytics_client.agent.config import models

    assert models(load_config(tmp_path)) == (Installed("tiny-net", HASH, tmp_path / "tiny.whl"),)
    for wrong, said in ((text + text, "two models"), (text.replace(HASH, "ab"), "sha256"), (text + "x = 1\n", "'x'")):
        (tmp_path / "agent.toml").write_text(wrong)
        with pytest.raises(ConfigError, match=said):
            load_config(tmp_path)
