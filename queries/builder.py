"""The expression API: questions as Python values, with the same result as the same question in SQL.

    from queries.builder import Table, _, count
    query = Table(patients).filter(_.age >= 18).group_by(_.sex).agg(n=count(), age=_.age.mean()).build()

Every value here is immutable and holds names and literals only; `build` makes the frozen query and passes it through
`resolve`. Must not know: SQL text, protobuf, any data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import NoReturn, TypeAlias

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
from queries.errors import LiteralError, QueryError
from queries.limits import walk
from queries.naming import PartName, settle
from queries.resolve import equal_width, extended, resolve

__all__ = [
    "Bins", "Builder", "ColumnRef", "Columns", "Condition", "Literal", "Measure", "Table", "TimeBins", "_", "anova",
    "case", "correlation", "correlation_matrix", "count", "count_pairs", "count_persons",
    "covariance", "covariance_matrix", "independence_test",
    "intercept", "linear_model", "log_rank", "paired_t_test", "principal_components", "r_squared", "slope", "survival",
    "t_test",
]  # fmt: skip
Literal: TypeAlias = Real | float | str
MAX_WAYS = 4
"""Columns of a crosstab."""


@dataclass(frozen=True, slots=True)
class Bins:
    """A histogram over a number of bins of equal width; it becomes edges once the column's bounds are known."""

    column: str
    bins: int


Measure: TypeAlias = ir.Aggregate | Bins | TimeBins


@dataclass(frozen=True, slots=True)
class Condition:
    """A predicate that combines with `&`, `|` and `~`."""

    predicate: ir.Predicate

    def mean(self) -> ir.Mean:
        """The share of rows for which it holds, among those where that is known: a proportion or rate."""
        return ir.Mean(self._truth())

    def sum(self) -> ir.Sum:
        """How many rows it holds for."""
        return ir.Sum(self._truth())

    def _truth(self) -> PartName:
        return PartName(ir.Truth(self.predicate))

    def __and__(self, other: Condition) -> Condition:
        return Condition(ir.AllOf((*_parts(self, ir.AllOf), *_parts(_condition(other), ir.AllOf))))

    def __or__(self, other: Condition) -> Condition:
        return Condition(ir.AnyOf((*_parts(self, ir.AnyOf), *_parts(_condition(other), ir.AnyOf))))

    def __invert__(self) -> Condition:
        return Condition(ir.Not(self.predicate))

    def __bool__(self) -> NoReturn:
        raise QueryError(
            "a condition is a question, neither true nor false yet",
            hint="combine with & | ~ and parentheses, not with and/or/not, in or chained comparisons",
        )


