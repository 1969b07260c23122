"""A table of a real PostgreSQL answers plans with the integers that the same rows in a CSV file give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg
import pytest
from harness.consortium import consortium
from harness.noiseless import remove_noise

from analytics_client.agent import config
from analytics_client.agent.sources import Source, open_source
from analytics_client.agent.sources.postgresql import PostgreSQLSource
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
x = { type = "number", lower = -3.5, upper = 4.25 }
k = { type = "category", categories = ["50% off", "it's", "x\\"y"], other = true }
code = { type = "category", categories = ["0", "1"] }
n = { type = "integer", lower = 0, upper = 9 }
"""
DATASET = from_toml(SCHEMA)
ROWS = [
    # person, x (double), k, code, n (numeric)
    ("p1", "1.5", "50% off", "0", "3"),
    ("p1", "-9", " it's ", "1.0", "4"),
    ("p2", "NaN", 'x"y', "01", "12"),
    ("p3", "inf", "unheard of", "2", ""),
    ("p4", "", "", "", "0"),
    ("", "1", "it's", "0", "1"),
    ("p5", "4.25", "NA", "1", "9"),
    ("p6", "-0.0", "it's", "0", "1e400"),
    ("ä€", "0.1", "IT'S", "1", "5"),
]
QUERIES = [
    ir.Query("t", (ir.NamedAggregate("n", ir.Count()), ir.NamedAggregate("s", ir.Stddev("x"))), keys=(ir.Key("k"),)),
    ir.Query("t", (ir.NamedAggregate("m", ir.Mean("n")), ir.NamedAggregate("c", ir.Count("k")))),
    ir.Query("t", (ir.NamedAggregate("h", ir.Histogram("x", (-3.0, -0.1, 0.0, 2.5, 4.0))),), keys=(ir.Key("code"),)),
    ir.Query("t", (ir.NamedAggregate("k", ir.Histogram("k")),), where=ir.IsIn("k", ("it's", "50% off"))),
    ir.Query("t", (ir.NamedAggregate("n", ir.Count("code")),), where=ir.Not(ir.Comparison("code", "=", "1"))),
]


@pytest.fixture
def url(postgresql_database: str) -> str:
    address = postgresql_database.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Clinic"')
        connection.execute(
            'CREATE TABLE "Clinic"."pa;tients" ("Who" text, x double precision, "K" text, code varchar(9), n numeric)'
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                'INSERT INTO "Clinic"."pa;tients" VALUES (%s, %s, %s, %s, %s)',
                [tuple(value or None for value in row) for row in ROWS],
            )
    return address


def in_database(address: str, extra: str = "") -> config.DatasetConfig:
    text = f'[datasets.t]\nconnection = "{address}"\ntable = \'Clinic.pa;tients\'\nmissing = ["NA"]\n{extra}'
    return config.parse(text, Path("/")).datasets["t"]


def in_file(folder: Path) -> Source:
    lines = ["who,x,k,code,n"]
    for row in ROWS:
        quoted = ['"' + value.replace('"', '""') + '"' if value else "" for value in row]
        lines.append(",".join(quoted))
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    text = f'[datasets.t]\npath = "{folder / "t.csv"}"\nmissing = ["NA"]\n'
    return open_source(config.parse(text, folder).datasets["t"], DATASET)


def test_a_database_and_a_file_give_the_same_sums_and_the_same_report(url: str, tmp_path: Path) -> None:
    database, file = open_source(in_database(url), DATASET), in_file(tmp_path)
    assert isinstance(database, PostgreSQLSource)
    for query in QUERIES:
        plan = make_plan(query, DATASET)
        assert np.array_equal(database.aggregate(plan, SALT), file.aggregate(plan, SALT)), query
    assert [(c.name, c.missing, c.clipped, c.unpublished) for c in database.check().columns] == [
        (c.name, c.missing, c.clipped, c.unpublished) for c in file.check().columns
    ]
    ours, theirs = database.check(), file.check()
    assert (ours.rows, ours.persons, ours.without_person, ours.most_rows) == (
        theirs.rows,
        theirs.persons,
        theirs.without_person,
        theirs.most_rows,
    )


