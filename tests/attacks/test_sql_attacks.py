"""Texts that try to reach files, run statements, hide things or exhaust whoever reads them."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest

from queries import dialect, ir, schema
from queries.encode import decode_query, encode_query
from queries.errors import CohortiumError, QueryError, SqlError
from queries.limits import MAX_DEPTH
from queries.resolve import resolve
from queries.sql import parse

PATIENTS = schema.Dataset(
    name="patients",
    privacy_unit="patient_id",
    columns=(
        schema.Column("age", schema.Numeric(0, 120)),
        schema.Column("sex", schema.Categorical(("f", "m"))),
    ),
)
SCHEMAS = {"patients": PATIENTS}
ASK = "SELECT COUNT(*) FROM patients"

STATEMENTS = """
    DROP TABLE patients
    DELETE FROM patients
    UPDATE patients SET age = 1
    INSERT INTO patients VALUES (1)
    CREATE TABLE x AS SELECT COUNT(*) FROM patients
    ALTER TABLE patients ADD x INT
    TRUNCATE patients
    MERGE INTO patients USING x ON 1 = 1
    COPY patients TO 'out.csv'
    EXPORT DATABASE 'out'
    ATTACH 'x.db'
    INSTALL httpfs
    LOAD httpfs
    PRAGMA database_list
    SET enable_external_access = true
    CALL pragma_version()
    EXPLAIN SELECT COUNT(*) FROM patients
    DESCRIBE patients
    SHOW TABLES
    SUMMARIZE patients
    VALUES (1)
    TABLE patients
    FROM patients
    FROM patients SELECT COUNT(*)
    BEGIN
    COMMIT
    GRANT ALL ON patients TO public
    EXECUTE x
    VACUUM
    WITH p AS (SELECT * FROM patients) SELECT COUNT(*) FROM p
    (SELECT COUNT(*) FROM patients)
    SELECT COUNT(*) FROM patients; DROP TABLE patients
    SELECT COUNT(*) FROM patients; SELECT COUNT(*) FROM patients
    ; SELECT COUNT(*) FROM patients
    SELECT COUNT(*) FROM patients UNION SELECT COUNT(*) FROM patients
    SELECT COUNT(*) FROM patients EXCEPT SELECT COUNT(*) FROM patients
    SELECT COUNT(*) INTO x FROM patients
"""
SOURCES = """
    'patients.csv'
    "patients.csv"
    "/etc/passwd"
    "../patients"
    "https://example.org/x.parquet"
    "patients"".""x"
    patients.csv
    main.patients
    information_schema.tables
    duckdb_settings()
    read_csv('x.csv')
    read_text('/etc/passwd')
    "read_csv"('x.csv')
    glob('*')
    range(10)
    UNNEST([1, 2])
    (SELECT * FROM patients)
    (patients)
    (VALUES (1))
    LATERAL (SELECT 1)
    patients, patients AS other
    patients JOIN patients AS other ON 1 = 1
    patients CROSS JOIN patients
    patients NATURAL JOIN patients
    patients LEFT OUTER JOIN patients USING (age)
    patients ASOF JOIN patients
    patients POSITIONAL JOIN patients
    patients TABLESAMPLE 10
    patients USING SAMPLE 1
    patients PIVOT (COUNT(*) FOR sex IN ('f'))
    patients AS OF SYSTEM TIME 1
    patients FOR UPDATE
    patients AT (VERSION => 1)
    patients AS p(age)
    $1
    ?
    :name
    @table
    {{ table }}
    `patients`
    [patients]
"""
CONDITIONS = """
    age IN (SELECT age FROM patients)
    EXISTS (SELECT 1)
    age = ANY (SELECT 1)
    age > ALL (1, 2)
    (SELECT 1) = 1
    age = (SELECT MAX(age) FROM patients)
    age + sex = 1
    -age = 1
    LOG(age) = 1
    age::INT = 1
    CAST(age AS INT) = 1
    CASE WHEN age > 1 THEN 1 ELSE 'x' END = 1
    CASE age WHEN 1 THEN 1 END = 1
    age = 1 COLLATE nocase
    sex || 'x' = 'fx'
    sex LIKE 'f%'
    sex ILIKE 'F'
    sex SIMILAR TO 'f'
    sex ~ 'f'
    sex GLOB 'f'
    sex = E'f'
    sex = U&'f'
    sex = x'66'
    sex = $$f$$
    sex = 'f' 'm'
    (age, sex) = (1, 'f')
    age IS DISTINCT FROM 1
    age IS TRUE
    age = 0x10
    age = 1_0
    age = 1e
    age = 1..2
    age = ?
    age = $1
    age = :x
    age = @x
    age = {x}
    age = {{ x }}
    age[0] = 1
    age.x = 1
    age -> 1
    patient_id = 'p17'
    rowid = 1
    current_date = 1
    random() < 0.5
    getenv('HOME') = 'x'
    age = 1 OR 1
    TRUE
    1
    NULL
    NOT NULL
    age = age
    age BETWEEN SYMMETRIC 1 AND 2
    age == 1
    age <=> 1
    age IN 1
    age NOT NULL
    age ISNULL
    age NOTNULL
    age = 1 = 1
    age < 1 < 2
    age = 1 IS NULL
    !age = 1
    age = 1 XOR sex = 'f'
    age OVERLAPS 1
    age = 1 WINDOW w AS ()
    age = 1 QUALIFY 1 = 1
    age = 1 FETCH FIRST 1 ROW ONLY
    age = 1 OFFSET 1
    age = 1 FORMAT json
    age = 1 SETTINGS x = 1
