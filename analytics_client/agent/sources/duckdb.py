"""CSV, Parquet and DuckDB files through an embedded DuckDB: loaded once into memory, then locked away from every file.

Parquet of more than 2 GiB stays where it is; the engine may then open those files and no others. A changed file is
noticed at the next query and read again. Must not know: the network, noise, budgets.
"""

from __future__ import annotations

import csv
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray
from sqlglot import exp

from analytics_client.agent.config import ColumnConfig, DatasetConfig
from analytics_client.agent.sources import columns as local_columns
from analytics_client.agent.sources import duckdb_file, loading, opted_out, sql
from analytics_client.agent.sources.base import ColumnReport, SourceReport
from analytics_client.agent.sources.vector import lottery, vector
from queries.errors import ConfigError, DataError
from queries.plan import Plan
from queries.schema import Categorical, Dataset

IN_PLACE_BYTES = 2 << 30
"""Parquet files larger than this in all are scanned where they are."""
_STATEMENTS = 256
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # a table name never falls back to a Python variable
    "temp_directory": "",  # patients' rows are never spilled to a disk nobody chose
}
_NUMERIC = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*)")

T = TypeVar("T")
Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class _Resident:
    """One state of the files, ready to be asked."""

    fingerprint: Fingerprint
    connection: duckdb.DuckDBPyConnection
    report: SourceReport
    rows_known: bool


class DuckDBSource:
    """A dataset in local CSV, Parquet or DuckDB files. See `base.Source` for what it promises."""

    def __init__(self, config: DatasetConfig, dataset: Dataset, threads: int) -> None:
        """See `open`."""
        self._config = config
        self._dataset = dataset
        self._threads = threads
        self._lock = threading.Lock()
        self._statements: OrderedDict[object, str] = OrderedDict()
        self._resident: _Resident | None = None

    @classmethod
    def open(cls, config: DatasetConfig, dataset: Dataset, *, threads: int = 1) -> Self:
        """Load the files that agent.toml names. Raise DataError where they do not fit the schema, ConfigError likewise.

        An error names file, column and line, and never a value.
        """
        source = cls(config, dataset, threads)
        source._current()
        return source

    def check(self) -> SourceReport:
        """Say how the data fit the schema. Raise DataError where they cannot be served."""
        return self._current().report

    def aggregate(self, plan: Plan, salt: bytes) -> NDArray[np.int64]:
        """Return the plan's exact sums on its unrefined lattice; see `base.Source.aggregate`."""
        resident = self._current()
        text = self._statement(plan, resident.rows_known)
        parameters = [lottery(salt)] if sql.needs_salt(plan) else []

        def ask() -> list[tuple[int, ...]]:
            with resident.connection.cursor() as cursor:
                return cursor.execute(text, parameters).fetchall()

        return vector(plan, _guarded(ask))

    def rows(self, plan: Plan, salt: bytes) -> dict[str, NDArray[np.float64]]:
        """Return the rows that the plan would sum; see `base.Source.rows`."""
        resident = self._current()
        text = sql.render_rows(plan, "duckdb", rows_known=resident.rows_known)
        parameters = [lottery(salt)] if sql.needs_salt(plan) else []

        def ask() -> dict[str, NDArray[np.float64]]:
            with resident.connection.cursor() as cursor:
                columns = cursor.execute(text, parameters).fetchnumpy()
            # A column with nulls comes as a masked array; what lies under its mask is no value.
            return {
                name: np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan) for name, column in columns.items()
            }

        return _guarded(ask)

    def close(self) -> None:
        """Let go of the data."""
        with self._lock:
            if self._resident is not None:
                self._resident.connection.close()
                self._resident = None

    def _statement(self, plan: Plan, rows_known: bool) -> str:
        key = plan.query, rows_known
        with self._lock:
            text = self._statements.get(key)
            if text is None:
                text = sql.render(plan, "duckdb", rows_known=rows_known)
                self._statements[key] = text
                while len(self._statements) > _STATEMENTS:
                    self._statements.popitem(last=False)
        return text

    def _current(self) -> _Resident:
        """Return the data as the files are now; read them again if they changed."""
        now = _fingerprint(self._config.files()) + opted_out.state(self._config)
        with self._lock:
            resident = self._resident
            if resident is None or resident.fingerprint != now:
                self._resident = None  # while it cannot be loaded, nothing is served
                resident = _load(self._config, self._dataset, self._threads)
                self._resident = resident
        return resident


