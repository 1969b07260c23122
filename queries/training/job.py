"""A training job as its analyst states it: model, label, terms, rounds. A value, signed like a query.

Which rows it reads is an `ir.Query` (`Job.selection`), so that conditions, limits on rows and their encoding are those
of every query. Must not know: data, engines, the wire.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from queries import ir
from queries.errors import QueryError
from queries.limits import MAX_FEATURES, MAX_NODES, walk
from queries.resolve import resolve
from queries.schema import Categorical, Column, Dataset, Numeric
from queries.training.descent import DESCENDING, Descent, check_descent
from queries.training.options import (
    Clusters,
    Package,
    Trees,
    check_clusters,
    check_institutions,
    check_package,
    check_trees,
)

Model: TypeAlias = Literal[
    "linear", "logistic", "multinomial", "poisson", "cox", "mlp", "cnn", "kmeans", "boosting", "package"
]
MODELS: tuple[Model, ...] = get_args(Model)
Term: TypeAlias = tuple[str, ...]
"""Columns whose product is a predictor; one column for a main effect."""

MAX_ROUNDS = 10_000
MAX_SPARE = 100
MAX_TERMS = MAX_FEATURES
MAX_FACTORS = 4
MAX_EDGES = 4097
MAX_NAME = 100
MAX_SCORED = 25_000
LEAST_SECONDS, MOST_SECONDS = 5, 86_400


@dataclass(frozen=True, slots=True)
class Job:
    """A job. `label` is the response, for "cox" the time; `event` says by its second category whether it ended there.

    `edges` are the public time grid of "cox", ascending. `rounds` are what the model needs, `spare_rounds` are charged
    beside them and used where a round fails. `ridge` is the L2 penalty per person on the unit scale, without intercept.
    Without `descent` the model is found by Newton steps. With `scored`, a model's numbers, nothing is trained: that
    model is evaluated. `split` names a division of the rows: the share `held_out`, chosen by a keyed hash at each
    institution, is left out of training, and evaluations see nothing else. `clusters` are of "kmeans", which has no
    label; `trees` of "boosting"; `package` of "package", a model that stewards installed. Only `institutions` are
    asked, sorted, or all where there are none; of these the coordinator draws the share `fraction` anew for each round,
    0 for all. After every `evaluate_every` rounds, and the last, the model is evaluated by a round of its own, which
    costs what the others do; after `patience` evaluations in a row that are no better than the best, the job ends. A
    round goes on without the institutions whose sums are not there `round_seconds` after it was announced, 0 for as
    long as the coordinator waits; the next round asks them again.
    """

    selection: ir.Query
    model: Model
    label: str
    terms: tuple[Term, ...]
    rounds: int
    spare_rounds: int = 1
    event: str = ""
    edges: tuple[float, ...] = ()
    ridge: float = 0.0
    descent: Descent | None = None
    split: str = ""
    held_out: float = 0.0
    scored: tuple[float, ...] = ()
    clusters: Clusters | None = None
    trees: Trees | None = None
    institutions: tuple[str, ...] = ()
    fraction: float = 0.0
    package: Package | None = None
    evaluate_every: int = 0
    patience: int = 0
    round_seconds: int = 0

    @property
    def evaluations(self) -> int:
        """How many evaluations the job pays for."""
        return -(-self.rounds // self.evaluate_every) if self.evaluate_every else 0

    @property
    def slots(self) -> int:
        """How many rounds it pays for: those the model needs, the spare ones, and its evaluations, in this order."""
        return self.rounds + self.spare_rounds + self.evaluations

    @property
    def gradual(self) -> Descent | None:
        """How the job descends: None for Newton steps, and for an evaluation of whatever model."""
        return None if self.scored else self.descent

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.selection.dataset

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the model reads, sorted."""
        return columns_of(self.label, self.event, self.terms)

    @property
    def shape(self) -> str:
        """The model and its columns in one line without any literal: "train logistic dis_diab ~ bmi + sex"."""
        label = f"{self.label}, {self.event}" if self.event else self.label
        how = "" if self.descent is None else f" by {self.descent.method}"
        verb = "evaluate" if self.scored else "train"
        model = self.model if self.package is None else f"{self.model} {self.package.name}"
        asked = f"{verb} {model}{how} {label + ' ' if label else ''}~ "
        asked += " + ".join(":".join(term) for term in self.terms)
        if self.selection.where is None:
            return asked
        nodes = walk(self.selection.where)
        columns = {node.column for node in nodes if isinstance(node, ir.Comparison | ir.IsIn | ir.IsNull)}
        return f"{asked} where {', '.join(sorted(columns))}"


