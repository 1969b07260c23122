"""What models and tests need of a vector: whether they can be asked, and the slots they are computed from.

For each node of `ir_models`: `check` is its part of the gate, `layout` says which sums it reads. Both are functions of
public metadata. Must not know: SQL, protobuf, data, how results are inferred (`model_answers` does).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from queries import ir_models as ir
from queries.errors import LiteralError, QueryError
from queries.schema import Categorical, Dataset, Numeric
from queries.slots import ONE, Axis, Joint, Slot, Term, keys_of, slot_of, times

MAX_TERMS = 64
"""Terms of a regression, or columns of a matrix: the slots are half their square."""
MAX_PRODUCTS = 600
"""Sums of one model or matrix: a database takes some seconds to plan so many."""
MAX_GROUPS = 64
MAX_TIMES = 2_000
"""Bins of a survival curve, in all groups."""
_TEST = {"welch": "Welch's t test", "student": "Student's t test", "anova": "the analysis of variance"}


@dataclass(frozen=True, slots=True)
class Layout:
    """The slots of one output, and the joint histogram that its bins belong to, if it has one."""

    slots: tuple[Slot, ...]
    joint: Joint | None = None


# --- the gate --------------------------------------------------------------------------------------------------------


def check(node: ir.Model, dataset: Dataset) -> ir.Model:  # noqa: PLR0912 -- one branch a node
    """Return the node in normal form, or raise QueryError or LiteralError. Columns are known to exist."""
    match node:
        case ir.Covariance(x, y, ddof):
            _numeric("a covariance", dataset, x, y)
            if isinstance(ddof, bool) or ddof not in {0, 1}:
                raise QueryError(
                    "ddof of a covariance must be 0 or 1", hint="1 for the sample's, 0 for the population's"
                )
        case ir.Correlation(x, y):
            _numeric("a correlation", dataset, x, y)
            _distinct("a correlation", (x, y))
        case ir.Line(part, y, x):
            _numeric("a line", dataset, x, y)
            _distinct("a line", (y, x))
            if part not in ir.LINE_PARTS:
                raise QueryError("a line has no such number", hint=f"one of {', '.join(ir.LINE_PARTS)}")
        case ir.Matrix(kind, columns):
            _matrix(kind, columns, dataset)
        case ir.LinearModel():
            _linear_model(node, dataset)
        case ir.MeanTest(column, mean, other):
            return _mean_test(node, column, mean, other, dataset)
        case ir.GroupTest(kind, column, by, groups):
            if kind not in ir.GROUP_TESTS:
                raise QueryError("there is no such test of means", hint=f"one of {', '.join(ir.GROUP_TESTS)}")
            _numeric(_TEST[kind], dataset, column)
            least, most = (2, MAX_GROUPS) if kind == "anova" else (2, 2)
            return replace(node, groups=_groups(_TEST[kind], by, groups, dataset, least=least, most=most))
        case ir.IndependenceTest(x, y):
            _distinct("a test of independence", (x, y))
            for name in (x, y):
                _groups("a test of independence", name, (), dataset)
        case ir.Survival():
            return replace(node, edges=_times(node, dataset, arms=1))
        case ir.LogRank(time, event, _happened, by, _edges, groups):
            _distinct("a log-rank test", (time, event, by))
            chosen = _groups("a log-rank test", by, groups, dataset)
            return replace(node, groups=chosen, edges=_times(node, dataset, arms=len(chosen)))
    return node


def _numeric(what: str, dataset: Dataset, *names: str) -> None:
    for name in names:
        if not isinstance(dataset.column(name).kind, Numeric):
            raise QueryError(
                f"column {name!r} is categorical: {what} needs numeric columns",
                hint="group by it, or test independence",
            )


def _distinct(what: str, names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names):
        raise QueryError(f"{what} names a column twice", hint="name each column once")


def _groups(
    what: str, by: str, groups: tuple[str, ...], dataset: Dataset, *, least: int = 2, most: int = MAX_GROUPS
) -> tuple[str, ...]:
    """Return the chosen keys of a categorical column in the schema's order, all of them where none is chosen."""
    kind = dataset.column(by).kind
    if not isinstance(kind, Categorical):
        raise QueryError(f"column {by!r} is numeric: {what} needs groups", hint="name a categorical column")
    for group in groups:
        if group not in kind.keys:
            raise LiteralError(f"column {by!r} has no such category", hint=f"published: {', '.join(kind.keys[:12])}")
    if len(set(groups)) != len(groups):
        raise QueryError(f"a group of {by!r} is given twice", hint="list each once")
    chosen = groups or kind.keys
    if not least <= len(chosen) <= most:
        number = f"{least}" if least == most else f"{least} to {most}"
        raise QueryError(f"{what} compares {number} groups, not {len(chosen)} of {by!r}", hint="list the groups")
    return chosen


