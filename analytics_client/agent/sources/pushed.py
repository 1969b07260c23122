"""What engines have in common that sum an institution's own table where it is: PostgreSQL, Spark.

The statement of `sql` reads the table `local_rows`; here a query over the institution's own table takes its place, with
text trimmed and coded and numbers checked, as `loading` does for files. Must not know: connections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from analytics_client.agent.config import ColumnConfig, DatasetConfig
from analytics_client.agent.sources import columns as local_columns
from analytics_client.agent.sources import opted_out, sql
from analytics_client.agent.sources.base import ColumnReport, SourceReport
from analytics_client.agent.sources.loading import WHITE
from analytics_client.agent.sources.terms import Dialect, double
from queries.errors import ConfigError, DataError
from queries.schema import Categorical, Dataset, Numeric

_LARGEST = "1.7976931348623157e308"
One = Callable[[exp.Query], tuple[int, ...]]
"""Runs a query of one row of whole numbers; null counts as 0."""


@dataclass(frozen=True)
class Pushed:
    """An institution's own table, and how the schema's columns are found in it.

    `names` maps the schema's columns and privacy unit to local ones; `floats` are the local ones of a floating-point
    type. `ticket` makes a row's number in the lottery from its person and its place among that person's rows.
    """

    dataset: Dataset
    config: DatasetConfig
    table: exp.Table
    dialect: Dialect
    names: Mapping[str, str]
    floats: frozenset[str]
    ticket: Callable[[exp.Expr, exp.Expr], exp.Expr]

    def statement(self, over: exp.Query) -> exp.Query:
        """Return a statement of `sql` with the table that it reads put before it."""
        whole = over.copy()
        first = exp.CTE(this=self.local_rows(), alias=exp.TableAlias(this=exp.to_identifier(sql.TABLE)))
        whole.args["with_"].set("expressions", [first, *whole.args["with_"].expressions])
        return whole

    def local_rows(self, *, raw: bool = False) -> exp.Select:
        """Return the query that makes the table of `sql` from the institution's own.

        A row's ticket depends on its person and on its place among that person's rows in the order of their values: on
        no other person. `raw` adds what was there before coding, for `report`.
        """
        dataset, missing = self.dataset, self.config.missing
        person = text_of(self.names[dataset.privacy_unit], missing) if dataset.privacy_unit else None
        outputs: list[exp.Expr] = []
        if person is not None:
            order = exp.Order(
                expressions=[
                    exp.Ordered(this=exp.cast(_column(self.names[column.name]), "text"), nulls_first=False)
                    for column in dataset.columns
                ]
            )
            place = exp.Window(this=exp.RowNumber(), partition_by=[person.copy()], order=order)
            outputs += [exp.alias_(self.ticket(person.copy(), place), sql.ROW), exp.alias_(person, sql.PERSON)]
        for column in dataset.columns:
            local, configured = self.names[column.name], self.config.columns.get(column.name, ColumnConfig()).values
            if not isinstance(column.kind, Categorical):
                if configured:
                    raise ConfigError(
                        f"agent.toml maps values of {column.name!r}, which is numeric", hint="remove them"
                    )
                outputs.append(exp.alias_(_number(local, local in self.floats), column.name, quoted=True))
            else:
                codes = local_columns.codes(column.name, column.kind, configured)
                outputs.append(exp.alias_(_coded(text_of(local, missing), codes), column.name, quoted=True))
            if raw:
                outputs.append(exp.alias_(text_of(local, missing), f"_raw_{column.name}", quoted=True))
        select = exp.select(*outputs).from_(self.table.copy())
        if person is not None:
            select = select.where(exp.Not(this=exp.Is(this=person.copy(), expression=exp.Null())))
        named = exp.Null() if person is None else person
        counted = opted_out.condition(self.config, dataset, named, self.dialect)
        return select if counted is None else select.where(counted)

    def report(self, one: One) -> SourceReport:
        """Say how the data fit the schema, by queries that `one` runs."""
        dataset = self.dataset
        everything = one(exp.select(exp.Count(this=exp.Star())).from_(self.table.copy()))[0]
        outputs: list[exp.Expr] = [exp.Count(this=exp.Star())]
        for column in dataset.columns:
            local, raw = _column(column.name), _column(f"_raw_{column.name}")
            outside: exp.Expr
            if isinstance(column.kind, Categorical):
                outside = exp.EQ(this=local.copy(), expression=exp.Literal.number(len(column.kind.categories)))
            else:
                below = exp.LT(this=local.copy(), expression=double(column.kind.lower))
                outside = exp.or_(below, exp.GT(this=local.copy(), expression=double(column.kind.upper)))
            outputs += [exp.Count(this=local), exp.Count(this=raw)]
            outputs.append(exp.Count(this=exp.Case(ifs=[exp.If(this=outside, true=exp.Literal.number(1))])))
        rows, *counts = one(exp.select(*outputs).from_(self.local_rows(raw=True).subquery("r")))
        persons, most = rows, min(rows, 1)
        if dataset.privacy_unit:
            each = exp.select(exp.alias_(exp.Count(this=exp.Star()), "n")).from_(self.local_rows().subquery("r"))
            each = each.group_by(exp.column(sql.PERSON))
            persons, most = one(
                exp.select(exp.Count(this=exp.Star()), exp.func("MAX", exp.column("n"))).from_(each.subquery("p"))
            )
        columns = []
        for at, column in enumerate(dataset.columns):
            fit, given, beyond = counts[3 * at : 3 * at + 3]
            local_name = self.names[column.name]
            if isinstance(column.kind, Categorical):
                columns.append(ColumnReport(column.name, local_name, rows - given, unpublished=given - fit + beyond))
            else:
                columns.append(ColumnReport(column.name, local_name, rows - fit, clipped=beyond))
        return SourceReport(rows, persons, everything - rows, most, tuple(columns))


def find_columns(
    dataset: Dataset, config: DatasetConfig, types: Mapping[str, str], numeric: Callable[[str], bool]
) -> dict[str, str]:
    """Return the local name of every schema column. Raise DataError where one is missing or not of a numeric type."""
    header = list(types)
    names = {name: header[at] for name, at in local_columns.locate(dataset, config.columns, header).items()}
    for column in dataset.columns:
        local = names[column.name]
        if isinstance(column.kind, Numeric) and not numeric(types[local]):
            raise DataError(
                f"column {column.name!r} is numeric, and {local!r} in the database is of type {types[local]}",
                hint="cast it in a view, and name the view in agent.toml",
            )
    return names


def refuse_too_many(report: SourceReport, dataset: Dataset) -> None:
    """Raise DataError where there are more persons than the schema says there can be."""
    if report.persons > dataset.max_persons:
        raise DataError(
            f"there are more persons here than the schema's max_persons, {dataset.max_persons:,}",
            hint="ask governance to publish the dataset with a larger max_persons",
        )


def _number(local: str, is_float: bool) -> exp.Expr:
    """The value as a double; null where it is NaN, infinite or beyond what a double holds."""
    value: exp.Expr = _column(local)
    limit: exp.Expr = exp.Literal.number(_LARGEST)
    if is_float:
        value, limit = exp.cast(value, "double"), exp.cast(limit, "double")
    inside = exp.Between(this=value, low=exp.Neg(this=limit.copy()), high=limit)  # NaN is above everything
    return exp.Case(ifs=[exp.If(this=inside, true=exp.cast(_column(local), "double"))])


def text_of(local: str, missing: Sequence[str]) -> exp.Expr:
    """The value as text without surrounding white space; null where empty or one of the texts that mean missing."""
    trimmed: exp.Expr = exp.func("BTRIM", exp.cast(_column(local), "text"), exp.Literal.string(WHITE))
    for nothing in ("", *missing):
        trimmed = exp.func("NULLIF", trimmed, exp.Literal.string(nothing.strip()))
    return trimmed


def _coded(text: exp.Expr, codes: local_columns.Codes) -> exp.Expr:
    """The position of a text in the published keys: by itself, else as a plain number, else "other"."""
    by_text = exp.Case(
        this=text.copy(),
        ifs=[exp.If(this=exp.Literal.string(t), true=exp.Literal.number(code)) for t, code in codes.texts.items()],
    )
    options: list[exp.Expr] = []
    if codes.numbers:
        plain = exp.RegexpLike(this=text.copy(), expression=exp.Literal.string(f"^({local_columns.PLAIN_NUMBER})$"))
        number = exp.Case(
            this=exp.cast(text.copy(), "double"),
            ifs=[exp.If(this=double(n), true=exp.Literal.number(code)) for n, code in codes.numbers.items()],
        )
        options.append(exp.Case(ifs=[exp.If(this=plain, true=number)]))
    if codes.other is not None:
        given = exp.Not(this=exp.Is(this=text.copy(), expression=exp.Null()))
        options.append(exp.Case(ifs=[exp.If(this=given, true=exp.Literal.number(codes.other))]))
    return exp.Coalesce(this=by_text, expressions=options) if options else by_text


def _column(name: str) -> exp.Column:
    return exp.column(exp.to_identifier(name, quoted=True))
