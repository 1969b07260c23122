"""Every job: one encoding, and no row, however it is made, moves a round's sum by more than its stated norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from queries.errors import QueryError
from queries.schema import from_toml
from queries.training.descent import DESCENDING
from queries.training.encode import decode_job, decode_model, encode_job, encode_model
from queries.training.job import MODELS, Job, make_job
from queries.training.options import SPLITS, Clusters, Trees
from queries.training.plan import make_job_plan

DATASET = from_toml(
    """
name = "d"
privacy_unit = "pid"
max_rows = 5
max_persons = 1000
[columns.a]
type = "number"
lower = -2
upper = 7
[columns.b]
type = "number"
lower = 0
upper = 4
[columns.c]
type = "category"
categories = ["x", "y", "z"]
[columns.d]
type = "category"
categories = ["no", "yes"]
nullable = false
[columns.t]
type = "number"
lower = 0
upper = 10
"""
)
TERMS = st.lists(
    st.sampled_from([("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "a")]), min_size=1, unique=True
).map(tuple)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    terms = draw(TERMS)
    rounds, spare = draw(st.integers(1, 50)), draw(st.integers(0, 5))
    ridge = draw(st.sampled_from([0.0, 0.01, 1.0]))
    rows = draw(st.sampled_from([None, 1, 3, 5]))
    model = draw(st.sampled_from([model for model in MODELS if model not in DESCENDING]))
    more: dict[str, Any] = {"rounds": rounds, "spare_rounds": spare, "ridge": ridge, "rows_per_person": rows}
    if draw(st.booleans()):
        more |= {"institutions": draw(st.sampled_from([(), ("b", "a"), ("a",)])), "fraction": draw(st.floats(0, 1))}
    if model not in ("kmeans", "boosting") and draw(st.booleans()):
        more |= {"evaluate_every": draw(st.integers(1, rounds)), "patience": draw(st.integers(0, 3))}
    more["round_seconds"] = draw(st.sampled_from([0, 5, 600]))
    match model:
        case "kmeans":
            plain = tuple(term for term in terms if len(term) == 1) or (("a",),)
            how = Clusters(draw(st.integers(2, 5)), draw(st.integers(0, 2**32 - 1)))
            return make_job(DATASET, model, "", plain, clusters=how, **(more | {"ridge": 0.0}))
        case "boosting":
            plain = tuple(term for term in terms if len(term) == 1) or (("a",),)
            grown = Trees(
                count=draw(st.integers(1, 4)), depth=draw(st.integers(1, 3)), bins=draw(st.integers(2, 9)),
                splits=draw(st.sampled_from(SPLITS)), seed=draw(st.integers(0, 9)),
            )  # fmt: skip
            label = draw(st.sampled_from(["t", "d", "c"]))
            plain = tuple(term for term in plain if term != (label,)) or (("a",),)
            return make_job(
                DATASET, model, label, plain, trees=grown, **(more | {"ridge": 0.0, "rounds": grown.rounds})
            )
        case "logistic":
            return make_job(DATASET, model, "d", terms, **more)
        case "multinomial":
            terms = tuple(term for term in terms if "c" not in term) or (("a",),)
            return make_job(DATASET, model, "c", terms, **more)
        case "cox":
            return make_job(DATASET, model, "t", terms, event="d", edges=(0.0, 2.5, 5.0, 10.0), **more)
    return make_job(DATASET, model, "t", terms, **more)


@given(jobs())
def test_one_encoding(job: Job) -> None:
    data = encode_job(job)
    assert decode_job(data) == job
    with pytest.raises(QueryError):
        decode_job(data + b"\x00")
    with pytest.raises(QueryError):
        decode_job(data[:-1])


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    try:
        job = decode_job(data)
    except QueryError:
        return
    assert encode_job(job) == data


@given(hnp.arrays(np.float64, st.integers(0, 20), elements=st.floats(-1e6, 1e6)))
def test_models_travel_exactly(theta: np.ndarray) -> None:
    assert np.array_equal(decode_model(encode_model(theta), len(theta)), theta)
    with pytest.raises(QueryError):
        decode_model(encode_model(theta), len(theta) + 1)


EXTREME = st.sampled_from([0.0, -0.0, 1.0, -2.0, 7.0, 1e300, -1e300, 1e-300, float("nan"), float("inf"), -float("inf")])


@given(jobs(), st.data())
@settings(max_examples=150, deadline=None)
def test_no_row_exceeds_the_stated_norm(job: Job, data: st.DataObject) -> None:
    plan = make_job_plan(job, DATASET, 10**9)
    theta = data.draw(
        hnp.arrays(np.float64, plan.statistic.width, elements=st.floats(-200, 200, allow_subnormal=False))
    )
    values = {
        name: np.array([data.draw(st.one_of(EXTREME, st.floats(-20, 20), st.sampled_from([0.0, 1.0, 2.0])))])
        for name in job.columns
    }
    moved = plan.sums(values, theta)
    squared = sum(int(entry) ** 2 for entry in moved)
    assert squared <= plan.row_norm**2
    rows = plan.selection.rows_per_person
    assert plan.delta_squared == (rows * plan.row_norm) ** 2
    # Inside its public bounds a row is never clipped: its norm is at most 1 by the bounds alone.
    inside = {
        name: np.array([data.draw(st.integers(0, 1))], dtype=float)
        if name in "cd"
        else np.array([data.draw(st.floats(DATASET.numeric(name).lower, DATASET.numeric(name).upper))])
        for name in job.columns
    }
    vector = plan.statistic.rows(inside, theta)
    if np.isfinite(vector).all():
        assert np.linalg.norm(vector) <= 1 + 1e-9
