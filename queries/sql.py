"""SQL text to a query: one SELECT of aggregates over one dataset, or an error that says where and what to do.

`dialect` reads the text into a syntax tree; this module takes from the tree exactly the shapes listed here and refuses
every other one, so nothing that was written is ever ignored. docs/queries.md describes the subset to users.

Imports sqlglot through `dialect` (about 0.1 s); agents and coordinators decode queries and never read SQL.
Must not know: protobuf, any data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sqlglot import exp

from queries import ir, schema
from queries.dialect import FUNCTIONS, SUBSET, Text, read, run_on_own_stack
from queries.errors import LiteralError, QueryError, SqlError, UnknownName
from queries.limits import MAX_BINS
from queries.models import check as check_model
from queries.resolve import equal_width, literal, resolve

_COMPARISONS: dict[type[exp.Expr], ir.Operator] = {
    exp.EQ: "=", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
_FLIPPED: dict[ir.Operator, ir.Operator] = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
PAIRED: dict[str, Callable[[str, str], ir.Model]] = {
    "CORR": ir.Correlation,
    "COVAR_POP": lambda y, x: ir.Covariance(y, x, ddof=0),
    "COVAR_SAMP": ir.Covariance,
    "REGR_SLOPE": lambda y, x: ir.Line("slope", y, x),
    "REGR_INTERCEPT": lambda y, x: ir.Line("intercept", y, x),
    "REGR_R2": lambda y, x: ir.Line("r2", y, x),
    "REGR_COUNT": lambda y, x: ir.Line("count", y, x),
}
"""Functions of two columns, in the order of their arguments."""
_OF_ONE: dict[str, Callable[[str], ir.Aggregate]] = {
    "SUM": ir.Sum,
    "AVG": ir.Mean,
    "VARIANCE": ir.Variance,
    "VAR_SAMP": ir.Variance,
    "VAR_POP": lambda column: ir.Variance(column, ddof=0),
    "STDDEV": ir.Stddev,
    "STDDEV_SAMP": ir.Stddev,
    "STDDEV_POP": lambda column: ir.Stddev(column, ddof=0),
    "MEDIAN": lambda column: ir.Quantile(column, 0.5),
    "MIN": lambda column: ir.Quantile(column, 0.0),
    "MAX": lambda column: ir.Quantile(column, 1.0),
    "SKEWNESS": ir.Skewness,
    "KURTOSIS": ir.Kurtosis,
}
"""Functions of one numeric column."""
_TAKES = {
    "HISTOGRAM": ("a column and a number of bins", ", 20"),
    "QUANTILE_CONT": ("a column and a share of the rows", ", 0.25"),
}
"""Functions that take more than a column, and what."""
_CONDITION_HINT = "compare a column with a literal, or use IN, BETWEEN, IS NULL, AND, OR, NOT"


def parse(text: str, schemas: Mapping[str, schema.Dataset]) -> ir.Query:
    """Return the resolved query that `text` asks of one of `schemas` (datasets by name).

    Raise SqlError where the text is not in the subset, UnknownName and LiteralError where a name or literal is not
    published, QueryError where the question is impossible otherwise. All say line and column where one is known.
    """
    return run_on_own_stack(lambda: _parse(text, schemas))


def _parse(text: str, schemas: Mapping[str, schema.Dataset]) -> ir.Query:
    tree, source = read(text, frozenset(column.name for dataset in schemas.values() for column in dataset.columns))
    _only(tree, source, "expressions", "from_", "where", "group")
    dataset, alias = _dataset(tree, source, schemas)
    reader = _Reader(source, dataset, frozenset({dataset.name, alias}))
    keys = reader.keys(tree.args.get("group"))
    aggregates = reader.outputs(tree.expressions, keys)
    where = tree.args.get("where")
    predicate = reader.predicate(where.this) if where is not None else None
    return resolve(ir.Query(dataset.name, aggregates, predicate, keys), dataset)


def _only(node: exp.Expr, source: Text, *allowed: str) -> None:
    """Refuse whatever else the parser hung on a node."""
    for name, value in node.args.items():
        if value and name not in allowed:
            part = value[0] if isinstance(value, list) else value
            line, column = source.where(part if isinstance(part, exp.Expr) else node)
            hint = "a query reads one dataset" if name == "joins" else f"write {SUBSET}"
            raise SqlError("this is not possible", hint=hint, line=line, column=column)


def _dataset(tree: exp.Select, source: Text, schemas: Mapping[str, schema.Dataset]) -> tuple[schema.Dataset, str]:
    """Return the dataset after FROM and the alias it is given, or its name."""
    clause = tree.args.get("from_")
    if clause is None:
        line, column = source.place(len(source.text.rstrip()))
        hint = f"add FROM and one of: {', '.join(sorted(schemas)[:12])}"
        raise SqlError("the query names no dataset", hint=hint, line=line, column=column)
    _only(clause, source, "this")
    table = clause.this
    line, column = source.where(table)
    if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
        raise SqlError("FROM takes the name of one dataset", hint="files cannot be queried", line=line, column=column)
    if table.args.get("db"):
        raise SqlError("datasets have no path", hint="write the dataset's name alone", line=line, column=column)
    _only(table, source, "this", "alias")
    alias = table.args.get("alias")
    if alias is not None:
        _only(alias, source, "this")
    name = _folded(table.this)
    if name not in schemas:
        raise UnknownName("dataset", name, schemas, line=line, column=column)
    return schemas[name], _folded(alias.this) if alias is not None else name


def _folded(identifier: exp.Identifier) -> str:
    """Return a name as SQL reads it: in lower case unless it is quoted."""
    name: str = identifier.this
    return name if identifier.args.get("quoted") else name.lower()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes the parts of one SELECT over `dataset`, which columns may be qualified with."""

    source: Text
    dataset: schema.Dataset
    qualifiers: frozenset[str]

    def error(self, node: exp.Expr, message: str, hint: str) -> SqlError:
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
            raise self.error(node, "a column is expected here", "columns are used as published, without expressions")
        _only(node, self.source, "this", "table")
        table = node.args.get("table")
        if table is not None and _folded(table) not in self.qualifiers:
            raise self.error(node, "this names another dataset", f"the query reads {self.dataset.name!r}")
        line, column = self.source.where(node.this)
        name = _folded(node.this)
        if name == self.dataset.privacy_unit:
            raise self.error(
                node,
                f"{name!r} names the person (the privacy unit) and cannot be asked about",
                f"COUNT(DISTINCT {name}) counts persons",
            )
        return self.dataset.column(name, line=line, position=column)

    def keys(self, group: exp.Expr | None) -> tuple[ir.Key, ...]:
        """Return the keys of GROUP BY."""
        if group is None:
            return ()
        _only(group, self.source, "expressions")
        keys: list[ir.Key] = []
        for node in group.expressions:
            if isinstance(node, exp.Literal):
                raise self.error(node, "GROUP BY takes names, not positions", "write the column's name")
            column = self.column(node)
            if not isinstance(column.kind, schema.Categorical):
                raise self.error(
                    node,
                    f"column {column.name!r} has no published keys to group by",
                    "group by a categorical column, or use HISTOGRAM for a numeric one",
                )
            if ir.Key(column.name) in keys:
                raise self.error(node, f"the query groups by {column.name!r} twice", "name each column once")
            keys.append(ir.Key(column.name))
        return tuple(keys)

    def outputs(self, nodes: list[exp.Expr], keys: tuple[ir.Key, ...]) -> tuple[ir.NamedAggregate, ...]:
        """Return the aggregates of the select list; keys may stand in it too and change nothing."""
        grouped = {key.column for key in keys}
        named: list[tuple[exp.Expr, str | None, str, ir.Aggregate]] = []
        for node in nodes:
            expression, alias = (node.this, node.args["alias"]) if isinstance(node, exp.Alias) else (node, None)
            if isinstance(expression, exp.Column) and not isinstance(expression.this, exp.Star):
                self._selected_key(node, self.column(expression).name, grouped, alias)
            else:
                default, aggregate = self.aggregate(expression)
                named.append((node, alias.this if alias is not None else None, default, aggregate))
        if not named:
            raise self.error(nodes[0], "the query asks for no aggregate", "add one, such as COUNT(*)")
        return self._named(named, grouped)

    def _selected_key(self, node: exp.Expr, name: str, grouped: set[str], alias: exp.Expr | None) -> None:
        if name not in grouped:
            raise self.error(
                node, f"{name!r} is neither aggregated nor grouped by", f"write AVG({name}) or GROUP BY {name}"
            )
        if alias is not None and alias.name != name:
            raise self.error(
                node, f"the key {name!r} keeps its name", "remove the alias and rename it in the DataFrame"
            )

    def _named(
        self, named: list[tuple[exp.Expr, str | None, str, ir.Aggregate]], grouped: set[str]
    ) -> tuple[ir.NamedAggregate, ...]:
        """Refuse a name given twice; number the default names that would clash."""
        taken = set(grouped)
        for node, alias, _default, _aggregate in named:
            if alias is None:
                continue
            if alias in taken:
                raise self.error(node, f"two outputs are called {alias!r}", "give each its own name with AS")
            taken.add(alias)
        out = []
        for _node, alias, default, aggregate in named:
            name, number = alias or default, 1
            while alias is None and name in taken:
                number += 1
                name = f"{default}_{number}"
            taken.add(name)
            out.append(ir.NamedAggregate(name, aggregate))
        return tuple(out)

    def aggregate(self, node: exp.Expr) -> tuple[str, ir.Aggregate]:  # noqa: PLR0911 -- one return a form
        """Return an aggregate and its default name."""
        if isinstance(node, exp.Star) or (isinstance(node, exp.Column) and isinstance(node.this, exp.Star)):
            raise self.error(node, "rows are never returned", "ask for aggregates, such as COUNT(*) or AVG(age)")
        if not isinstance(node, exp.Anonymous):
            raise self.error(node, "an aggregate is expected here", "write COUNT(*), AVG(age), ... without expressions")
        _only(node, self.source, "this", "expressions")
        function, arguments = str(node.this).upper(), node.expressions
        if function == "COUNT" and len(arguments) == 1 and type(arguments[0]) is exp.Star:
            _only(arguments[0], self.source)
            return "count", ir.Count()
        if function == "COUNT" and len(arguments) == 1 and isinstance(arguments[0], exp.Distinct):
            return self._persons(arguments[0])
        if function in PAIRED:
            return self._paired(function, node, arguments)
        takes, example = _TAKES.get(function, ("one column", ""))
        if len(arguments) not in ({1, 2} if function == "HISTOGRAM" else {2} if example else {1}):
            raise self.error(
                node, f"{function} takes {takes}", f"as in {function}({self.dataset.columns[0].name}{example})"
            )
        column = self.column(arguments[0])
        default = f"{FUNCTIONS[function]}_{column.name}"
        if function == "COUNT":
            return default, ir.Count(column.name)
        if function == "HISTOGRAM":
            return default, self._histogram(column, node, arguments[1:])
        if not isinstance(column.kind, schema.Numeric):
            raise self.error(
                node, f"column {column.name!r} is categorical: it has no {function}", "group by it, or use HISTOGRAM"
            )
        if function == "QUANTILE_CONT":
            return default, ir.Quantile(column.name, self._share(arguments[1]))
        return default, _OF_ONE[function](column.name)

    def _persons(self, node: exp.Distinct) -> tuple[str, ir.Aggregate]:
        """Return the count of distinct persons, the only things that can be told apart."""
        _only(node, self.source, "expressions")
        unit = self.dataset.privacy_unit
        column = node.expressions[0] if len(node.expressions) == 1 else None
        if not isinstance(column, exp.Column) or not isinstance(column.this, exp.Identifier):
            raise self.error(node, "only distinct persons can be counted", f"write COUNT(DISTINCT {unit or 'person'})")
        _only(column, self.source, "this", "table")
        if not unit or _folded(column.this) != unit:
            hint = f"write COUNT(DISTINCT {unit})" if unit else "every row is a person here: write COUNT(*)"
            raise self.error(node, "only distinct persons can be counted", hint)
        table = column.args.get("table")
        if table is not None and _folded(table) not in self.qualifiers:
            raise self.error(column, "this names another dataset", f"the query reads {self.dataset.name!r}")
        return "count_persons", ir.Persons()

    def _share(self, node: exp.Expr) -> float:
        if not isinstance(node, exp.Literal) or node.is_string or not 0 <= float(node.name) <= 1:
            raise self.error(node, "a quantile lies between 0 and 1", "0.5 is the median")
        return float(node.name)

    def _paired(self, function: str, node: exp.Expr, arguments: list[exp.Expr]) -> tuple[str, ir.Aggregate]:
        """Return an aggregate of two numeric columns: of y and x, in the order of the standard's REGR_ functions."""
        if len(arguments) != 2:
            raise self.error(node, f"{function} takes two columns", f"as in {function}(y, x)")
        names = []
        for argument in arguments:
            column = self.column(argument)
            if not isinstance(column.kind, schema.Numeric):
                raise self.error(
                    argument, f"column {column.name!r} is categorical: it has no {function}", "name numeric columns"
                )
            names.append(column.name)
        with self.at(node):
            return f"{FUNCTIONS[function]}_{names[0]}_{names[1]}", check_model(PAIRED[function](*names), self.dataset)

    def _histogram(self, column: schema.Column, node: exp.Expr, bins: list[exp.Expr]) -> ir.Histogram:
        if not bins:
            if isinstance(column.kind, schema.Numeric):
                raise self.error(
                    node,
                    "the histogram of a numeric column needs a number of bins",
                    f"write HISTOGRAM({column.name}, 20)",
                )
            return ir.Histogram(column.name)
        count = bins[0]
        if not isinstance(count, exp.Literal) or count.is_string or not count.name.isdecimal():
            raise self.error(count, "the number of bins is a whole number", f"write HISTOGRAM({column.name}, 20)")
        digits = count.name.lstrip("0")
        with self.at(node):  # int() refuses thousands of digits with an error of its own
            return ir.Histogram(
                column.name, equal_width(column, int(digits or "0") if len(digits) < 9 else MAX_BINS + 1)
            )

    def predicate(self, node: exp.Expr) -> ir.Predicate:
        """Return a condition. Recursion is bounded by the dialect's nesting; chains of AND and OR take none."""
        match node:
            case exp.Paren():
                _only(node, self.source, "this")
                return self.predicate(node.this)
            case exp.Not():
                _only(node, self.source, "this")
                return ir.Not(self.predicate(node.this))
            case exp.And():
                return ir.AllOf(tuple(self.predicate(part) for part in self._chain(node, exp.And)))
            case exp.Or():
                return ir.AnyOf(tuple(self.predicate(part) for part in self._chain(node, exp.Or)))
            case exp.Between() | exp.In() | exp.Is():
                return self._test(node)
            case _:
                return self._binary(node)

    def _test(self, node: exp.Between | exp.In | exp.Is) -> ir.Predicate:
        column = self.column(node.this)
        match node:
            case exp.Between():
                _only(node, self.source, "this", "low", "high")
                low, high = node.args["low"], node.args["high"]
                return ir.AllOf((self._comparison(column, ">=", low), self._comparison(column, "<=", high)))
            case exp.In():
                _only(node, self.source, "this", "expressions")
                if not node.expressions:
                    raise self.error(node, "the list after IN is empty", "list at least one value")
                return ir.IsIn(column.name, tuple(self.literal(column, value) for value in node.expressions))
            case _:
                _only(node, self.source, "this", "expression")
                if not isinstance(node.expression, exp.Null):
                    raise self.error(node, "IS takes NULL or NOT NULL", f"write {column.name} = ...")
                return ir.IsNull(column.name)

    def _chain(self, node: exp.Expr, junction: type[exp.Connector]) -> list[exp.Expr]:
        """Return the operands of a chain, which the parser leans to the left, in the order they were written."""
        parts = []
        while isinstance(node, junction):
            _only(node, self.source, "this", "expression")
            parts.append(node.expression)
            node = node.this
        return [node, *reversed(parts)]

    def _binary(self, node: exp.Expr) -> ir.Predicate:
        operator = _COMPARISONS.get(type(node))
        if operator is None:
            raise self.error(node, "this is no condition", _CONDITION_HINT)
        _only(node, self.source, "this", "expression")
        left, right = node.this, node.expression
        if isinstance(left, exp.Column) and isinstance(right, exp.Column):
            column, word = self.column(left), right.name
            text = isinstance(column.kind, schema.Categorical) and word != column.name
            hint = f"write text in single quotes: '{word}'" if text else "compare it with a number or a text in quotes"
            raise self.error(right, f"{column.name!r} can only be compared with a literal", hint)
        if isinstance(left, exp.Column):
            return self._comparison(self.column(left), operator, right)
        if isinstance(right, exp.Column):
            return self._comparison(self.column(right), _FLIPPED[operator], left)
        raise self.error(node, "this compares no column", _CONDITION_HINT)

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
