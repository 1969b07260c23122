"""A table or view in a DuckDB database file, read once into the engine's memory like any other file.

The file is attached for reading alone, and the engine is locked away from everything else before anything of it is
looked at: a view in it that reads other files, or the network, fails. Afterwards it is let go, so that whoever keeps
the file can write to it. Must not know: plans, schemas, queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import duckdb
from sqlglot import exp

from queries.errors import ConfigError, DataError

ATTACHED = "_file"


@dataclass(frozen=True, slots=True)
class AttachedTable:
    """A table of the attached file: its columns with their types, and whether its rows have an order of their own."""

    columns: tuple[tuple[str, str], ...]
    source: exp.Expr
    is_view: bool


def attach(connection: duckdb.DuckDBPyConnection, files: Sequence[Path], table: str) -> AttachedTable:
    """Attach the one file, lock the engine away from everything else, and find the table.

    Column number i of `source` is called c{i}, and `filename` names the file. Raise ConfigError or DataError where
    there is no such table, or where the file cannot be read.
    """
    if len(files) != 1:
        raise ConfigError(f"{len(files)} DuckDB files match", hint="name one, or make a view over them in another")
    file = files[0]
    try:
        connection.execute(
            f"ATTACH {exp.Literal.string(str(file)).sql('duckdb')} AS {ATTACHED} (TYPE duckdb, READ_ONLY)"
        )
    except duckdb.Error as error:
        locked = "lock on file" in str(error)
    else:
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return _found(connection, file, table)
    if locked:
        raise DataError(
            f"another program has {file.name} open for writing", hint="close it there; reading beside others is fine"
        )
    raise DataError(
        f"{file.name} is no DuckDB database that can be read here",
        hint="made by a newer DuckDB? Export the table as Parquet",
    )


def detach(connection: duckdb.DuckDBPyConnection) -> None:
    """Let go of the file."""
    connection.execute(f"DETACH {ATTACHED}")


def _found(connection: duckdb.DuckDBPyConnection, file: Path, table: str) -> AttachedTable:
    schema, _, name = table.rpartition(".")
    schema = schema or "main"
    known = dict(
        connection.execute(
            "SELECT schema_name || '.' || table_name, false FROM duckdb_tables() WHERE database_name = $1 UNION ALL"
            " SELECT schema_name || '.' || view_name, true FROM duckdb_views()"
            " WHERE database_name = $1 AND NOT internal",
            [ATTACHED],
        ).fetchall()
    )
    if f"{schema}.{name}" not in known:
        near = get_close_matches(f"{schema}.{name}", known, n=1, cutoff=0.5)
        raise DataError(
            f"{file.name} has no table or view {table!r}",
            hint=f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known)[:12]) or 'none'}",
        )
    place = exp.table_(
        exp.to_identifier(name, quoted=True),
        db=exp.to_identifier(schema, quoted=True),
        catalog=exp.to_identifier(ATTACHED),
    )
    described = connection.execute(f"DESCRIBE {exp.select('*').from_(place).sql('duckdb')}").fetchall()
    columns = tuple((str(row[0]), str(row[1])) for row in described)
    outputs = [
        exp.alias_(exp.column(exp.to_identifier(column, quoted=True)), f"c{at}")
        for at, (column, _) in enumerate(columns)
    ]
    outputs.append(exp.alias_(exp.Literal.string(str(file)), "filename"))
    source = exp.select(*outputs).from_(place.copy()).subquery("source")
    return AttachedTable(columns, source, known[f"{schema}.{name}"])
