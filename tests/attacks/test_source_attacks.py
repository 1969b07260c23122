"""What a hostile query, file or neighbour on the machine may try against the local engine; each is refused or inert."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from analytics_client.agent import config
from analytics_client.agent.sources import duckdb as duckdb_source
from analytics_client.agent.sources import sql
from analytics_client.agent.sources.duckdb import DuckDBSource
from queries import ir
from queries.errors import CohortiumError, DataError
from queries.plan import Plan, make_plan
from queries.schema import Dataset, from_toml

SALT = bytes(range(32))
SCHEMA = """
name = "t"
privacy_unit = "who"
max_rows = 2
[columns]
x = { type = "number", lower = 0, upper = 10 }
k = { type = "category", categories = ["a", "b'; DROP TABLE local_rows; --", "c\\"d"] }
"""
CANARY = "CANARY-7391"


def opened(folder: Path, text: str, *, dataset: Dataset | None = None, name: str = "d.csv") -> DuckDBSource:
    (folder / name).write_text(text)
    table = config.parse(f'[datasets.t]\npath = "{folder / name}"\n', folder).datasets["t"]
    return DuckDBSource.open(table, dataset or from_toml(SCHEMA))


def plan(*aggregates: ir.Aggregate, **other: object) -> Plan:
    named = tuple(ir.NamedAggregate(f"o{i}", aggregate) for i, aggregate in enumerate(aggregates))
    return make_plan(dataclasses.replace(ir.Query("t", named), **other), from_toml(SCHEMA))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('{folder}/other.csv')",
        "SELECT * FROM read_parquet('{folder}/other.parquet')",
        "SELECT * FROM '{folder}/other.parquet'",
        "SELECT * FROM glob('{folder}/*')",
        "ATTACH '{folder}/new.db'",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "COPY local_rows TO '{folder}/out.parquet'",
        "EXPORT DATABASE '{folder}/out'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM read_csv('https://example.com/x.csv')",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SET allowed_paths = ['/etc/passwd']",
        "SET lock_configuration = false",
        "SET temp_directory = '{folder}/spill'",
        "SELECT * FROM secret_of_this_process",
        "SELECT getenv('HOME')",
        "IMPORT DATABASE '{folder}'",
    ],
)
def test_the_engine_is_cut_off_even_from_whoever_could_inject_a_statement(
    statement: str, in_place: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret_of_this_process = np.array([1])  # DuckDB would find a local of this name, were replacement scans on
    import pandas as pd

    pd.DataFrame({"who": ["p"], "x": [1.0], "k": ["a"]}).to_parquet(tmp_path / "d.parquet")
    pd.DataFrame({"who": [CANARY]}).to_parquet(tmp_path / "other.parquet")
    (tmp_path / "other.csv").write_text(CANARY)
    if in_place:
        monkeypatch.setattr(duckdb_source, "IN_PLACE_BYTES", 0)
    table = config.parse(f'[datasets.t]\npath = "{tmp_path / "d.parquet"}"\n', tmp_path).datasets["t"]
    source = DuckDBSource.open(table, from_toml(SCHEMA))
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(Exception, match=r"(Permission|Invalid Input|Catalog|Binder|Parser|IO) Error"):
        source._current().connection.execute(statement.format(folder=tmp_path)).fetchall()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert source.aggregate(plan(ir.Count()), SALT).tolist() == [1]
    assert len(secret_of_this_process) == 1


def test_categories_that_look_like_sql_are_only_values(tmp_path: Path) -> None:
    evil = from_toml(SCHEMA).categorical("k").categories
    rows = "".join(f'p{i},1,"{category.replace(chr(34), chr(34) * 2)}"\n' for i, category in enumerate(evil))
    source = opened(tmp_path, "who,x,k\n" + rows)
    for category in evil:
        asked = plan(ir.Count(), where=ir.Comparison("k", "=", category))
        assert source.aggregate(asked, SALT).tolist() == [1]
    assert source.aggregate(plan(ir.Histogram("k")), SALT).tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["x' OR 1=1 --.csv", 'a"b.csv', "semi;colon.csv", "*[x]?.csv", "ünïcode.csv"])
def test_file_names_that_look_like_sql_or_patterns_are_only_names(name: str, tmp_path: Path) -> None:
    (tmp_path / "x1.csv").write_text(f"who,x,k\n{CANARY},1,a\nq,1,a\n")
    (tmp_path / name).write_text("who,x,k\np,1,a\n")
    table = config.DatasetConfig(path=str(tmp_path / name), format="csv")
    source = DuckDBSource.open(table, from_toml(SCHEMA))
    assert source.aggregate(plan(ir.Count()), SALT).tolist() == [1]


@pytest.mark.parametrize("header", ['who,"x""; DROP TABLE staged; --",k', "who,x' ,k", "who, x\t,k"])
def test_headers_that_look_like_sql_are_only_names(header: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(header + "\np,1,a\n")
    import csv

    local = next(csv.reader([header]))[1]
    table = config.DatasetConfig(
        path=str(tmp_path / "d.csv"), format="csv", columns={"x": config.ColumnConfig(column=local)}
    )
    source = DuckDBSource.open(table, from_toml(SCHEMA))
    assert source.aggregate(plan(ir.Count("x")), SALT).tolist() == [1]


def test_no_error_or_log_line_quotes_the_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    broken = [
        f"who,x,k\np,{CANARY},a\n",
        f"who,x,k\np,1,a,{CANARY}\n",
        f'who,x,k\np,1,"{CANARY}\n',
        f"who,x\np,{CANARY}\n",
        f"who,x,k,X \n{CANARY},1,a,1\n" * 2,
    ]
    for number, text in enumerate(broken):
        try:
            opened(tmp_path, text, name=f"d{number}.csv")
        except CohortiumError as error:
            chain: BaseException | None = error
            while chain is not None:
                assert CANARY not in str(chain)
                chain = chain.__context__
    assert CANARY not in caplog.text
    out, err = capfd.readouterr()
    assert CANARY not in out + err


def test_a_failing_statement_says_nothing_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(tmp_path, f"who,x,k\n{CANARY},1,a\n")
    monkeypatch.setattr(sql, "render", lambda *_, **__: "SELECT CAST(_person || 'x' AS INTEGER), ? FROM local_rows")
    with pytest.raises(DataError) as refused:
        source.aggregate(plan(ir.Count()), SALT)
    assert CANARY not in str(refused.value)
    assert refused.value.__context__ is None


def test_one_persons_presence_redraws_nobody_elses_lottery(tmp_path: Path) -> None:
    """Otherwise the difference of two answers would show more of the newcomer than the sensitivity allows."""
    crowd = [f"p{i % 20},{i % 11},a" for i in range(200)]
    without = opened(tmp_path, "who,x,k\n" + "\n".join(crowd), name="a.csv")
    with_them = opened(
        tmp_path, "who,x,k\n" + "\n".join(["new,10,b", *crowd[:50], "new,3,b", *crowd[50:]]), name="b.csv"
    )
    asked = plan(ir.Sum("x"), ir.Count(), keys=(ir.Key("k", ("a",)),))
    for number in range(20):
        salt = os.urandom(32)
        assert np.array_equal(without.aggregate(asked, salt), with_them.aggregate(asked, salt)), number


def test_which_rows_are_kept_follows_neither_value_nor_order(tmp_path: Path) -> None:
    """A person with rows 0..9 keeps two of them: over many salts each as often, whatever is large or first."""
    source = opened(tmp_path, "who,x,k\n" + "".join(f"p,{i},a\n" for i in range(10)))
    asked = plan(ir.Histogram("x", tuple(float(i) for i in range(11))))
    kept = sum(source.aggregate(asked, os.urandom(32)) for _ in range(600))
    assert kept.sum() == 1200
    assert (np.square(kept - 120) / 120).sum() < 60  # chi-square, 9 degrees of freedom


def test_empty_results_and_empty_files_have_the_same_shape(tmp_path: Path) -> None:
    full = opened(tmp_path, "who,x,k\np,1,a\n")
    empty = opened(tmp_path, "who,x,k\n", name="e.csv")
    asked = plan(ir.Count(), ir.Stddev("x"), ir.Histogram("k"), keys=(ir.Key("k"),), where=ir.Comparison("x", ">", 9.0))
    for source in (full, empty):
        found = source.aggregate(asked, SALT)
        assert found.shape == (asked.length,)
        assert not found.any()


def test_many_threads_get_the_same_sums(tmp_path: Path) -> None:
    source = opened(tmp_path, "who,x,k\n" + "".join(f"p{i % 300},{i % 11},a\n" for i in range(2000)))
    asked = plan(ir.Stddev("x"), ir.Count())
    expected = source.aggregate(asked, SALT).tolist()
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(source.aggregate(asked, SALT).tolist())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 16