@dataclass(frozen=True, slots=True, eq=False)
class ColumnRef:
    """A column by name. Comparing it makes a Condition; calling a statistic on it makes an aggregate."""

    name: str

    def __lt__(self, other: Literal) -> Condition:
        return self._compare("<", other)

    def __le__(self, other: Literal) -> Condition:
        return self._compare("<=", other)

    def __gt__(self, other: Literal) -> Condition:
        return self._compare(">", other)

    def __ge__(self, other: Literal) -> Condition:
        return self._compare(">=", other)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]  # == builds a question, as in pandas
        return self._compare("=", other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]  # != builds a question, as in pandas
        return self._compare("!=", other)

    __hash__ = None  # type: ignore[assignment]  # == does not decide equality, so no set or dict can hold a column

    def __bool__(self) -> NoReturn:
        raise QueryError(f"column {self.name!r} is no condition", hint=f"compare it: _.{self.name} == ...")

    def __add__(self, other: ColumnRef | float) -> ColumnRef:
        return _arithmetic("+", self, other)

    def __radd__(self, other: float) -> ColumnRef:
        return _arithmetic("+", other, self)

    def __sub__(self, other: ColumnRef | float) -> ColumnRef:
        return _arithmetic("-", self, other)

    def __rsub__(self, other: float) -> ColumnRef:
        return _arithmetic("-", other, self)

    def __mul__(self, other: ColumnRef | float) -> ColumnRef:
        return _arithmetic("*", self, other)

    def __rmul__(self, other: float) -> ColumnRef:
        return _arithmetic("*", other, self)

    def __truediv__(self, other: ColumnRef | float) -> ColumnRef:
        return _arithmetic("/", self, other)

    def __rtruediv__(self, other: float) -> ColumnRef:
        return _arithmetic("/", other, self)

    def __pow__(self, power: int) -> ColumnRef:
        if isinstance(power, bool) or power not in {2, 3, 4}:
            raise QueryError("a value can be raised to the power 2, 3 or 4", hint="for a root write .sqrt()")
        square = self * self
        return square if power == 2 else square * self if power == 3 else square * square

    def __neg__(self) -> ColumnRef:
        return _arithmetic("*", -1.0, self)

    def __abs__(self) -> ColumnRef:
        return self.abs()

    def log(self) -> ColumnRef:
        """The natural logarithm; missing unless above 0."""
        return ColumnRef(PartName(ir.Function("ln", _expression(self))))

    def sqrt(self) -> ColumnRef:
        """The square root; missing below 0."""
        return ColumnRef(PartName(ir.Function("sqrt", _expression(self))))

    def abs(self) -> ColumnRef:
        """The absolute value."""
        return ColumnRef(PartName(ir.Function("abs", _expression(self))))

    def clip(self, lower: float, upper: float) -> ColumnRef:
        """The value clipped to declared bounds."""
        return ColumnRef(PartName(ir.Bounded(_expression(self), _numeric(lower), _numeric(upper))))

    def between(self, low: Literal, high: Literal) -> Condition:
        """`low <= column <= high`."""
        return (self >= low) & (self <= high)

    def isin(self, values: Iterable[Literal]) -> Condition:
        """Whether the column is one of `values`."""
        if isinstance(values, str):
            raise LiteralError("isin takes a list, not one text", hint='write isin(["..."])')
        return Condition(ir.IsIn(self.name, tuple(_literal(value) for value in values)))

    def isnull(self) -> Condition:
        """Whether the row lacks a value."""
        return Condition(ir.IsNull(self.name))

    def notnull(self) -> Condition:
        """Whether the row has a value."""
        return ~self.isnull()

    def count(self) -> ir.Count:
        """Rows in which the column is present."""
        return ir.Count(self.name)

    def sum(self) -> ir.Sum:
        """Sum over the rows in which the column is present."""
        return ir.Sum(self.name)

    def mean(self) -> ir.Mean:
        """Mean over the rows in which the column is present."""
        return ir.Mean(self.name)

    def var(self, ddof: int = 1) -> ir.Variance:
        """Variance: of the sample (`ddof` 1) or the population (0)."""
        return ir.Variance(self.name, ddof)

    def std(self, ddof: int = 1) -> ir.Stddev:
        """Standard deviation: of the sample (`ddof` 1) or the population (0)."""
        return ir.Stddev(self.name, ddof)

    def quantile(self, q: float) -> ir.Quantile:
        """The value below which the share `q` of the rows lies, read from noisy counts of a grid over the bounds."""
        return ir.Quantile(self.name, _numeric(q))

    def median(self) -> ir.Quantile:
        """The quantile 0.5."""
        return ir.Quantile(self.name, 0.5)

    def min(self) -> ir.Quantile:
        """The quantile 0: not the least value, which one person decides, but the least one that noise lets be seen."""
        return ir.Quantile(self.name, 0.0)

    def max(self) -> ir.Quantile:
        """The quantile 1; as for `min`, the largest value that noise lets be seen."""
        return ir.Quantile(self.name, 1.0)

    def skew(self) -> ir.Skewness:
        """Skewness of the sample, as pandas has it."""
        return ir.Skewness(self.name)

    def kurt(self) -> ir.Kurtosis:
        """Excess kurtosis of the sample, as pandas has it."""
        return ir.Kurtosis(self.name)

    def histogram(self, bins: int | None = None, *, edges: Iterable[Real | float] | None = None) -> Measure:
        """Rows per bin: `bins` of equal width over the published bounds, or between ascending `edges`.

        A categorical column takes neither: it has one bin a category.
        """
        if bins is not None and edges is not None:
            raise QueryError("a histogram takes bins or edges, not both")
        if bins is not None:
            return Bins(self.name, bins)
        return ir.Histogram(self.name, tuple(_numeric(edge) for edge in edges) if edges is not None else ())

    def _compare(self, operator: ir.Operator, other: object) -> Condition:
        return Condition(ir.Comparison(self.name, operator, _literal(other)))


