"""A table or view in the institution's own PostgreSQL, summed there: no row leaves the database for a statistic.

The statement of `sql` reads a query over the table in place of a loaded copy: text trimmed and coded, numbers checked,
as `loading` does for files. It runs in a read-only transaction with a time limit, by a user that needs to read the one
table and nothing more. Passwords are libpq's business (~/.pgpass, a service file, PGPASSWORD), never agent.toml's.
Must not know: the network of the consortium, noise, budgets.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Self, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlglot import exp

from analytics_client.agent.config import DatasetConfig
from analytics_client.agent.sources import opted_out, sql
from analytics_client.agent.sources.base import SourceReport
from analytics_client.agent.sources.pushed import Pushed, find_columns, refuse_too_many
from analytics_client.agent.sources.vector import lottery, vector
from queries.errors import DataError
from queries.plan import Plan
from queries.schema import Dataset

STATEMENT_TIMEOUT_S = 300
CONNECT_TIMEOUT_S = 10
_STATEMENTS = 256
_NUMBERS = frozenset({"int2", "int4", "int8", "float4", "float8", "numeric"})

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
        self._pushed = self._located()

    @classmethod
    def open(cls, config: DatasetConfig, dataset: Dataset) -> Self:
        """Connect and find the columns. Raise DataError where table and schema do not fit, ConfigError likewise."""
        source = cls(config, dataset)
        refuse_too_many(source.check(), dataset)
        return source

    def check(self) -> SourceReport:
        """Say how the data fit the schema. Raise DataError where they cannot be served."""

        def report(connection: psycopg.Connection) -> SourceReport:
            def one(query: exp.Query) -> tuple[int, ...]:
                row = connection.execute(query.sql(dialect="postgres")).fetchone()
                return tuple(int(value or 0) for value in row or ())

            return self._pushed.report(one)

        return self._ask(report)

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

    def _statement(self, asked: object, make: Callable[[], exp.Query]) -> str:
        key = asked, opted_out.state(self._config)
        with self._lock:
            text = self._statements.get(key)
            if text is None:
                text = self._statements[key] = self._text(make())
                while len(self._statements) > _STATEMENTS:
                    self._statements.popitem(last=False)
        return text

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

    def _located(self) -> Pushed:
        """Return the table, with the local name of every schema column."""
        table = _table(self._config)

        def look(connection: psycopg.Connection) -> list[tuple[str, str]]:
            found = connection.execute(
                "SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
                " WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                [table.sql(dialect="postgres", identify=True)],
            )
            return [(name, kind) for name, kind in found.fetchall()]

        types = dict(self._ask(look))
        if not types:
            raise DataError(
                f"the database has no table or view {self._config.table!r} that this user sees",
                hint='name it with its schema, as in table = "clinic.patients"',
            )
        names = find_columns(self._dataset, self._config, types, _NUMBERS.__contains__)
        floats = frozenset(local for local, kind in types.items() if kind in {"float4", "float8"})
        return Pushed(self._dataset, self._config, table, "postgres", names, floats, _ticket)

    def _text(self, statement: exp.Query) -> str:
        whole = self._pushed.statement(statement)
        for place in whole.find_all(exp.Placeholder):
            place.replace(exp.Parameter(this=exp.Literal.number(1)))  # the server's own form: % is only a character
        return whole.sql(dialect="postgres")


def _ticket(person: exp.Expr, place: exp.Expr) -> exp.Expr:
    return exp.func("HASHTEXTEXTENDED", person, place, dialect="postgres")


def _table(config: DatasetConfig) -> exp.Table:
    schema, _, name = (config.table or "").rpartition(".")
    return exp.table_(exp.to_identifier(name, quoted=True), db=exp.to_identifier(schema or "public", quoted=True))
