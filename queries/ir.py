"""The frozen query: what is asked, resolved against no data.

Nodes are immutable values with structural equality. They hold names and literals only; what a query discloses is
computed from them and the schema by `plan`. Must not know: SQL text, protobuf, any engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from queries.ir_expressions import (
    ARITHMETIC,
    SCALAR_FUNCTIONS,
    Arithmetic,
    ArithmeticOperator,
    Bounded,
    Branch,
    Case,
    Constant,
    Derived,
    Expression,
    Function,
    FunctionName,
    Truth,
    Value,
    conditions_of,
    parts_of,
)
from queries.ir_models import (
    GROUP_TESTS,
    LINE_PARTS,
    MATRIX_KINDS,
    Correlation,
    Covariance,
    GroupTest,
    GroupTestKind,
    IndependenceTest,
    Line,
    LinearModel,
    LinePart,
    LogRank,
    Matrix,
    MatrixKind,
    MeanTest,
    Model,
    Survival,
)

__all__ = [
    "ARITHMETIC", "GROUP_TESTS", "LINE_PARTS", "MATRIX_KINDS", "OPERATORS", "SCALAR_FUNCTIONS", "Aggregate",
    "AllOf", "AnyOf", "Arithmetic", "ArithmeticOperator", "Bounded", "Branch", "Case", "Comparison", "Constant",
    "Correlation", "Count", "Covariance", "Derived", "Expression", "Function", "FunctionName", "GroupTest",
    "GroupTestKind", "Histogram", "IndependenceTest", "IsIn", "IsNull", "Key", "Kurtosis", "Line", "LinePart",
    "LinearModel", "LogRank", "Matrix", "MatrixKind", "Mean", "MeanTest", "Model", "NamedAggregate", "Not",
    "Operator", "Persons", "Predicate", "Quantile", "Query", "Scalar", "Skewness", "Stddev", "Sum", "Survival",
    "Truth", "Value", "Variance", "columns_of", "conditions_of", "parts_of",
]  # fmt: skip

Scalar: TypeAlias = float | str
Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]
OPERATORS: tuple[Operator, ...] = ("=", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class Comparison:
    """`column operator value`; unknown (and so not selected) where the column is null, as in SQL."""

    column: str
    operator: Operator
    value: Scalar


@dataclass(frozen=True, slots=True)
class IsIn:
    """`column IN (values)`."""

    column: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    """`column IS NULL`; never unknown."""

    column: str


@dataclass(frozen=True, slots=True)
class AllOf:
    """Conjunction under SQL's three-valued logic."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Disjunction under SQL's three-valued logic."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Negation under SQL's three-valued logic."""

    part: Predicate


Predicate: TypeAlias = Comparison | IsIn | IsNull | AllOf | AnyOf | Not


@dataclass(frozen=True, slots=True)
class Count:
    """Rows, or with a column the rows in which it is present."""

    column: str | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """Sum of a numeric column over the rows in which it is present."""

    column: str


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean of a numeric column over the rows in which it is present."""

    column: str


@dataclass(frozen=True, slots=True)
class Variance:
    """Variance of a numeric column; `ddof` 1 for the sample's, 0 for the population's."""

    column: str
    ddof: int = 1


@dataclass(frozen=True, slots=True)
class Stddev:
    """Square root of `Variance`."""

    column: str
    ddof: int = 1


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows per bin.

    Numeric: `edges` ascend, bins are [e0,e1), ..., the last one closed; values outside the edges are counted in the
    first and last bin (they are clipped like any other value). Categorical: no edges, one bin a category.
    """

    column: str
    edges: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Persons:
    """Distinct persons: each counts once in every group that one of the rows used of it falls into."""


@dataclass(frozen=True, slots=True)
class Quantile:
    """The value below which the share `q` of the rows with a value lies; 0 is the least value, 1 the largest."""

    column: str
    q: float


@dataclass(frozen=True, slots=True)
class Skewness:
    """Skewness of the sample (G1) of a numeric column, over the rows in which it is present."""

    column: str


@dataclass(frozen=True, slots=True)
class Kurtosis:
    """Excess kurtosis of the sample (G2) of a numeric column, over the rows in which it is present."""

    column: str


Aggregate: TypeAlias = (
    Count | Sum | Mean | Variance | Stddev | Histogram | Persons | Quantile | Skewness | Kurtosis | Model
)


def columns_of(aggregate: Aggregate) -> tuple[str, ...]:
    """Return the columns that an output depends on, in the order it names them."""
    if isinstance(aggregate, Model):
        return aggregate.columns
    return () if isinstance(aggregate, Persons) or aggregate.column is None else (aggregate.column,)


@dataclass(frozen=True, slots=True)
class NamedAggregate:
    """One output column of the result. What it is computed from carries noise in inverse proportion to its `weight`."""

    name: str
    aggregate: Aggregate
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Key:
    """Group by a categorical column over public keys: all published categories, or the subset `values`."""

    column: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A whole question over one dataset. `rows_per_person` None means the schema's `max_rows`.

    `derived` names values computed row by row; every other part may use them as it does columns.
    """

    dataset: str
    aggregates: tuple[NamedAggregate, ...]
    where: Predicate | None = None
    keys: tuple[Key, ...] = ()
    rows_per_person: int | None = None
    derived: tuple[Derived, ...] = ()
