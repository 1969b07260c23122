"""How an analyst states a job, and how one is listed. Must not know: the network, how jobs run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Required, TypedDict

from protos.v1 import analyst_pb2, query_pb2
from queries import ir
from queries.errors import BudgetError, QueryError
from queries.schema import Dataset
from queries.sql import parse
from queries.subsampling import smallest_multiplier
from queries.training.descent import METHODS, OPTIMIZERS, Descent
from queries.training.encode import decode_job
from queries.training.job import Job, Term, make_job
from queries.training.options import SPLITS, Clusters, Package, Trees


class JobAsked(TypedDict, total=False):
    """What a job may say: `features` are columns or products like "age:sex"; `where` is a condition in SQL.

    "cox" needs `event`, the column that says whether it happened, and `times`, a public time grid. `ridge` is the L2
    penalty per person on columns scaled to -1..1; `spare_rounds` are paid beside `rounds` for rounds that fail.

    "package" is a model that stewards installed: `package` names it, `package_sha256` its wheel, `blocks` its numbers.

    `split` names a division of the rows that leaves the share `held_out` for `Session.evaluate`.

    `method` "sgd" or "average" trains by gradients, and needs `clip` and `learning_rate`, with "average" `local_steps`
    and `local_rate`; the noise is what the session's `epsilon` allows, or `noise_multiplier`. `rate` is the chance with
    which a person is in a round, `batch` what sums are divided by: by default `rate` times the public max_persons.

    "kmeans" needs `clusters`, how many there are, and no label; `seed` places the first centres. "boosting" needs
    `trees` and `depth`; see `queries.training.options.Trees` for `bins`, `splits`, `smoothing`, `learning_rate`.

    After each `evaluate_every` rounds, and the last, the model is evaluated by a round of its own, on the rows that
    `split` holds out where there is one; `patience` such evaluations in a row that are no better end the job.

    A round goes on without whoever has not sent `round_seconds` after it began, and the next asks them again.

    `institutions` alone are asked, by default all that serve the dataset; of these the share `fraction` in each round,
    drawn anew by the coordinator.
    """

    dataset: Required[str]
    label: str
    features: Required[Sequence[str]]
    where: str | ir.Predicate
    event: str
    times: Sequence[float]
    rounds: int
    spare_rounds: int
    ridge: float
    rows_per_person: int
    method: str
    optimizer: str
    rate: float
    noise_multiplier: float
    clip: float
    batch: float
    learning_rate: float
    momentum: float
    hidden: Sequence[int]
    image: Sequence[int]
    filters: Sequence[int]
    kernel: int
    pool: int
    seed: int
    local_steps: int
    local_rate: float
    proximal: float
    split: str
    held_out: float
    clusters: int
    trees: int
    depth: int
    bins: int
    splits: str
    smoothing: float
    institutions: Sequence[str]
    fraction: float
    package: str
    package_sha256: str
    blocks: Sequence[Sequence[float]]
    evaluate_every: int
    patience: int
    round_seconds: int


@dataclass(frozen=True, slots=True)
class JobListing:
    """One of the analyst's jobs. `state` is running, released or failed; `reason` says why it failed."""

    request_id: str
    state: str
    dataset: str
    question: str
    rounds: int
    rounds_asked: int
    issued_at: int
    expires_at: int
    reason: str


def job_of(model: str, dataset: Dataset, asked: JobAsked, epsilon: float | None = None) -> Job:
    """Return the job that these arguments state. Raise QueryError, UnknownName, LiteralError or BudgetError.

    `epsilon` is for training by gradients without a noise multiplier.
    """
    where = asked.get("where")
    if isinstance(where, str):
        where = parse(f"SELECT COUNT(*) FROM {dataset.name} WHERE {where}", {dataset.name: dataset}).where  # noqa: S608
    return make_job(
        dataset,
        model,
        _label(model, asked),
        parse_terms(asked["features"]),
        rounds=asked.get("rounds"),
        spare_rounds=asked.get("spare_rounds", 1),
        where=where,
        rows_per_person=asked.get("rows_per_person"),
        event=asked.get("event", ""),
        edges=tuple(float(time) for time in asked.get("times", ())),
        ridge=float(asked.get("ridge", 0.0)),
        descent=_descent(asked, dataset, epsilon) if "method" in asked else None,
        split=asked.get("split", ""),
        held_out=float(asked.get("held_out", 0.0)),
        clusters=_clusters(model, asked),
        trees=_trees(model, asked),
        institutions=tuple(asked.get("institutions", ())),
        fraction=float(asked.get("fraction", 0.0)),
        package=_package(asked),
        evaluate_every=asked.get("evaluate_every", 0),
        patience=asked.get("patience", 0),
        round_seconds=asked.get("round_seconds", 0),
    )


def _package(asked: JobAsked) -> Package | None:
    if "package" not in asked:
        return None
    for name in ("package_sha256", "blocks"):
        if name not in asked:
            raise QueryError(f"a package's model needs {name}", hint="whoever made the package says it")
    blocks = tuple((int(count), float(spread)) for count, spread in asked["blocks"])
    return Package(asked["package"], asked["package_sha256"].lower(), blocks)


