"""Public metadata of a dataset: columns, bounds, categories, privacy unit. Never read from data.

A schema file is TOML (see `from_toml`); what travels is the exact protobuf bytes of `protos/v1/schema.proto`, made once
by `to_bytes`, signed by governance, and named everywhere by `schema_hash` of those bytes.
"""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from protos.v1 import schema_pb2
from queries.errors import SchemaError, UnknownName

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
OTHER = "other"
"""The key of the explicit cell for values outside the published categories."""
MAX_PERSONS = 1 << 32
MAX_SMALLEST_COUNT = 1_000_000
_KNOWN_DATASET = {
    "name", "description", "privacy_unit", "max_rows", "max_institutions_per_person", "max_persons", "delta", "columns",
    "smallest_count",
}  # fmt: skip
_KNOWN_COLUMN = {"type", "description", "unit", "nullable", "lower", "upper", "categories", "other"}


@dataclass(frozen=True, slots=True)
class Numeric:
    """Values are clipped to [lower, upper]."""

    lower: float
    upper: float
    integer: bool = False


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of `categories`; anything else counts as "other" if `other`, and is dropped if not."""

    categories: tuple[str, ...]
    other: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Every public key, the "other" cell last."""
        return (*self.categories, OTHER) if self.other else self.categories


Kind: TypeAlias = Numeric | Categorical


@dataclass(frozen=True, slots=True)
class Column:
    """One column. A row that lacks a value in a column that is not nullable is left out of queries that use it."""

    name: str
    kind: Kind
    description: str = ""
    unit: str = ""
    nullable: bool = True


@dataclass(frozen=True)
class Dataset:
    """A dataset's whole public description. `privacy_unit` is "" where every row is another person."""

    name: str
    columns: tuple[Column, ...]
    privacy_unit: str = ""
    description: str = ""
    max_rows: int = 1
    max_institutions_per_person: int = 1
    max_persons: int = 10_000_000
    delta: float = 1e-6
    smallest_count: int = 0
    """Groups and bins whose noisy count is below are not shown; see `queries.withheld`."""

    def column(self, name: str, *, line: int = 0, position: int = 0) -> Column:
        """Return the column; raise UnknownName, suggesting the nearest, where there is none."""
        found = self._by_name.get(name)
        if found is None:
            raise UnknownName("column", name, (c.name for c in self.columns), line=line, column=position)
        return found

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        """The first column of each name, as there may be a thousand."""
        return {column.name: column for column in reversed(self.columns)}

    def numeric(self, name: str) -> Numeric:
        """Return the kind of a numeric column; raise SchemaError where it is categorical."""
        kind = self.column(name).kind
        if not isinstance(kind, Numeric):
            raise SchemaError(f"column {name!r} is categorical, not numeric", hint="use it in WHERE or GROUP BY")
        return kind

    def categorical(self, name: str) -> Categorical:
        """Return the kind of a categorical column; raise SchemaError where it is numeric."""
        kind = self.column(name).kind
        if not isinstance(kind, Categorical):
            raise SchemaError(
                f"column {name!r} has no published keys to group by",
                hint="group by a categorical column, or use HISTOGRAM for a numeric one",
            )
        return kind


