"""Derived values inside the database: the steps that add them to the rows, before anything is selected.

Values of columns are clipped first, so every intermediate one lies where `queries.expressions` says. What an engine
would answer with an error, an infinity or a NaN becomes a missing value before it is computed, so that engines agree: a
quotient by 0, a logarithm of what is not above 0, a square root below 0. What is multiplied or divided is rid of
magnitudes below 1e-140, so nothing underflows. A part that is needed twice is a column of the step before, so a
statement is no longer than its expressions. Must not know: connections, files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sqlglot import exp

from analytics_client.agent.sources.terms import column, condition, double, integer
from queries import ir
from queries.expressions import columns_of_predicate, range_of
from queries.plan import Plan
from queries.schema import Categorical, Dataset, Numeric

_Write: TypeAlias = Callable[[ir.Expression], tuple[exp.Expr, int]]
_ABSORB = 1e-124
"""Added and taken away, this leaves of what is below 1e-140 a zero, and of what is above 1e-108 everything."""


def steps(plan: Plan, table: str) -> dict[str, exp.Query]:
    """Return the steps by name, none where nothing is derived; the first reads `table`, each other the one before."""
    writer = _Writer(plan.dataset)
    for each in plan.query.derived:
        writer.add(each)
    out: dict[str, exp.Query] = {}
    source = table
    for number, new in enumerate(writer.levels, start=1):
        outputs = [exp.Star(), *(exp.alias_(value, name, quoted=True) for name, value in new.items())]
        step = exp.Select(expressions=outputs, from_=exp.From(this=exp.Table(this=exp.to_identifier(source))))
        source = f"derived{number}"
        out[source] = step
    return out


class _Writer:
    """Collects columns level by level; those of one may read all levels before it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.levels: list[dict[str, exp.Expr]] = []
        self.known: dict[str, int] = {}  # the first level that may read a column
        self.parts = 0

    def add(self, each: ir.Derived) -> None:
        """Add a derived value under its name: of a case among texts the position of the text."""
        kind = self.dataset.column(each.name).kind
        value, level = self._texts(each.value, kind) if isinstance(kind, Categorical) else self._number(each.value)
        self._put(each.name, value, level)

    def _put(self, name: str, value: exp.Expr, level: int) -> None:
        while len(self.levels) <= level:
            self.levels.append({})
        self.levels[level][name] = value
        self.known[name] = level + 1

    def _hoisted(self, node: ir.Expression) -> tuple[exp.Column, int]:
        """Return a part as a column of its own, which may be read more than once."""
        value, level = self._number(node)
        if isinstance(value, exp.Column):
            return value, level
        self.parts += 1
        name = f"_part{self.parts}"
        self._put(name, value, level)
        return column(name), level + 1

    def _texts(self, node: ir.Expression, kind: Categorical) -> tuple[exp.Expr, int]:
        if isinstance(node, ir.Constant):
            return integer(kind.keys.index(str(node.value))), 0
        assert isinstance(node, ir.Case)  # noqa: S101 - resolve gives no other expression texts
        return self._case(node, lambda part: self._texts(part, kind))

    def _case(self, node: ir.Case, write: _Write) -> tuple[exp.Expr, int]:
        level, ifs = 0, []
        for branch in node.branches:
            then, least = write(branch.then)
            level = max(level, least, self._reads(branch.when))
            ifs.append(exp.If(this=condition(branch.when, self.dataset), true=then))
        default = None
        if node.otherwise is not None:
            default, least = write(node.otherwise)
            level = max(level, least)
        return exp.Paren(this=exp.Case(ifs=ifs, default=default)), level

    def _reads(self, predicate: ir.Predicate) -> int:
        return max((self.known.get(name, 0) for name in columns_of_predicate(predicate)), default=0)

    def _number(self, node: ir.Expression) -> tuple[exp.Expr, int]:  # noqa: PLR0911 -- one return a node
        """Return a number and the level at which it can be computed."""
        match node:
            case ir.Value(name):
                return self._clipped(name), self.known.get(name, 0)
            case ir.Constant(value):
                return double(float(value)), 0
            case ir.Arithmetic():
                return self._arithmetic(node)
            case ir.Function():
                return self._function(node)
            case ir.Bounded(value, lower, upper):
                inner, level = self._hoisted(value)
                return _within(inner, lower, upper), level
            case ir.Case():
                return self._case(node, self._number)
            case ir.Truth(predicate):
                truth = exp.Paren(this=condition(predicate, self.dataset))
                ifs = [
                    exp.If(this=truth, true=double(1.0)),
                    exp.If(this=exp.Not(this=truth.copy()), true=double(0.0)),
                ]
                return exp.Paren(this=exp.Case(ifs=ifs)), self._reads(predicate)

    def _clipped(self, name: str) -> exp.Expr:
        kind = self.dataset.column(name).kind
        assert isinstance(kind, Numeric)  # noqa: S101 - resolve gives no other column a value
        return _within(column(name), kind.lower, kind.upper)

    def _arithmetic(self, node: ir.Arithmetic) -> tuple[exp.Expr, int]:
        multiplies = node.operator in {"*", "/"}
        left, one = self._absorbed(node.left) if multiplies else self._number(node.left)
        right, other = self._absorbed(node.right) if multiplies else self._number(node.right)
        if node.operator == "/" and range_of(node.right, self.dataset).has_zero:
            right = exp.Nullif(this=right, expression=double(0.0))
        kinds = {"+": exp.Add, "-": exp.Sub, "*": exp.Mul, "/": exp.Div}
        return exp.Paren(this=kinds[node.operator](this=left, expression=right)), max(one, other)

    def _absorbed(self, node: ir.Expression) -> tuple[exp.Expr, int]:
        value, level = self._number(node)
        found = range_of(node, self.dataset)
        if found.integer or not found.has_zero:
            return value, level
        raised = exp.Paren(this=exp.Add(this=value, expression=double(_ABSORB)))
        return exp.Paren(this=exp.Sub(this=raised, expression=double(_ABSORB))), level

    def _function(self, node: ir.Function) -> tuple[exp.Expr, int]:
        if node.name == "abs":
            value, level = self._number(node.argument)
            return exp.Abs(this=value), level
        least = range_of(node.argument, self.dataset).lower
        inner, level = self._hoisted(node.argument)
        if node.name == "ln":
            if least > 0:
                return exp.Ln(this=inner), level
            guard: exp.Expr = exp.GT(this=inner, expression=double(0.0))
            return exp.Paren(this=exp.Case(ifs=[exp.If(this=guard, true=exp.Ln(this=inner.copy()))])), level
        if least >= 0:
            return exp.Sqrt(this=inner), level
        guard = exp.GTE(this=inner, expression=double(0.0))
        return exp.Paren(this=exp.Case(ifs=[exp.If(this=guard, true=exp.Sqrt(this=inner.copy()))])), level


def _within(value: exp.Column, lower: float, upper: float) -> exp.Expr:
    """A column clipped to bounds; null stays null."""
    ifs = [
        exp.If(this=exp.LTE(this=value, expression=double(lower)), true=double(lower)),
        exp.If(this=exp.GTE(this=value.copy(), expression=double(upper)), true=double(upper)),
    ]
    return exp.Paren(this=exp.Case(ifs=ifs, default=value.copy()))
