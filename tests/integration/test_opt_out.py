"""Persons on the opt-out list are not counted, in any engine: the sums are those of data without them."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import duckdb
import psycopg
import pytest
from typer.testing import CliRunner

from analytics_client.agent import config, opt_out
from analytics_client.agent.cli import app
from analytics_client.agent.sources import Source, open_source
from analytics_client.agent.sources import duckdb as duckdb_source
from queries import ir
from queries.errors import ConfigError, DataError
from queries.plan import make_plan
from queries.schema import from_toml

SALT = bytes(range(32))
SCHEMA = """
name = "t"
privacy_unit = "who"
max_rows = 2
max_persons = 1000
[columns]
x = { type = "number", lower = 0, upper = 100 }
"""
DATASET = from_toml(SCHEMA)
PLAN = make_plan(ir.Query("t", (ir.NamedAggregate("n", ir.Count()), ir.NamedAggregate("m", ir.Mean("x")))), DATASET)
PERSONS = ("p1", "p2", "p2", "ä€'", "p4", "p4", "p4", "17")
GONE = ("p2", "ä€'", "17")


def _csv(persons: tuple[str, ...]) -> str:
    return "who,x\n" + "".join(f"{person},{10 + len(person)}\n" for person in persons)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "all.csv").write_text(_csv(PERSONS))
    (tmp_path / "kept.csv").write_text(_csv(tuple(p for p in PERSONS if p not in GONE)))
    with duckdb.connect() as connection:
        connection.execute(f"COPY (FROM read_csv('{tmp_path}/all.csv', all_varchar=true)) TO '{tmp_path}/all.parquet'")
    return tmp_path


def source(folder: Path, where: str) -> Source:
    (folder / "agent.toml").write_text(f"[datasets.t]\n{where}\n")
    return open_source(config.load(folder).datasets["t"], DATASET)


def listed(folder: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["opt-out", str(folder), "t", *words])
    assert done.exit_code == 0, done.output
    return done.output


def _csv_files(folder: Path, _url: str, _patch: pytest.MonkeyPatch) -> str:
    return f'path = "{folder}/all.csv"'


def _parquet_in_place(folder: Path, _url: str, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(duckdb_source, "IN_PLACE_BYTES", 0)
    return f'path = "{folder}/all.parquet"'


def _postgresql(folder: Path, url: str, _patch: pytest.MonkeyPatch) -> str:
    address = url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE public.everyone (who text, x double precision)")
        rows = [(person, 10 + len(person)) for person in PERSONS]
        cursor.executemany("INSERT INTO public.everyone VALUES (%s, %s)", rows)
    return f'connection = "{address}"\ntable = "everyone"'


@pytest.mark.parametrize("place", [_csv_files, _parquet_in_place, _postgresql])
def test_sums_are_those_of_data_without_the_listed(
    folder: Path,
    place: Callable[[Path, str, pytest.MonkeyPatch], str],
    postgresql_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = source(folder, f'path = "{folder}/kept.csv"').aggregate(PLAN, SALT)
    everyone = source(folder, f'path = "{folder}/all.csv"').aggregate(PLAN, SALT)
    assert (kept != everyone).any()
    where = place(folder, postgresql_database, monkeypatch)
    (folder / "agent.toml").write_text(f'[datasets.t]\n{where}\nopt_out = "gone.txt"\n')
    assert listed(folder, "p4") == "1 person is left out of 't'.\n"
    listed(folder, "--withdraw", "p4")
    with_list = source(folder, f'{where}\nopt_out = "gone.txt"')
    assert (with_list.aggregate(PLAN, SALT) == everyone).all()
    assert "3 persons" in listed(folder, *GONE[:2], f" {GONE[2]} ")  # as typed, with a space beside it
    assert (with_list.aggregate(PLAN, SALT) == kept).all()  # the open source takes it up
    assert with_list.check().persons == 2
    listed(folder, "--withdraw", *GONE)
    assert (with_list.aggregate(PLAN, SALT) == everyone).all()
    (folder / "gone.txt").unlink()
    with pytest.raises((ConfigError, DataError), match="opt-out list"):  # never everyone because the list is lost
        with_list.aggregate(PLAN, SALT)
    with_list.close()


def test_the_list_names_nobody(folder: Path) -> None:
    (folder / "agent.toml").write_text('[datasets.t]\npath = "all.csv"\nopt_out = "gone.txt"\n')
    done = CliRunner().invoke(app, ["opt-out", str(folder), "t", "-"], input="p1\np2\n\n")
    assert done.output == "2 persons are left out of 't'.\n"
    text = (folder / "gone.txt").read_text()
    assert "p1" not in text.split()
    assert stat.S_IMODE((folder / "gone.txt").stat().st_mode) == 0o600
    other = folder / "other.txt"
    opt_out.change(other, ["p1", "p2"])
    assert not opt_out.read(other).hashes & opt_out.read(folder / "gone.txt").hashes  # another salt


@pytest.mark.parametrize("content", ["", "p1\n", "salt 12\n", "salt " + "0" * 64 + "\np1\n", "\udcff"])
def test_what_is_no_list_is_refused(folder: Path, content: str) -> None:
    (folder / "gone.txt").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match="opt-out list"):
        source(folder, 'path = "all.csv"\nopt_out = "gone.txt"').aggregate(PLAN, SALT)


def test_a_dataset_without_persons_cannot_leave_any_out(folder: Path) -> None:
    opt_out.change(folder / "gone.txt", ["p1"])
    (folder / "agent.toml").write_text('[datasets.t]\npath = "all.csv"\nopt_out = "gone.txt"\n')
    table = config.load(folder).datasets["t"]
    rows = from_toml(SCHEMA.replace('privacy_unit = "who"\nmax_rows = 2\n', ""))
    with pytest.raises(ConfigError, match="tells persons apart"):
        open_source(table, rows)


def test_without_a_list_the_command_says_how_to_have_one(folder: Path) -> None:
    (folder / "agent.toml").write_text('[datasets.t]\npath = "all.csv"\n')
    done = CliRunner().invoke(app, ["opt-out", str(folder), "t", "p1"])
    assert isinstance(done.exception, ConfigError)
    assert "opt_out" in done.exception.hint
