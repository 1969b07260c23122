"""An OMOP CDM becomes datasets: the views run on a real PostgreSQL and on DuckDB, and give the same answers."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import numpy as np
import psycopg
import pytest
from harness.live import command

from analytics_client.agent import config, omop
from analytics_client.agent.sources import open_source
from queries import ir
from queries.errors import ConfigError
from queries.plan import make_plan
from queries.schema import from_toml

CDM = """
CREATE SCHEMA cdm;
CREATE SCHEMA cohortium;
CREATE TABLE cdm.person (person_id integer, gender_concept_id integer, year_of_birth integer,
  race_concept_id integer, ethnicity_concept_id integer);
CREATE TABLE cdm.death (person_id integer, death_date date);
CREATE TABLE cdm.observation_period (person_id integer, observation_period_start_date date,
  observation_period_end_date date);
CREATE TABLE cdm.visit_occurrence (person_id integer, visit_concept_id integer, visit_start_date date,
  visit_end_date date);
CREATE TABLE cdm.condition_occurrence (person_id integer, condition_concept_id integer, condition_start_date date);
CREATE TABLE cdm.drug_exposure (person_id integer, drug_concept_id integer, drug_exposure_start_date date,
  days_supply integer);
CREATE TABLE cdm.measurement (person_id integer, measurement_concept_id integer, measurement_date date,
  value_as_number numeric, unit_concept_id integer);
"""
SALT = bytes(range(32))


def rows() -> dict[str, list[tuple[object, ...]]]:
    """A small synthetic CDM, as it would come out of an ETL: zeros for unmapped concepts, other units, missing ends."""
    drawn = random.Random(3)
    people = range(1, 61)
    return {
        "person": [
            (
                p,
                drawn.choice([8532, 8507, 0]),
                1930 + p,
                drawn.choice([8527, 8516, 0]),
                drawn.choice([38003563, 38003564]),
            )
            for p in people
        ],
        "death": [(p, "2020-05-01") for p in people if p % 7 == 0],
        "observation_period": [(p, "2019-01-01", f"2020-0{1 + p % 9}-15") for p in people if p % 5],
        "visit_occurrence": [
            (p, drawn.choice([9201, 9202, 9203, 262, 32036]), "2019-03-01", f"2019-03-{1 + p % 20:02}")
            for p in people
            for _ in range(p % 3)
        ],
        "condition_occurrence": [(p, drawn.choice([201826, 316866, 12345]), "2019-04-01") for p in people],
        "drug_exposure": [(p, 1503297, "2019-04-02", drawn.choice([30, 90, None])) for p in people if p % 2],
        "measurement": [
            (p, measure.concept, "2019-06-01", round(drawn.uniform(measure.lower, measure.upper), 1), unit)
            for p in people
            for measure in omop.MEASURES
            for unit in (measure.unit_concept, 1)[: 1 + (p % 4 == 0)]
        ],
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The views over a CDM in DuckDB, written to Parquet."""
    folder = tmp_path_factory.mktemp("omop")
    with duckdb.connect() as connection:
        connection.execute(CDM)
        for table, values in rows().items():
            marks = ", ".join("?" * len(values[0]))
            connection.executemany(f"INSERT INTO cdm.{table} VALUES ({marks})", values)
        connection.execute(omop.views("duckdb", cdm="cdm", target="cohortium"))
        for name in omop.schemas():
            connection.execute(f"COPY (SELECT * FROM cohortium.{name}) TO '{folder / name}.parquet'")
    return folder


@pytest.fixture
def server(postgresql_database: str) -> str:
    address = postgresql_database.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(CDM.encode())
        with connection.cursor() as cursor:
            for table, values in rows().items():
                marks = ", ".join(["%s"] * len(values[0]))
                cursor.executemany(f"INSERT INTO cdm.{table} VALUES ({marks})".encode(), values)
        connection.execute(omop.views("postgres", cdm="cdm", target="cohortium").encode())
    return address


def questions(name: str) -> list[ir.Query]:
    dataset = from_toml(omop.schemas()[name])
    numbers = [c.name for c in dataset.columns if not hasattr(c.kind, "categories")]
    keys = [c.name for c in dataset.columns if hasattr(c.kind, "categories")]
    means = tuple(ir.NamedAggregate(f"m_{column}", ir.Count(column)) for column in numbers)
    return [ir.Query(name, (ir.NamedAggregate("n", ir.Count()), *means), keys=(ir.Key(key),)) for key in keys]


@pytest.mark.parametrize("name", list(omop.schemas()))
def test_postgresql_and_duckdb_answer_alike(name: str, server: str, exported: Path) -> None:
    dataset = from_toml(omop.schemas()[name])
    table = f'connection = "{server}"\ntable = "cohortium.{name}"'
    there = open_source(config.parse(f"[datasets.{name}]\n{table}\n", exported).datasets[name], dataset)
    here = open_source(
        config.parse(f'[datasets.{name}]\npath = "{exported / name}.parquet"\n', exported).datasets[name], dataset
    )
    for question in questions(name):
        plan = make_plan(question, dataset)
        found = there.aggregate(plan, SALT)
        assert found.any()
        if dataset.max_rows == 1 or name != "omop_measurements":  # else the lotteries differ between engines
            assert np.array_equal(found, here.aggregate(plan, SALT)), question
    assert there.check().persons == here.check().persons


def test_people_are_counted_by_their_published_words(exported: Path) -> None:
    dataset = from_toml(omop.schemas()["omop_person"])
    table = config.parse(f'[datasets.t]\npath = "{exported}/omop_person.parquet"\n', exported).datasets["t"]
    source = open_source(table, dataset)
    people = rows()["person"]

    def count(column: str) -> list[int]:
        plan = make_plan(
            ir.Query("omop_person", (ir.NamedAggregate("n", ir.Count()),), keys=(ir.Key(column),)), dataset
        )
        return source.aggregate(plan, SALT).tolist()

    assert count("gender") == [sum(p[1] == c for p in people) for c in (8532, 8507)] + [0]
    assert count("died") == [60 - 8, 8]


def test_a_measurement_in_another_unit_has_no_value(exported: Path) -> None:
    dataset = from_toml(omop.schemas()["omop_measurements"])
    table = config.parse(f'[datasets.t]\npath = "{exported}/omop_measurements.parquet"\n', exported).datasets["t"]
    source = open_source(table, dataset)
    plan = make_plan(ir.Query("omop_measurements", (ir.NamedAggregate("n", ir.Count("systolic")),)), dataset)
    assert source.aggregate(plan, SALT).tolist() == [60]


def test_the_command_writes_views_and_schemas(tmp_path: Path) -> None:
    done = command(
        "cohortium-agent", "omop", tmp_path / "ready", "--dialect", "duckdb", "--cdm", "main", "--target", ""
    )
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "ready").iterdir()}
    assert names == {"views.sql", *(f"{name}.toml" for name in omop.schemas())}
    for path in (tmp_path / "ready").glob("*.toml"):
        assert from_toml(path.read_text()).name == path.stem
    wrong = command("cohortium-agent", "omop", tmp_path / "x", "--dialect", "oracle")
    assert wrong.returncode != 0
    assert "one of postgres, duckdb" in wrong.stderr


def test_a_schema_or_dialect_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="no name of a schema"):
        omop.views("postgres", cdm="cdm; DROP TABLE person", target="x")
    with pytest.raises(ConfigError, match="no dialect 'oracle'"):
        omop.dialect_named("oracle")