def validate(dataset: Dataset) -> Dataset:
    """Return the dataset unchanged, or raise SchemaError naming the field that contradicts."""
    where = f"dataset {dataset.name!r}"
    if not NAME.fullmatch(dataset.name):
        raise SchemaError(f"{where}: names are lower-case letters, digits and _ (at most 63)")
    if not dataset.columns:
        raise SchemaError(f"{where} has no columns", hint="add a [columns.NAME] table")
    if not 1 <= dataset.max_rows <= 1_000_000:
        raise SchemaError(f"{where}: max_rows must be between 1 and 1,000,000")
    if not 1 <= dataset.max_institutions_per_person <= 1000:
        raise SchemaError(f"{where}: max_institutions_per_person must be between 1 and 1000")
    if not 1 <= dataset.max_persons <= MAX_PERSONS:
        raise SchemaError(f"{where}: max_persons must be between 1 and {MAX_PERSONS}")
    if not 0 <= dataset.delta <= 1e-3:
        raise SchemaError(
            f"{where}: delta must be at most 0.001, and 0 for none at all", hint="well below 1 / number of persons"
        )
    if not 0 <= dataset.smallest_count <= MAX_SMALLEST_COUNT:
        raise SchemaError(f"{where}: smallest_count must be between 0 and {MAX_SMALLEST_COUNT:,}")
    if dataset.privacy_unit == "" and dataset.max_rows != 1:
        raise SchemaError(f"{where}: without privacy_unit every row is a person, so max_rows is 1")
    seen: set[str] = set()
    for column in dataset.columns:
        if not NAME.fullmatch(column.name):
            raise SchemaError(f"{where}: {column.name!r} is no column name (lower-case letters, digits and _)")
        if column.name in seen or column.name == dataset.privacy_unit:
            raise SchemaError(f"{where}: column {column.name!r} appears twice")
        seen.add(column.name)
        _validate_kind(f"{where}, column {column.name!r}", column.kind)
    return dataset


def _validate_kind(where: str, kind: Kind) -> None:
    if isinstance(kind, Numeric):
        if not (math.isfinite(kind.lower) and math.isfinite(kind.upper) and kind.lower < kind.upper):
            raise SchemaError(f"{where}: lower and upper must be finite, lower below upper")
        if kind.integer and (kind.lower != math.floor(kind.lower) or kind.upper != math.floor(kind.upper)):
            raise SchemaError(f"{where}: an integer column needs integer bounds")
        return
    if not kind.categories:
        raise SchemaError(f"{where}: no categories", hint="list every published category")
    if len(set(kind.categories)) != len(kind.categories):
        raise SchemaError(f"{where}: a category appears twice")
    for category in kind.categories:
        if not category or len(category) > 200 or category == OTHER or not category.isprintable():
            raise SchemaError(
                f"{where}: {category[:40]!r} is no category", hint=f"{OTHER!r} is reserved: set other = true"
            )