class Columns:
    """`_.age` and `_["age"]` name the column age of whichever dataset the expression is used on."""

    __slots__ = ()

    def __getattr__(self, name: str) -> ColumnRef:
        if name.startswith("_"):
            raise AttributeError(name)  # what Python, pickle and IPython probe for is no column
        return ColumnRef(name)

    def __getitem__(self, name: str) -> ColumnRef:
        return ColumnRef(name)


_ = Columns()


def count() -> ir.Count:
    """Rows; `_.column.count()` counts those in which a column is present."""
    return ir.Count()


def count_persons() -> ir.Persons:
    """Distinct persons, each once whatever its rows; in groups, once in each that one of its used rows falls into."""
    return ir.Persons()


def case(
    *branches: tuple[Condition, ColumnRef | float | str], otherwise: ColumnRef | float | str | None = None
) -> ColumnRef:
    """The value beside the first condition that holds: `case((_.age < 40, "young"), otherwise="old")`.

    Numbers and columns make a number; texts make a category, to group by. Missing where no condition holds and nothing
    stands otherwise.
    """
    made = tuple(ir.Branch(_condition(when).predicate, _expression(then)) for when, then in branches)
    return ColumnRef(PartName(ir.Case(made, None if otherwise is None else _expression(otherwise))))


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
        new = tuple(ir.Derived(name, _expression(value)) for name, value in values.items())
        return replace(self, derived=(*self.derived, *new))

    def filter(self, *conditions: Condition) -> Table:
        """Keep the rows for which every condition holds. Filters add up."""
        where = None if self.where is None else Condition(self.where)
        for condition in conditions:
            where = _condition(condition) if where is None else where & condition
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


def _condition(value: object) -> Condition:
    if not isinstance(value, Condition):
        raise QueryError("only conditions can be combined", hint="put each in parentheses: (_.age >= 18) & ...")
    return value


def _parts(condition: Condition, junction: type[ir.AllOf | ir.AnyOf]) -> tuple[ir.Predicate, ...]:
    predicate = condition.predicate
    return predicate.parts if isinstance(predicate, junction) else (predicate,)


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


def _expression(value: object) -> ir.Expression:
    if isinstance(value, ColumnRef):
        return value.name.expression if isinstance(value.name, PartName) else ir.Value(value.name)
    if isinstance(value, Condition):
        return ir.Truth(value.predicate)
    return ir.Constant(str(value) if isinstance(value, str) else _numeric(value))


def _arithmetic(operator: ir.ArithmeticOperator, left: object, right: object) -> ColumnRef:
    return ColumnRef(PartName(ir.Arithmetic(operator, _expression(left), _expression(right))))


def _literal(value: object) -> ir.Scalar:
    if isinstance(value, str):
        return str(value)
    if value is None:
        raise LiteralError("nothing equals NULL", hint="use .isnull() or .notnull()")
    if isinstance(value, ColumnRef):
        raise LiteralError("a column can only be compared with a literal", hint="compare each with a number or text")
    return _numeric(value)


def _numeric(value: object) -> float:
    # Real takes in the numbers of numpy and pandas too; bool is one, but True is no value of any column.
    if isinstance(value, bool) or not isinstance(value, Real):
        raise LiteralError("a literal must be a number or a text")
    try:
        return float(value)
    except OverflowError as error:
        raise LiteralError("a number in the query is too large") from error
