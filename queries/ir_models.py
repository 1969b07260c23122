"""Query nodes of what several columns have to do with each other: moments of pairs, models, tests and survival.

Like every node of `ir` they are frozen values that hold names and literals only. All of them use complete rows: those
in which every column they name has a value. `ir` exports them. Must not know: SQL text, protobuf, any engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Covariance:
    """Covariance of two numeric columns; `ddof` 1 for the sample's, 0 for the population's."""

    x: str
    y: str
    ddof: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the output depends on."""
        return self.x, self.y


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's correlation of two numeric columns."""

    x: str
    y: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the output depends on."""
        return self.x, self.y


LinePart: TypeAlias = Literal["slope", "intercept", "r2", "count"]
LINE_PARTS: tuple[LinePart, ...] = ("slope", "intercept", "r2", "count")


@dataclass(frozen=True, slots=True)
class Line:
    """One number about the least squares line of `y` on `x`; "count" is the rows that have both."""

    part: LinePart
    y: str
    x: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the output depends on."""
        return self.y, self.x


MatrixKind: TypeAlias = Literal["covariance", "correlation", "components"]
MATRIX_KINDS: tuple[MatrixKind, ...] = ("covariance", "correlation", "components")


@dataclass(frozen=True, slots=True)
class Matrix:
    """Of two or more numeric columns: covariance matrix (sample), correlation matrix, or principal components."""

    kind: MatrixKind
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Least squares of a numeric column on numeric and categorical ones.

    A categorical predictor stands for an indicator of each published key but the first. With `population` standard
    errors and intervals count in that the rows are a sample; without, they are for the model of these very rows.
    """

    response: str
    predictors: tuple[str, ...]
    population: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the output depends on."""
        return self.response, *self.predictors


@dataclass(frozen=True, slots=True)
class MeanTest:
    """Student's t test that a mean is `mean`; with `other`, the paired one of column - other."""

    column: str
    mean: float = 0.0
    other: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the output depends on."""
        return (self.column,) if self.other is None else (self.column, self.other)


GroupTestKind: TypeAlias = Literal["welch", "student", "anova"]
GROUP_TESTS: tuple[GroupTestKind, ...] = ("welch", "student", "anova")


@dataclass(frozen=True, slots=True)
class GroupTest:
    """Test that groups have the same mean. `groups` are keys of the categorical column `by`; () means all of them."""

    kind: GroupTestKind
    column: str
    by: str
    groups: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the output depends on."""
        return self.column, self.by


@dataclass(frozen=True, slots=True)
class IndependenceTest:
    """Pearson's chi-square test that two categorical columns are independent."""

    x: str
    y: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the output depends on."""
        return self.x, self.y


@dataclass(frozen=True, slots=True)
class Survival:
    """Kaplan-Meier over a public grid of times.

    `edges` cut time as a histogram's do: a person leaves in [e0,e1), ..., times outside the edges in the first and last
    bin. The curve says who has not had the event before each bin's end. The event happened where the categorical column
    `event` is `happened`; any other value of it is a censored person. With `population` bands count in that the persons
    are a sample.
    """

    time: str
    event: str
    happened: str
    edges: tuple[float, ...]
    population: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the output depends on."""
        return self.time, self.event


@dataclass(frozen=True, slots=True)
class LogRank:
    """The log-rank test that the groups of a categorical column live alike, over a grid as in `Survival`."""

    time: str
    event: str
    happened: str
    by: str
    edges: tuple[float, ...]
    groups: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the output depends on."""
        return self.time, self.event, self.by


Model: TypeAlias = (
    Covariance
    | Correlation
    | Line
    | Matrix
    | LinearModel
    | MeanTest
    | GroupTest
    | IndependenceTest
    | Survival
    | LogRank
)
