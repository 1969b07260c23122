"""A table or Parquet folder that outgrew one machine, summed by Spark: `spark://` or local.

As for PostgreSQL the statement of `sql` runs where the data are, over a query that trims, codes and checks, and only
totals per cell come back. Must not know: the network of the consortium, noise, budgets.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from sqlglot import exp

from analytics_client.agent.config import DatasetConfig
from analytics_client.agent.sources import opted_out, sql
from analytics_client.agent.sources.base import SourceReport
from analytics_client.agent.sources.pushed import Pushed, find_columns, refuse_too_many
from analytics_client.agent.sources.vector import lottery, vector
from queries.errors import ConfigError, DataError
from queries.plan import Plan
from queries.schema import Dataset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_STATEMENTS = 256
_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")
_SETTINGS = {
    "spark.sql.ansi.enabled": "false",  # a quotient by zero is missing, as in the other engines
    "spark.sql.caseSensitive": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",  # no port is opened
    "spark.sql.shuffle.partitions": "8",
}

T = TypeVar("T")


class SparkSource:
    """A dataset in Spark. See `base.Source` for what it promises."""

    def __init__(self, config: DatasetConfig, dataset: Dataset) -> None:
        """See `open`."""
        self._config = config
        self._dataset = dataset
        self._lock = threading.Lock()
        self._statements: OrderedDict[object, str] = OrderedDict()
        self._spark = _session(config.connection or "")
        self._pushed = self._located()

    @classmethod
    def open(cls, config: DatasetConfig, dataset: Dataset) -> Self:
        """Connect and find the columns. Raise DataError where table and schema do not fit, ConfigError likewise."""
        source = cls(config, dataset)
        refuse_too_many(source.check(), dataset)
        return source

    def check(self) -> SourceReport:
        """Say how the data fit the schema. Raise DataError where they cannot be served."""

        def one(query: exp.Query) -> tuple[int, ...]:
            [row] = self._frame(query.sql(dialect="spark"), {}).collect()
            return tuple(int(value or 0) for value in row)

        return _guarded(lambda: self._pushed.report(one))

    def aggregate(self, plan: Plan, salt: bytes) -> NDArray[np.int64]:
        """Return the plan's exact sums on its unrefined lattice; see `base.Source.aggregate`."""
        text = self._statement(("sums", plan.query), lambda: sql.statement(plan, "spark", rows_known=False))
        found = _guarded(lambda: self._frame(text, _parameters(plan, salt)).collect())
        return vector(plan, [tuple(int(value or 0) for value in row) for row in found])

    def rows(self, plan: Plan, salt: bytes) -> dict[str, NDArray[np.float64]]:
        """Return the rows that the plan would sum; see `base.Source.rows`."""
        text = self._statement(("rows", plan.query), lambda: sql.rows_statement(plan, "spark", rows_known=False))

        def read() -> dict[str, NDArray[np.float64]]:
            frame = self._frame(text, _parameters(plan, salt))
            table = np.array(frame.collect(), dtype=np.float64).reshape(-1, len(frame.columns))  # null becomes NaN
            return {name: table[:, at].copy() for at, name in enumerate(frame.columns)}

        return _guarded(read)

    def close(self) -> None:
        """Let go of the statements. The Spark session is the process's and ends with it."""
        with self._lock:
            self._statements.clear()

    def _frame(self, text: str, parameters: dict[str, int]) -> DataFrame:
        return self._spark.sql(text, args=parameters) if parameters else self._spark.sql(text)

    def _statement(self, asked: object, make: Callable[[], exp.Query]) -> str:
        key = asked, opted_out.state(self._config)
        with self._lock:
            text = self._statements.get(key)
            if text is None:
                whole = self._pushed.statement(make())
                for place in whole.find_all(exp.Placeholder):
                    place.set("this", "salt")
                text = self._statements[key] = whole.sql(dialect="spark")
                while len(self._statements) > _STATEMENTS:
                    self._statements.popitem(last=False)
        return text

    def _located(self) -> Pushed:
        named = self._config.table or ""
        if "/" in named:
            view = f"cohortium_{self._dataset.name}_{secrets.token_hex(4)}"  # another source must not take its place
            _guarded(lambda: self._spark.read.parquet(named).createOrReplaceTempView(view))
            table = exp.to_table(view)
        else:
            name, schema, catalog, *_ = [
                *(exp.to_identifier(p, quoted=True) for p in named.split(".")[::-1]),
                None,
                None,
            ]
            table = exp.table_(name, db=schema, catalog=catalog)
        described = _guarded(lambda: self._frame(exp.select("*").from_(table.copy()).sql(dialect="spark"), {}).dtypes)
        types = dict(described)
        names = find_columns(self._dataset, self._config, types, lambda kind: kind.startswith(_NUMBERS))
        floats = frozenset(local for local, kind in types.items() if kind in {"float", "double"})
        return Pushed(self._dataset, self._config, table, "spark", names, floats, _ticket)


def _ticket(person: exp.Expr, place: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this="XXHASH64", expressions=[person, place])


def _parameters(plan: Plan, salt: bytes) -> dict[str, int]:
    return {"salt": lottery(salt)} if sql.needs_salt(plan) else {}


def _session(master: str) -> SparkSession:
    """Return the process's session. Raise ConfigError where Spark cannot be started."""
    builder = SparkSession.builder.master(master).appName("cohortium-agent")
    for key, value in _SETTINGS.items():
        builder = builder.config(key, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:  # starting a JVM fails in ways that share no class
        failure = ConfigError(
            f"Spark cannot be started at {master} ({type(error).__name__})", hint="is Java 17 or newer installed?"
        )
    else:
        session.sparkContext.setLogLevel("OFF")  # its log quotes data
        return session
    raise failure


def _guarded(action: Callable[[], T]) -> T:
    """Run something in Spark. Its errors quote the data: they become a DataError that keeps nothing of them."""
    try:
        return action()
    except PySparkException as error:
        found = str(error.getCondition() or "")
        missing = found.startswith(("TABLE_OR_VIEW_NOT_FOUND", "PATH_NOT_FOUND"))
    if missing:
        raise DataError("Spark has no such table or folder", hint="correct table in agent.toml")
    raise DataError("Spark could not read or sum the data", hint="run: cohortium-agent check DIR")
