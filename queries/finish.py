"""HAVING, ORDER BY and LIMIT: what is done to an answer after it was released.

They act on noisy values, cost nothing and change nothing of what was asked: two questions that differ in them are one
request. Must not know: SQL text, data, noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from queries import ir
from queries.errors import QueryError
from queries.estimate import Table
from queries.limits import walk

Cells = NDArray[np.float64] | NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Order:
    """Sort by an output or a key."""

    name: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """Keep rows for which `having` holds, sort them, keep the first `limit`. Names are those of outputs and keys."""

    having: ir.Predicate | None = None
    order: tuple[Order, ...] = ()
    limit: int | None = None

    def __call__(self, table: Table) -> Table:
        """Return what is left of an answer. Raise QueryError where a name is not one number or key a row."""
        rows = np.arange(len(table.row_keys))
        if self.having is not None:
            rows = rows[_holds(self.having, table) & _known(self.having, table)]
        for order in reversed(self.order):  # stable, so the first one decides
            cells = _cells(order.name, table)[rows]
            _values, ranks = np.unique(cells, return_inverse=True)
            ranks = np.where(_missing(cells), len(cells), -ranks if order.descending else ranks)  # last either way
            rows = rows[np.argsort(ranks, kind="stable")]
        rows = rows[: self.limit]
        outputs = tuple(output.mapped(lambda array: array[rows]) for output in table.outputs)
        return Table(table.keys, tuple(table.row_keys[row] for row in rows.tolist()), outputs)


def _cells(name: str, table: Table) -> Cells:
    if name in table.keys:
        place = table.keys.index(name)
        return np.array([keys[place] for keys in table.row_keys], dtype=np.str_)
    for output in table.outputs:
        if output.name == name:
            if output.value.ndim > 1:
                raise QueryError(
                    f"{name!r} is several numbers a row", hint="sort and filter by an output of one number"
                )
            return output.value
    raise QueryError(f"the answer has no {name!r}", hint=f"it has {', '.join((*table.keys, *table.columns))}")


def _missing(cells: Cells) -> NDArray[np.bool_]:
    """Return where a number is not shown."""
    return np.zeros(cells.shape, dtype=np.bool_) if cells.dtype.kind == "U" else np.isnan(cells.astype(np.float64))


def _known(node: ir.Predicate, table: Table) -> NDArray[np.bool_]:
    """Return the rows in which every number that a condition names is shown: about the others it says nothing."""
    known = np.ones(len(table.row_keys), dtype=np.bool_)
    for part in walk(node):
        if isinstance(part, ir.Comparison | ir.IsIn):
            known &= ~_missing(_cells(part.column, table))
    return known


def _holds(node: ir.Predicate, table: Table) -> NDArray[np.bool_]:
    # Recursion is bounded: whoever made the condition passed it through `limits.walk`.
    match node:
        case ir.Comparison(name, operator, value):
            cells = _cells(name, table)
            if isinstance(value, str) != (cells.dtype.kind == "U"):
                raise QueryError(f"{name!r} is compared with another kind of literal", hint="keys are texts")
            low, same = np.asarray(cells < value), np.asarray(cells == value)  # type: ignore[operator] # of one kind
            found = {"=": same, "!=": ~same, "<": low, "<=": low | same, ">": ~low & ~same, ">=": ~low}
            return np.asarray(found[operator])
        case ir.IsIn(name, values):
            return np.isin(_cells(name, table), np.array(values))
        case ir.IsNull(_name):
            return np.zeros(len(table.row_keys), dtype=bool)
        case ir.Not(part):
            return ~_holds(part, table)
        case ir.AllOf(parts):
            return np.asarray(np.all([_holds(part, table) for part in parts], axis=0))
        case ir.AnyOf(parts):
            return np.asarray(np.any([_holds(part, table) for part in parts], axis=0))