def _fingerprint(files: Sequence[Path]) -> Fingerprint:
    states = [(file, file.stat()) for file in files]
    return tuple((str(file), state.st_mtime_ns, state.st_size, state.st_ino) for file, state in states)


def _load(config: DatasetConfig, dataset: Dataset, threads: int) -> _Resident:
    files = config.files()
    listed = opted_out.state(config)
    before = _fingerprint(files)
    in_place = config.format == "parquet" and sum(size for _, _, size, _ in before) > IN_PLACE_BYTES
    connection = duckdb.connect(config={**_SETTINGS, "threads": threads})
    try:
        report = _guarded(lambda: _fill(connection, config, dataset, files, in_place=in_place))
        if _fingerprint(config.files()) != before or opted_out.state(config) != listed:
            raise DataError("the files changed while they were read", hint="try again when they are complete")
        if report.persons > dataset.max_persons:
            raise DataError(
                f"there are more persons here than the schema's max_persons, {dataset.max_persons:,}",
                hint="ask governance to publish the dataset with a larger max_persons",
            )
    except BaseException:
        connection.close()
        raise
    return _Resident(before + listed, connection, report, rows_known=not in_place)


def _fill(
    connection: duckdb.DuckDBPyConnection,
    config: DatasetConfig,
    dataset: Dataset,
    files: Sequence[Path],
    *,
    in_place: bool,
) -> SourceReport:
    """Make the table that `sql` reads, and lock the engine away from everything else."""
    header, source, ordered = _header(connection, config, files)
    where = local_columns.locate(dataset, config.columns, [name for name, _ in header])
    selected = {
        name: loading.LocalColumn(header[at][0] if config.format == "parquet" else f"c{at}", header[at][1])
        for name, at in where.items()
    }
    kind = "VIEW" if in_place else "TABLE"
    staged = loading.staged(dataset, source, selected, config.missing, in_place=in_place, ordered=ordered)
    _create(connection, kind, loading.STAGED, staged)
    if config.format == "duckdb":
        duckdb_file.detach(connection)
    numbers = loading.as_numbers(dataset, selected, config.missing)
    _refuse_text_in_numbers(connection, config, dataset, numbers)
    person = exp.column(loading.PERSON_TEXT, table=loading.STAGED)
    counted = opted_out.condition(config, dataset, person, "duckdb")
    if dataset.privacy_unit and not in_place:
        _create(connection, "TABLE", loading.PEOPLE, loading.people(counted))
    codes = _codes(dataset, config)
    _create(connection, kind, sql.TABLE, loading.normal(dataset, codes, numbers, in_place=in_place, counted=counted))
    report = _report(connection, dataset, {name: header[at][0] for name, at in where.items()})
    if not in_place:
        for table in (loading.STAGED, loading.PEOPLE):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
    if config.format != "duckdb":  # `duckdb_file.attach` locked it before it looked at anything
        _lock_down(connection, files if in_place else ())
    return report


def _header(
    connection: duckdb.DuckDBPyConnection, config: DatasetConfig, files: Sequence[Path]
) -> tuple[list[tuple[str, bool]], exp.Expr, bool]:
    """Return the local names with whether each is numeric, what reads the files, and whether rows have an order."""
    if config.format == "duckdb":
        attached = duckdb_file.attach(connection, files, config.table or "")
        names = [(name, _NUMERIC.fullmatch(kind) is not None) for name, kind in attached.columns]
        return names, attached.source, not attached.is_view
    if config.format == "parquet":
        source = loading.parquet_files(files)
        described = connection.execute(
            exp.Describe(this=exp.select(exp.Star()).from_(loading.parquet_files(files))).sql("duckdb")
        ).fetchall()
        own = [row for row in described if row[0] not in {"filename", "file_row_number"}]
        return [(row[0], _NUMERIC.fullmatch(row[1]) is not None) for row in own], source, True
    header = _csv_header(files[0], config.delimiter)
    for file in files[1:]:
        if _csv_header(file, config.delimiter) != header:
            raise DataError(f"{file.name} has other columns than {files[0].name}", hint="files of a dataset are alike")
    return [(name, False) for name in header], loading.csv_files(files, len(header), config.delimiter), True