def columns_of(label: str, event: str, terms: tuple[Term, ...]) -> tuple[str, ...]:
    """Return the distinct columns of a model, sorted."""
    return tuple(sorted({*filter(None, (label, event)), *(name for term in terms for name in term)}))


def make_job(
    dataset: Dataset,
    model: str,
    label: str,
    terms: tuple[Term, ...],
    *,
    rounds: int | None = None,
    spare_rounds: int = 1,
    where: ir.Predicate | None = None,
    rows_per_person: int | None = None,
    event: str = "",
    edges: tuple[float, ...] = (),
    ridge: float = 0.0,
    descent: Descent | None = None,
    split: str = "",
    held_out: float = 0.0,
    clusters: Clusters | None = None,
    trees: Trees | None = None,
    institutions: tuple[str, ...] = (),
    fraction: float = 0.0,
    package: Package | None = None,
    evaluate_every: int = 0,
    patience: int = 0,
    round_seconds: int = 0,
) -> Job:
    """Return the resolved job over rows with a value in every column it reads. Raise what `resolve_job` does."""
    names = columns_of(label, event, terms)
    present = [ir.Not(ir.IsNull(name)) for name in names if dataset.column(name).nullable]
    if 2 * len(present) + 1 > MAX_NODES:
        raise QueryError(
            f"{len(present):,} columns of this job may lack values, which is more than a condition can leave out",
            hint="publish columns that are always there, like pixels, with nullable = false",
        )
    conditions = (*([where] if where is not None else []), *present)
    condition = None if not conditions else conditions[0] if len(conditions) == 1 else ir.AllOf(conditions)
    if model not in MODELS:
        raise QueryError(f"there is no model {model[:40]!r}", hint=f"known: {', '.join(MODELS)}")
    kind: Model = next(known for known in MODELS if known == model)
    selection = ir.Query(
        dataset.name,
        _outputs(names, dataset),
        condition,
        (),
        rows_per_person if rows_per_person is not None else 1,
    )
    usual = _usual_rounds(model, descent, trees)
    job = Job(
        selection, kind, label, terms, rounds if rounds is not None else usual, spare_rounds, event, edges, ridge,
        descent, split, held_out, (), clusters, trees, tuple(sorted(set(institutions))), fraction, package,
        evaluate_every, patience, round_seconds,
    )  # fmt: skip
    return resolve_job(job, dataset)


def _usual_rounds(model: str, descent: Descent | None, trees: Trees | None) -> int:
    if trees is not None:
        return trees.rounds
    if descent is not None:
        return 100
    return 1 if model == "linear" else 8


def _outputs(names: tuple[str, ...], dataset: Dataset) -> tuple[ir.NamedAggregate, ...]:
    """Return outputs that stand for reading these columns; nothing of them is ever released."""

    def output(name: str) -> ir.Aggregate:
        numeric = isinstance(_column(name, dataset).kind, Numeric)
        return ir.Sum(name) if numeric else ir.Histogram(name)

    return tuple(ir.NamedAggregate(f"c{number}", output(name)) for number, name in enumerate(names))


def resolve_job(job: Job, dataset: Dataset) -> Job:
    """Return the job in normal form, or raise QueryError, UnknownName or LiteralError. Idempotent.

    The one gate for jobs, as `resolve` is for queries: analyst, coordinator and agent each pass it on their own.
    """
    if job.model not in MODELS:
        raise QueryError("the job asks for a model of an unknown kind", hint=f"known: {', '.join(MODELS)}")
    _check_options(job)
    if not 1 <= job.rounds <= MAX_ROUNDS:
        raise QueryError(f"a job takes 1 to {MAX_ROUNDS:,} rounds", hint="8 are enough for most regressions")
    if not 0 <= job.spare_rounds <= MAX_SPARE:
        raise QueryError(f"a job keeps at most {MAX_SPARE} rounds to spare")
    if not (math.isfinite(job.ridge) and 0 <= job.ridge <= 1):
        raise QueryError("ridge must be a number from 0 to 1", hint="it is the penalty per person: 0.001 is little")
    _check_terms(job, dataset)
    if len(job.columns) > MAX_FEATURES:
        raise QueryError(f"a job reads at most {MAX_FEATURES:,} columns, this one {len(job.columns):,}")
    selection = resolve(job.selection, dataset, most=MAX_FEATURES)
    _check_selection(job, selection, dataset)
    check_descent(job, dataset)
    _check_split(job)
    _check_evaluations(job)
    check_institutions(job.institutions, job.fraction)
    if job.round_seconds and not LEAST_SECONDS <= job.round_seconds <= MOST_SECONDS:
        raise QueryError(
            f"round_seconds must be from {LEAST_SECONDS} to {MOST_SECONDS:,}",
            hint="leave it out to wait as long as the coordinator does",
        )
    return replace(job, selection=selection, ridge=job.ridge + 0.0, fraction=job.fraction + 0.0)