def _matrix(kind: str, columns: tuple[str, ...], dataset: Dataset) -> None:
    if kind not in ir.MATRIX_KINDS:
        raise QueryError("there is no such matrix", hint=f"one of {', '.join(ir.MATRIX_KINDS)}")
    _numeric("a matrix", dataset, *columns)
    _distinct("a matrix", columns)
    if not 2 <= len(columns) <= MAX_TERMS:
        raise QueryError(f"a matrix has 2 to {MAX_TERMS} columns", hint="name them: matrix(_.age, _.chol)")
    _few_products("the matrix", [ONE, *(Term((name,)) for name in columns)], columns, dataset)


def _linear_model(node: ir.LinearModel, dataset: Dataset) -> None:
    _numeric("the response of a linear model", dataset, node.response)
    _distinct("a linear model", node.columns)
    if not node.predictors:
        raise QueryError("a linear model needs a predictor", hint="name at least one column")
    if not isinstance(node.population, bool):
        raise QueryError("population is true or false")
    terms = model_terms(node, dataset)
    if len(terms) > MAX_TERMS:
        raise QueryError(
            f"the model has {len(terms)} terms; at most {MAX_TERMS} are possible", hint="use fewer predictors or keys"
        )
    _few_products("the model", [*terms, Term((node.response,))], node.columns, dataset)


def _few_products(what: str, terms: list[Term], among: tuple[str, ...], dataset: Dataset) -> None:
    sums = len(_products(terms, among, dataset))
    if sums > MAX_PRODUCTS:
        raise QueryError(f"{what} needs {sums:,} sums; at most {MAX_PRODUCTS} are possible", hint="name fewer columns")


def _mean_test(node: ir.MeanTest, column: str, mean: object, other: str | None, dataset: Dataset) -> ir.MeanTest:
    if isinstance(mean, bool) or not isinstance(mean, int | float) or not math.isfinite(mean):
        raise LiteralError("the mean of a test is a number", hint="write t_test(_.age, mean=50)")
    _numeric("a test of a mean", dataset, column)
    if other is not None:
        _numeric("a paired test", dataset, other)
        _distinct("a paired test", (column, other))
    elif not dataset.numeric(column).lower <= mean <= dataset.numeric(column).upper:
        kind = dataset.numeric(column)
        raise LiteralError(
            f"the mean of a test of {column!r} is outside its published bounds",
            hint=f"{column} lies between {kind.lower:g} and {kind.upper:g}",
        )
    return replace(node, mean=float(mean) + 0.0)


def _times(node: ir.Survival | ir.LogRank, dataset: Dataset, *, arms: int) -> tuple[float, ...]:
    time, event, happened, edges = node.time, node.event, node.happened, node.edges
    _numeric("a time", dataset, time)
    _groups("survival", event, (), dataset)
    if happened not in keys_of(event, dataset):
        raise LiteralError(
            f"column {event!r} has no such category", hint=f"published: {', '.join(keys_of(event, dataset)[:12])}"
        )
    if not 2 <= len(edges) <= MAX_TIMES // arms + 1:
        raise QueryError(
            f"a survival curve needs 1 to {MAX_TIMES // arms:,} bins of time",
            hint="say how many: bins=24, or edges=[...]",
        )
    for edge in edges:
        if isinstance(edge, bool) or not isinstance(edge, int | float) or not math.isfinite(edge):
            raise LiteralError("an edge of time is a number", hint="write edges=[0, 30, 60]")
    numbers = tuple(float(edge) + 0.0 for edge in edges)
    if any(high <= low for low, high in pairwise(numbers)):
        raise QueryError(f"the edges of {time!r} do not ascend", hint="sort the edges")
    kind = dataset.numeric(time)
    if numbers[0] < kind.lower or numbers[-1] > kind.upper:
        raise LiteralError(
            f"an edge of {time!r} is outside its published bounds",
            hint=f"{time} lies between {kind.lower:g} and {kind.upper:g}",
        )
    return numbers


# --- what is released ------------------------------------------------------------------------------------------------


def model_terms(node: ir.LinearModel, dataset: Dataset) -> tuple[Term, ...]:
    """Return the constant, then each numeric predictor and each key but the first of each categorical one."""
    terms = [ONE]
    for name in node.predictors:
        keys = keys_of(name, dataset)
        terms += [Term(levels=((name, key),)) for key in keys[1:]] if keys else [Term((name,))]
    return tuple(terms)


