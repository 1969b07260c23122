"""HAVING, ORDER BY and LIMIT of a SELECT: from the syntax tree to what `finish` does with the answer.

They name outputs and keys, or repeat an aggregate of the select list. Must not know: data, noise.
"""

from __future__ import annotations

from abc import abstractmethod

from sqlglot import exp

from queries import ir, schema
from queries.dialect import Text
from queries.errors import UnknownName
from queries.expressions import slug
from queries.finish import Finish, Order
from queries.limits import walk
from queries.model_answers import label_of
from queries.naming import PartName
from queries.sql_values import COMPARISONS, FLIPPED, ValueReader, folded, is_literal, only
from queries.vocabulary import SCALARS


def is_aggregate(node: exp.Expr) -> bool:
    """Return whether a node calls a function of many rows."""
    return isinstance(node, exp.Anonymous) and str(node.this).upper() not in SCALARS


def word(name: str) -> str:
    """Return what a column or value is called in a default name."""
    return slug(name.expression) if isinstance(name, PartName) else name


class FinishReader(ValueReader):
    """Takes what comes after the groups; `aggregates` are the outputs by name, once the select list was read."""

    def __init__(self, source: Text, dataset: schema.Dataset, qualifiers: frozenset[str]) -> None:
        super().__init__(source, dataset, qualifiers)
        self.aggregates: dict[str, ir.Aggregate] = {}

    @abstractmethod
    def aggregate(self, node: exp.Expr) -> tuple[str, ir.Aggregate]:
        """Return an aggregate and its default name."""

    def finish(self, tree: exp.Select, keys: tuple[ir.Key, ...]) -> Finish:
        """Return what HAVING, ORDER BY and LIMIT do with the answer."""
        names = (*(key.column for key in keys), *self.aggregates)
        having, order, limit = (tree.args.get(part) for part in ("having", "order", "limit"))
        orders = []
        for each in order.expressions if order is not None else ():
            only(each, self.source, "this", "desc", "nulls_first")
            orders.append(Order(self._output(each.this, names), bool(each.args.get("desc"))))
        rows = None
        if limit is not None:
            only(limit, self.source, "expression")
            count = limit.expression
            if not isinstance(count, exp.Literal) or not count.name.isdecimal() or len(count.name) > 9:
                raise self.error(count, "LIMIT takes a whole number", "as in LIMIT 10")
            rows = int(count.name)
        kept = None
        if having is not None:
            kept = self._having(having.this, names)
            for _node in walk(kept):
                pass  # raises where it passes a cap
        return Finish(kept, tuple(orders), rows)

    def _output(self, node: exp.Expr, names: tuple[str, ...]) -> str:
        """Return the output or key that a node of HAVING or ORDER BY means: by name, or by the same aggregate again."""
        if isinstance(node, exp.Column) and isinstance(node.this, exp.Identifier) and not node.args.get("table"):
            name = folded(node.this)
            for known in names:
                if known in {name, node.this.name}:
                    return self._single(node, known)
            line, column = self.source.where(node)
            raise UnknownName("output", name, names, line=line, column=column)
        if is_aggregate(node):
            _default, wanted = self.aggregate(node)
            for name, aggregate in self.aggregates.items():
                if aggregate == wanted:
                    return self._single(node, name)
            raise self.error(node, "this is not among the outputs, and asking for it would cost privacy",
                             "add it to the select list")  # fmt: skip
        raise self.error(node, "a key or an output is expected here", f"one of {', '.join(map(word, names))}")

    def _single(self, node: exp.Expr, name: str) -> str:
        """Refuse outputs of several numbers here, before anything is paid for."""
        aggregate = self.aggregates.get(name)
        if isinstance(aggregate, ir.Histogram) or (isinstance(aggregate, ir.Model) and label_of(aggregate)):
            raise self.error(node, f"{name!r} is several numbers a row", "sort and filter by an output of one number")
        return name

    def _having(self, node: exp.Expr, names: tuple[str, ...]) -> ir.Predicate:  # noqa: PLR0911 -- one a form
        """Return a condition on outputs and keys. Recursion is bounded as in `predicate`."""
        match node:
            case exp.Paren():
                return self._having(node.this, names)
            case exp.Not():
                return ir.Not(self._having(node.this, names))
            case exp.And():
                return ir.AllOf(tuple(self._having(part, names) for part in self.chain(node, exp.And)))
            case exp.Or():
                return ir.AnyOf(tuple(self._having(part, names) for part in self.chain(node, exp.Or)))
            case exp.Between():
                only(node, self.source, "this", "low", "high")
                name = self._output(node.this, names)
                low, high = (self._plain(name, node.args[end]) for end in ("low", "high"))
                return ir.AllOf((ir.Comparison(name, ">=", low), ir.Comparison(name, "<=", high)))
            case exp.In():
                only(node, self.source, "this", "expressions")
                name = self._output(node.this, names)
                return ir.IsIn(name, tuple(self._plain(name, value) for value in node.expressions))
        operator = COMPARISONS.get(type(node))
        if operator is None:
            raise self.error(node, "this is no condition on outputs", "as in HAVING COUNT(*) > 100")
        only(node, self.source, "this", "expression")
        if is_literal(node.this):
            name = self._output(node.expression, names)
            return ir.Comparison(name, FLIPPED[operator], self._plain(name, node.this))
        name = self._output(node.this, names)
        return ir.Comparison(name, operator, self._plain(name, node.expression))

    def _plain(self, name: str, node: exp.Expr) -> ir.Scalar:
        """Return the literal that an output or key is compared with."""
        value = self.value(node) if is_literal(node) and not isinstance(node, exp.Null) else None
        if not isinstance(value, ir.Constant):
            raise self.error(node, "a literal is expected here", "compare an output with a number, a key with a text")
        if isinstance(value.value, str) == (name in self.aggregates):
            hint = "an output is a number" if name in self.aggregates else "write keys as texts in single quotes"
            raise self.error(node, f"{name!r} cannot be compared with this", hint)
        return value.value