def _check_terms(job: Job, dataset: Dataset) -> None:
    if not 1 <= len(job.terms) <= MAX_TERMS:
        raise QueryError(f"a model has 1 to {MAX_TERMS} terms", hint='for example features = ["age", "sex"]')
    seen: set[Term] = set()
    for term in job.terms:
        if not 1 <= len(term) <= MAX_FACTORS:
            raise QueryError(f"a term is a product of 1 to {MAX_FACTORS} columns")
        key = tuple(sorted(term))
        if key in seen:
            raise QueryError(f"the term {':'.join(term)} appears twice", hint="name each term once")
        seen.add(key)
        if len(term) > 1 and job.model in ("kmeans", "boosting"):
            raise QueryError(f"{job.model} takes columns, no products", hint=f"name {' and '.join(term)} alone")
        for name in term:
            _check_factor(job, term, _column(name, dataset))
    _check_label(job, dataset)


def _check_factor(job: Job, term: Term, column: Column) -> None:
    if isinstance(column.kind, Categorical) and term.count(column.name) > 1:
        raise QueryError(f"category {column.name!r} multiplied by itself is itself", hint="name it once in a term")
    if column.name in (job.label, job.event):
        raise QueryError(f"column {column.name!r} is both predicted and a predictor", hint="leave it out of the terms")


def _check_label(job: Job, dataset: Dataset) -> None:
    if job.model in ("kmeans", "boosting", *DESCENDING) and (job.event or job.edges):
        raise QueryError("only the cox model has an event and a time grid", hint="leave event and times out")
    if job.model == "kmeans":
        if job.label:
            raise QueryError("kmeans predicts nothing, so it has no label", hint="leave label out")
        return
    label = _column(job.label, dataset)
    if job.model in DESCENDING:
        return  # a number or a category
    if job.model == "boosting":
        if isinstance(label.kind, Categorical) and len(label.kind.keys) < 2:
            raise QueryError(
                f"{job.label!r} has one category: there is nothing to predict", hint="choose another label"
            )
        return
    _check_regression(job, label)
    _check_survival(job, label, dataset)


def _check_regression(job: Job, label: Column) -> None:
    if job.model in ("linear", "poisson", "cox"):
        if not isinstance(label.kind, Numeric):
            raise QueryError(f"the {job.model} model predicts a number; {job.label!r} is a category", hint=_MODEL_HINT)
        if job.model in ("poisson", "cox") and label.kind.lower < 0:
            raise QueryError(
                f"{job.label!r} may be negative by its published bounds, which the {job.model} model cannot predict",
                hint="publish it with a lower bound of at least 0",
            )
        if job.model == "poisson" and label.kind.upper <= 0:
            raise QueryError(f"{job.label!r} is never above 0 by its published bounds")
    else:
        if not isinstance(label.kind, Categorical):
            raise QueryError(f"the {job.model} model predicts a category; {job.label!r} is a number", hint=_MODEL_HINT)
        classes = len(label.kind.keys)
        if job.model == "logistic" and classes != 2:
            raise QueryError(
                f"a logistic model predicts one of 2 categories; {job.label!r} has {classes}", hint="multinomial does"
            )
        if job.model == "multinomial" and classes < 3:
            raise QueryError(f"{job.label!r} has {classes} categories; multinomial takes 3 or more", hint="logistic")


def _check_options(job: Job) -> None:
    """Clusters and trees stand in the jobs that have them, and in no other."""
    if (job.clusters is not None) != (job.model == "kmeans"):
        raise QueryError("kmeans, and only it, says how many clusters there are", hint="clusters = 4")
    if (job.trees is not None) != (job.model == "boosting"):
        raise QueryError("boosting, and only it, says how many trees it grows", hint="trees = 20, depth = 3")
    if job.clusters is not None:
        check_clusters(job.clusters)
        if job.scored:
            raise QueryError("a clustering predicts nothing that could be compared", hint="its spread tells its worth")
    if (job.package is not None) != (job.model == "package"):
        raise QueryError("a package, and only it, is named", hint='model = "package", package = "tiny-net"')
    if job.package is not None:
        check_package(job.package)
        if job.scored:
            raise QueryError(
                "agents cannot evaluate the model of a package",
                hint="whoever has the package can, on data of their own",
            )
    if job.trees is not None:
        check_trees(job.trees)
        if not job.scored and job.rounds != job.trees.rounds:
            raise QueryError(f"{job.trees.count} such trees take {job.trees.rounds} rounds", hint="leave rounds out")
    if job.ridge and job.model in ("kmeans", "boosting"):
        raise QueryError(f"{job.model} has no ridge", hint="leave it out; boosting has smoothing")


