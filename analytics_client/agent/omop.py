"""An OMOP CDM 5.4 as ready datasets: one view and one schema file for each, `cohortium-agent omop`.

The views flatten what a query needs into one table per kind of event, with the concepts of the OHDSI vocabularies as
words; a database's owner installs them where the agent's user may read them. The schemas say what is public about
them. Units are part of a measurement's meaning: rows in another unit than the stated one have no value there.
Must not know: connections, files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from sqlglot import exp, parse_one

from queries.errors import ConfigError

Dialect = Literal["postgres", "duckdb"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)
GENDERS = {"female": 8532, "male": 8507}
RACES = {"white": 8527, "black or african american": 8516, "asian": 8515, "american indian or alaska native": 8657,
         "native hawaiian or other pacific islander": 8557}  # fmt: skip
ETHNICITIES = {"hispanic or latino": 38003563, "not hispanic or latino": 38003564}
VISITS = {"inpatient": 9201, "outpatient": 9202, "emergency": 9203, "emergency then inpatient": 262}


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of measurement: its concept (a LOINC term), the concept of its unit, and what is plausible."""

    name: str
    concept: int
    unit_concept: int
    unit: str
    lower: float
    upper: float


MEASURES = (
    Measure("systolic", 3004249, 8876, "mmHg", 40, 300),
    Measure("diastolic", 3012888, 8876, "mmHg", 20, 200),
    Measure("heart_rate", 3027018, 8541, "1/min", 20, 250),
    Measure("weight", 3025315, 9529, "kg", 0.3, 300),
    Measure("height", 3036277, 8582, "cm", 40, 230),
    Measure("bmi", 3038553, 9531, "kg/m2", 10, 80),
    Measure("hba1c", 3004410, 8554, "%", 3, 20),
    Measure("glucose", 3004501, 8840, "mg/dl", 20, 800),
    Measure("creatinine", 3016723, 8840, "mg/dl", 0.1, 25),
    Measure("cholesterol", 3027114, 8840, "mg/dl", 40, 800),
    Measure("hdl", 3007070, 8840, "mg/dl", 5, 200),
    Measure("ldl", 3028437, 8840, "mg/dl", 10, 600),
    Measure("triglycerides", 3022192, 8840, "mg/dl", 10, 3000),
    Measure("haemoglobin", 3000963, 8713, "g/dl", 2, 25),
)
_SCHEMA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_AGE = "EXTRACT(YEAR FROM {date}) - p.year_of_birth AS age"
_PERSON = "CAST(p.person_id AS VARCHAR) AS person_id"


def dialect_named(name: str) -> Dialect:
    """Return a dialect by its name. Raise ConfigError for one that is none."""
    for dialect in DIALECTS:
        if name == dialect:
            return dialect
    raise ConfigError(f"there is no dialect {name!r}", hint=f"one of {', '.join(DIALECTS)}")


def views(dialect: Dialect, *, cdm: str, target: str) -> str:
    """Return the statements that make the views in schema `target` over the CDM in schema `cdm`; "" for the default.

    Raise ConfigError for a schema's name that is none.
    """
    for schema in (cdm, target):
        if schema and not _SCHEMA_NAME.fullmatch(schema):
            raise ConfigError(f"{schema!r} is no name of a schema", hint="letters, digits and _")
    statements = []
    for name, select in _selects(cdm).items():
        body = parse_one(select, dialect="postgres")
        create = exp.Create(
            this=exp.to_table(f"{target}.{name}" if target else name), kind="VIEW", expression=body, replace=True
        )
        statements.append(create.sql(dialect=dialect, pretty=True) + ";")
    return "\n\n".join(statements) + "\n"


def schemas() -> dict[str, str]:
    """Return the text of a schema file by the name of its dataset."""
    age, gender = _number("age", 0, 120, unit="years", integer=True), _category("gender", GENDERS)
    year = _number("year", 1950, 2100, integer=True)
    measures = [_number(m.name, m.lower, m.upper, unit=m.unit) for m in MEASURES]
    return {
        "omop_person": _schema(
            "omop_person",
            "OMOP CDM persons, one row each",
            1,
            [
                _number("year_of_birth", 1900, 2100, integer=True),
                gender,
                _category("race", RACES),
                _category("ethnicity", ETHNICITIES),
                _category("died", {"no": 0, "yes": 1}, other=False),
                _number("observed_days", 0, 36_525, unit="days"),
            ],
        ),
        "omop_visits": _schema(
            "omop_visits",
            "OMOP CDM visits",
            10,
            [age, gender, year, _category("kind", VISITS), _number("length_of_stay", 0, 365, unit="days")],
        ),
        "omop_conditions": _schema(
            "omop_conditions",
            "OMOP CDM conditions: list the concept ids to be published as categories of `concept`",
            20,
            [age, gender, year, _category("concept", {"201826": 0, "316866": 0, "4329847": 0, "255573": 0})],
        ),
        "omop_drugs": _schema(
            "omop_drugs",
            "OMOP CDM drug exposures: list the concept ids to be published as categories of `concept`",
            20,
            [
                age,
                gender,
                year,
                _category("concept", {"1503297": 0, "1539403": 0, "1308216": 0, "1112807": 0}),
                _number("days_supply", 0, 366, unit="days"),
            ],
        ),
        "omop_measurements": _schema(
            "omop_measurements", "OMOP CDM measurements, each row with one of them", 20, [age, gender, year, *measures]
        ),
    }


