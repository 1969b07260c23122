"""docs/queries.md is true: its examples run, its two columns agree, its refusals refuse, its caps are the caps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from queries import builder, dialect, ir, limits, schema, sql, vocabulary
from queries.builder import Builder, Table
from queries.errors import QueryError

GUIDE = (Path(__file__).parents[2] / "docs" / "queries.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.DOTALL)
DATASET = schema.from_toml(next(code for language, code in BLOCKS if language == "toml"))
SCHEMAS = {"patients": DATASET}
PAIRS = re.findall(r"```sql\n(.*?)```\n```python\n(.*?)```", GUIDE, re.DOTALL)
ALONE = [code for language, code in BLOCKS if language == "python" and code not in {python for _sql, python in PAIRS}]
NAMES: dict[str, Any] = {name: getattr(builder, name) for name in builder.__all__}
NAMES |= {"dataset": DATASET, "patients": Table(DATASET)}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table that follows a line of the guide."""
    table = GUIDE.split(heading, 1)[1].split("\n\n|", 1)[1].split("\n\n", 1)[0].splitlines()
    return [line.strip("| ").split(" | ") for line in table[2:]]


@pytest.mark.parametrize(("text", "python"), PAIRS)
def test_sql_and_python_side_by_side_are_one_query(text: str, python: str) -> None:
    built = eval(python, dict(NAMES))  # noqa: S307  # our own documentation
    assert isinstance(built, Builder)
    assert sql.parse(text, SCHEMAS) == built.build()


def test_the_python_examples_that_stand_alone_run() -> None:
    assert len(ALONE) >= 3
    for code in ALONE:
        if code.startswith("from"):
            exec(code, dict(NAMES))  # noqa: S102  # our own documentation
        else:
            assert isinstance(eval(code, dict(NAMES)).build(), ir.Query)  # noqa: S307  # our own documentation


def test_the_table_of_aggregates_holds_every_function_and_both_columns_agree() -> None:
    table = rows("## What can be asked for")
    for text, python, _meaning in table:
        parsed = sql.parse(f"SELECT {text.strip('`')} AS x FROM patients", SCHEMAS)
        assert parsed == Table(DATASET).agg(x=eval(python.strip("`"), dict(NAMES))).build()  # noqa: S307  # as above
    written = " ".join(cell for row in table for cell in row)
    assert all(re.search(rf"\b{function}\b", written) for function in vocabulary.FUNCTIONS)


@pytest.mark.parametrize(("text", "because"), rows("## What is refused, and why"))
def test_what_the_guide_says_is_refused_is_refused_for_that_reason(text: str, because: str) -> None:
    with pytest.raises(QueryError) as caught:
        sql.parse(text.strip("`"), SCHEMAS)
    assert because in str(caught.value)


def test_the_caps_are_the_caps() -> None:
    stated = [cap for _what, cap in rows("Caps, the same for SQL")]
    assert stated == [
        f"{limits.MAX_SQL_BYTES // 1024} KiB",
        f"{dialect.MAX_NESTING}",
        f"{limits.MAX_DEPTH}",
        f"{limits.MAX_NODES:,}",
        f"{limits.MAX_AGGREGATES}",
        f"{limits.MAX_KEYS}",
        f"{limits.MAX_BINS:,}",
        f"{limits.MAX_CELLS:,}",
        f"{limits.MAX_QUERY_BYTES // 1024} KiB",
    ]
