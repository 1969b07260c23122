"""Networks: gradients of rows equal those of torch.func and of an autograd loop, and predictions need no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_client.agent.training import descent
from queries.errors import QueryError
from queries.schema import from_toml
from queries.training.descent import Descent
from queries.training.encode import decode_job, encode_job
from queries.training.gradients import Gradients
from queries.training.job import Job, make_job
from queries.training.layers import Convolution, convolutions
from queries.training.plan import JobPlan, make_job_plan, stated_rho_nano

torch = pytest.importorskip("torch")
PIXELS = 5 * 4 * 2
DATASET = from_toml(
    'name = "d"\nmax_persons = 4000\n[columns.y]\ntype = "category"\ncategories = ["a", "b", "c"]\n'
    '[columns.v]\ntype = "number"\nlower = 0\nupper = 10\n'
    '[columns.k]\ntype = "category"\ncategories = ["a", "b"]\n'
    + "".join(f'[columns.p{n}]\ntype = "number"\nlower = 0\nupper = 16\n' for n in range(PIXELS))
)
MLP = Descent("sgd", "sgd", 0.05, 1.0, 0.5, 200.0, 1.0, hidden=(7, 5), seed=3)
CNN = replace(MLP, hidden=(6,), image=(5, 4, 2), filters=(3, 4), kernel=3, pool=2)


def job(model: str, how: Descent, label: str = "y", pixels: int = PIXELS) -> Job:
    return make_job(DATASET, model, label, tuple((f"p{n}",) for n in range(pixels)), rounds=20, descent=how)


def planned(asked: Job) -> JobPlan:
    return make_job_plan(asked, DATASET, stated_rho_nano(asked, DATASET))


def people(rows: int = 30) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    pixels = {f"p{n}": random.uniform(0, 16, rows) for n in range(PIXELS)}
    return pixels | {"y": random.integers(0, 3, rows).astype(float), "v": random.uniform(0, 10, rows)}


def loss_of(statistic: Gradients) -> Any:
    """The loss of one row as PyTorch writes it, from its own layers: shares nothing with what is tested."""

    def loss(at: Any, x: Any, y: Any) -> Any:
        start = 0
        if statistic.how.filters:
            high, wide, channels = statistic.how.shape
            x = x[1:].reshape(high, wide, channels).permute(2, 0, 1).unsqueeze(0)
        for number, layer in enumerate(statistic.layers):
            middle, end = start + layer.inputs * layer.outputs, start + layer.width
            matrix, biases = at[start:middle].reshape(layer.inputs, layer.outputs), at[middle:end]
            start = end
            if isinstance(layer, Convolution):
                kernels = matrix.T.reshape(layer.outputs, -1, layer.kernel, layer.kernel)
                x = torch.relu(torch.nn.functional.conv2d(x, kernels, biases, padding="same"))
                x = torch.nn.functional.max_pool2d(x, layer.pool)
            else:
                x = x.reshape(-1) @ matrix + biases
                x = torch.relu(x) if number < len(statistic.layers) - 1 else x
        if not statistic.classes:
            return (x[0] - y) ** 2 / 2
        return torch.nn.functional.cross_entropy(x, y.long())

    return loss


CASES = [("mlp", MLP, "y"), ("cnn", CNN, "y"), ("cnn", replace(CNN, filters=(2,), kernel=5, pool=1), "v")]


@pytest.mark.parametrize(("model", "how", "label"), CASES)
def test_gradients_of_rows_are_those_of_autograd(model: str, how: Descent, label: str) -> None:
    statistic = planned(job(model, how, label)).statistic
    assert isinstance(statistic, Gradients)
    values = people()
    theta = statistic.initial() + np.random.default_rng(1).normal(0, 0.1, statistic.width)
    found = descent.local_gradients(statistic).rows(values, theta)
    loss, at = loss_of(statistic), torch.from_numpy(theta.astype(np.float32))
    x = torch.from_numpy(statistic.design.matrix(values).astype(np.float32))
    y = torch.from_numpy(statistic.label(values).astype(np.float32))
    leaf = at.clone().requires_grad_()
    alone = [torch.autograd.grad(loss(leaf, x[row], y[row]), leaf)[0].numpy() for row in range(len(y))]
    assert found * how.clip == pytest.approx(np.array(alone), abs=2e-5)
    if model == "mlp":  # `one_hot` in cross entropy of a single row is all that vmap needs
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(at, x, y).numpy()
        assert found * how.clip == pytest.approx(each, abs=2e-5)
    mean = descent.local_gradients(statistic).mean(values, theta.astype(np.float32))
    assert mean == pytest.approx(np.mean(alone, axis=0), abs=2e-5)


@pytest.mark.parametrize(("model", "how", "label"), CASES)
def test_predictions_without_torch_are_those_of_torch(model: str, how: Descent, label: str) -> None:
    """The loss of every row, from what numpy predicts."""
    statistic = planned(job(model, how, label)).statistic
    assert isinstance(statistic, Gradients)
    values, theta = people(), statistic.initial()
    x, y = statistic.design.matrix(values), statistic.label(values)
    predicted = statistic.predict(values, theta)
    if statistic.classes:
        ours = -np.log(predicted[np.arange(len(y)), y.astype(int)])
    else:
        ours = ((predicted - values["v"]) / 5) ** 2 / 2
    loss, at = loss_of(statistic), torch.from_numpy(theta)
    theirs = [float(loss(at, torch.from_numpy(x[row]), torch.tensor(y[row]))) for row in range(len(y))]
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_what_is_no_number_stays_in_its_row() -> None:
    plan = planned(job("cnn", CNN))
    statistic = plan.statistic
    assert isinstance(statistic, Gradients)
    values, theta = people(), statistic.initial()
    gradients = descent.local_gradients(statistic)
    sound = gradients.rows(values, theta)
    spoilt = {name: column.copy() for name, column in values.items()}
    spoilt["p3"][0], spoilt["y"][1], spoilt["y"][2] = np.nan, 7.0, np.nan
    found = gradients.rows(spoilt, theta)
    assert np.isnan(found[:3]).any(axis=1).all()
    assert found[3:] == pytest.approx(sound[3:], abs=1e-6)
    rounding = np.random.default_rng(2)
    assert not descent.bounded(found[:3], plan.scale_bits, plan.row_norm, rounding).any()
    kept = {name: column[3:] for name, column in values.items()}
    single = theta.astype(np.float32)
    assert gradients.mean(spoilt, single) == pytest.approx(gradients.mean(kept, single), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "pixels", "said"),
    [
        ({"image": ()}, PIXELS, "three numbers"), ({"filters": ()}, PIXELS, "three numbers"),
        ({"kernel": 2}, PIXELS, "odd kernel"), ({"kernel": 17}, PIXELS, "odd kernel"),
        ({"image": (5, 5, 2)}, PIXELS, "5 x 5 x 2"), ({}, PIXELS - 1, "not 39 terms"),
        ({"pool": 3}, PIXELS, "nothing is left"), ({"pool": 0}, PIXELS, "nothing is left"),
        ({"filters": (3, 0)}, PIXELS, "layer has"), ({"hidden": (5,) * 5}, PIXELS, "at most 6 layers"),
    ],
)  # fmt: skip
def test_impossible_images_are_refused(change: dict[str, Any], pixels: int, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        job("cnn", replace(CNN, **change), pixels=pixels)


def test_a_category_is_no_pixel_and_a_regression_no_image() -> None:
    terms = (*((f"p{n}",) for n in range(PIXELS - 1)), ("k",))
    with pytest.raises(QueryError, match="numeric columns"):
        make_job(DATASET, "cnn", "y", terms, descent=CNN)
    with pytest.raises(QueryError, match="only a cnn"):
        job("mlp", replace(MLP, image=(5, 4, 2)))
    with pytest.raises(QueryError, match="hidden"):
        job("multinomial", replace(CNN, hidden=(4,)))


SIZES = st.integers(1, 9)


@given(
    st.tuples(SIZES, SIZES, st.integers(1, 3)), st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.sampled_from([1, 3, 5]), st.integers(1, 3),
)  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_the_stated_sizes_are_those_of_what_comes_out(
    image: tuple[int, int, int], filters: list[int], kernel: int, pool: int
) -> None:
    layers, left = convolutions(image, tuple(filters), kernel, pool)
    x = np.ones((2, image[2], image[0], image[1]))
    for layer in layers:
        if 0 in layer.out_shape:
            return
        x = layer.forward(x, np.ones((layer.inputs, layer.outputs)), np.ones(layer.outputs))
        assert x.shape == (2, *layer.out_shape)
    assert x[0].size == left


def test_a_cnn_has_one_encoding() -> None:
    asked = planned(job("cnn", CNN)).job
    assert decode_job(encode_job(asked)) == asked
    assert asked.shape.startswith("train cnn by sgd y ~ p0 + p1")


def test_an_image_of_28_by_28_is_planned_where_its_pixels_are_always_there() -> None:
    def dataset(nullable: str) -> str:
        pixels = "".join(
            f'[columns.p{n}]\ntype = "number"\nlower = 0\nupper = 1\nnullable = {nullable}\n' for n in range(784)
        )
        return f'name = "d"\nmax_persons = 60000\n[columns.y]\ntype = "category"\ncategories = ["a", "b"]\n{pixels}'

    how = replace(CNN, image=(28, 28, 1), filters=(8, 16))
    terms = tuple((f"p{n}",) for n in range(784))
    always = from_toml(dataset("false"))
    plan = make_job(always, "cnn", "y", terms, descent=how)
    assert decode_job(encode_job(plan)) == plan
    with pytest.raises(QueryError, match="785 columns of this job may lack values"):
        make_job(from_toml(dataset("true")), "cnn", "y", terms, descent=how)
