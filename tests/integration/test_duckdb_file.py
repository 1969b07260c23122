"""A table or view in a DuckDB file answers as a CSV of the same rows does; odd, locked and hostile files say why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from analytics_client.agent import config
from analytics_client.agent.sources import Source, open_source
from queries import sql
from queries.errors import ConfigError, DataError
from queries.plan import Plan, make_plan
from queries.schema import from_toml

SALT = bytes(range(32))
DATASET = from_toml("""
name = "t"
privacy_unit = "who"
max_rows = 2
[columns.x]
type = "number"
lower = 0
upper = 100
[columns.k]
type = "category"
categories = ["1", "2"]
other = true
""")
ROWS = "SELECT 'p' || (i % 400) AS who, (i * 37 % 1000) / 9.0 AS x, CASE i % 4 WHEN 0 THEN NULL ELSE i % 4 END AS k"
ASKED = "SELECT k, COUNT(*) AS n, AVG(x) AS m, MEDIAN(x) AS q FROM t GROUP BY k"


def plan() -> Plan:
    return make_plan(sql.parse(ASKED, {"t": DATASET}), DATASET)


def opened(path: Path, table: str = "", **keys: str) -> Source:
    given = {"path": str(path), **({"table": table} if table else {}), **keys}
    text = "[datasets.t]\n" + "".join(f"{key} = '{value}'\n" for key, value in given.items())
    return open_source(config.parse(text, path.parent).datasets["t"], DATASET)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A file with a table, views of it that keep and shuffle its order, and one that reads another file."""
    file = tmp_path / "clinic.duckdb"
    (tmp_path / "secret.csv").write_text("who,x,k\np1,77,1\n")
    with duckdb.connect(str(file)) as clinic:
        clinic.execute(f"CREATE SCHEMA ward; CREATE TABLE ward.visits AS {ROWS} FROM range(3000) r(i)")
        clinic.execute("CREATE VIEW main.same AS SELECT * FROM ward.visits")
        clinic.execute("CREATE VIEW shuffled AS SELECT * FROM ward.visits ORDER BY hash(x)")
        clinic.execute(f"CREATE VIEW hostile AS SELECT * FROM read_csv('{tmp_path}/secret.csv')")
        clinic.execute(
            "CREATE VIEW written AS SELECT who, x::VARCHAR AS x, k FROM ward.visits WHERE k = 2"
            " UNION ALL SELECT 'p', 'none', 1"
        )
        clinic.execute("CREATE MACRO trim(a, b) AS 'evil'")
        clinic.execute(f"COPY ward.visits TO '{tmp_path}/same.csv'")
    return file


def test_a_table_answers_as_a_csv_of_the_same_rows(made: Path) -> None:
    from_file, from_csv = opened(made, "ward.visits"), opened(made.parent / "same.csv")
    assert from_file.aggregate(plan(), SALT).tolist() == from_csv.aggregate(plan(), SALT).tolist()
    assert from_file.check() == from_csv.check()
    assert from_file.check().rows == 3000


def test_a_view_draws_the_same_rows_whatever_order_it_comes_in(made: Path) -> None:
    """So the rows that are kept of one person depend on no other person's."""
    plain, shuffled = opened(made, "same"), opened(made, "main.shuffled")
    assert plain.aggregate(plan(), SALT).tolist() == shuffled.aggregate(plan(), SALT).tolist()
    assert plain.aggregate(plan(), SALT).tolist() != plain.aggregate(plan(), SALT[::-1]).tolist()  # a lottery was drawn


def test_the_owner_can_write_while_the_agent_serves_and_is_read_again(made: Path) -> None:
    source = opened(made, "ward.visits")
    before = source.aggregate(plan(), SALT)
    with duckdb.connect(str(made)) as clinic:
        clinic.execute("INSERT INTO ward.visits SELECT 'new' || i, 50.0, 1 FROM range(10) r(i)")
    after = source.aggregate(plan(), SALT)
    counts = [place for place, slot in enumerate(plan().slots * 3) if slot.kind == "rows"]
    assert (after - before)[counts].tolist() == [10 << plan().scale_bits, 0, 0]


def test_a_file_that_another_program_writes_to_is_named(made: Path) -> None:
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import duckdb, sys; c = duckdb.connect({str(made)!r}); print('up', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert writer.stdin is not None
    try:
        assert writer.stdout.readline() == b"up\n"
        with pytest.raises(DataError, match=r"another program has clinic\.duckdb open for writing"):
            opened(made, "ward.visits")
    finally:
        writer.stdin.close()
        writer.wait()
        writer.stdout.close()
    assert opened(made, "ward.visits").check().rows == 3000


def test_a_view_that_reads_another_file_gets_nothing(made: Path) -> None:
    with duckdb.connect(str(made), read_only=True) as clinic:
        assert clinic.execute("SELECT x FROM hostile").fetchall() == [(77,)]  # elsewhere it would
    with pytest.raises(DataError) as refused:
        opened(made, "hostile")
    assert "secret" not in str(refused.value)
    assert "77" not in str(refused.value)


def test_after_loading_no_other_file_can_be_reached(made: Path) -> None:
    source = opened(made, "ward.visits")
    connection = source._resident.connection  # type: ignore[attr-defined]  # as an attacker with the engine would
    for attempt in (
        f"SELECT * FROM read_csv('{made.parent}/secret.csv')",
        f"COPY local_rows TO '{made.parent}/out.csv'",
        f"ATTACH '{made.parent}/other.duckdb'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(attempt)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("ward.visit", "did you mean 'ward.visits'"),
        ("visits", "did you mean"),
        ("ward.visits; DROP TABLE ward.visits", "no table or view"),
        ('ward"."visits', "no table or view"),
        ("memory.main.local_rows", "no table or view"),
    ],
)
def test_a_missing_table_is_answered_with_the_nearest(made: Path, table: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(made, table)


def test_text_in_a_number_names_column_and_row_but_never_the_value(made: Path) -> None:
    with pytest.raises(DataError, match=r"column 'x' of clinic.duckdb holds text in row \d+") as refused:
        opened(made, "written")
    assert "none" not in str(refused.value)


def test_what_is_no_database_or_several_is_refused(made: Path) -> None:
    other = made.parent / "other.duckdb"
    other.write_bytes(np.random.default_rng(1).bytes(8192))
    with pytest.raises(DataError, match="no DuckDB database"):
        opened(other, "t")
    with pytest.raises(ConfigError, match="2 DuckDB files match"):
        opened(made.parent / "*.duckdb", "t")


def test_a_table_goes_with_a_duckdb_file_and_with_no_other(made: Path) -> None:
    with pytest.raises(ConfigError, match="a DuckDB file with a table"):
        opened(made)
    with pytest.raises(ConfigError, match="table goes with"):
        opened(made.parent / "same.csv", "t")
    renamed = made.rename(made.with_suffix(".db"))
    assert opened(renamed, "ward.visits", format="duckdb").check().rows == 3000
