"""Spark, run locally, answers plans with the integers that the same rows in a CSV file give."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analytics_client.agent import config
from analytics_client.agent.sources import Source, open_source
from queries import ir
from queries.errors import DataError
from queries.plan import make_plan
from queries.schema import from_toml

pytest.importorskip("pyspark", reason='Spark is not installed: pip install "cohortium[spark]"')
if shutil.which("java") is None:
    pytest.skip("Spark needs Java 17 or newer, and there is no java here", allow_module_level=True)

SALT = bytes(range(32))
DATASET = from_toml("""
name = "t"
privacy_unit = "who"
max_rows = 2
max_persons = 1000
[columns]
x = { type = "number", lower = -3.5, upper = 4.25 }
k = { type = "category", categories = ["50% off", "it's", "x\\"y"], other = true }
code = { type = "category", categories = ["0", "1"] }
y = { type = "number", lower = 0, upper = 9 }
""")
ROWS = [
    ("p1", 1.5, "50% off", "0", 3.0),
    ("p1", -9.0, " it's ", "1.0", 4.0),
    ("p2", float("nan"), 'x"y', "01", 12.0),
    ("p3", float("inf"), "unheard of", "2", None),
    ("p4", None, None, None, 0.0),
    (None, 1.0, "it's", "0", 1.0),
    ("p5", 4.25, "NA", "1", 9.0),
    ("p6", -0.0, "it's", "0", 1e300),
    ("ä€", 0.1, "IT'S", "1", 5.0),
    *((f"tie {halves}", None, None, None, 4.5 * (1 + halves * 2.0**-41)) for halves in (1, -1, 3, -3, 5)),
]
EDGES = (-3.0, -0.1, 0.0, 2.5, 4.0)
QUERIES = [
    ir.Query("t", (ir.NamedAggregate("n", ir.Count()), ir.NamedAggregate("s", ir.Stddev("x"))), keys=(ir.Key("k"),)),
    ir.Query("t", (ir.NamedAggregate("h", ir.Histogram("x", EDGES)),), keys=(ir.Key("code"),)),
    ir.Query("t", (ir.NamedAggregate("k", ir.Histogram("k")),), where=ir.IsIn("k", ("it's", "50% off"))),
    ir.Query("t", (ir.NamedAggregate("n", ir.Count("code")),), where=ir.Not(ir.Comparison("code", "=", "1"))),
    ir.Query(
        "t", (ir.NamedAggregate("f", ir.LinearModel("x", ("y", "k"))), ir.NamedAggregate("c", ir.Line("r2", "y", "x")))
    ),
    ir.Query("t", (ir.NamedAggregate("m", ir.Mean("y")),)),  # halves of a step among its values
    ir.Query("t", (ir.NamedAggregate("s", ir.Survival("x", "k", "it's", EDGES)),)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spark")
    frame = pd.DataFrame(ROWS, columns=["who", "x", "k", "code", "y"])
    frame.to_parquet(folder / "t.parquet", index=False)
    frame.to_csv(folder / "t.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def spark(folder: Path) -> Source:
    return open_source(in_spark(folder / "t.parquet"), DATASET)


def in_spark(path: Path) -> config.DatasetConfig:
    text = f'[datasets.t]\nconnection = "local[2]"\ntable = "{path}"\nmissing = ["NA"]\n'
    return config.parse(text, Path("/")).datasets["t"]


def test_spark_and_a_file_give_the_same_sums_and_the_same_report(spark: Source, folder: Path) -> None:
    text = f'[datasets.t]\npath = "{folder / "t.csv"}"\nmissing = ["NA"]\n'
    file = open_source(config.parse(text, folder).datasets["t"], DATASET)
    for query in QUERIES:
        plan = make_plan(query, DATASET)
        assert np.array_equal(spark.aggregate(plan, SALT), file.aggregate(plan, SALT)), query
    ours, theirs = spark.check(), file.check()
    assert (ours.rows, ours.persons, ours.without_person, ours.most_rows) == (
        theirs.rows,
        theirs.persons,
        theirs.without_person,
        theirs.most_rows,
    )
    assert [(c.name, c.missing, c.clipped, c.unpublished) for c in ours.columns] == [
        (c.name, c.missing, c.clipped, c.unpublished) for c in theirs.columns
    ]


def test_at_most_max_rows_of_a_person_count_and_the_salt_draws_them(folder: Path) -> None:
    frame = pd.DataFrame(
        {
            "who": ["many"] * 500,
            "x": np.linspace(-3, 4, 500),
            "k": ["it's"] * 500,
            "code": ["0"] * 500,
            "y": [1.0] * 500,
        }
    )
    frame.to_parquet(folder / "many.parquet", index=False)
    source = open_source(in_spark(folder / "many.parquet"), DATASET)
    count = make_plan(ir.Query("t", (ir.NamedAggregate("n", ir.Count()),)), DATASET)
    assert source.aggregate(count, SALT).tolist() == [2]
    total = make_plan(ir.Query("t", (ir.NamedAggregate("m", ir.Sum("x")),)), DATASET)
    drawn = {int(source.aggregate(total, bytes([salt]) * 32)[-1]) for salt in range(6)}
    assert len(drawn) > 3


def test_rows_for_training_come_with_what_is_missing(spark: Source) -> None:
    plan = make_plan(
        ir.Query("t", (ir.NamedAggregate("m", ir.Mean("x")), ir.NamedAggregate("k", ir.Mean("y")))), DATASET
    )
    rows = spark.rows(plan, SALT)
    assert set(rows) == {"x", "y"}
    assert np.isnan(rows["x"]).sum() == 2 + 5


def test_a_folder_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="no such table or folder"):
        open_source(in_spark(folder / "nowhere.parquet"), DATASET)


def test_text_where_a_number_belongs_is_refused(folder: Path) -> None:
    pd.DataFrame(ROWS, columns=["who", "x", "k", "code", "y"]).astype({"x": str}).to_parquet(folder / "text.parquet")
    with pytest.raises(DataError, match="column 'x' is numeric"):
        open_source(in_spark(folder / "text.parquet"), DATASET)