def _descent(asked: JobAsked, dataset: Dataset, epsilon: float | None) -> Descent:
    method, optimizer = asked["method"], asked.get("optimizer", "sgd")
    if method not in METHODS or optimizer not in OPTIMIZERS:
        raise QueryError("the job asks for an unknown method or optimizer", hint=", ".join((*METHODS, *OPTIMIZERS)))
    for name in ("clip", "learning_rate"):
        if name not in asked:
            raise QueryError(f"training by gradients needs {name}", hint="clip = 1.0 and learning_rate = 0.5 to begin")
    rate = float(asked.get("rate", 1.0))
    if (epsilon is None) == ("noise_multiplier" not in asked):
        raise BudgetError("say what training may cost: either epsilon or noise_multiplier")
    multiplier = asked.get("noise_multiplier", 0.0)
    if epsilon is not None:
        rounds, every = asked.get("rounds", 100), asked.get("evaluate_every", 0)
        slots = rounds + asked.get("spare_rounds", 1) + (-(-rounds // every) if every > 0 else 0)
        multiplier = smallest_multiplier(epsilon, dataset.delta, rate=rate, rounds=slots)
    return Descent(
        method=next(known for known in METHODS if known == method),
        optimizer=next(known for known in OPTIMIZERS if known == optimizer),
        rate=rate,
        noise_multiplier=float(multiplier),
        clip=float(asked["clip"]),
        batch=float(asked.get("batch", max(1.0, rate * dataset.max_persons))),
        learning_rate=float(asked["learning_rate"]),
        momentum=float(asked.get("momentum", 0.9)),
        hidden=tuple(asked.get("hidden", ())),
        image=tuple(asked.get("image", ())),
        filters=tuple(asked.get("filters", ())),
        kernel=asked.get("kernel", 0),
        pool=asked.get("pool", 0),
        seed=asked.get("seed", 0),
        local_steps=asked.get("local_steps", 0),
        local_rate=float(asked.get("local_rate", 0.0)),
        proximal=float(asked.get("proximal", 0.0)),
    )


_OF_TREES = ("trees", "depth", "bins", "splits", "smoothing")


def _label(model: str, asked: JobAsked) -> str:
    if model != "kmeans" and "label" not in asked:
        raise QueryError("the job does not say what to predict", hint='label = "a column"; only kmeans has none')
    return asked.get("label", "")


def _clusters(model: str, asked: JobAsked) -> Clusters | None:
    if model != "kmeans":
        if "clusters" in asked:
            raise QueryError("only kmeans has clusters", hint='model = "kmeans"')
        return None
    if "clusters" not in asked:
        raise QueryError("kmeans needs to know how many clusters there are", hint="clusters = 4")
    return Clusters(asked["clusters"], asked.get("seed", 0))


def _trees(model: str, asked: JobAsked) -> Trees | None:
    given = [name for name in _OF_TREES if name in asked]
    if model != "boosting":
        if given:
            raise QueryError(f"only boosting has {given[0]}", hint='model = "boosting"')
        return None
    if "trees" not in asked or "depth" not in asked:
        raise QueryError("boosting needs to know how many trees it grows, and how deep", hint="trees = 30, depth = 3")
    splits = next((known for known in SPLITS if known == asked.get("splits", "random")), None)
    if splits is None:
        raise QueryError(f"there are no splits of kind {asked.get('splits', '')[:40]!r}", hint=" or ".join(SPLITS))
    return Trees(
        count=asked["trees"],
        depth=asked["depth"],
        bins=asked.get("bins", 16),
        splits=splits,
        learning_rate=float(asked.get("learning_rate", 0.3)),
        smoothing=float(asked.get("smoothing", 1.0)),
        seed=asked.get("seed", 0),
    )


def parse_terms(features: Sequence[str]) -> tuple[Term, ...]:
    """Return the terms that features name: "age", or "age:sex" for a product. Raise QueryError on an empty name."""
    terms = tuple(tuple(part.strip() for part in feature.split(":")) for feature in features)
    if not terms or not all(name for term in terms for name in term):
        raise QueryError("a model needs features", hint='for example features = ["age", "sex", "age:sex"]')
    return terms


def job_listing(status: analyst_pb2.JobStatus) -> JobListing:
    """Return a listed job as people read it. Raise QueryError where the coordinator sent something else."""
    try:
        signed = query_pb2.QueryRequest.FromString(status.request.payload)
    except Exception as error:  # protobuf's DecodeError has a different path in each of its back ends
        raise QueryError("the coordinator listed a job that cannot be read") from error
    job = decode_job(signed.job)
    return JobListing(
        request_id=status.request_id.hex(),
        state=status.state,
        dataset=signed.dataset,
        question=job.shape,
        rounds=status.rounds,
        rounds_asked=job.rounds,
        issued_at=signed.issued_at,
        expires_at=signed.expires_at,
        reason=status.failure.message,
    )
