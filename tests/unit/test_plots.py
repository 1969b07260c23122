"""Pictures of results: of the kind that the question calls for, with every interval drawn."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from analytics_client.dry_run import dry_run
from analytics_client.explain import cost_of
from analytics_client.result import Result
from queries import ir
from queries.errors import ConfigError, QueryError
from queries.plan import make_plan
from queries.schema import from_toml

mpl.use("Agg")
DATASET = from_toml("""
name = "patients"
privacy_unit = "id"
max_persons = 10000
[columns.age]
type = "integer"
lower = 0
upper = 100
[columns.sex]
type = "category"
categories = ["female", "male"]
[columns.site]
type = "category"
categories = ["a", "b", "c"]
[columns.bmi]
type = "number"
lower = 10
upper = 60
[columns.days]
type = "number"
lower = 0
upper = 1000
[columns.died]
type = "category"
categories = ["no", "yes"]
""")
EDGES = tuple(float(edge) for edge in range(0, 1001, 100))


def result(aggregate: ir.Aggregate, *keys: str) -> Result:
    query = ir.Query("patients", (ir.NamedAggregate("x", aggregate),), keys=tuple(ir.Key(key) for key in keys))
    return dry_run(
        make_plan(query, DATASET), cost_of(10**9, 1e-6), 10**9, institutions=5, colluders=1, rows=3000, seed=1
    )


def test_groups_are_bars_each_with_its_interval() -> None:
    drawn = result(ir.Mean("age"), "site")
    axes = drawn.plot()
    assert len(axes.patches) == 3
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "b", "c"]
    heights = [patch.get_height() for patch in axes.patches]
    assert heights == pytest.approx([row.values[0].value for row in drawn.rows])  # type: ignore[union-attr]
    [bars] = axes.collections
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])  # type: ignore[attr-defined]
    assert ends[:, 0] == pytest.approx([row.values[0].low for row in drawn.rows])  # type: ignore[union-attr]
    assert ends[:, 1] == pytest.approx([row.values[0].high for row in drawn.rows])  # type: ignore[union-attr]
    assert "MOCK" in "".join(text.get_text() for text in axes.texts)


def test_two_keys_are_bars_side_by_side_with_a_legend() -> None:
    axes = result(ir.Count(), "sex", "site").plot()
    assert len(axes.patches) == 6
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["female", "male"]


def test_a_histogram_is_bars() -> None:
    assert len(result(ir.Histogram("age", tuple(float(e) for e in range(0, 101, 10)))).plot().patches) == 10


def test_survival_is_a_falling_step_curve_with_a_band() -> None:
    axes = result(ir.Survival("days", "died", "yes", EDGES)).plot()
    [line] = axes.lines
    values = np.asarray(line.get_ydata(), dtype=float)
    assert values[0] == 1
    assert len(values) == len(EDGES)
    assert len(axes.collections) == 1  # the band
    grouped = result(ir.Survival("days", "died", "yes", EDGES), "sex").plot()
    assert len(grouped.lines) == 2
    assert [text.get_text() for text in grouped.get_legend().get_texts()] == ["female", "male"]


def test_a_correlation_matrix_is_a_heat_map_with_numbers_in_it() -> None:
    axes = result(ir.Matrix("correlation", ("age", "bmi", "days"))).plot()
    [image] = axes.images
    grid = np.asarray(image.get_array())
    assert grid.shape == (3, 3)
    assert np.allclose(np.diag(grid), 1)
    assert np.allclose(grid, grid.T)


def test_a_model_is_a_forest() -> None:
    axes = result(ir.LinearModel("bmi", ("age", "sex"))).plot()
    assert len(axes.get_yticks()) >= 3


def test_an_output_or_kind_that_is_none_is_refused_by_name() -> None:
    drawn = result(ir.Count(), "sex")
    with pytest.raises(QueryError, match="no output 'y'"):
        drawn.plot("y")
    with pytest.raises(QueryError, match="no picture of kind"):
        drawn.plot(kind="pie")  # type: ignore[arg-type]  # what a user may write
    with pytest.raises(QueryError, match="heat map"):
        drawn.plot(kind="heatmap")


@pytest.mark.parametrize("ending", ["csv", "json", "parquet", "html", "png", "svg", "pdf"])
def test_a_result_is_saved_by_its_ending(ending: str, tmp_path: Path) -> None:
    path = result(ir.Mean("age"), "site").save(tmp_path / f"answer.{ending}")
    assert path.stat().st_size > 100
    assert list(tmp_path.iterdir()) == [path]
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "parquet": b"PAR1", "html": b"<!doctype", "csv": b"site,x,x_se"}
    assert path.read_bytes().startswith(starts.get(ending, b""))


def test_what_was_saved_as_parquet_and_csv_reads_back_as_it_was(tmp_path: Path) -> None:
    saved = result(ir.Mean("age"), "site")
    pd.testing.assert_frame_equal(pd.read_parquet(saved.save(tmp_path / "a.parquet")), saved.to_pandas())
    pd.testing.assert_frame_equal(pd.read_csv(saved.save(tmp_path / "a.csv")), saved.to_pandas())


def test_a_file_that_cannot_be_written_is_refused_with_what_would_be(tmp_path: Path) -> None:
    saved = result(ir.Count(), "sex")
    with pytest.raises(ConfigError, match="no ending") as caught:
        saved.save(tmp_path / "answer.xlsx")
    assert ".csv" in caught.value.hint
    with pytest.raises(ConfigError, match="no folder"):
        saved.save(tmp_path / "nowhere" / "a.csv")
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        saved.save(tmp_path / "a.csv")