def from_toml(text: str) -> Dataset:
    """Parse a schema file. Raise SchemaError that names the key.

    name = "patients"
    privacy_unit = "patient_id"
    delta = 1e-6
    [columns.age]
    type = "integer"            # or "number", "category"
    lower = 0
    upper = 120
    [columns.sex]
    type = "category"
    categories = ["female", "male"]
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"the schema is not valid TOML: {error}") from error
    unknown = set(raw) - _KNOWN_DATASET
    if unknown:
        raise SchemaError(
            f"the schema has an unknown key {min(unknown)!r}", hint=f"known: {', '.join(sorted(_KNOWN_DATASET))}"
        )
    columns = raw.get("columns", {})
    if not isinstance(columns, dict):
        raise SchemaError("columns must be tables", hint="write [columns.age]")
    try:
        return validate(
            Dataset(
                name=_typed(raw, "name", str, ""),
                description=_typed(raw, "description", str, ""),
                privacy_unit=_typed(raw, "privacy_unit", str, ""),
                max_rows=_typed(raw, "max_rows", int, 1),
                max_institutions_per_person=_typed(raw, "max_institutions_per_person", int, 1),
                max_persons=_typed(raw, "max_persons", int, 10_000_000),
                delta=float(_typed(raw, "delta", (float, int), 1e-6)),
                smallest_count=_typed(raw, "smallest_count", int, 0),
                columns=tuple(_column_from_toml(name, body) for name, body in columns.items()),
            )
        )
    except OverflowError as error:
        raise SchemaError("a number in the schema is too large") from error


def _typed(table: dict[str, Any], key: str, kind: type | tuple[type, ...], default: Any) -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SchemaError(f"{key} has the wrong type", hint="see the schema reference in docs/schema.md")
    return value


def _column_from_toml(name: str, body: Any) -> Column:
    if not isinstance(body, dict):
        raise SchemaError(f"column {name!r} must be a table", hint=f"write [columns.{name}]")
    unknown = set(body) - _KNOWN_COLUMN
    if unknown:
        raise SchemaError(
            f"column {name!r} has an unknown key {min(unknown)!r}", hint=f"known: {', '.join(sorted(_KNOWN_COLUMN))}"
        )
    kind: Kind
    match body.get("type"):
        case "number" | "integer" as given:
            if "lower" not in body or "upper" not in body:
                raise SchemaError(
                    f"column {name!r} needs lower and upper", hint="public clinical bounds, never the data's own"
                )
            kind = Numeric(
                float(_typed(body, "lower", (float, int), 0)),
                float(_typed(body, "upper", (float, int), 0)),
                given == "integer",
            )
        case "category":
            given_categories = _typed(body, "categories", list, [])
            if not all(isinstance(c, str) for c in given_categories):
                raise SchemaError(f"column {name!r}: categories are text", hint='write categories = ["0", "1"]')
            kind = Categorical(tuple(given_categories), _typed(body, "other", bool, False))
        case other:
            raise SchemaError(f"column {name!r} has type {other!r}", hint='type is "number", "integer" or "category"')
    return Column(
        name=name,
        kind=kind,
        description=_typed(body, "description", str, ""),
        unit=_typed(body, "unit", str, ""),
        nullable=_typed(body, "nullable", bool, True),
    )


def to_bytes(dataset: Dataset) -> bytes:
    """Serialise once, at publication. The bytes, not the value, are what is hashed and signed."""
    message = schema_pb2.Dataset(
        name=dataset.name,
        description=dataset.description,
        privacy_unit=dataset.privacy_unit,
        max_rows=dataset.max_rows,
        max_institutions_per_person=dataset.max_institutions_per_person,
        max_persons=dataset.max_persons,
        delta=dataset.delta,
        smallest_count=dataset.smallest_count,
    )
    for column in dataset.columns:
        out = message.columns.add(
            name=column.name, description=column.description, unit=column.unit, nullable=column.nullable
        )
        if isinstance(column.kind, Numeric):
            out.numeric.lower, out.numeric.upper, out.numeric.integer = (
                column.kind.lower,
                column.kind.upper,
                column.kind.integer,
            )
        else:
            out.categorical.categories.extend(column.kind.categories)
            out.categorical.other = column.kind.other
    return message.SerializeToString(deterministic=True)


def from_bytes(data: bytes) -> Dataset:
    """Parse and validate published bytes. Raise SchemaError on anything malformed."""
    message = schema_pb2.Dataset()
    try:
        message.ParseFromString(data)
    except Exception as error:  # protobuf raises its own DecodeError, whose import path differs between its back ends
        raise SchemaError("these bytes are not a dataset description") from error
    columns = []
    for column in message.columns:
        kind: Kind
        match column.WhichOneof("kind"):
            case "numeric":
                kind = Numeric(column.numeric.lower, column.numeric.upper, column.numeric.integer)
            case "categorical":
                kind = Categorical(tuple(column.categorical.categories), column.categorical.other)
            case _:
                raise SchemaError(f"column {column.name!r} has no kind")
        columns.append(Column(column.name, kind, column.description, column.unit, column.nullable))
    return validate(
        Dataset(
            name=message.name,
            columns=tuple(columns),
            privacy_unit=message.privacy_unit,
            description=message.description,
            max_rows=message.max_rows,
            max_institutions_per_person=message.max_institutions_per_person,
            max_persons=message.max_persons,
            delta=message.delta,
            smallest_count=message.smallest_count,
        )
    )


def schema_hash(data: bytes) -> bytes:
    """32 bytes that name a published dataset description: SHA-256 of its exact bytes under a domain label."""
    return hashlib.sha256(b"cohortium/v1/schema\x00" + data).digest()
