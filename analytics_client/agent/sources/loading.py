"""From local files to the table that `sql` reads: read, trim, convert, code, and count what does not fit.

Two steps, both sqlglot trees for DuckDB: `staged` (the needed columns of the files as trimmed text, or as numbers where
the file says so) and `normal` (the shape described in `sql`). Text in a number is found by `misfits` and refused; no
message carries a value. Must not know: connections, plans, queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlglot import exp

from analytics_client.agent.sources.columns import PLAIN_NUMBER, Codes
from analytics_client.agent.sources.sql import PERSON, ROW, ROWS, TABLE
from analytics_client.agent.sources.terms import double
from queries.schema import Categorical, Dataset, Numeric

STAGED, PEOPLE = "staged", "people"
FILE = "_file"
PERSON_TEXT = "_person_text"
WHITE = " \t\r\n\f\v\u00a0\ufeff"


@dataclass(frozen=True, slots=True)
class LocalColumn:
    """A column of the files: the name to select it by, and whether the file itself says that it is a number."""

    name: str
    numeric: bool


def csv_files(files: Sequence[Path], width: int, delimiter: str) -> exp.Expr:
    """Return a table function over CSV files of `width` columns called c0, c1, ..., every field as text.

    Nothing is guessed from the content: guesses differ between files and between versions of an engine.
    """
    columns = exp.Struct(
        expressions=[
            exp.PropertyEQ(this=exp.to_identifier(f"c{index}"), expression=exp.Literal.string("VARCHAR"))
            for index in range(width)
        ]
    )
    options: dict[str, exp.Expr] = {
        "auto_detect": exp.false(),
        "header": exp.true(),
        "delim": exp.Literal.string(delimiter),
        "quote": exp.Literal.string('"'),
        "escape": exp.Literal.string('"'),
        "columns": columns,
        "filename": exp.true(),
    }
    return _table_function("read_csv", files, options)


def parquet_files(files: Sequence[Path]) -> exp.Expr:
    """Return a table function over Parquet files."""
    return _table_function("read_parquet", files, {"filename": exp.true(), "file_row_number": exp.true()})


def staged(
    dataset: Dataset,
    source: exp.Expr,
    columns: Mapping[str, LocalColumn],
    missing: Sequence[str],
    *,
    in_place: bool,
    ordered: bool = True,
) -> exp.Select:
    """Return the needed columns of all files: text trimmed, what counts as missing null, one row number for all.

    Rows that have no order of their own (not `ordered`), as those of a view, are numbered by their values: the order of
    one person's must not depend on another person's.
    """
    number: exp.Expr
    if in_place:  # a stable number without reading: which file, which row of it
        place = exp.Mul(this=exp.column("file_index"), expression=exp.Literal.number(1 << 40))
        number = exp.Add(this=_cast("BIGINT", place), expression=exp.column("file_row_number"))
    else:
        values = [] if ordered else [_column(local) for local in sorted({local.name for local in columns.values()})]
        order = [exp.Ordered(this=value, nulls_first=False) for value in values]
        number = exp.Window(this=exp.RowNumber(), order=exp.Order(expressions=order) if order else None)
    outputs = [exp.alias_(number, ROW), exp.alias_(exp.column("filename"), FILE)]
    if dataset.privacy_unit:
        outputs.append(exp.alias_(_text(columns[dataset.privacy_unit].name, missing), PERSON_TEXT))
    for column in dataset.columns:
        local = columns[column.name]
        if column.name in as_numbers(dataset, columns, missing):
            value: exp.Expr = _cast("DOUBLE", _column(local.name))
        else:
            value = _text(local.name, missing)
        outputs.append(exp.alias_(value, column.name, quoted=True))
    return exp.Select(expressions=outputs, from_=exp.From(this=source))


def as_numbers(dataset: Dataset, columns: Mapping[str, LocalColumn], missing: Sequence[str]) -> frozenset[str]:
    """Return the columns that are staged as numbers: the file says so, and no text of it can mean missing."""
    numeric = (column.name for column in dataset.columns if isinstance(column.kind, Numeric))
    return frozenset(name for name in numeric if columns[name].numeric and not missing)


def people(counted: exp.Expr | None = None) -> exp.Select:
    """Return every person once, with a number and how many rows there are; of those for whom `counted` holds."""
    grouped = [
        exp.alias_(_column(PERSON_TEXT), PERSON_TEXT),
        exp.alias_(exp.Window(this=exp.RowNumber()), PERSON),
        exp.alias_(exp.Count(this=exp.Star()), ROWS),
    ]
    select = exp.Select(expressions=grouped, from_=exp.From(this=exp.to_table(STAGED)))
    if counted is not None:
        select.where(counted, copy=False)
    return select.where(_present(PERSON_TEXT), copy=False).group_by(_column(PERSON_TEXT), copy=False)


def normal(
    dataset: Dataset,
    codes: Mapping[str, Codes],
    numbers: frozenset[str],
    *,
    in_place: bool,
    counted: exp.Expr | None = None,
) -> exp.Select:
    """Return the table that `sql` reads, from `staged` and `people`.

    Rows without a person are left out; in place also those for which `counted` does not hold: else `people` sees to it.
    `codes` of every category; `numbers`: columns staged as such. Every column is a function of its own field alone, so
    that of files scanned in place the engine converts only what a query asks for.
    """
    outputs: list[exp.Expr] = []
    joins = []
    if dataset.privacy_unit and not in_place:
        outputs += [exp.alias_(_ticket(), ROW), _column(PERSON, PEOPLE), _column(ROWS, PEOPLE)]
        same = exp.EQ(this=_column(PERSON_TEXT, STAGED), expression=_column(PERSON_TEXT, PEOPLE))
        joins.append(exp.Join(this=exp.to_table(PEOPLE), on=same))
    elif dataset.privacy_unit:
        outputs += [_column(ROW, STAGED), exp.alias_(_column(PERSON_TEXT, STAGED), PERSON)]
    for column in dataset.columns:
        field = _column(column.name, STAGED)
        if isinstance(column.kind, Categorical):
            value = _coded(field, codes[column.name])
        else:
            value = _finite(field if column.name in numbers else _number(field))
        outputs.append(exp.alias_(value, column.name, quoted=True))
    select = exp.Select(expressions=outputs, from_=exp.From(this=exp.to_table(STAGED)), joins=joins)
    if dataset.privacy_unit and in_place:
        select.where(_present(PERSON_TEXT, STAGED), copy=False)
        if counted is not None:
            select.where(counted, copy=False)
    return select


def _ticket() -> exp.Expr:
    """A row's ticket in the lottery of its person: a function of the person and of the row's place among their rows.

    Not of its place in the file: then the presence of one person would move the tickets of all who follow.
    """
    own = exp.Window(
        this=exp.RowNumber(),
        partition_by=[_column(PERSON_TEXT, STAGED)],
        order=exp.Order(expressions=[exp.Ordered(this=_column(ROW, STAGED), nulls_first=False)]),
    )
    mixed = exp.Anonymous(this="HASH", expressions=[_column(PERSON_TEXT, STAGED), own])
    return _cast("BIGINT", exp.Mod(this=mixed, expression=exp.Literal.number(1 << 62)))


def misfits(names: Sequence[str]) -> exp.Select:
    """Return a statement whose one row holds, for each numeric column, the first staged row with text, or null."""
    firsts = []
    for name in names:
        bad = exp.and_(_present(name), exp.Is(this=_number(_column(name)), expression=exp.Null()))
        first = exp.Min(this=exp.Case(ifs=[exp.If(this=bad, true=_column(ROW))]))
        firsts.append(exp.alias_(first, name, quoted=True))
    return exp.Select(expressions=firsts, from_=exp.From(this=exp.to_table(STAGED)))


def fitting(dataset: Dataset) -> exp.Select:
    """Return a statement whose one row counts the rows served, then per column its values and those out of range.

    Out of range is beyond a number's bounds, or in a category's "other" cell.
    """
    outputs: list[exp.Expr] = [exp.Count(this=exp.Star())]
    for column in dataset.columns:
        outputs.append(exp.Count(this=_column(column.name)))
        outside: exp.Expr
        if isinstance(column.kind, Categorical):
            other = exp.Literal.number(len(column.kind.categories))
            outside = exp.EQ(this=_column(column.name), expression=other)
        else:
            below = exp.LT(this=_column(column.name), expression=double(column.kind.lower))
            outside = exp.or_(below, exp.GT(this=_column(column.name), expression=double(column.kind.upper)))
        outputs.append(exp.Count(this=exp.Case(ifs=[exp.If(this=outside, true=exp.Literal.number(1))])))
    return exp.Select(expressions=outputs, from_=exp.From(this=exp.to_table(TABLE)))


def given(dataset: Dataset) -> exp.Select:
    """Return a statement whose one row counts all rows of the files, then per column the fields with anything in them.

    Fields count in rows that have a person, so that they compare with `fitting`.
    """
    outputs: list[exp.Expr] = [exp.Count(this=exp.Star())]
    for column in dataset.columns:
        value: exp.Expr = _column(column.name)
        if dataset.privacy_unit:
            value = exp.Case(ifs=[exp.If(this=_present(PERSON_TEXT), true=value)])
        outputs.append(exp.Count(this=value))
    return exp.Select(expressions=outputs, from_=exp.From(this=exp.to_table(STAGED)))


def _table_function(name: str, files: Sequence[Path], options: Mapping[str, exp.Expr]) -> exp.Expr:
    paths = exp.Array(expressions=[exp.Literal.string(_exact(file)) for file in files])
    given = [exp.PropertyEQ(this=exp.to_identifier(key), expression=value) for key, value in options.items()]
    return exp.Table(this=exp.Anonymous(this=name, expressions=[paths, *given]))


def _exact(file: Path) -> str:
    """Return a path in which no character stands for others: the files were found already."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(file))


