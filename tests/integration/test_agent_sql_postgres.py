"""The statement a PostgreSQL would run gives the sums that DuckDB gives, in a real server, lottery apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from analytics_client.agent import config
from analytics_client.agent.sources import open_source, sql
from analytics_client.agent.sources.vector import vector
from queries import ir
from queries.plan import make_plan
from queries.schema import from_toml

SALT = bytes(range(32))
DATASET = from_toml("""
name = "t"
privacy_unit = "who"
max_rows = 3
[columns]
x = { type = "number", lower = -3.5, upper = 4.25 }
k = { type = "category", categories = ["a", "b"], other = true }
y = { type = "number", lower = -1, upper = 2 }
m = { type = "category", categories = ["0", "1"] }
""")
WHERE = ir.Not(ir.AllOf((ir.Comparison("x", ">", 2.0), ir.IsIn("k", ("a", "other")))))
HISTOGRAM = ir.Histogram("x", (-3.0, -0.1, 0.0, 2.5, 4.0))
EDGES = (-3.0, -0.1, 0.0, 2.5, 4.0)
RELATED = ir.IndependenceTest("k", "m")
QUERIES = [
    ir.Query("t", (ir.NamedAggregate("n", ir.Count()), ir.NamedAggregate("s", ir.Stddev("x"))), keys=(ir.Key("k"),)),
    ir.Query("t", (ir.NamedAggregate("m", ir.Mean("x")), ir.NamedAggregate("c", ir.Count("k"))), where=WHERE),
    ir.Query("t", (ir.NamedAggregate("h", HISTOGRAM), ir.NamedAggregate("k", ir.Histogram("k"))), where=WHERE),
    ir.Query("t", (ir.NamedAggregate("n", ir.Count()),), keys=(ir.Key("k", ("other", "a")),), where=ir.IsNull("x")),
    ir.Query(
        "t", (ir.NamedAggregate("f", ir.LinearModel("x", ("y", "k"))), ir.NamedAggregate("c", ir.Line("r2", "y", "x")))
    ),
    ir.Query("t", (ir.NamedAggregate("w", ir.GroupTest("welch", "x", "k", ("a", "other"))),), keys=(ir.Key("m"),)),
    ir.Query("t", (ir.NamedAggregate("s", ir.Survival("x", "k", "b", EDGES)), ir.NamedAggregate("i", RELATED))),
    ir.Query("t", (ir.NamedAggregate("p", ir.Persons()), ir.NamedAggregate("q", ir.Quantile("x", 0.25)))),
    ir.Query(
        "t", (ir.NamedAggregate("p", ir.Persons()), ir.NamedAggregate("q", ir.Kurtosis("x"))), keys=(ir.Key("k"),)
    ),
    ir.Query("t", (ir.NamedAggregate("l", ir.LogRank("x", "m", "1", "k", EDGES, ("a", "other"))),), where=WHERE),
]


@pytest.fixture
def server(postgresql_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(
        postgresql_database.replace("postgresql+psycopg", "postgresql"), autocommit=True
    ) as connection:
        yield connection


@pytest.mark.parametrize("rows_known", [True, False])
def test_both_engines_sum_alike(rows_known: bool, server: psycopg.Connection, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = [
        (
            *(number, number % 90, 2 if number < 20 else 1),
            *(float(x) if number % 7 else None, int(k) if number % 5 else None),
            *(float(x) / 7 if number % 11 else None, number % 2),
        )
        for number, (x, k) in enumerate(zip(rng.normal(0, 3, 110), rng.integers(0, 3, 110), strict=True))
    ]
    names = ["a", "b", "zzz"]
    written = {None: "", **dict(enumerate(names))}
    text = "".join(
        f"{w},{'' if x is None else repr(x)},{written[k]},{'' if y is None else repr(y)},{m}\n"
        for _, w, _, x, k, y, m in rows
    )
    (tmp_path / "d.csv").write_text("who,x,k,y,m\n" + text)
    table = config.parse(f'[datasets.t]\npath = "{tmp_path / "d.csv"}"\n', tmp_path).datasets["t"]
    source = open_source(table, DATASET)
    server.execute(
        "CREATE TABLE local_rows (_row bigint, _person bigint, _rows bigint, x double precision, k integer,"
        " y double precision, m integer)"
    )
    with server.cursor() as cursor:
        cursor.executemany("INSERT INTO local_rows VALUES (%s, %s, %s, %s, %s, %s, %s)", rows)
        for query in QUERIES:
            plan = make_plan(query, DATASET)
            cursor.execute(sql.render(plan, "postgres", rows_known=rows_known).encode(), [12345])
            found = vector(plan, [tuple(int(v or 0) for v in row) for row in cursor.fetchall()])
            # Engines round halves differently, so a row may differ by one step of 2^-36.
            assert np.abs(found - source.aggregate(plan, SALT)).max() <= len(rows)
            assert found.any()


def test_postgres_keeps_at_most_as_many_rows_of_a_person(server: psycopg.Connection) -> None:
    server.execute("CREATE TABLE local_rows (_row bigint, _person bigint, _rows bigint, x double precision, k integer)")
    server.execute("INSERT INTO local_rows SELECT i, 1, 1000, 1, 0 FROM generate_series(1, 1000) AS i")
    plan = make_plan(ir.Query("t", (ir.NamedAggregate("n", ir.Count()),)), DATASET)
    for rows_known in (True, False):
        rows = server.execute(sql.render(plan, "postgres", rows_known=rows_known).encode(), [7]).fetchall()
        assert [int(row[3]) for row in rows] == [3]