def pair_slots(node: ir.Covariance | ir.Correlation | ir.Line, dataset: Dataset) -> tuple[Slot, ...]:
    """Return count, x, y, x x, y y and x y, as far as `PAIR_MOMENTS` says that the node reads them."""
    x, y = Term((node.x,)), Term((node.y,))
    xx, yy, xy = Term((node.x, node.x)), Term((node.y, node.y)), times(x, y) or ONE
    terms = {"count": ONE, "x": x, "y": y, "xx": xx, "yy": yy, "xy": xy}
    return tuple(slot_of(terms[name], node.columns, dataset) for name in PAIR_MOMENTS[pair_kind(node)])


def pair_kind(node: ir.Covariance | ir.Correlation | ir.Line) -> str:
    """Return which row of `PAIR_MOMENTS` a node reads."""
    if isinstance(node, ir.Line):
        return node.part
    return "covariance" if isinstance(node, ir.Covariance) else "correlation"


PAIR_MOMENTS = {
    "covariance": ("count", "x", "y", "xy"),
    "correlation": ("count", "x", "y", "xx", "yy", "xy"),
    "slope": ("count", "x", "y", "xx", "xy"),
    "intercept": ("count", "x", "y", "xx", "xy"),
    "r2": ("count", "x", "y", "xx", "yy", "xy"),
    "count": ("count",),
}


def group_slots(node: ir.GroupTest, dataset: Dataset) -> tuple[Slot, ...]:
    """Return count, sum and sum of squares of every group, group by group."""
    column = node.column
    moments = ((), (column,), (column, column))
    return tuple(
        slot_of(Term(factors, ((node.by, group),)), node.columns, dataset)
        for group in node.groups
        for factors in moments
    )


def mean_slots(node: ir.MeanTest, dataset: Dataset) -> tuple[Slot, ...]:
    """Return count, x, x x; of a pair count, x, y, x x, x y, y y."""
    if node.other is None:
        factors: tuple[tuple[str, ...], ...] = ((), (node.column,), (node.column, node.column))
    else:
        x, y = node.column, node.other
        factors = (), (x,), (y,), (x, x), (x, y), (y, y)
    return tuple(slot_of(Term(tuple(sorted(each))), node.columns, dataset) for each in factors)


def layout(node: ir.Model, dataset: Dataset, histogram: int = 0) -> Layout:
    """Return the slots of a checked node; `histogram` is the number of its joint histogram among a plan's."""
    match node:
        case ir.Covariance() | ir.Correlation() | ir.Line():
            return Layout(pair_slots(node, dataset))
        case ir.Matrix(_, columns):
            return Layout(_products([ONE, *(Term((name,)) for name in columns)], columns, dataset))
        case ir.LinearModel():
            terms = [*model_terms(node, dataset), Term((node.response,))]
            return Layout(_products(terms, node.columns, dataset))
        case ir.MeanTest():
            return Layout(mean_slots(node, dataset))
        case ir.GroupTest():
            return Layout(group_slots(node, dataset))
        case ir.IndependenceTest() | ir.Survival() | ir.LogRank():
            joint = joint_of(node, dataset)
            return Layout(tuple(Slot("bin", bin=each, histogram=histogram) for each in range(joint.bins)), joint)


def joint_of(node: ir.IndependenceTest | ir.Survival | ir.LogRank, dataset: Dataset) -> Joint:
    """Return the joint histogram that a node is computed from."""
    if isinstance(node, ir.IndependenceTest):
        return Joint(tuple(Axis(name, groups=tuple((key,) for key in keys_of(name, dataset))) for name in node.columns))
    others = tuple(key for key in keys_of(node.event, dataset) if key != node.happened)
    axes = Axis(node.event, groups=((node.happened,), others)), Axis(node.time, edges=node.edges)
    if isinstance(node, ir.Survival):
        return Joint(axes)
    return Joint((Axis(node.by, groups=tuple((group,) for group in node.groups)), *axes))


def _products(terms: list[Term], among: tuple[str, ...], dataset: Dataset) -> tuple[Slot, ...]:
    """Return the slots of every product of two terms that is not 0 by rule, each once."""
    found: dict[Slot, None] = {}
    for i, left in enumerate(terms):
        for right in terms[i:]:
            both = times(left, right)
            if both is not None:
                found[slot_of(both, among, dataset)] = None
    return tuple(found)
