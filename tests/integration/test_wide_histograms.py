"""Histograms of hundreds of bins: counted by division and corrected, to the very edge, on both engines."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_client.agent.sources import sql
from analytics_client.agent.sources.bins import FEW_EDGES
from queries import ir
from queries.plan import Plan, make_plan
from queries.schema import Column, Dataset, Numeric


def wide_plan(lower: float, upper: float, bins: int) -> Plan:
    dataset = Dataset("d", (Column("x", Numeric(lower, upper)),))
    from queries.resolve import equal_width

    edges = equal_width(dataset.column("x"), bins)
    return make_plan(ir.Query("d", (ir.NamedAggregate("h", ir.Histogram("x", edges)),)), dataset)


def beside_every_edge(plan: Plan) -> np.ndarray:
    """Every edge, the floats on both sides of it, and values far outside: where a division goes wrong."""
    edges = np.array(plan.histograms[0].edges)
    beside = [edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf), (edges[1:] + edges[:-1]) / 2]
    return np.concatenate([*beside, [edges[0] - 1e6, edges[-1] + 1e6]])


def truth(plan: Plan, values: np.ndarray) -> dict[int, int]:
    edges = np.array(plan.histograms[0].edges)
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    found, counts = np.unique(places, return_counts=True)
    return {int(place): int(count) for place, count in zip(found, counts, strict=True)}


@settings(max_examples=30, deadline=None)
@given(
    lower=st.floats(-1e6, 1e6),
    width=st.floats(1e-3, 1e6),
    bins=st.integers(FEW_EDGES, 600),
)
def test_duckdb_finds_the_bin_of_every_value_beside_every_edge(lower: float, width: float, bins: int) -> None:
    plan = wide_plan(lower, lower + width, bins)
    values = beside_every_edge(plan)
    with duckdb.connect() as engine:
        engine.execute("CREATE TABLE local_rows AS SELECT unnest($v) AS x, 0 AS _row", {"v": values.tolist()})
        rows = engine.execute(sql.render(plan, "duckdb")).fetchall()
    assert {bin_: count for _part, _cell, bin_, count in rows} == truth(plan, values)


@pytest.mark.parametrize(("lower", "upper", "bins"), [(0.0, 120.0, 1000), (-7.3, 0.1, 333), (0.1, 0.7, 64)])
def test_postgresql_counts_the_same(postgresql_database: str, lower: float, upper: float, bins: int) -> None:
    plan = wide_plan(lower, upper, bins)
    values = beside_every_edge(plan)
    uri = postgresql_database.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(uri) as engine:
        engine.execute("CREATE TABLE local_rows (x double precision, _row bigint)")
        with engine.cursor().copy("COPY local_rows (x, _row) FROM STDIN") as copy:
            for value in values.tolist():
                copy.write_row((value, 0))
        rows = engine.execute(sql.render(plan, "postgres")).fetchall()
    assert {bin_: count for _part, _cell, bin_, count in rows} == truth(plan, values)


def test_bins_of_unequal_width_are_found_by_comparisons(tmp_path: Path) -> None:
    dataset = Dataset("d", (Column("x", Numeric(0.0, 100.0)),))
    edges = tuple(float(100 * (i / 200) ** 2) for i in range(201))
    plan = make_plan(ir.Query("d", (ir.NamedAggregate("h", ir.Histogram("x", edges)),)), dataset)
    values = beside_every_edge(plan)
    with duckdb.connect(str(tmp_path / "d")) as engine:
        engine.execute("CREATE TABLE local_rows AS SELECT unnest($v) AS x, 0 AS _row", {"v": values.tolist()})
        rows = engine.execute(sql.render(plan, "duckdb")).fetchall()
    assert "LIST_EXTRACT" not in sql.render(plan, "duckdb")
    assert {bin_: count for _part, _cell, bin_, count in rows} == truth(plan, values)
