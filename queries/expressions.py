"""What a derived value may be: its bounds by interval arithmetic, its normal form, its name.

Engines evaluate in IEEE double precision, whose rounding is monotone, so an operation on the ends of intervals bounds
the same operation on anything inside. Where bounds would be infinite (a divisor that may be 0, the logarithm of what
may be) they must be declared. No operation overflows, because every interval ends within 1e140, and none underflows,
because what is multiplied or divided counts as 0 below 1e-140. Must not know: SQL, protobuf, any data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from queries import ir, schema
from queries.errors import QueryError
from queries.limits import MAX_DERIVED, MAX_NODES, walk, walk_expression

LARGEST = 1e140
"""No intermediate value may be larger in magnitude."""
SMALLEST = 1e-140
"""What is multiplied or divided counts as 0 below about this magnitude."""
_BOUND_HINT = "declare its bounds: BOUND(expression, lower, upper), in Python .clip(lower, upper)"
_WORDS = {"+": "plus", "-": "minus", "*": "by", "/": "per"}


@dataclass(frozen=True, slots=True)
class Range:
    """What is known of an expression: its interval, whether it is whole numbers only, whether it may be missing."""

    lower: float
    upper: float
    integer: bool
    nullable: bool

    @property
    def finite(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.lower) and math.isfinite(self.upper)

    @property
    def has_zero(self) -> bool:
        """Whether it may be 0, or so near that it counts as 0."""
        return self.lower < SMALLEST and self.upper > -SMALLEST


def extend(dataset: schema.Dataset, derived: Iterable[ir.Derived]) -> schema.Dataset:
    """Return the dataset with derived values as columns after its own. Raise QueryError where one has no bounds."""
    for each in derived:
        dataset = _extended(dataset, each)
    return dataset


def _extended(dataset: schema.Dataset, each: ir.Derived) -> schema.Dataset:
    kind, nullable = _kind(each, dataset)
    column = schema.Column(each.name, kind, nullable=nullable)
    return replace(dataset, columns=(*dataset.columns, column))


def check(
    derived: tuple[ir.Derived, ...],
    dataset: schema.Dataset,
    predicate: Callable[[ir.Predicate, schema.Dataset], ir.Predicate],
) -> tuple[tuple[ir.Derived, ...], schema.Dataset]:
    """Return derived values in normal form, and the dataset they extend; `predicate` brings conditions into theirs.

    Each may use columns and those before it. Raise QueryError, UnknownName or LiteralError.
    """
    if len(derived) > MAX_DERIVED:
        raise QueryError(f"the query derives more than {MAX_DERIVED} values", hint="split it into several queries")
    out, nodes = [], 0
    for each in derived:
        if not isinstance(each.name, str) or not schema.NAME.fullmatch(each.name):
            raise QueryError("a derived value has a name that is none", hint="lower-case letters, digits and _")
        if each.name == dataset.privacy_unit or any(column.name == each.name for column in dataset.columns):
            raise QueryError(f"the derived value {each.name!r} has the name of a column", hint="choose another name")
        for node in walk_expression(each.value):  # raises before the recursion below can go deep
            nodes += 1 + sum(1 for condition in ir.conditions_of(node) for _part in walk(condition))
        if nodes > MAX_NODES:
            raise QueryError(f"the expressions have more than {MAX_NODES:,} parts", hint="ask a shorter question")
        new = ir.Derived(each.name, _normal(each.value, dataset, predicate))
        dataset = extend(dataset, (new,))
        out.append(new)
    return tuple(out), dataset


def in_use(derived: tuple[ir.Derived, ...], names: Iterable[str]) -> tuple[ir.Derived, ...]:
    """Return the derived values that `names` need, each after those it needs itself, in the order they are needed."""
    known = {each.name: each for each in derived}
    found: dict[str, ir.Derived] = {}

    def take(name: str) -> None:
        if name in known and name not in found:
            for inner in columns_in(known[name].value):
                if inner != name:
                    take(inner)
            found[name] = known[name]

    for name in names:
        take(name)
    return tuple(found.values())


def columns_in(root: ir.Expression) -> Iterator[str]:
    """Yield the name of every column or derived value that an expression reads, in the order it names them."""
    for node in walk_expression(root):
        if isinstance(node, ir.Value):
            yield node.column
        for condition in ir.conditions_of(node):
            yield from columns_of_predicate(condition)


def columns_of_predicate(root: ir.Predicate) -> Iterator[str]:
    """Yield the name of every column that a condition compares."""
    for node in walk(root):
        if isinstance(node, ir.Comparison | ir.IsIn | ir.IsNull):
            yield node.column


def has_condition(root: ir.Expression) -> bool:
    """Whether an expression asks a condition of rows."""
    return any(ir.conditions_of(node) for node in walk_expression(root))


def slug(expression: ir.Expression) -> str:
    """Return a name for an expression that was given none, made of the names in it and never of literals."""
    words = "_".join(word for word in _words(expression) if word)
    name = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]", "_", words.lower())).strip("_")[:48].rstrip("_")
    return name if schema.NAME.fullmatch(name) else f"value_{name}".rstrip("_")


def _words(node: ir.Expression) -> Iterator[str]:
    match node:
        case ir.Value(column):
            yield column
        case ir.Arithmetic(operator, left, right):
            one, other = list(_words(left)), list(_words(right))
            yield from (*one, *([_WORDS[operator]] if one and other else []), *other)
        case ir.Function(name, argument):
            yield from (name, *_words(argument))
        case ir.Bounded(value, _lower, _upper):
            yield from _words(value)
        case ir.Case():
            yield from ("case", *columns_in(node))
        case ir.Truth(predicate):
            yield from ("where", *dict.fromkeys(columns_of_predicate(predicate)))


# --- bounds ----------------------------------------------------------------------------------------------------------


def _kind(each: ir.Derived, dataset: schema.Dataset) -> tuple[schema.Kind, bool]:
    if texts := _texts(each.value):
        keys = tuple(dict.fromkeys(texts))
        if schema.OTHER in keys:
            raise QueryError(f"a result of a case is called {schema.OTHER!r}, which is reserved")
        if any(not key or len(key) > 200 or not key.isprintable() for key in keys):
            raise QueryError("a result of a case is no category", hint="printable text of 1 to 200 characters")
        return schema.Categorical(keys), _nullable_case(each.value, dataset)
    found = range_of(each.value, dataset)
    _finite(found)
    if found.lower >= found.upper:
        raise QueryError("a value is the same for every row", hint="COUNT(*) counts rows")
    return schema.Numeric(found.lower, found.upper, found.integer), found.nullable


def _texts(node: ir.Expression) -> list[str]:
    """Return the results of a case that chooses among texts, [] of any other expression. Raise on a mixture."""
    if isinstance(node, ir.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if not isinstance(node, ir.Case):
        return []
    results = [_texts(part) for part in ir.parts_of(node)]
    if any(results) and not all(results):
        raise QueryError("the results of a case are partly text, partly numbers", hint="make all of them one kind")
    return [text for texts in results for text in texts]


def _nullable_case(node: ir.Expression, dataset: schema.Dataset) -> bool:
    if not isinstance(node, ir.Case):
        return False
    return node.otherwise is None or any(_nullable_case(part, dataset) for part in ir.parts_of(node))


def range_of(node: ir.Expression, dataset: schema.Dataset) -> Range:  # noqa: PLR0911 -- one return a node
    """Return what is known of an expression over the clipped values of a dataset's columns.

    An end may be infinite where a declared bound can repair it. Raise QueryError where nothing can.
    """
    match node:
        case ir.Value(column):
            kind = dataset.numeric(column)
            return Range(kind.lower, kind.upper, kind.integer, dataset.column(column).nullable)
        case ir.Constant(value):
            if isinstance(value, str):
                raise QueryError("a text stands where a number is needed", hint="texts are results of a case only")
            return Range(value, value, value == math.floor(value), nullable=False)
        case ir.Arithmetic():
            return _arithmetic(node, dataset)
        case ir.Function(name, argument):
            return _function(name, _finite(range_of(argument, dataset)))
        case ir.Bounded(value, lower, upper):
            inner = range_of(value, dataset)
            whole = inner.integer and lower == math.floor(lower) and upper == math.floor(upper)
            low, high = (min(max(end, lower), upper) for end in (inner.lower, inner.upper))
            return Range(low, high, whole, inner.nullable)
        case ir.Case(_branches, otherwise):
            results = [range_of(part, dataset) for part in ir.parts_of(node)]
            return Range(
                min(result.lower for result in results),
                max(result.upper for result in results),
                all(result.integer for result in results),
                nullable=otherwise is None or any(result.nullable for result in results),
            )
        case ir.Truth(predicate):
            unknown = any(
                isinstance(part, ir.Comparison | ir.IsIn) and dataset.column(part.column).nullable
                for part in walk(predicate)
            )
            return Range(0.0, 1.0, integer=True, nullable=unknown)


def _finite(found: Range) -> Range:
    if not found.finite:
        raise QueryError("the bounds of an expression are unknown: it divides by, or takes the logarithm of, what may "
                         "be 0", hint=_BOUND_HINT)  # fmt: skip
    if max(abs(found.lower), abs(found.upper)) > LARGEST:
        raise QueryError(f"a value in an expression may be larger than {LARGEST:g}", hint=_BOUND_HINT)
    return found


def _arithmetic(node: ir.Arithmetic, dataset: schema.Dataset) -> Range:
    left, right = _finite(range_of(node.left, dataset)), _finite(range_of(node.right, dataset))
    nullable, whole = left.nullable or right.nullable, left.integer and right.integer
    a, b, c, d = left.lower, left.upper, right.lower, right.upper
    match node.operator:
        case "+":
            return Range(a + c, b + d, whole, nullable)
        case "-":
            return Range(a - d, b - c, whole, nullable)
        case "*":
            ends = (a * c, a * d, b * c, b * d)
            least = max(min(ends), 0.0) if node.left == node.right else min(ends)
            return Range(least, max(ends), whole, nullable)
        case "/":
            if right.has_zero:
                return Range(-math.inf, math.inf, integer=False, nullable=True)
            ends = (a / c, a / d, b / c, b / d)
            return Range(min(ends), max(ends), integer=False, nullable=nullable)


def _function(name: ir.FunctionName, of: Range) -> Range:
    match name:
        case "abs":
            low = 0.0 if of.lower <= 0 <= of.upper else min(abs(of.lower), abs(of.upper))
            return Range(low, max(abs(of.lower), abs(of.upper)), of.integer, of.nullable)
        case "sqrt":
            if of.upper < 0:
                raise QueryError("the square root of what is always below 0 is always missing")
            return Range(math.sqrt(max(of.lower, 0.0)), math.sqrt(of.upper), False, of.nullable or of.lower < 0)
        case "ln":
            if of.upper <= 0:
                raise QueryError("the logarithm of what is never above 0 is always missing")
            low = math.log(of.lower) if of.lower > 0 else -math.inf
            return Range(low, math.log(of.upper), False, of.nullable or of.lower <= 0)


# --- normal form -----------------------------------------------------------------------------------------------------


def _normal(  # noqa: PLR0911, PLR0912 -- one a node
    node: ir.Expression, dataset: schema.Dataset, predicate: Callable[[ir.Predicate, schema.Dataset], ir.Predicate]
) -> ir.Expression:
    """Return a node in normal form. Recursion is bounded: `check` walked the whole expression before."""

    def inner(part: ir.Expression) -> ir.Expression:
        return _normal(part, dataset, predicate)

    match node:
        case ir.Value(column):
            if not isinstance(column, str):
                raise QueryError("a column is named by a text")
            if column and column == dataset.privacy_unit:
                raise QueryError(f"{column!r} names the person (the privacy unit) and cannot be asked about")
            if not isinstance(dataset.column(column).kind, schema.Numeric):
                raise QueryError(
                    f"column {column!r} is categorical: it is no number", hint="compare it in CASE WHEN ... THEN"
                )
            return node
        case ir.Constant(value):
            return ir.Constant(value if isinstance(value, str) else _number(value))
        case ir.Arithmetic(operator, left, right):
            if operator not in ir.ARITHMETIC:
                raise QueryError("an expression has an unknown operator", hint=f"one of {' '.join(ir.ARITHMETIC)}")
            return ir.Arithmetic(operator, inner(left), inner(right))
        case ir.Function(name, argument):
            if name not in ir.SCALAR_FUNCTIONS:
                raise QueryError(
                    "an expression has an unknown function", hint=f"one of {', '.join(ir.SCALAR_FUNCTIONS)}"
                )
            return ir.Function(name, inner(argument))
        case ir.Bounded(value, lower, upper):
            low, high = _number(lower), _number(upper)
            if not low < high:
                raise QueryError("the declared bounds of an expression do not ascend", hint="write the lower one first")
            return ir.Bounded(inner(value), low, high)
        case ir.Case(branches, otherwise):
            if not branches:
                raise QueryError("a case has no branch", hint="CASE WHEN condition THEN value ELSE value END")
            return ir.Case(
                tuple(ir.Branch(predicate(branch.when, dataset), inner(branch.then)) for branch in branches),
                None if otherwise is None else inner(otherwise),
            )
        case ir.Truth(condition):
            return ir.Truth(predicate(condition, dataset))
        case _:
            raise QueryError("the query holds an expression of an unknown kind", hint="build it with queries.builder")


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QueryError("a number is expected in an expression")
    try:
        number = float(value)
    except OverflowError as error:
        raise QueryError("a number in an expression is too large") from error
    if not abs(number) <= LARGEST:
        raise QueryError(f"a number in an expression is larger than {LARGEST:g} or no number")
    return number + 0.0