def _text(name: str, missing: Sequence[str]) -> exp.Expr:
    """A field as text without surrounding white space; null where empty or one of the texts that mean missing.

    Trimming takes six times as long as seeing that there is nothing to trim: only fields that begin or end oddly are.
    """
    field = _cast("VARCHAR", _column(name))
    odd: list[exp.Expr] = [
        exp.LT(this=field, expression=exp.Literal.string("!")),  # empty, a space or a control character
        exp.GTE(this=field.copy(), expression=exp.Literal.string("\u0080")),
        *[exp.Anonymous(this="SUFFIX", expressions=[field.copy(), exp.Literal.string(white)]) for white in WHITE],
    ]
    trimmed: exp.Expr = exp.Anonymous(this="TRIM", expressions=[field.copy(), exp.Literal.string(WHITE)])
    trimmed = exp.Anonymous(this="NULLIF", expressions=[trimmed, exp.Literal.string("")])
    text: exp.Expr = exp.Case(ifs=[exp.If(this=exp.or_(*odd), true=trimmed)], default=field.copy())
    for nothing in missing:
        text = exp.Anonymous(this="NULLIF", expressions=[text, exp.Literal.string(nothing.strip())])
    return text


def _number(text: exp.Expr) -> exp.Expr:
    """A staged value as a number; null where it is none. DuckDB would read 1_000 as a number; people would not."""
    odd = exp.Anonymous(this="CONTAINS", expressions=[_cast("VARCHAR", text), exp.Literal.string("_")])
    plain = exp.Case(ifs=[exp.If(this=exp.Not(this=odd), true=text.copy())])
    return exp.TryCast(this=plain, to=exp.DataType(this=exp.DataType.Type.DOUBLE))