def _check_split(job: Job) -> None:
    if len(job.split) > MAX_NAME or not job.split.isprintable() or not 0 <= job.held_out <= 0.9:
        raise QueryError(f"a split has a name of at most {MAX_NAME} printable characters, and holds out at most 0.9")
    if (job.split != "") != (job.held_out > 0):
        raise QueryError("a split needs a name and the share that it holds out", hint='split = "a", held_out = 0.2')
    if job.scored and (job.rounds != 1 or not all(math.isfinite(number) for number in job.scored)):
        raise QueryError("an evaluation takes one round, of a model whose numbers are finite")
    if len(job.scored) > MAX_SCORED:
        raise QueryError(f"models of up to {MAX_SCORED:,} numbers can be evaluated", hint="evaluate a smaller one")


def _check_evaluations(job: Job) -> None:
    if not 0 <= job.evaluate_every <= job.rounds:
        raise QueryError(
            f"evaluate_every must be from 1 to the job's {job.rounds:,} rounds, or left out",
            hint="evaluate_every = 5 evaluates the model after every fifth round, and after the last",
        )
    if job.evaluate_every and (job.scored or job.model in ("kmeans", "package")):
        what = "an evaluation" if job.scored else f"a model of {job.model}"
        raise QueryError(f"{what} is not evaluated by agents", hint="leave evaluate_every out")
    if not 0 <= job.patience <= MAX_ROUNDS or (job.patience and not job.evaluate_every):
        raise QueryError(
            "patience counts evaluations that are no better than the best, so it needs evaluate_every",
            hint="evaluate_every = 5, patience = 2",
        )


def _check_survival(job: Job, label: Column, dataset: Dataset) -> None:
    if job.model != "cox":
        if job.event or job.edges:
            raise QueryError("only the cox model has an event and a time grid", hint="leave event and times out")
        return
    event = _column(job.event, dataset) if job.event else None
    if event is None or not isinstance(event.kind, Categorical) or len(event.kind.keys) != 2:
        raise QueryError(
            "the cox model needs the column that says whether the event happened",
            hint='event = a column of 2 categories, the second one meaning "yes"',
        )
    if not 2 <= len(job.edges) <= MAX_EDGES or not all(math.isfinite(edge) for edge in job.edges):
        raise QueryError(
            f"the cox model needs a public time grid of 2 to {MAX_EDGES:,} numbers", hint="times = [0, 1, 2, ...]"
        )
    if any(high <= low for low, high in zip(job.edges, job.edges[1:], strict=False)):
        raise QueryError("the times of the grid do not ascend", hint="sort them")
    kind = dataset.numeric(label.name)
    if job.edges[0] > kind.lower or job.edges[-1] < kind.upper:
        raise QueryError(
            f"the time grid does not span the published bounds of {label.name!r}",
            hint=f"from {kind.lower:g} or below to {kind.upper:g} or above",
        )


def _check_selection(job: Job, selection: ir.Query, dataset: Dataset) -> None:
    """The selection must be what `make_job` makes: complete rows of exactly the columns the model reads."""
    names = job.columns
    if selection.aggregates != _outputs(names, dataset) or selection.keys or selection.rows_per_person is None:
        raise QueryError("the job selects other columns than its model reads", hint="make it with make_job")
    parts = selection.where.parts if isinstance(selection.where, ir.AllOf) else (selection.where,)
    for name in names:
        if dataset.column(name).nullable and ir.Not(ir.IsNull(name)) not in parts:
            raise QueryError(f"the job does not leave out rows without {name!r}", hint="make it with make_job")


def _column(name: str, dataset: Dataset) -> Column:
    if name and name == dataset.privacy_unit:
        raise QueryError(f"{name!r} names the person (the privacy unit): nothing can be learnt from it")
    return dataset.column(name)


_MODEL_HINT = "linear, poisson and cox predict numbers; logistic and multinomial categories"
