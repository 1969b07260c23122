"""Columns, conditions and values of the expression API: what stands inside of a question; `builder` exports all of it.

Every value here is immutable and holds names and literals only. Must not know: SQL text, protobuf, schemas, any data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import NoReturn, TypeAlias

from queries import ir
from queries.builder_models import TimeBins
from queries.errors import LiteralError, QueryError
from queries.naming import PartName

Literal: TypeAlias = Real | float | str


@dataclass(frozen=True, slots=True)
class Bins:
    """A histogram over a number of bins of equal width; it becomes edges once the column's bounds are known."""

    column: str
    bins: int


Measure: TypeAlias = ir.Aggregate | Bins | TimeBins
"""What `Table.agg` takes."""


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
        return Condition(ir.AllOf((*_parts(self, ir.AllOf), *_parts(condition_in(other), ir.AllOf))))

    def __or__(self, other: Condition) -> Condition:
        return Condition(ir.AnyOf((*_parts(self, ir.AnyOf), *_parts(condition_in(other), ir.AnyOf))))

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
        return ColumnRef(PartName(ir.Function("ln", expression_in(self))))

    def sqrt(self) -> ColumnRef:
        """The square root; missing below 0."""
        return ColumnRef(PartName(ir.Function("sqrt", expression_in(self))))

    def abs(self) -> ColumnRef:
        """The absolute value."""
        return ColumnRef(PartName(ir.Function("abs", expression_in(self))))

    def clip(self, lower: float, upper: float) -> ColumnRef:
        """The value clipped to declared bounds."""
        return ColumnRef(PartName(ir.Bounded(expression_in(self), numeric(lower), numeric(upper))))

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
        return ir.Quantile(self.name, numeric(q))

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
        return ir.Histogram(self.name, tuple(numeric(edge) for edge in edges) if edges is not None else ())

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


def case(
    *branches: tuple[Condition, ColumnRef | float | str], otherwise: ColumnRef | float | str | None = None
) -> ColumnRef:
    """The value beside the first condition that holds: `case((_.age < 40, "young"), otherwise="old")`.

    Numbers and columns make a number; texts make a category, to group by. Missing where no condition holds and nothing
    stands otherwise.
    """
    made = tuple(ir.Branch(condition_in(when).predicate, expression_in(then)) for when, then in branches)
    return ColumnRef(PartName(ir.Case(made, None if otherwise is None else expression_in(otherwise))))


def condition_in(value: object) -> Condition:
    """Return a condition as it is. Raise QueryError where it is none."""
    if not isinstance(value, Condition):
        raise QueryError("only conditions can be combined", hint="put each in parentheses: (_.age >= 18) & ...")
    return value


def _parts(condition: Condition, junction: type[ir.AllOf | ir.AnyOf]) -> tuple[ir.Predicate, ...]:
    predicate = condition.predicate
    return predicate.parts if isinstance(predicate, junction) else (predicate,)


def expression_in(value: object) -> ir.Expression:
    """Return what a column, a condition or a literal stands for. Raise LiteralError where it is none of them."""
    if isinstance(value, ColumnRef):
        return value.name.expression if isinstance(value.name, PartName) else ir.Value(value.name)
    if isinstance(value, Condition):
        return ir.Truth(value.predicate)
    return ir.Constant(str(value) if isinstance(value, str) else numeric(value))


def _arithmetic(operator: ir.ArithmeticOperator, left: object, right: object) -> ColumnRef:
    return ColumnRef(PartName(ir.Arithmetic(operator, expression_in(left), expression_in(right))))


def _literal(value: object) -> ir.Scalar:
    if isinstance(value, str):
        return str(value)
    if value is None:
        raise LiteralError("nothing equals NULL", hint="use .isnull() or .notnull()")
    if isinstance(value, ColumnRef):
        raise LiteralError("a column can only be compared with a literal", hint="compare each with a number or text")
    return numeric(value)


def numeric(value: object) -> float:
    """Return a number as a float. Raise LiteralError where it is none."""
    # Real takes in the numbers of numpy and pandas too; bool is one, but True is no value of any column.
    if isinstance(value, bool) or not isinstance(value, Real):
        raise LiteralError("a literal must be a number or a text")
    try:
        return float(value)
    except OverflowError as error:
        raise LiteralError("a number in the query is too large") from error
