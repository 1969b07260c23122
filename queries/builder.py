"""The expression API: questions as Python values, with the same result as the same question in SQL.

    from queries.builder import Table, _, count
    query = Table(patients).filter(_.age >= 18).group_by(_.sex).agg(n=count(), age=_.age.mean()).build()

Every value here is immutable and holds names and literals only; `build` makes the frozen query and passes it through
`resolve`. Must not know: SQL text, protobuf, any data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from queries import ir, schema
from queries.builder_models import (
    TimeBins,
    anova,
    correlation,
    correlation_matrix,
    count_pairs,
    covariance,
    covariance_matrix,
    independence_test,
    intercept,
    linear_model,
    log_rank,
    paired_t_test,
    principal_components,
    r_squared,
    slope,
    survival,
    t_test,
)
from queries.builder_values import (
    Bins,
    ColumnRef,
    Columns,
    Condition,
    Literal,
    Measure,
    _,
    case,
    condition_in,
    expression_in,
)
from queries.errors import QueryError
from queries.limits import walk
from queries.naming import settle
from queries.resolve import equal_width, extended, resolve

__all__ = [
    "Bins", "Builder", "ColumnRef", "Columns", "Condition", "Literal", "Measure", "Table", "TimeBins", "_", "anova",
    "case", "correlation", "correlation_matrix", "count", "count_pairs", "count_persons",
    "covariance", "covariance_matrix", "independence_test",
    "intercept", "linear_model", "log_rank", "paired_t_test", "principal_components", "r_squared", "slope", "survival",
    "t_test",
]  # fmt: skip
MAX_WAYS = 4
"""Columns of a crosstab."""


def count() -> ir.Count:
    """Rows; `_.column.count()` counts those in which a column is present."""
    return ir.Count()


def count_persons() -> ir.Persons:
    """Distinct persons, each once whatever its rows; in groups, once in each that one of its used rows falls into."""
    return ir.Persons()


@dataclass(frozen=True, slots=True)
class Builder:
    """A whole question, ready to `build`."""

    dataset: schema.Dataset
    outputs: tuple[tuple[str, Measure], ...]
    where: ir.Predicate | None = None
    keys: tuple[ir.Key, ...] = ()
    rows_per_person: int | None = None
    derived: tuple[ir.Derived, ...] = ()

    def limit_rows(self, rows: int) -> Builder:
        """Use at most `rows` rows of each person, chosen at random at each institution."""
        return replace(self, rows_per_person=rows)

    def build(self) -> ir.Query:
        """Return the resolved query. Raise QueryError, UnknownName or LiteralError where it cannot be asked."""
        taken = [column.name for column in self.dataset.columns]
        if self.where is not None:
            for _node in walk(self.where):
                pass  # raises before recursion can go deep
        outputs, where, keys, derived = settle(self.outputs, self.where, self.keys, self.derived, taken)
        dataset = extended(derived, self.dataset)
        aggregates = tuple(ir.NamedAggregate(name, _aggregate(measure, dataset)) for name, measure in outputs)
        query = ir.Query(self.dataset.name, aggregates, where, keys, self.rows_per_person, derived)
        return resolve(query, self.dataset)


@dataclass(frozen=True, slots=True)
class Table:
    """A dataset to ask about. Each method returns a new value and leaves the old one as it was."""

    dataset: schema.Dataset
    where: ir.Predicate | None = None
    keys: tuple[ir.Key, ...] = ()
    rows_per_person: int | None = None
    derived: tuple[ir.Derived, ...] = ()

    def derive(self, **values: ColumnRef) -> Table:
        """Name values computed row by row: `derive(bmi=_.weight / (_.height * _.height))`, then use `_.bmi`."""
        new = tuple(ir.Derived(name, expression_in(value)) for name, value in values.items())
        return replace(self, derived=(*self.derived, *new))

    def filter(self, *conditions: Condition) -> Table:
        """Keep the rows for which every condition holds. Filters add up."""
        where = None if self.where is None else Condition(self.where)
        for condition in conditions:
            where = condition_in(condition) if where is None else where & condition
        return replace(self, where=None if where is None else where.predicate)

    def group_by(self, *columns: ColumnRef | ir.Key | str, keys: Mapping[str, Iterable[str]] | None = None) -> Table:
        """Answer for each published key of categorical columns, or for those that `keys` lists by column."""
        chosen = dict(keys or {})
        new = tuple(_key(column, chosen) for column in columns)
        if chosen:
            raise QueryError(f"keys are given for {min(chosen)!r}, which is not grouped by")
        return replace(self, keys=(*self.keys, *new))

    def limit_rows(self, rows: int) -> Table:
        """Use at most `rows` rows of each person, chosen at random at each institution."""
        return replace(self, rows_per_person=rows)

    def crosstab(self, *columns: ColumnRef | ir.Key | str, keys: Mapping[str, Iterable[str]] | None = None) -> Builder:
        """Count the rows of every combination of published keys of one to four categorical columns."""
        if not 1 <= len(columns) <= MAX_WAYS:
            raise QueryError(f"a crosstab has 1 to {MAX_WAYS} ways", hint="as in crosstab(_.sex, _.diag)")
        return self.group_by(*columns, keys=keys).agg(count=count())

    def agg(self, **outputs: Measure) -> Builder:
        """Name what is asked for: `agg(n=count(), age=_.age.mean())`."""
        for name, measure in outputs.items():
            if not isinstance(measure, ir.Aggregate | Bins | TimeBins):
                raise QueryError(
                    f"output {name!r} is no aggregate", hint=f"as in {name}=count() or {name}=_.age.mean()"
                )
        return Builder(self.dataset, tuple(outputs.items()), self.where, self.keys, self.rows_per_person, self.derived)


def _aggregate(measure: Measure, dataset: schema.Dataset) -> ir.Aggregate:
    if isinstance(measure, Bins):
        return ir.Histogram(measure.column, equal_width(dataset.column(measure.column), measure.bins))
    if isinstance(measure, TimeBins):
        return replace(measure.node, edges=equal_width(dataset.column(measure.node.time), measure.bins))
    return measure


def _key(column: ColumnRef | ir.Key | str, chosen: dict[str, Iterable[str]]) -> ir.Key:
    if isinstance(column, ir.Key):
        return column
    name = column.name if isinstance(column, ColumnRef) else column
    if name not in chosen:
        return ir.Key(name)
    values = chosen.pop(name)
    keys = () if isinstance(values, str) else tuple(values)
    if not keys:
        raise QueryError(f"no keys are listed for {name!r}", hint="list at least one, or leave keys out for all")
    return ir.Key(name, keys)