def test_rows_for_training_are_those_of_the_file(url: str, tmp_path: Path) -> None:
    plan = make_plan(
        ir.Query("t", (ir.NamedAggregate("m", ir.Mean("x")), ir.NamedAggregate("k", ir.Mean("n")))), DATASET
    )
    ours, theirs = open_source(in_database(url), DATASET).rows(plan, SALT), in_file(tmp_path).rows(plan, SALT)
    assert set(ours) == set(theirs) == {"x", "n"}
    for name in ours:
        assert np.array_equal(np.sort(ours[name]), np.sort(theirs[name]), equal_nan=True)


def test_at_most_max_rows_of_a_person_count_and_which_is_drawn_by_the_salt(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("""INSERT INTO "Clinic"."pa;tients" SELECT 'many', i / 1000.0, 'it''s', '0', 1
                              FROM generate_series(1, 1000) AS i""")
    source = open_source(in_database(url), DATASET)
    plan = make_plan(ir.Query("t", (ir.NamedAggregate("n", ir.Count()),), where=ir.Comparison("n", "=", 1.0)), DATASET)
    assert source.aggregate(plan, SALT).tolist() == [
        2
    ]  # p6's value is out of reach, the row without person is left out
    total = make_plan(ir.Query("t", (ir.NamedAggregate("m", ir.Sum("x")),)), DATASET)
    drawn = {int(source.aggregate(total, bytes([salt]) * 32)[-1]) for salt in range(12)}
    assert len(drawn) > 6


def test_the_agent_only_reads(url: str) -> None:
    source = open_source(in_database(url), DATASET)
    assert isinstance(source, PostgreSQLSource)
    with pytest.raises(DataError, match="ReadOnlySqlTransaction"):
        source._ask(lambda connection: connection.execute('DELETE FROM "Clinic"."pa;tients"'))


def test_a_lost_connection_is_made_anew(url: str) -> None:
    source = open_source(in_database(url), DATASET)
    plan = make_plan(QUERIES[0], DATASET)
    before = source.aggregate(plan, SALT)
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cohortium-agent'"
        ).fetchall()
    assert ended
    assert np.array_equal(source.aggregate(plan, SALT), before)


def test_a_server_that_is_away_is_said_so_without_its_words(url: str) -> None:
    away = url.replace("host=", "host=/nowhere")
    with pytest.raises(DataError, match="cannot be reached"):
        open_source(in_database(away), DATASET)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ('ALTER TABLE "Clinic"."pa;tients" ALTER x TYPE text', "is of type text"),
        ('ALTER TABLE "Clinic"."pa;tients" DROP x', "no local column 'x'"),
        ('DROP TABLE "Clinic"."pa;tients"', "no table or view"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(url: str, change: str, match: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(change.encode())
    with pytest.raises(DataError, match=match):
        open_source(in_database(url), DATASET)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('connection = "postgresql://u:secret@h/d"\ntable = "t"', "no password belongs into this file"),
        ('connection = "postgresql://u@h/d?password=secret"\ntable = "t"', "no password belongs into this file"),
        ('connection = "postgresql://u@h/d"', "go together"),
        ('connection = "mysql://u@h/d"\ntable = "t"', "looks like"),
        ('path = "a.csv"\nconnection = "postgresql://u@h/d"\ntable = "t"', "either path, or connection"),
        ("", "either path, or connection"),
    ],
)
def test_a_place_that_is_none_is_refused(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        config.parse(f"[datasets.t]\n{text}\n", Path("/"))
    assert "secret" not in str(caught.value)


def test_a_consortium_answers_over_a_database_and_files_together(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_noise(monkeypatch)
    in_file(tmp_path).close()
    tables = {"ash": f'connection = "{url}"\ntable = \'Clinic.pa;tients\'\nmissing = ["NA"]'}
    tables |= dict.fromkeys(("birch", "cedar"), f'path = "{tmp_path / "t.csv"}"\nmissing = ["NA"]')
    files = {name: {"t": body} for name, body in tables.items()}
    with consortium(tmp_path, [SCHEMA], files) as running, running.session() as session:
        result = session.query("SELECT COUNT(*) AS n, AVG(n) AS m FROM t", rho=0.5)
    rows = [row for row in ROWS if row[0]]
    values = [min(9.0, float(row[4])) for row in rows if row[4] and row[4] != "1e400"]
    assert result.estimate("n").value == 3 * len(rows)
    assert result.estimate("m").value == pytest.approx(sum(values) / len(values), rel=1e-9)