def _selects(cdm: str) -> dict[str, str]:
    """The views in PostgreSQL's dialect, which is the one that is written here; others are made from it."""
    at = f"{cdm}." if cdm else ""
    gender = _words("p.gender_concept_id", GENDERS)
    columns = ", ".join(
        f"CASE WHEN m.measurement_concept_id = {m.concept} AND m.unit_concept_id = {m.unit_concept}"
        f" THEN CAST(m.value_as_number AS DOUBLE PRECISION) END AS {m.name}"
        for m in MEASURES
    )
    wanted = ", ".join(str(m.concept) for m in MEASURES)

    def events(table: str, alias: str, date: str, extra: str, condition: str = "TRUE") -> str:
        return (  # names and numbers of this module alone
            f"SELECT {_PERSON}, {_AGE.format(date=f'{alias}.{date}')}, {gender} AS gender,"
            f" EXTRACT(YEAR FROM {alias}.{date}) AS year, {extra}"
            f" FROM {at}{table} AS {alias} JOIN {at}person AS p ON p.person_id = {alias}.person_id"
            f" WHERE {condition}"
        )

    return {
        "omop_person": (
            f"SELECT {_PERSON}, p.year_of_birth AS year_of_birth, {gender} AS gender,"
            f" {_words('p.race_concept_id', RACES)} AS race,"
            f" {_words('p.ethnicity_concept_id', ETHNICITIES)} AS ethnicity,"
            f" CASE WHEN EXISTS (SELECT 1 FROM {at}death AS d WHERE d.person_id = p.person_id)"
            f" THEN 'yes' ELSE 'no' END AS died,"
            f" (SELECT SUM(o.observation_period_end_date - o.observation_period_start_date)"
            f" FROM {at}observation_period AS o WHERE o.person_id = p.person_id) AS observed_days"
            f" FROM {at}person AS p"
        ),
        "omop_visits": events(
            "visit_occurrence",
            "v",
            "visit_start_date",
            f"{_words('v.visit_concept_id', VISITS)} AS kind, v.visit_end_date - v.visit_start_date AS length_of_stay",
        ),
        "omop_conditions": events(
            "condition_occurrence", "c", "condition_start_date", "CAST(c.condition_concept_id AS VARCHAR) AS concept"
        ),
        "omop_drugs": events(
            "drug_exposure",
            "x",
            "drug_exposure_start_date",
            "CAST(x.drug_concept_id AS VARCHAR) AS concept, x.days_supply AS days_supply",
        ),
        "omop_measurements": events(
            "measurement", "m", "measurement_date", columns, f"m.measurement_concept_id IN ({wanted})"
        ),
    }


def _words(column: str, concepts: Mapping[str, int]) -> str:
    cases = " ".join(f"WHEN {concept} THEN '{word}'" for word, concept in concepts.items())
    return f"CASE {column} {cases} END"


def _schema(name: str, description: str, max_rows: int, columns: list[str]) -> str:
    head = f'name = "{name}"\ndescription = "{description}"\nprivacy_unit = "person_id"\nmax_rows = {max_rows}\n'
    return head + "".join(f"\n{column}" for column in columns)


def _number(name: str, lower: float, upper: float, *, unit: str = "", integer: bool = False) -> str:
    kind = "integer" if integer else "number"
    named = f'unit = "{unit}"\n' if unit else ""
    return f'[columns.{name}]\ntype = "{kind}"\n{named}lower = {lower}\nupper = {upper}\n'


def _category(name: str, concepts: Mapping[str, int], *, other: bool = True) -> str:
    listed = ", ".join(f'"{word}"' for word in concepts)
    return f'[columns.{name}]\ntype = "category"\ncategories = [{listed}]\nother = {str(other).lower()}\n'
