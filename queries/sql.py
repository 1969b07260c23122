"""SQL text to a query: one SELECT of aggregates over one dataset, or an error that says where and what to do.

`dialect` reads the text into a syntax tree; this module takes from the tree exactly the shapes listed here and refuses
every other one, so nothing that was written is ever ignored. docs/queries.md describes the subset to users.

Imports sqlglot through `dialect` (about 0.1 s); agents and coordinators decode queries and never read SQL.
Must not know: protobuf, any data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlglot import exp

from queries import ir, schema
from queries.dialect import Text, read, run_on_own_stack
from queries.errors import SqlError, UnknownName
from queries.expressions import extend
from queries.finish import Finish
from queries.limits import MAX_BINS
from queries.models import check as check_model
from queries.naming import settle
from queries.resolve import equal_width, resolve
from queries.sql_finish import FinishReader, is_aggregate, word
from queries.sql_values import folded, only
from queries.vocabulary import FUNCTIONS

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


@dataclass(frozen=True, slots=True)
class Asked:
    """What a text asks of a dataset, and what it does with the answer afterwards."""

    query: ir.Query
    finish: Finish


def parse(text: str, schemas: Mapping[str, schema.Dataset]) -> ir.Query:
    """Return the resolved query that `text` asks of one of `schemas` (datasets by name), as `ask` does."""
    return ask(text, schemas).query


def ask(text: str, schemas: Mapping[str, schema.Dataset]) -> Asked:
    """Return the resolved query that `text` asks of one of `schemas`, and its HAVING, ORDER BY and LIMIT.

    Raise SqlError where the text is not in the subset, UnknownName and LiteralError where a name or literal is not
    published, QueryError where the question is impossible otherwise. All say line and column where one is known.
    """
    return run_on_own_stack(lambda: _ask(text, schemas))


def _ask(text: str, schemas: Mapping[str, schema.Dataset]) -> Asked:
    tree, source = read(text, frozenset(column.name for dataset in schemas.values() for column in dataset.columns))
    only(tree, source, "expressions", "from_", "where", "group", "having", "order", "limit")
    dataset, alias = _dataset(tree, source, schemas)
    reader = _Reader(source, dataset, frozenset({dataset.name, alias}))
    keys = reader.keys(tree.args.get("group"), tree.expressions)
    aggregates = reader.outputs(tree.expressions, keys)
    where = tree.args.get("where")
    predicate = reader.predicate(where.this) if where is not None else None
    taken = [column.name for column in dataset.columns]
    outputs, predicate, keys, derived = settle(aggregates, predicate, keys, tuple(reader.derived), taken)
    return Asked(
        resolve(ir.Query(dataset.name, outputs, predicate, keys, None, derived), dataset), reader.finish(tree, keys)
    )


def _dataset(tree: exp.Select, source: Text, schemas: Mapping[str, schema.Dataset]) -> tuple[schema.Dataset, str]:
    """Return the dataset after FROM and the alias it is given, or its name."""
    clause = tree.args.get("from_")
    if clause is None:
        line, column = source.place(len(source.text.rstrip()))
        hint = f"add FROM and one of: {', '.join(sorted(schemas)[:12])}"
        raise SqlError("the query names no dataset", hint=hint, line=line, column=column)
    only(clause, source, "this")
    table = clause.this
    line, column = source.where(table)
    if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
        raise SqlError("FROM takes the name of one dataset", hint="files cannot be queried", line=line, column=column)
    if table.args.get("db"):
        raise SqlError("datasets have no path", hint="write the dataset's name alone", line=line, column=column)
    only(table, source, "this", "alias")
    alias = table.args.get("alias")
    if alias is not None:
        only(alias, source, "this")
    name = folded(table.this)
    if name not in schemas:
        raise UnknownName("dataset", name, schemas, line=line, column=column)
    return schemas[name], folded(alias.this) if alias is not None else name


class _Reader(FinishReader):
    """Takes the parts of one SELECT."""

    def __init__(self, source: Text, dataset: schema.Dataset, qualifiers: frozenset[str]) -> None:
        super().__init__(source, dataset, qualifiers)
        self.derived: list[ir.Derived] = []

    def keys(self, group: exp.Expr | None, selected: list[exp.Expr]) -> tuple[ir.Key, ...]:
        """Return the keys of GROUP BY: categorical columns, or values of the select list by their alias."""
        if group is None:
            return ()
        only(group, self.source, "expressions")
        named = {folded(node.args["alias"]): node.this for node in selected if isinstance(node, exp.Alias)}
        keys: list[ir.Key] = []
        for node in group.expressions:
            if isinstance(node, exp.Literal):
                raise self.error(node, "GROUP BY takes names, not positions", "write the column's name")
            column = self._key(node, named)
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

    def _key(self, node: exp.Expr, named: Mapping[str, exp.Expr]) -> schema.Column:
        name = folded(node.this) if isinstance(node, exp.Column) and isinstance(node.this, exp.Identifier) else ""
        value = named.get(name)
        known = any(column.name == name for column in self.dataset.columns)
        if value is None or known or isinstance(value, exp.Column) or is_aggregate(value):
            return self.measured(node)
        self.derived.append(ir.Derived(name, self.value(value)))
        with self.at(value):
            self.dataset = extend(self.dataset, self.derived[-1:])
        return self.dataset.column(name)

    def outputs(self, nodes: list[exp.Expr], keys: tuple[ir.Key, ...]) -> tuple[ir.NamedAggregate, ...]:
        """Return the aggregates of the select list; keys may stand in it too and change nothing."""
        grouped = {key.column for key in keys}
        named: list[tuple[exp.Expr, str | None, str, ir.Aggregate]] = []
        for node in nodes:
            expression, alias = (node.this, node.args["alias"]) if isinstance(node, exp.Alias) else (node, None)
            if isinstance(expression, exp.Column) and not isinstance(expression.this, exp.Star):
                self._selected_key(node, self.column(expression).name, grouped, alias)
            elif is_aggregate(expression) or isinstance(expression, exp.Star | exp.Column):
                default, aggregate = self.aggregate(expression)
                named.append((node, alias.this if alias is not None else None, default, aggregate))
            elif not (alias is not None and folded(alias) in grouped) and self.part(expression).name not in grouped:
                raise self.error(
                    node, "this value is neither aggregated nor grouped by", "write AVG(...) or GROUP BY its alias"
                )
        if not named:
            raise self.error(nodes[0], "the query asks for no aggregate", "add one, such as COUNT(*)")
        outputs = self._named(named, grouped)
        self.aggregates = {each.name: each.aggregate for each in outputs}
        return outputs

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
        if isinstance(node, exp.Star | exp.Column):
            raise self.error(node, "rows are never returned", "ask for aggregates, such as COUNT(*) or AVG(age)")
        if not isinstance(node, exp.Anonymous):
            raise self.error(node, "an aggregate is expected here", "write COUNT(*), AVG(age), ...")
        only(node, self.source, "this", "expressions")
        function, arguments = str(node.this).upper(), node.expressions
        if function == "COUNT" and len(arguments) == 1 and type(arguments[0]) is exp.Star:
            only(arguments[0], self.source)
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
        if function == "COUNT_IF":
            return self._count_if(node, arguments[0])
        column = self.measured(arguments[0])
        default = f"{FUNCTIONS[function]}_{word(column.name)}"
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
        only(node, self.source, "expressions")
        unit = self.dataset.privacy_unit
        column = node.expressions[0] if len(node.expressions) == 1 else None
        if not isinstance(column, exp.Column) or not isinstance(column.this, exp.Identifier):
            raise self.error(node, "only distinct persons can be counted", f"write COUNT(DISTINCT {unit or 'person'})")
        only(column, self.source, "this", "table")
        if not unit or folded(column.this) != unit:
            hint = f"write COUNT(DISTINCT {unit})" if unit else "every row is a person here: write COUNT(*)"
            raise self.error(node, "only distinct persons can be counted", hint)
        table = column.args.get("table")
        if table is not None and folded(table) not in self.qualifiers:
            raise self.error(column, "this names another dataset", f"the query reads {self.dataset.name!r}")
        return "count_persons", ir.Persons()

    def _count_if(self, node: exp.Expr, condition: exp.Expr) -> tuple[str, ir.Aggregate]:
        expression = self.value(condition)
        if not isinstance(expression, ir.Truth):
            raise self.error(node, "COUNT_IF takes a condition", "as in COUNT_IF(age > 65)")
        return "count_if", ir.Sum(self.part(condition).name)

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
            column = self.measured(argument)
            if not isinstance(column.kind, schema.Numeric):
                raise self.error(
                    argument, f"column {column.name!r} is categorical: it has no {function}", "name numeric columns"
                )
            names.append(column.name)
        with self.at(node):
            return f"{FUNCTIONS[function]}_{word(names[0])}_{word(names[1])}", check_model(
                PAIRED[function](*names), self.dataset
            )

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
