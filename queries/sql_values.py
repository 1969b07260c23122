"""Conditions and expressions of SQL text: the part of `sql` that reads what is computed for each row.

Takes from the syntax tree exactly the shapes listed here and refuses every other one. A value that is more than a
column stands under a `PartName` until the whole question is read. Must not know: aggregates, protobuf, any data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlglot import exp

from queries import ir, schema
from queries.dialect import Text
from queries.errors import LiteralError, QueryError, SqlError, UnknownName
from queries.expressions import extend
from queries.limits import MAX_EXPRESSION_DEPTH
from queries.naming import PartName
from queries.resolve import literal
from queries.vocabulary import SCALARS, SUBSET

COMPARISONS: dict[type[exp.Expr], ir.Operator] = {
    exp.EQ: "=", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
FLIPPED: dict[ir.Operator, ir.Operator] = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ARITHMETIC: dict[type[exp.Expr], ir.ArithmeticOperator] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/"}
_CONDITIONS = (*COMPARISONS, exp.And, exp.Or, exp.Not, exp.Between, exp.In, exp.Is)
CONDITION_HINT = "compare a column with a literal, or use IN, BETWEEN, IS NULL, AND, OR, NOT"


def only(node: exp.Expr, source: Text, *allowed: str) -> None:
    """Refuse whatever else the parser hung on a node."""
    for name, value in node.args.items():
        if value and name not in allowed:
            part = value[0] if isinstance(value, list) else value
            line, column = source.where(part if isinstance(part, exp.Expr) else node)
            hint = "a query reads one dataset" if name == "joins" else f"write {SUBSET}"
            raise SqlError("this is not possible", hint=hint, line=line, column=column)


def folded(identifier: exp.Identifier) -> str:
    """Return a name as SQL reads it: in lower case unless it is quoted."""
    name: str = identifier.this
    return name if identifier.args.get("quoted") else name.lower()


def is_literal(node: exp.Expr) -> bool:
    """Return whether a node is a literal, a sign and parentheses aside."""
    while isinstance(node, exp.Neg | exp.Paren):
        node = node.this
    return isinstance(node, exp.Literal | exp.Null)


class ValueReader:
    """Reads conditions and values over `dataset`, which columns may be qualified with and values are added to."""

    def __init__(self, source: Text, dataset: schema.Dataset, qualifiers: frozenset[str]) -> None:
        self.source = source
        self.dataset = dataset
        self.qualifiers = qualifiers

    def error(self, node: exp.Expr, message: str, hint: str) -> SqlError:
        """Return an error at the place of a node."""
        line, column = self.source.where(node)
        return SqlError(message, hint=hint, line=line, column=column)

    @contextmanager
    def at(self, node: exp.Expr) -> Iterator[None]:
        """Add the place of `node` to what the gate says about it."""
        try:
            yield
        except (SqlError, UnknownName):
            raise
        except QueryError as error:
            line, column = self.source.where(node)
            kind = LiteralError if isinstance(error, LiteralError) else QueryError
            raise kind(f"line {line}, column {column}: {error.message}", hint=error.hint) from error

    def column(self, node: exp.Expr) -> schema.Column:
        """Return the column that a node names, and nothing but names."""
        if not isinstance(node, exp.Column) or not isinstance(node.this, exp.Identifier):
            raise self.error(node, "a column is expected here", "name a column")
        only(node, self.source, "this", "table")
        table = node.args.get("table")
        if table is not None and folded(table) not in self.qualifiers:
            raise self.error(node, "this names another dataset", f"the query reads {self.dataset.name!r}")
        line, column = self.source.where(node.this)
        name = folded(node.this)
        if name == self.dataset.privacy_unit:
            raise self.error(
                node,
                f"{name!r} names the person (the privacy unit) and cannot be asked about",
                f"COUNT(DISTINCT {name}) counts persons",
            )
        return self.dataset.column(name, line=line, position=column)

    def measured(self, node: exp.Expr) -> schema.Column:
        """Return the column that a node names, or the value that it computes as a column of its own."""
        while isinstance(node, exp.Paren):
            only(node, self.source, "this")
            node = node.this
        if isinstance(node, exp.Column):
            return self.column(node)
        return self.part(node)

    def part(self, node: exp.Expr) -> schema.Column:
        """Return the value that a node computes as a column under a provisional name."""
        name = PartName(self.value(node))
        if all(column.name != name for column in self.dataset.columns):
            try:
                self.dataset = extend(self.dataset, (ir.Derived(name, name.expression),))
            except QueryError as error:
                raise self.error(node, error.message, error.hint) from error
        return self.dataset.column(name)

    def value(self, node: exp.Expr, depth: int = 1) -> ir.Expression:  # noqa: PLR0911 -- one return a form
        """Return an expression. Raise SqlError where a node is none."""
        if depth > MAX_EXPRESSION_DEPTH:
            message = f"an expression is nested more than {MAX_EXPRESSION_DEPTH} levels deep"
            raise self.error(node, message, "use parentheses: (a + b) + (c + d)")
        operator = _ARITHMETIC.get(type(node))
        if operator is not None:
            only(node, self.source, "this", "expression", "typed", "safe")
            return ir.Arithmetic(operator, self.value(node.this, depth + 1), self.value(node.expression, depth + 1))
        if isinstance(node, _CONDITIONS):
            return ir.Truth(self.predicate(node))
        match node:
            case exp.Paren():
                only(node, self.source, "this")
                return self.value(node.this, depth)
            case exp.Literal():
                return ir.Constant(node.name if node.is_string else self._finite(node))
            case exp.Neg():
                only(node, self.source, "this")
                if isinstance(node.this, exp.Literal) and not node.this.is_string:
                    return ir.Constant(-self._finite(node.this))
                return ir.Arithmetic("*", ir.Constant(-1.0), self.value(node.this, depth + 1))
            case exp.Column() if isinstance(node.this, exp.Identifier):
                column = self.column(node)
                if not isinstance(column.kind, schema.Numeric):
                    hint = f"compare it: CASE WHEN {column.name} = ... THEN"
                    raise self.error(node, f"column {column.name!r} is categorical: it is no number", hint)
                return ir.Value(column.name)
            case exp.Case():
                return self._case(node, depth)
            case exp.Anonymous() if str(node.this).upper() in SCALARS:
                return self._call(node, depth)
        if isinstance(node, exp.Anonymous):
            raise self.error(node, "an aggregate has no place here", "conditions on aggregates go into HAVING")
        raise self.error(node, "this is no value of a row", "write columns, numbers, + - * /, LN, SQRT, ABS, CASE")

    def _finite(self, node: exp.Literal) -> float:
        value = float(node.name)
        if value > 1e140:
            raise self.error(node, "this number is too large", "numbers in expressions end at 1e140")
        return value

    def _case(self, node: exp.Case, depth: int) -> ir.Expression:
        only(node, self.source, "ifs", "default")
        branches = []
        for each in node.args["ifs"]:
            only(each, self.source, "this", "true")
            branches.append(ir.Branch(self.predicate(each.this), self.value(each.args["true"], depth + 1)))
        default = node.args.get("default")
        if default is None or isinstance(default, exp.Null):
            return ir.Case(tuple(branches))
        return ir.Case(tuple(branches), self.value(default, depth + 1))

    def _call(self, node: exp.Anonymous, depth: int) -> ir.Expression:
        only(node, self.source, "this", "expressions")
        function, arguments = str(node.this).upper(), node.expressions
        if len(arguments) != SCALARS[function]:
            usage = "BOUND(value, lower, upper)" if function == "BOUND" else f"{function}(value)"
            raise self.error(node, f"{function} takes {SCALARS[function]} arguments", f"write {usage}")
        inner = self.value(arguments[0], depth + 1)
        if function == "BOUND":
            ends = [self.value(end, depth + 1) for end in arguments[1:]]
            lower, upper = (end.value if isinstance(end, ir.Constant) else None for end in ends)
            if not isinstance(lower, float) or not isinstance(upper, float) or not lower < upper:
                raise self.error(arguments[1], "the bounds are two numbers, the lower first", "BOUND(x / y, 0, 100)")
            return ir.Bounded(inner, lower, upper)
        return ir.Function(next(name for name in ir.SCALAR_FUNCTIONS if name == function.lower()), inner)

    def predicate(self, node: exp.Expr) -> ir.Predicate:
        """Return a condition. Recursion is bounded by the dialect's nesting; chains of AND and OR take none."""
        match node:
            case exp.Paren():
                only(node, self.source, "this")
                return self.predicate(node.this)
            case exp.Not():
                only(node, self.source, "this")
                return ir.Not(self.predicate(node.this))
            case exp.And():
                return ir.AllOf(tuple(self.predicate(part) for part in self.chain(node, exp.And)))
            case exp.Or():
                return ir.AnyOf(tuple(self.predicate(part) for part in self.chain(node, exp.Or)))
            case exp.Between() | exp.In() | exp.Is():
                return self._test(node)
            case _:
                return self._binary(node)

    def _test(self, node: exp.Between | exp.In | exp.Is) -> ir.Predicate:
        column = self.measured(node.this)
        match node:
            case exp.Between():
                only(node, self.source, "this", "low", "high")
                low, high = node.args["low"], node.args["high"]
                return ir.AllOf((self._comparison(column, ">=", low), self._comparison(column, "<=", high)))
            case exp.In():
                only(node, self.source, "this", "expressions")
                if not node.expressions:
                    raise self.error(node, "the list after IN is empty", "list at least one value")
                return ir.IsIn(column.name, tuple(self.literal(column, value) for value in node.expressions))
            case _:
                only(node, self.source, "this", "expression")
                if not isinstance(node.expression, exp.Null):
                    raise self.error(node, "IS takes NULL or NOT NULL", f"write {column.name} = ...")
                return ir.IsNull(column.name)

    def chain(self, node: exp.Expr, junction: type[exp.Connector]) -> list[exp.Expr]:
        """Return the operands of a chain, which the parser leans to the left, in the order they were written."""
        parts = []
        while isinstance(node, junction):
            only(node, self.source, "this", "expression")
            parts.append(node.expression)
            node = node.this
        return [node, *reversed(parts)]

    def _binary(self, node: exp.Expr) -> ir.Predicate:
        operator = COMPARISONS.get(type(node))
        if operator is None:
            raise self.error(node, "this is no condition", CONDITION_HINT)
        only(node, self.source, "this", "expression")
        left, right = node.this, node.expression
        if isinstance(left, tuple(COMPARISONS)) or isinstance(right, tuple(COMPARISONS)):
            raise self.error(node, "comparisons do not chain", "join them with AND")
        if not is_literal(left) and not is_literal(right):
            column = self.measured(left)
            if isinstance(right, exp.Column) and isinstance(column.kind, schema.Categorical):
                word = right.name
                hint = f"write text in single quotes: '{word}'" if word != column.name else "compare it with a text"
                raise self.error(right, f"{column.name!r} can only be compared with a literal", hint)
            raise self.error(right, "a value can only be compared with a literal", "compare a difference: a - b > 0")
        if is_literal(left) and is_literal(right):
            raise self.error(node, "this compares no column", CONDITION_HINT)
        if is_literal(right):
            return self._comparison(self.measured(left), operator, right)
        return self._comparison(self.measured(right), FLIPPED[operator], left)

    def _comparison(self, column: schema.Column, operator: ir.Operator, value: exp.Expr) -> ir.Predicate:
        if isinstance(column.kind, schema.Categorical) and operator not in {"=", "!="}:
            raise self.error(value, f"the categories of {column.name!r} have no order", "compare with =, != or IN")
        return ir.Comparison(column.name, operator, self.literal(column, value))

    def literal(self, column: schema.Column, node: exp.Expr) -> ir.Scalar:
        """Return a literal that `column` may be compared with."""
        sign, inner = 1, node
        while isinstance(inner, exp.Neg):
            sign, inner = -sign, inner.this
        if isinstance(inner, exp.Null):
            raise self.error(node, "nothing equals NULL", f"write {column.name} IS NULL or IS NOT NULL")
        if not isinstance(inner, exp.Literal) or (inner.is_string and inner is not node):
            raise self.error(node, "a literal is expected here", "compare a column with a number or a text in quotes")
        if inner.is_string:
            value: ir.Scalar = inner.name
        elif isinstance(column.kind, schema.Categorical) and sign > 0 and inner.name in column.kind.keys:
            value = inner.name  # exactly what was written, such as 01, before what it equals
        else:
            value = sign * float(inner.name)
        with self.at(node):
            return literal(column, value)
