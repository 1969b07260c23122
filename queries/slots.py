"""Coordinates of a cell: what a row adds to each, and how many of them one row can change.

Slots of moments are products: of numeric columns mapped to u in [-1, 1], and of indicators of public keys. Two terms
multiply to one by `times`, so a covariance, a regression and a test of means all ask for slots in the same way, and
outputs that need the same product share it. Must not know: SQL, noise, which outputs there are.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from queries.schema import Categorical, Dataset

SlotKind: TypeAlias = Literal["rows", "persons", "present", "linear", "square", "bin", "product"]
Level: TypeAlias = tuple[str, str]
"""A categorical column and one of its published keys."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One coordinate of a cell. A row that falls into the cell adds, with S = 2^scale_bits,

    rows     S;
    persons  S for all rows of one person together;
    present  S where `column` has a value (a category outside the published ones, with no "other", is none);
    linear   round(u S), an integer in [-S, S], where it has a value: u = (clip(x) - mid) / half, see `centre`;
    square   round(u u S), an integer in [0, S], where it has a value;
    product  round(S times the u of every column in `factors`), an integer in [-S, S], where every column of `among` has
             a value and every column of `levels` its key: S itself where there are no factors;
    bin      S where its value lies in bin number `bin` of `Plan.histograms[histogram]`: numeric, between its edges (the
             last bin is closed, values outside are counted in the first and last); categorical, of the published keys;
             of several columns, where every one has a value there.
    """

    kind: SlotKind
    column: str | None = None
    bin: int = 0
    histogram: int = 0
    factors: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
    among: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that must have a value for a row to add anything, if any are named here; a bin's are its grid's."""
        if self.kind == "product":
            return tuple(dict.fromkeys((*self.factors, *(column for column, _key in self.levels), *self.among)))
        return () if self.column is None else (self.column,)

    @property
    def measures(self) -> tuple[str, ...]:
        """Numeric columns whose values, not only their presence, count."""
        if self.kind == "product":
            return tuple(dict.fromkeys(self.factors))
        return (self.column,) if self.column is not None and self.kind in {"linear", "square"} else ()


@dataclass(frozen=True, slots=True)
class Axis:
    """One way of a joint histogram: a numeric column cut at `edges`, or groups of keys of a categorical one."""

    column: str
    edges: tuple[float, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def bins(self) -> int:
        """How many bins it has."""
        return len(self.edges) - 1 if self.edges else len(self.groups)


@dataclass(frozen=True, slots=True)
class Joint:
    """A histogram over several axes at once; bins run through the last axis fastest."""

    axes: tuple[Axis, ...]

    @property
    def bins(self) -> int:
        """How many bins it has in all."""
        size = 1
        for axis in self.axes:
            size *= axis.bins
        return size


@dataclass(frozen=True, slots=True)
class Term:
    """A product of numeric columns and of indicators; the empty one is the constant 1."""

    factors: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()


ONE = Term()


def times(left: Term, right: Term) -> Term | None:
    """Return the product of two terms, or None where it is 0 by rule: nobody has two keys of one column."""
    keys = dict(left.levels)
    for column, key in right.levels:
        if keys.setdefault(column, key) != key:
            return None
    return Term(tuple(sorted((*left.factors, *right.factors))), tuple(sorted(keys.items())))


def slot_of(term: Term, among: Iterable[str], dataset: Dataset) -> Slot:
    """Return the slot that sums a term over the rows in which all of `among` have a value.

    Columns that every row of a query has are not named, so that a term over them is the same slot for every output.
    """
    levels = {column for column, _key in term.levels}
    nullable = tuple(sorted(name for name in set(among) if dataset.column(name).nullable and name not in levels))
    if term.levels:
        return Slot("product", factors=term.factors, levels=term.levels, among=nullable)
    if not term.factors and len(nullable) <= 1:
        return Slot("present", nullable[0]) if nullable else Slot("rows")
    alone = set(nullable) <= set(term.factors) and len(set(term.factors)) == 1
    if alone and len(term.factors) <= 2:
        return Slot("linear" if len(term.factors) == 1 else "square", term.factors[0])
    return Slot("product", factors=term.factors, among=nullable)


def kin_of(slot: Slot) -> Hashable:
    """Return what a slot shares with those of which a row changes only one: they are kin, and cost what one costs.

    Of the bins of one histogram a row changes one, and of slots that differ only in the keys of the same columns one.
    """
    if slot.kind == "bin":
        return slot.histogram
    if slot.levels:
        return slot.factors, tuple(column for column, _key in slot.levels), slot.among
    return slot


def keys_of(column: str, dataset: Dataset) -> tuple[str, ...]:
    """Return the published keys of a categorical column, () of a numeric one."""
    kind = dataset.column(column).kind
    return kind.keys if isinstance(kind, Categorical) else ()