def _finite(number: exp.Expr) -> exp.Expr:
    return exp.Case(ifs=[exp.If(this=exp.Anonymous(this="ISFINITE", expressions=[number]), true=number.copy())])


def _coded(text: exp.Expr, codes: Codes) -> exp.Expr:
    """The position of a text in the published keys: by itself, else as a plain number (1.0 for "1"), else "other".

    Later parts are only worked out where the earlier ones found nothing.
    """
    options = [_looked_up(text, codes.texts)]
    if codes.numbers:
        exact = {f"{number + 0.0:.6f}": code for number, code in codes.numbers.items()}  # + 0.0: -0.0 is 0
        plain = exp.Anonymous(this="REGEXP_FULL_MATCH", expressions=[text.copy(), exp.Literal.string(PLAIN_NUMBER)])
        decimal = exp.TryCast(this=text.copy(), to=exp.DataType.build("DECIMAL(15, 6)"))  # all that is plain, exactly
        number = _looked_up(_cast("VARCHAR", decimal), exact)
        options.append(exp.Case(ifs=[exp.If(this=plain, true=number)]))
    if codes.other is not None:
        other = exp.Literal.number(codes.other)
        given = exp.Not(this=exp.Is(this=text.copy(), expression=exp.Null()))
        options.append(exp.Case(ifs=[exp.If(this=given, true=other)]))
    return exp.Coalesce(this=options[0], expressions=options[1:]) if len(options) > 1 else options[0]


def _looked_up(text: exp.Expr, codes: Mapping[str, int]) -> exp.Expr:
    """The code of a text; null where it has none. An ENUM is the engine's own dictionary: one look-up a row."""
    texts = exp.DataType(this=exp.DataType.Type.ENUM, expressions=[exp.Literal.string(text) for text in codes])
    found = exp.Anonymous(this="ENUM_CODE", expressions=[exp.TryCast(this=text.copy(), to=texts)])
    place = _cast("INT", found)
    if list(codes.values()) == list(range(len(codes))):
        return place
    listed = exp.Array(expressions=[exp.Literal.number(code) for code in codes.values()])
    from_one = exp.Add(this=place, expression=exp.Literal.number(1))
    return exp.Anonymous(this="LIST_EXTRACT", expressions=[listed, from_one])


def _cast(kind: str, value: exp.Expr) -> exp.Expr:
    return exp.Cast(this=value, to=exp.DataType(this=exp.DataType.Type[kind]))


def _present(name: str, table: str | None = None) -> exp.Expr:
    return exp.Not(this=exp.Is(this=_column(name, table), expression=exp.Null()))


def _column(name: str, table: str | None = None) -> exp.Column:
    return exp.column(exp.to_identifier(name, quoted=True), table=table)
