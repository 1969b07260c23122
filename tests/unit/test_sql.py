"""Reading SQL: what each form means, and where and why everything else is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from textwrap import dedent

import pytest

from queries import dialect, ir, schema
from queries.errors import LiteralError, QueryError, SqlError, UnknownName
from queries.limits import MAX_SQL_BYTES
from queries.sql import parse

PATIENTS = schema.Dataset(
    name="patients",
    privacy_unit="patient_id",
    max_rows=5,
    columns=(
        schema.Column("age", schema.Numeric(0, 120, integer=True)),
        schema.Column("temp", schema.Numeric(-40, 60)),
        schema.Column("date", schema.Numeric(1900, 2100)),
        schema.Column("order", schema.Numeric(0, 9)),
        schema.Column("sex", schema.Categorical(("0", "1"))),
        schema.Column("code", schema.Categorical(("01", "1", "1.0", "-2"))),
        schema.Column("diag", schema.Categorical(("flu", "it's"), other=True)),
    ),
)
SCHEMAS = {"patients": PATIENTS, "visits": replace(PATIENTS, name="visits")}


def where(condition: str) -> ir.Predicate | None:
    return parse(f"SELECT COUNT(*) FROM patients WHERE {condition}", SCHEMAS).where


def outputs(select: str) -> dict[str, ir.Aggregate]:
    query = parse(f"SELECT {select} FROM patients", SCHEMAS)
    return {named.name: named.aggregate for named in query.aggregates}


def refused(text: str) -> SqlError:
    with pytest.raises(SqlError) as caught:
        parse(text, SCHEMAS)
    assert type(caught.value) is SqlError
    assert caught.value.hint
    return caught.value


def test_a_whole_query() -> None:
    text = """
        SELECT sex, COUNT(*) AS n, AVG(age) AS age, STDDEV(age)
        FROM patients -- of all hospitals
        WHERE age BETWEEN 18 AND 65 AND NOT diag IN ('flu', 'it''s')
        GROUP BY sex;
    """
    assert parse(text, SCHEMAS) == ir.Query(
        dataset="patients",
        aggregates=(
            ir.NamedAggregate("n", ir.Count()),
            ir.NamedAggregate("age", ir.Mean("age")),
            ir.NamedAggregate("stddev_age", ir.Stddev("age")),
        ),
        where=ir.AllOf(
            (
                ir.Comparison("age", ">=", 18.0),
                ir.Comparison("age", "<=", 65.0),
                ir.Not(ir.IsIn("diag", ("flu", "it's"))),
            )
        ),
        keys=(ir.Key("sex", ("0", "1")),),
    )


def test_every_aggregate_has_a_default_name() -> None:
    assert outputs(
        "COUNT(*), COUNT(diag), SUM(age), AVG(age), VARIANCE(age), VAR_SAMP(temp), VAR_POP(age), "
        "STDDEV(age), STDDEV_SAMP(temp), STDDEV_POP(age), HISTOGRAM(age, 2), HISTOGRAM(diag)"
    ) == {
        "count": ir.Count(),
        "count_diag": ir.Count("diag"),
        "sum_age": ir.Sum("age"),
        "avg_age": ir.Mean("age"),
        "variance_age": ir.Variance("age"),
        "variance_temp": ir.Variance("temp"),
        "var_pop_age": ir.Variance("age", 0),
        "stddev_age": ir.Stddev("age"),
        "stddev_temp": ir.Stddev("temp"),
        "stddev_pop_age": ir.Stddev("age", 0),
        "histogram_age": ir.Histogram("age", (0.0, 60.0, 120.0)),
        "histogram_diag": ir.Histogram("diag"),
    }


def test_default_names_are_numbered_and_give_way_to_aliases() -> None:
    assert list(outputs("COUNT(*), count ( * ), AVG(age) count_2")) == ["count", "count_3", "count_2"]
    assert list(outputs('COUNT(*) AS "N", AVG(AGE) AS Mean_Age')) == ["N", "Mean_Age"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("age = 40", ir.Comparison("age", "=", 40.0)),
        ("40 < age", ir.Comparison("age", ">", 40.0)),
        ("40 >= AGE", ir.Comparison("age", "<=", 40.0)),
        ("temp <> -1.5e1", ir.Comparison("temp", "!=", -15.0)),
        ("temp > -.5", ir.Comparison("temp", ">", -0.5)),
        ("temp > +3", ir.Comparison("temp", ">", 3.0)),
        ("patients.age != 1", ir.Comparison("age", "!=", 1.0)),
        ('"age" = 1', ir.Comparison("age", "=", 1.0)),
        ('"order" = 1', ir.Comparison("order", "=", 1.0)),
        ("date > 2000", ir.Comparison("date", ">", 2000.0)),
        ("sex = 1", ir.Comparison("sex", "=", "1")),
        ("1.0 = sex", ir.Comparison("sex", "=", "1")),
        ("sex IN (0, '1')", ir.IsIn("sex", ("0", "1"))),
        ("code = 01", ir.Comparison("code", "=", "01")),
        ("code = 1.0", ir.Comparison("code", "=", "1.0")),
        ("code = -2", ir.Comparison("code", "=", "-2")),
        ("diag = 'other'", ir.Comparison("diag", "=", "other")),
        ("age NOT IN (1, 2, 1)", ir.Not(ir.IsIn("age", (1.0, 2.0)))),
        ("age IS NULL", ir.IsNull("age")),
        ("age IS NOT NULL", ir.Not(ir.IsNull("age"))),
        ("NOT age IS NULL", ir.Not(ir.IsNull("age"))),
        (
            "age NOT BETWEEN 1 AND 2",
            ir.Not(ir.AllOf((ir.Comparison("age", ">=", 1.0), ir.Comparison("age", "<=", 2.0)))),
        ),
        (
            "NOT sex = 1 AND age = 2 OR age = 3",
            ir.AnyOf(
                (
                    ir.AllOf((ir.Not(ir.Comparison("sex", "=", "1")), ir.Comparison("age", "=", 2.0))),
                    ir.Comparison("age", "=", 3.0),
                )
            ),
        ),
        (
            "((age = 1)) AND (age = 2 AND (age = 3))",
            ir.AllOf(tuple(ir.Comparison("age", "=", float(i)) for i in (1, 2, 3))),
        ),
    ],
)
def test_conditions(condition: str, expected: ir.Predicate) -> None:
    assert where(condition) == expected


def test_a_table_alias_qualifies_columns() -> None:
    query = parse("SELECT p.sex, AVG(p.age) FROM Patients AS p WHERE p.age > 1 GROUP BY p.sex", SCHEMAS)
    assert query == parse("SELECT AVG(age) FROM patients WHERE age > 1 GROUP BY sex", SCHEMAS)
    assert "another dataset" in refused("SELECT AVG(v.age) FROM patients p").message


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 0, 0, "empty"),
        (" ;; ", 0, 0, "empty"),
        ("SELECT", 1, 1, "ends too early"),
        ("SELECT COUNT(*)", 1, 16, "names no dataset"),
        ("SELECT COUNT(*) FROM", 1, 17, "ends too early"),
        ("SELECT * FROM patients", 1, 8, "rows are never returned"),
        ("SELECT p.* FROM patients p", 1, 10, "rows are never returned"),
        ("SELECT age FROM patients", 1, 8, "neither aggregated nor grouped by"),
        ("SELECT sex FROM patients GROUP BY sex", 1, 8, "no aggregate"),
        ("SELECT sex AS s, COUNT(*) FROM patients GROUP BY sex", 1, 8, "keeps its name"),
        ("SELECT COUNT(*) AS a, AVG(age) a FROM patients", 1, 23, "two outputs are called 'a'"),
        ("SELECT COUNT(*) sex FROM patients GROUP BY sex", 1, 8, "two outputs are called 'sex'"),
        ("SELECT COUNT(*), FROM patients", 1, 18, "'FROM' cannot stand here"),
        ("SELECT AVG(age + sex) FROM patients", 1, 18, "is categorical"),
        ("SELECT AVG(age) * 2 FROM patients", 1, 8, "an aggregate has no place here"),
        ("SELECT AVG(LOG(age)) FROM patients", 1, 12, "no function 'LOG'"),
        ("SELECT MODE(age) FROM patients", 1, 8, "no function 'MODE'"),
        ("SELECT AVERAGE(age) FROM patients", 1, 8, "no function 'AVERAGE'"),
        ("SELECT COUNT(1) FROM patients", 1, 14, "the same for every row"),
        ("SELECT COUNT() FROM patients", 1, 8, "COUNT takes one column"),
        ("SELECT SUM(*) FROM patients", 1, 12, "no value of a row"),
        ("SELECT AVG(age, temp) FROM patients", 1, 8, "AVG takes one column"),
        ("SELECT AVG(sex) FROM patients", 1, 8, "categorical"),
        ("SELECT COUNT(DISTINCT sex) FROM patients", 1, 23, "only distinct persons"),
        ("SELECT COUNT(patient_id) FROM patients", 1, 14, "names the person"),
        ("SELECT HISTOGRAM(age) FROM patients", 1, 8, "needs a number of bins"),
        ("SELECT HISTOGRAM(age, 'x') FROM patients", 1, 23, "whole number"),
        ("SELECT HISTOGRAM(age, 2.5) FROM patients", 1, 23, "whole number"),
        ("SELECT HISTOGRAM(age, 2, 3) FROM patients", 1, 8, "a column and a number of bins"),
        ("SELECT DISTINCT sex FROM patients", 1, 8, "'DISTINCT' cannot stand here"),
        ("SELECT COUNT(*) FROM patients GROUP BY age", 1, 40, "no published keys to group by"),
        ("SELECT COUNT(*) FROM patients GROUP BY 1", 1, 40, "names, not positions"),
        ("SELECT COUNT(*) FROM patients GROUP BY ALL", 1, 40, "ALL is not possible"),
        ("SELECT COUNT(*) FROM patients GROUP BY sex, sex", 1, 45, "twice"),
        ("SELECT COUNT(*) FROM patients GROUP BY sex HAVING AVG(age) > 5", 1, 51, "not among the outputs"),
        ("SELECT COUNT(*) FROM patients ORDER BY 1", 1, 40, "a key or an output is expected"),
        ("SELECT COUNT(*) FROM patients LIMIT 5.5", 1, 37, "LIMIT takes a whole number"),
        ("SELECT COUNT(*) FROM patients WHERE COUNT(*) > 5", 1, 37, "an aggregate has no place here"),
        ("SELECT COUNT(*) FROM patients WHERE age", 1, 37, "no condition"),
        ("SELECT COUNT(*) FROM patients WHERE 1 = 1", 1, 37, "compares no column"),
        ("SELECT COUNT(*) FROM patients WHERE age = temp", 1, 43, "only be compared with a literal"),
        ("SELECT COUNT(*) FROM patients WHERE diag = flu", 1, 44, "only be compared with a literal"),
        ("SELECT COUNT(*) FROM patients WHERE age = NaN", 1, 43, "only be compared with a literal"),
        ("SELECT COUNT(*) FROM patients WHERE age = NULL", 1, 37, "nothing equals NULL"),
        ("SELECT COUNT(*) FROM patients WHERE age IN (1, NULL)", 1, 37, "nothing equals NULL"),
        ("SELECT COUNT(*) FROM patients WHERE age IN ()", 1, 37, "list after IN is empty"),
        ("SELECT COUNT(*) FROM patients WHERE age IS 3", 1, 44, "'3' cannot stand here"),
        ("SELECT COUNT(*) FROM patients WHERE age LIKE '4%'", 1, 41, "LIKE is not possible"),
        ("SELECT COUNT(*) FROM patients WHERE sex > 0", 1, 43, "no order"),
        ("SELECT COUNT(*) FROM patients WHERE diag BETWEEN 'a' AND 'b'", 1, 50, "no order"),
        ("SELECT COUNT(*) FROM patients WHERE age > 1_000", 1, 44, "'_000' cannot stand here"),
        ("SELECT COUNT(*) FROM patients WHERE age > $1", 1, 43, "'$' has no place"),
        ("SELECT COUNT(*)\nFROM patients\n  WHERE diag = 'flu", 3, 16, "never closed"),
        ("SELECT COUNT(*) FROM patients WHERE age > 1 AND", 1, 45, "ends too early"),
        ("SELECT COUNT(*) FROM patients WHERE (age > 1", 1, 44, "cannot be understood"),
        ("SELECT COUNT(*) FROM patients WHERE age > 1)", 1, 44, "closes nothing"),
        ("SELECT COUNT(*) FROM patients WHERE order > 1", 1, 37, "ORDER is not possible"),
    ],
)
def test_what_is_no_query_is_refused_at_its_place(text: str, line: int, column: int, words: str) -> None:
    error = refused(text)
    assert words in error.message
    assert (error.line, error.column) == (line, column)


def test_hints_say_what_to_do() -> None:
    assert "select list" in refused("SELECT COUNT(*) FROM patients ORDER BY AVG(age)").hint
    assert "HAVING" in refused("SELECT COUNT(*) FROM patients WHERE AVG(age) > 1").hint
    assert "BOUND" in refused("SELECT AVG(1 / (age - 1)) FROM patients").hint
    assert "single quotes: 'flu'" in refused('SELECT COUNT(*) FROM patients WHERE diag = "flu"').hint
    assert 'write "order"' in refused("SELECT AVG(order) FROM patients").hint
    assert "HISTOGRAM" in refused("SELECT MODE(age) FROM patients").hint
    assert "did you mean STDDEV" in refused("SELECT STDEV(age) FROM patients").hint
    assert "IS NULL" in refused("SELECT COUNT(*) FROM patients WHERE age = NULL").hint
    assert "patients, visits" in refused("SELECT COUNT(*)").hint
    assert "HISTOGRAM(age, 20)" in refused("SELECT HISTOGRAM(age) FROM patients").hint


def test_unknown_names_suggest_the_nearest_at_their_place() -> None:
    with pytest.raises(UnknownName, match="line 3, column 5: there is no column 'agee'") as caught:
        parse("SELECT COUNT(*) FROM patients\nWHERE temp < 3\nAND agee > 3", SCHEMAS)
    assert (caught.value.line, caught.value.column, caught.value.hint) == (3, 5, "did you mean 'age'?")
    with pytest.raises(UnknownName, match="line 1, column 22: there is no dataset 'patient'") as caught:
        parse("SELECT COUNT(*) FROM patient", SCHEMAS)
    assert caught.value.hint == "did you mean 'patients'?"
    with pytest.raises(UnknownName, match="no column 'AGE'"):
        parse('SELECT AVG("AGE") FROM patients', SCHEMAS)


def test_literal_errors_say_where_and_what_is_published() -> None:
    with pytest.raises(LiteralError, match="line 1, column 43: a literal compared with 'age'") as caught:
        parse("SELECT COUNT(*) FROM patients WHERE age > 200", SCHEMAS)
    assert caught.value.hint == "age lies between 0 and 120"
    with pytest.raises(LiteralError, match="line 2, column 25: column 'diag' has no such category") as caught:
        parse("SELECT COUNT(*) FROM patients\nWHERE diag IN ('it''s', 'fluu')", SCHEMAS)
    assert caught.value.hint == "did you mean 'flu'?"
    with pytest.raises(LiteralError, match="not finite"):
        parse("SELECT COUNT(*) FROM patients WHERE age > 1e400", SCHEMAS)
    with pytest.raises(LiteralError, match="remove the quotes"):
        parse("SELECT COUNT(*) FROM patients WHERE age > '40'", SCHEMAS)
    with pytest.raises(LiteralError, match="published: '0', '1'"):
        parse("SELECT COUNT(*) FROM patients WHERE sex = -1", SCHEMAS)


@pytest.mark.parametrize("bins", ["0", "10001", "9" * 5000])
def test_an_impossible_number_of_bins_is_refused(bins: str) -> None:
    with pytest.raises(QueryError, match=r"line 1, column \d+: the number of bins"):
        parse(f"SELECT HISTOGRAM(age, {bins}) FROM patients", SCHEMAS)
    assert len(parse("SELECT HISTOGRAM(age, 10000) FROM patients", SCHEMAS).aggregates) == 1


def test_length_is_capped_in_bytes() -> None:
    text = "SELECT COUNT(*) FROM patients WHERE diag = 'flu'"
    assert parse(text + " " * (MAX_SQL_BYTES - len(text)), SCHEMAS)
    for long in (text + " " * (MAX_SQL_BYTES - len(text) + 1), text + "é" * (MAX_SQL_BYTES // 2)):
        assert "longer than 64 KiB" in refused(long).message


def test_nesting_and_words_are_capped_at_their_place() -> None:
    start = "SELECT COUNT(*) FROM patients WHERE "
    for opening, column in (("(", 61), ("NOT ", 133), ("NOT (", 97)):
        error = refused(f"{start}{opening * 1000}age = 1{')' * (1000 * opening.count('('))}")
        assert f"nested more than {dialect.MAX_NESTING} levels" in error.message
        assert (error.line, error.column) == (1, column)
    error = refused(f"{start}age IN ({'1,' * dialect.MAX_TOKENS}1)")
    assert "more than 20,000 words" in error.message


def test_the_callers_stack_does_not_matter() -> None:
    levels = dialect.MAX_NESTING
    text = f"SELECT COUNT(*) FROM patients WHERE {'(' * levels}age = 1{')' * levels}"

    def dig(depth: int) -> ir.Query:
        return dig(depth - 1) if depth else parse(text, SCHEMAS)

    frame, used = sys._getframe(), 0
    while frame.f_back is not None:
        frame, used = frame.f_back, used + 1
    assert dig(sys.getrecursionlimit() - used - 60).where == ir.Comparison("age", "=", 1.0)


def test_threads_may_parse_at_once() -> None:
    found: list[ir.Query] = []
    text = "SELECT AVG(age) FROM patients WHERE sex = 1"
    threads = [threading.Thread(target=lambda: found.append(parse(text, SCHEMAS))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [parse(text, SCHEMAS)] * 8


def test_agents_and_coordinators_never_load_the_sql_parser() -> None:
    code = dedent("""
        import sys
        import queries.ir, queries.encode, queries.resolve, queries.builder
        print("sqlglot" in sys.modules)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
