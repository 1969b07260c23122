"""A table or view in the institution's own PostgreSQL, summed there: no row leaves the database for a statistic.

The statement of `sql` reads a query over the table in place of a loaded copy: text trimmed and coded, numbers checked,
as `loading` does for files. It runs in a read-only transaction with a time limit, by a user that needs to read the one
table and nothing more. Passwords are libpq's business (~/.pgpass, a service file, PGPASSWORD), never agent.toml's.
Must not know: the network of the consortium, noise, budgets.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Self, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlglot import exp

from analytics_client.agent.config import ColumnConfig, DatasetConfig
from analytics_client.agent.sources import columns as local_columns
from analytics_client.agent.sources import opted_out, sql
from analytics_client.agent.sources.base import ColumnReport, SourceReport
from analytics_client.agent.sources.loading import WHITE
from analytics_client.agent.sources.terms import double
from analytics_client.agent.sources.vector import lottery, vector
from queries.errors import ConfigError, DataError
from queries.plan import Plan
from queries.schema import Categorical, Dataset, Numeric

STATEMENT_TIMEOUT_S = 300
CONNECT_TIMEOUT_S = 10
_STATEMENTS = 256
_NUMBERS = frozenset({"int2", "int4", "int8", "float4", "float8", "numeric"})
_LARGEST = "1.7976931348623157e308"

T = TypeVar("T")


class PostgreSQLSource:
    """A dataset in a PostgreSQL table or view. See `base.Source` for what it promises."""

    def __init__(self, config: DatasetConfig, dataset: Dataset) -> None:
        """See `open`."""
        self._config = config
        self._dataset = dataset
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None
        self._statements: OrderedDict[object, str] = OrderedDict()
        self._types, self._names = self._located()
        self._listed: opted_out.State | None = None
        self._local_rows = self._counted_rows()

    @classmethod
    def open(cls, config: DatasetConfig, dataset: Dataset) -> Self:
        """Connect and find the columns. Raise DataError where table and schema do not fit, ConfigError likewise."""
        source = cls(config, dataset)
        persons = source.check().persons
        if persons > dataset.max_persons:
            source.close()
            raise DataError(
                f"there are more persons here than the schema's max_persons, {dataset.max_persons:,}",
                hint="ask governance to publish the dataset with a larger max_persons",
            )
        return source

    def check(self) -> SourceReport:
        """Say how the data fit the schema. Raise DataError where they cannot be served."""
        return self._ask(self._report)

    def aggregate(self, plan: Plan, salt: bytes) -> NDArray[np.int64]:
        """Return the plan's exact sums on its unrefined lattice; see `base.Source.aggregate`."""
        key = "sums", plan.query
        text = self._statement(key, lambda: sql.statement(plan, "postgres", rows_known=False))
        parameters = [lottery(salt)] if sql.needs_salt(plan) else []
        found = self._ask(lambda connection: connection.execute(text, parameters).fetchall())
        return vector(plan, [tuple(int(value or 0) for value in row) for row in found])

    def rows(self, plan: Plan, salt: bytes) -> dict[str, NDArray[np.float64]]:
        """Return the rows that the plan would sum; see `base.Source.rows`."""
        key = "rows", plan.query
        text = self._statement(key, lambda: sql.rows_statement(plan, "postgres", rows_known=False))
        parameters = [lottery(salt)] if sql.needs_salt(plan) else []

        def read(connection: psycopg.Connection) -> dict[str, NDArray[np.float64]]:
            cursor = connection.execute(text, parameters)
            names = [column.name for column in cursor.description or ()]
            table = np.array(cursor.fetchall(), dtype=np.float64).reshape(-1, len(names))  # null becomes NaN
            return {name: table[:, at].copy() for at, name in enumerate(names)}

        return self._ask(read)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # --- asking --------------------------------------------------------------------------------------------------

    def _statement(self, key: object, make: Callable[[], exp.Query]) -> str:
        local_rows = self._counted_rows()
        with self._lock:
            text = self._statements.get(key)
            if text is None:
                text = self._statements[key] = _over(local_rows, make())
                while len(self._statements) > _STATEMENTS:
                    self._statements.popitem(last=False)
        return text

    def _counted_rows(self) -> exp.Select:
        """Return the query for the rows of all who did not opt out, made anew when the list has changed."""
        now = opted_out.state(self._config)
        if now != self._listed:
            made = _local_rows(self._dataset, self._config, self._names, self._types)
            with self._lock:
                self._statements.clear()
                self._local_rows, self._listed = made, now
        return self._local_rows

    def _ask(self, work: Callable[[psycopg.Connection], T]) -> T:
        """Run something in a read-only transaction, on a new connection where the old one was lost.

        The server's errors quote data: what is raised keeps only the kind of error.
        """
        with self._lock:
            for attempt in (1, 2):
                try:
                    if self._connection is None:
                        self._connection = self._connect()
                    with self._connection.transaction():
                        return work(self._connection)
                except psycopg.errors.QueryCanceled:
                    failure = DataError(
                        f"the database did not answer within {STATEMENT_TIMEOUT_S} s",
                        hint="add an index or a materialised view, or ask the database's owner",
                    )
                except psycopg.errors.InsufficientPrivilege:
                    failure = DataError(
                        f"the database user may not read {self._config.table!r}", hint="GRANT SELECT on it"
                    )
                except psycopg.OperationalError:  # the connection is gone, as after a restart of the server
                    if self._connection is not None:
                        self._connection.close()
                        self._connection = None
                    failure = DataError("the database cannot be reached", hint="see that it runs and accepts this user")
                    if attempt == 1:
                        continue
                except psycopg.Error as error:
                    failure = DataError(
                        f"the database could not sum the data ({type(error).__name__})",
                        hint="run: cohortium-agent check DIR",
                    )
                raise failure from None
        raise AssertionError("the second attempt returns or raises")

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(
            self._config.connection or "",
            autocommit=True,  # `transaction` begins and ends them
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="cohortium-agent",
            cursor_factory=psycopg.RawCursor,
        )
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
        connection.execute("SET search_path = pg_catalog")  # nobody's function or table stands in for the system's
        connection.execute("SET extra_float_digits = 3")
        return connection

    # --- the table -----------------------------------------------------------------------------------------------

    def _located(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the types of the table's columns, and the local name of every schema column."""
        table = _table(self._config)

        def look(connection: psycopg.Connection) -> list[tuple[str, str]]:
            found = connection.execute(
                "SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
                " WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                [table.sql(dialect="postgres", identify=True)],
            )
            return [(name, kind) for name, kind in found.fetchall()]

        header = self._ask(look)
        if not header:
            raise DataError(
                f"the database has no table or view {self._config.table!r} that this user sees",
                hint='name it with its schema, as in table = "clinic.patients"',
            )
        where = local_columns.locate(self._dataset, self._config.columns, [name for name, _ in header])
        types = dict(header)
        for column in self._dataset.columns:
            local = header[where[column.name]][0]
            if isinstance(column.kind, Numeric) and types[local] not in _NUMBERS:
                raise DataError(
                    f"column {column.name!r} is numeric, and {local!r} in the database is of type {types[local]}",
                    hint="cast it in a view, and name the view in agent.toml",
                )
        return types, {name: header[at][0] for name, at in where.items()}

    def _report(self, connection: psycopg.Connection) -> SourceReport:
        def one(query: exp.Query) -> tuple[int, ...]:
            row = connection.execute(query.sql(dialect="postgres")).fetchone()
            return tuple(int(value or 0) for value in row or ())

        table = _table(self._config)
        everything = one(exp.select(exp.Count(this=exp.Star())).from_(table))[0]
        local_rows = self._counted_rows()
        persons = most = 0
        if self._dataset.privacy_unit:
            each = exp.select(exp.alias_(exp.Count(this=exp.Star()), "n")).from_(local_rows.subquery("r"))
            each = each.group_by(exp.column(sql.PERSON))
            whole = exp.select(exp.Count(this=exp.Star()), exp.func("MAX", exp.column("n"))).from_(each.subquery("p"))
            persons, most = one(whole)
        outputs: list[exp.Expr] = [exp.Count(this=exp.Star())]
        for column in self._dataset.columns:
            local = exp.column(exp.to_identifier(column.name, quoted=True))
            raw = exp.column(exp.to_identifier(f"_raw_{column.name}", quoted=True))
            outside: exp.Expr
            if isinstance(column.kind, Categorical):
                outside = exp.EQ(this=local.copy(), expression=exp.Literal.number(len(column.kind.categories)))
            else:
                below = exp.LT(this=local.copy(), expression=double(column.kind.lower))
                outside = exp.or_(below, exp.GT(this=local.copy(), expression=double(column.kind.upper)))
            outputs += [exp.Count(this=local), exp.Count(this=raw)]
            outputs.append(exp.Count(this=exp.Case(ifs=[exp.If(this=outside, true=exp.Literal.number(1))])))
        counted = _local_rows(self._dataset, self._config, self._names, self._types, raw=True)
        rows, *counts = one(exp.select(*outputs).from_(counted.subquery("r")))
        columns = []
        for at, column in enumerate(self._dataset.columns):
            fit, given, outside_count = counts[3 * at : 3 * at + 3]
            local_name = self._names[column.name]
            if isinstance(column.kind, Categorical):
                beyond = given - fit + outside_count
                columns.append(ColumnReport(column.name, local_name, rows - given, unpublished=beyond))
            else:
                columns.append(ColumnReport(column.name, local_name, rows - fit, clipped=outside_count))
        if not self._dataset.privacy_unit:
            persons, most = rows, min(rows, 1)
        return SourceReport(rows, persons, everything - rows, most, tuple(columns))


def _over(local_rows: exp.Select, statement: exp.Query) -> str:
    """Return the statement with the table that it reads put before it, as text."""
    statement = statement.copy()
    first = exp.CTE(this=local_rows.copy(), alias=exp.TableAlias(this=exp.to_identifier(sql.TABLE)))
    statement.args["with_"].set("expressions", [first, *statement.args["with_"].expressions])
    for place in statement.find_all(exp.Placeholder):
        place.replace(exp.Parameter(this=exp.Literal.number(1)))  # the server's own form, so that % is only a character
    return statement.sql(dialect="postgres")


def _table(config: DatasetConfig) -> exp.Table:
    schema, _, name = (config.table or "").rpartition(".")
    return exp.table_(exp.to_identifier(name, quoted=True), db=exp.to_identifier(schema or "public", quoted=True))


def _local_rows(
    dataset: Dataset,
    config: DatasetConfig,
    names: Mapping[str, str],
    types: Mapping[str, str],
    *,
    raw: bool = False,
) -> exp.Select:
    """Return the query that makes the table of `sql` from the institution's own.

    A row's ticket depends on its person and on its place among that person's rows in the order of their values: on no
    other person. `raw` adds what was there before coding, for `check`.
    """
    person = _text(names[dataset.privacy_unit], config.missing) if dataset.privacy_unit else None
    outputs: list[exp.Expr] = []
    if person is not None:
        order = exp.Order(
            expressions=[
                exp.Ordered(this=exp.cast(_column(names[column.name]), "text"), nulls_first=False)
                for column in dataset.columns
            ]
        )
        place = exp.Window(this=exp.RowNumber(), partition_by=[person.copy()], order=order)
        ticket = exp.func("HASHTEXTEXTENDED", person.copy(), place, dialect="postgres")
        outputs += [exp.alias_(ticket, sql.ROW), exp.alias_(person, sql.PERSON)]
    for column in dataset.columns:
        local = names[column.name]
        if isinstance(column.kind, Numeric):
            if config.columns.get(column.name, ColumnConfig()).values:
                raise ConfigError(f"agent.toml maps values of {column.name!r}, which is numeric", hint="remove them")
            outputs.append(exp.alias_(_number(local, types[local]), column.name, quoted=True))
        else:
            configured = config.columns.get(column.name, ColumnConfig()).values
            coded = _coded(_text(local, config.missing), local_columns.codes(column.name, column.kind, configured))
            outputs.append(exp.alias_(coded, column.name, quoted=True))
        if raw:
            outputs.append(exp.alias_(_text(local, config.missing), f"_raw_{column.name}", quoted=True))
    select = exp.select(*outputs).from_(_table(config))
    if person is not None:
        select = select.where(exp.Not(this=exp.Is(this=person.copy(), expression=exp.Null())))
    counted = opted_out.condition(config, dataset, exp.Null() if person is None else person, "postgres")
    if counted is not None:
        select = select.where(counted)
    return select


def _number(local: str, kind: str) -> exp.Expr:
    """The value as a double; null where it is NaN, infinite or beyond what a double holds."""
    value: exp.Expr = _column(local)
    limit: exp.Expr = exp.Literal.number(_LARGEST)
    if kind in {"float4", "float8"}:
        value, limit = exp.cast(value, "double"), exp.cast(limit, "double")
    inside = exp.Between(this=value, low=exp.Neg(this=limit.copy()), high=limit)  # NaN is above everything
    return exp.Case(ifs=[exp.If(this=inside, true=exp.cast(_column(local), "double"))])


def _text(local: str, missing: Sequence[str]) -> exp.Expr:
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