def _csv_header(file: Path, delimiter: str) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            names = next(csv.reader(text, delimiter=delimiter), None)
    except UnicodeDecodeError:
        raise DataError(f"{file.name} is not UTF-8 text", hint="export it as UTF-8") from None
    except (OSError, csv.Error):
        raise DataError(f"{file.name} cannot be read as CSV", hint="check the file and its permissions") from None
    if not names:
        raise DataError(f"{file.name} is empty", hint="its first line names the columns")
    return names


def _refuse_text_in_numbers(
    connection: duckdb.DuckDBPyConnection, config: DatasetConfig, dataset: Dataset, numbers: frozenset[str]
) -> None:
    numeric = [column.name for column in dataset.columns if not isinstance(column.kind, Categorical)]
    names = [name for name in numeric if name not in numbers]
    if not names:
        return
    firsts = connection.execute(loading.misfits(names).sql("duckdb")).fetchone() or ()
    for name, row in zip(names, firsts, strict=True):
        if row is not None:
            file, line = connection.execute(
                f"SELECT any_value(f._file), count(*) FROM {loading.STAGED} f"  # noqa: S608 -- constants only
                f" WHERE f._file = (SELECT _file FROM {loading.STAGED} WHERE _row = ?) AND f._row <= ?",
                [row, row],
            ).fetchone() or ("", 0)
            place = f"line {line + 1}" if config.format == "csv" else f"row {line}"
            raise DataError(
                f"column {name!r} of {os.path.basename(file)} holds text in {place}, where a number belongs",
                hint="correct the file, or list texts that mean missing in agent.toml: missing = [...]",
            )


def _codes(dataset: Dataset, config: DatasetConfig) -> dict[str, local_columns.Codes]:
    codes = {}
    for column in dataset.columns:
        configured = config.columns.get(column.name, ColumnConfig()).values
        if isinstance(column.kind, Categorical):
            codes[column.name] = local_columns.codes(column.name, column.kind, configured)
        elif configured:
            raise ConfigError(f"agent.toml maps values of {column.name!r}, which is numeric", hint="remove them")
    return codes


def _create(connection: duckdb.DuckDBPyConnection, kind: str, name: str, query: exp.Query) -> None:
    connection.execute(exp.Create(this=exp.to_table(name), kind=kind, expression=query).sql("duckdb"))


def _lock_down(connection: duckdb.DuckDBPyConnection, allowed: Sequence[Path]) -> None:
    """From here on the engine opens no file but the allowed ones, loads nothing, and cannot be told otherwise."""
    if allowed:
        paths = exp.Array(expressions=[exp.Literal.string(str(path)) for path in allowed])
        connection.execute(f"SET allowed_paths = {paths.sql('duckdb')}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _report(connection: duckdb.DuckDBPyConnection, dataset: Dataset, names: dict[str, str]) -> SourceReport:
    fitting = _one(connection, loading.fitting(dataset).sql("duckdb"))
    rows = fitting[0]
    everything, *given = _one(connection, loading.given(dataset).sql("duckdb"))
    persons, most = rows, 1
    if dataset.privacy_unit:
        people = "SELECT count(*), coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM local_rows GROUP BY _person)"
        persons, most = _one(connection, people)
    columns = []
    for column, values, fit, outside in zip(dataset.columns, given, fitting[1::2], fitting[2::2], strict=True):
        local = names[column.name]
        if isinstance(column.kind, Categorical):
            columns.append(ColumnReport(column.name, local, rows - values, unpublished=values - fit + outside))
        else:
            columns.append(ColumnReport(column.name, local, rows - fit, clipped=outside))
    return SourceReport(rows, persons, everything - rows, most, tuple(columns))


def _one(connection: duckdb.DuckDBPyConnection, statement: str) -> tuple[Any, ...]:
    row = connection.execute(statement).fetchone()
    if row is None:
        raise DataError("the local engine gave no answer", hint="read the agent's log")
    return tuple(row)


def _guarded(action: Callable[[], T]) -> T:
    """Run something in the engine. Its errors quote the data: they become a DataError that keeps nothing of them."""
    try:
        return action()
    except duckdb.Error as error:
        failure = _explained(str(error))
    raise failure


def _explained(text: str) -> DataError:
    line = re.search(r"CSV Error on Line: (\d+)", text)
    if line:
        return DataError(
            f"line {line[1]} of a CSV file cannot be read",
            hint="check its quotes, its encoding (UTF-8) and its number of fields",
        )
    return DataError("the local engine could not read or sum the data", hint="run: cohortium-agent check DIR")