"""
SELECTED = """
    *
    age
    patients.*
    COUNT(*) OVER ()
    COUNT(*) FILTER (WHERE age > 1)
    COUNT(* EXCLUDE (age))
    COUNT(ALL age)
    COUNT(DISTINCT age)
    AVG(age ORDER BY age)
    AVG(age) + 1
    -AVG(age)
    AVG(AVG(age))
    AVG(CASE WHEN sex = 'f' THEN sex END)
    SUM(age = sex)
    SUM(COUNT(*))
    FIRST(age)
    LIST(age)
    STRING_AGG(sex, ',')
    ARRAY_AGG(age)
    QUANTILE_CONT(age, sex)
    "COUNT"(*)
    main.COUNT(*)
    COUNT(*).x
    (COUNT(*))
    (SELECT COUNT(*) FROM patients)
    1
    'x'
    NULL
    COUNT(*) AS "a b"
    COUNT(*) AS 'x'
    COUNT(*) AS (a, b)
    TOP 1 COUNT(*)
    AS STRUCT COUNT(*)
    HISTOGRAM(age, -1)
    HISTOGRAM(age, age)
    HISTOGRAM(age, [0, 1])
    COLUMNS(*)
"""
HIDDEN = (
    f"{ASK} /* WHERE age > 1 */",
    f"{ASK} /*! WHERE age > 1 */",
    f"{ASK} /*+ hint */",
    f"{ASK} /* /* */ WHERE age > 1 */",
    f"{ASK} /* never closed",
    f"{ASK} {{# WHERE age > 1 #}}",
    f"{ASK} {{# WHERE age > 1\n#}}",
    f"{{#\n#}} {ASK}",
    f"{ASK} # WHERE age > 1",
    f"{ASK} // WHERE age > 1",
    f"{ASK}\x00 WHERE age > 1",
    f"{ASK} \u202e WHERE age > 1",
    f"{ASK} WHERE a\u200bge > 1",
    f"{ASK} WHERE \uff41ge > 1",
    f"{ASK} WHERE sex = '\x00'",
    f"{ASK} WHERE age > \u0661",
    f"{ASK} WHERE sex = \u2018f\u2019",
)


def lines(block: str) -> list[str]:
    return [line.strip() for line in block.strip().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        *lines(STATEMENTS),
        *(f"SELECT COUNT(*) FROM {source}" for source in lines(SOURCES)),
        *(f"{ASK} WHERE {condition}" for condition in lines(CONDITIONS)),
        *(f"SELECT {selected} FROM patients" for selected in lines(SELECTED)),
        *HIDDEN,
    ],
)
def test_everything_but_the_subset_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text, SCHEMAS)
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_a_line_comment_hides_only_itself() -> None:
    query = parse(f"{ASK} -- WHERE age > 1 /* '\nWHERE sex = 'f' -- AND age > 1", SCHEMAS)
    assert query.where == ir.Comparison("sex", "=", "f")


@pytest.mark.parametrize(
    "text",
    [
        f"{ASK} WHERE {'(' * 3000}age = 1{')' * 3000}",
        f"{ASK} WHERE {'(' * 60_000}",
        f"{ASK} WHERE {'NOT ' * 10_000}age = 1",
        f"{ASK} WHERE {'NOT (' * 3000}age = 1{')' * 3000}",
        f"{ASK} WHERE {'(age = 1 OR ' * 3000}age = 1{')' * 3000}",
        f"{ASK} WHERE age = {'- ' * 20_000}1",
        f"{ASK} WHERE age = {'-(' * 3000}1{')' * 3000}",
        f"{ASK} WHERE age IN {'(' * 3000}1{')' * 3000}",
        f"{ASK} WHERE age {'NOT BETWEEN age ' * 3000}",
        f"{ASK} WHERE age {'BETWEEN 1 AND ' * 4000}",
        f"{ASK} WHERE 1 {'!= NOT ' * 5000}1",
        f"{ASK} WHERE age {'= 1 ' * 9000}",
        f"{ASK} WHERE age {'. COUNT(*) ' * 3000}",
        f"{ASK} WHERE age{'.age' * 9000} = 1",
        f"{ASK} WHERE {'CASE WHEN ' * 5000}",
        f"{ASK} WHERE {'EXISTS (SELECT ' * 3000}",
        f"SELECT {'COUNT(' * 9000}",
        f"SELECT {'AVG(age), ' * 5000}AVG(age) FROM patients",
        f"{'SELECT ' * 9000}",
        f"{ASK} {'UNION SELECT COUNT(*) FROM patients ' * 1500}",
        f"{ASK} {'x ' * 20_001}",
        f"{ASK} WHERE age IN ({'1, ' * 15_000}1)",
        f"{ASK} WHERE sex = '{'x' * 60_000}'",
        f"{ASK} WHERE age > {'9' * 60_000}",
        f"{ASK} WHERE age > 1e{'9' * 60_000}",
        f"{ASK} WHERE {'x' * 60_000} = 1",
        f"{ASK} GROUP BY {'sex, ' * 9000}sex",
        "'" * 60_001,
        '"' * 60_001,
        "/*" * 30_000,
        "-- \n" * 16_000,
        "{{" * 30_000,
        "\n" * 60_000,
    ],
    ids=lambda text: text[29:60].strip(),
)
def test_a_text_made_to_exhaust_the_reader_is_refused_soon(text: str) -> None:
    assert len(text) < 64 * 1024
    started = time.process_time()
    with pytest.raises(QueryError):
        parse(text, SCHEMAS)
    assert time.process_time() - started < 5  # milliseconds on an idle machine; minutes where the parser back-tracks


def test_a_megabyte_is_refused_before_anything_reads_it() -> None:
    text = ASK + " " * 1_000_000
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(SqlError, match="longer than 64 KiB"):
        parse(text, SCHEMAS)
    assert time.process_time() - started < 0.1
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()


def test_a_long_chain_is_no_deep_one() -> None:
    query = parse(f"{ASK} WHERE {' OR '.join(['age = 1'] * 1400)}", SCHEMAS)
    assert isinstance(query.where, ir.AnyOf)
    assert len(query.where.parts) == 1400
    assert decode_query(encode_query(query)) == query


def test_the_deepest_text_needs_no_more_stack_than_a_thread_has() -> None:
    levels = dialect.MAX_NESTING
    for text in (
        f"{ASK} WHERE {'(' * levels}age = 1{')' * levels}",
        f"{ASK} WHERE {'NOT (' * (levels // 2)}age = 1{')' * (levels // 2)}",
        f"{ASK} WHERE {'NOT ' * levels}age = 1",
        f"{ASK} WHERE {'(age = 1 OR ' * levels}age = 1{')' * levels}",
    ):
        assert parse(text, SCHEMAS).where is not None
    twofold = "(sex = 'f' OR age = 2 AND %s)"  # two levels of the query for one parenthesis
    text = "age = 1"
    for _ in range(levels):
        text = twofold % text
    with pytest.raises(QueryError, match=f"nested more than {MAX_DEPTH} levels"):
        parse(f"{ASK} WHERE {text}", SCHEMAS)


def test_random_runs_of_allowed_words_neither_recurse_nor_stall() -> None:
    words = ["SELECT", "FROM", "WHERE", "GROUP BY", "AS", "AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "=", "<"]
    words += ["(", ")", ",", ".", "-", "*", "age", "sex", "patients", "COUNT(", "1", "'f'"]
    chance = random.Random(20)
    for _ in range(60):
        cycle = " ".join(chance.choice(words) for _ in range(chance.randint(1, 4)))
        start = chance.choice(("SELECT", f"{ASK} WHERE", f"{ASK} WHERE age", f"{ASK} GROUP BY sex"))
        with pytest.raises(CohortiumError):
            parse(f"{start} {f'{cycle} ' * 1000}", SCHEMAS)


def test_what_the_gate_says_never_holds_a_literal() -> None:
    canary = "zqxj"
    for where in (
        ir.Comparison("age", "=", canary),
        ir.Comparison("sex", "=", canary),
        ir.IsIn("sex", ("f", canary)),
        ir.Comparison("age", ">", 98765.4321),
        ir.Not(ir.IsIn("age", (98765.4321,))),
        ir.Comparison("sex", "=", 98765.4321),
    ):
        query = ir.Query("patients", (ir.NamedAggregate("n", ir.Count()),), where)
        with pytest.raises(QueryError) as caught:
            resolve(decode_query(encode_query(query)), PATIENTS)
        said = str(caught.value)
        assert canary not in said
        assert "98765" not in said
