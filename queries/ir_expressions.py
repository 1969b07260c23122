"""Query nodes of values computed row by row: what `Query.derived` names and the rest of a query uses like a column.

Like every node of `ir`, which exports them, they are frozen values that hold names and literals only. Must not know:
bounds (`expressions` propagates them), SQL text, protobuf, any engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from queries.ir import Predicate

ArithmeticOperator: TypeAlias = Literal["+", "-", "*", "/"]
ARITHMETIC: tuple[ArithmeticOperator, ...] = ("+", "-", "*", "/")
FunctionName: TypeAlias = Literal["ln", "sqrt", "abs"]
SCALAR_FUNCTIONS: tuple[FunctionName, ...] = ("ln", "sqrt", "abs")


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a numeric column, clipped to its bounds; missing where it is."""

    column: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, or as a result of `Case` a text."""

    value: float | str


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two numbers combined; missing where either is, and where the divisor is 0."""

    operator: ArithmeticOperator
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Function:
    """Natural logarithm (missing unless above 0), square root (missing below 0) or absolute value."""

    name: FunctionName
    argument: Expression


@dataclass(frozen=True, slots=True)
class Bounded:
    """A value clipped to declared bounds: `BOUND(value, lower, upper)`."""

    value: Expression
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Branch:
    """One WHEN and its THEN."""

    when: Predicate
    then: Expression


@dataclass(frozen=True, slots=True)
class Case:
    """The result of the first branch whose condition holds; missing where none does and nothing stands otherwise."""

    branches: tuple[Branch, ...]
    otherwise: Expression | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """1 where a condition holds, 0 where it does not, missing where that is unknown."""

    predicate: Predicate


Expression: TypeAlias = Value | Constant | Arithmetic | Function | Bounded | Case | Truth


@dataclass(frozen=True, slots=True)
class Derived:
    """A value under a name, which the query uses as it does the name of a column."""

    name: str
    value: Expression


def parts_of(node: Expression) -> tuple[Expression, ...]:
    """Return the expressions directly inside of one, in the order they are written."""
    match node:
        case Arithmetic(_operator, left, right):
            return left, right
        case Function(_name, argument):
            return (argument,)
        case Bounded(value, _lower, _upper):
            return (value,)
        case Case(branches, otherwise):
            results = tuple(branch.then for branch in branches)
            return results if otherwise is None else (*results, otherwise)
        case _:
            return ()


def conditions_of(node: Expression) -> tuple[Predicate, ...]:
    """Return the conditions directly inside of an expression."""
    if isinstance(node, Case):
        return tuple(branch.when for branch in node.branches)
    return (node.predicate,) if isinstance(node, Truth) else ()
