"""A job on the wire: exactly one encoding each, as for queries; see `queries.encode`. Must not know: schemas."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from google.protobuf.message import DecodeError

from protos.v1 import training_pb2
from queries.encode import decode_query, encode_query
from queries.errors import QueryError
from queries.limits import MAX_FEATURES, MAX_JOB_BYTES
from queries.training.descent import MAX_LAYERS, METHODS, OPTIMIZERS, Descent
from queries.training.design import Floats
from queries.training.job import MAX_EDGES, MAX_FACTORS, MAX_TERMS, MODELS, Job
from queries.training.options import MAX_BLOCKS, MAX_INSTITUTIONS, SPLITS, Clusters, Package, Trees


def encode_job(job: Job) -> bytes:
    """Return the one encoding of a job. Raise QueryError where it has none or passes a cap."""
    try:
        message = training_pb2.TrainingJob(
            selection=encode_query(job.selection, most=MAX_FEATURES),
            model=job.model,
            label=job.label,
            terms=[training_pb2.TrainingJob.Term(columns=term) for term in job.terms],
            rounds=job.rounds,
            spare_rounds=job.spare_rounds,
            event=job.event,
            edges=job.edges,
            ridge=job.ridge,
            descent=None if job.descent is None else training_pb2.TrainingJob.Descent(**asdict(job.descent)),
            split=job.split,
            held_out=job.held_out,
            scored=job.scored,
            clusters=None if job.clusters is None else training_pb2.TrainingJob.Clusters(**asdict(job.clusters)),
            trees=None if job.trees is None else training_pb2.TrainingJob.Trees(**asdict(job.trees)),
            institutions=job.institutions,
            fraction=job.fraction,
            package=None if job.package is None else _put_package(job.package),
            evaluate_every=job.evaluate_every,
            patience=job.patience,
            round_seconds=job.round_seconds,
        )
        data: bytes = message.SerializeToString(deterministic=True)
    except (TypeError, ValueError) as error:
        raise QueryError("the job holds a value of the wrong type", hint="make it with make_job") from error
    if len(data) > MAX_JOB_BYTES:
        raise QueryError(f"the job is longer than {MAX_JOB_BYTES // 1024} KiB", hint="use fewer terms or times")
    return data


def decode_job(data: bytes) -> Job:
    """Return the job that these bytes encode. Raise QueryError, and nothing else, on any other bytes."""
    if len(data) > MAX_JOB_BYTES:
        raise QueryError(f"the job is longer than {MAX_JOB_BYTES // 1024} KiB", hint="use fewer terms or times")
    message = training_pb2.TrainingJob()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise QueryError("these bytes are not a training job", hint="make them with encode_job") from error
    if message.model not in MODELS:
        raise QueryError("the job asks for a model of an unknown kind", hint=f"known: {', '.join(MODELS)}")
    if len(message.terms) > MAX_TERMS or any(len(term.columns) > MAX_FACTORS for term in message.terms):
        raise QueryError(f"a model has at most {MAX_TERMS} terms of {MAX_FACTORS} columns")
    if len(message.edges) > MAX_EDGES:
        raise QueryError(f"a time grid has at most {MAX_EDGES:,} numbers")
    if len(message.institutions) > MAX_INSTITUTIONS:
        raise QueryError(f"a job names at most {MAX_INSTITUTIONS:,} institutions")
    job = Job(
        selection=decode_query(message.selection, most=MAX_FEATURES),
        model=message.model,
        label=message.label,
        terms=tuple(tuple(term.columns) for term in message.terms),
        rounds=message.rounds,
        spare_rounds=message.spare_rounds,
        event=message.event,
        edges=tuple(message.edges),
        ridge=message.ridge,
        descent=_descent(message.descent) if message.HasField("descent") else None,
        split=message.split,
        held_out=message.held_out,
        scored=tuple(message.scored),
        clusters=Clusters(message.clusters.count, message.clusters.seed) if message.HasField("clusters") else None,
        trees=_trees(message.trees) if message.HasField("trees") else None,
        institutions=tuple(message.institutions),
        fraction=message.fraction,
        package=_package(message.package) if message.HasField("package") else None,
        evaluate_every=message.evaluate_every,
        patience=message.patience,
        round_seconds=message.round_seconds,
    )
    if encode_job(job) != data:
        raise QueryError(
            "these bytes are not the one encoding of a job", hint="they hold fields that this version does not know"
        )
    return job


def _put_package(package: Package) -> training_pb2.TrainingJob.Package:
    blocks = [training_pb2.TrainingJob.Package.Block(count=count, spread=spread) for count, spread in package.blocks]
    return training_pb2.TrainingJob.Package(name=package.name, sha256=bytes.fromhex(package.sha256), blocks=blocks)


def _package(message: training_pb2.TrainingJob.Package) -> Package:
    if len(message.blocks) > MAX_BLOCKS:
        raise QueryError(f"a package's model has at most {MAX_BLOCKS:,} blocks")
    return Package(message.name, message.sha256.hex(), tuple((block.count, block.spread) for block in message.blocks))


def _trees(message: training_pb2.TrainingJob.Trees) -> Trees:
    splits = next((known for known in SPLITS if known == message.splits), None)
    if splits is None:
        raise QueryError("the job splits trees in an unknown way", hint=", ".join(SPLITS))
    return Trees(
        count=message.count,
        depth=message.depth,
        bins=message.bins,
        splits=splits,
        learning_rate=message.learning_rate,
        smoothing=message.smoothing,
        seed=message.seed,
    )


def _descent(message: training_pb2.TrainingJob.Descent) -> Descent:
    method = next((known for known in METHODS if known == message.method), None)
    optimizer = next((known for known in OPTIMIZERS if known == message.optimizer), None)
    if method is None or optimizer is None:
        raise QueryError("the job asks for an unknown method or optimizer", hint=", ".join((*METHODS, *OPTIMIZERS)))
    if len(message.hidden) + len(message.filters) > MAX_LAYERS or len(message.image) > 3:
        raise QueryError(f"a network has at most {MAX_LAYERS} layers before the last")
    return Descent(
        method=method,
        optimizer=optimizer,
        rate=message.rate,
        noise_multiplier=message.noise_multiplier,
        clip=message.clip,
        batch=message.batch,
        learning_rate=message.learning_rate,
        momentum=message.momentum,
        hidden=tuple(message.hidden),
        seed=message.seed,
        local_steps=message.local_steps,
        local_rate=message.local_rate,
        proximal=message.proximal,
        image=tuple(message.image),
        filters=tuple(message.filters),
        kernel=message.kernel,
        pool=message.pool,
    )


def encode_model(theta: Floats, *, single: bool = False) -> bytes:
    """Return a model's numbers as they travel: little-endian float64, or float32 where `single`."""
    return np.asarray(theta, dtype="<f4" if single else "<f8").tobytes()


def decode_model(data: bytes, width: int, *, single: bool = False) -> Floats:
    """Return the `width` numbers of a model. Raise QueryError for another length, or numbers that are none."""
    if len(data) != (4 if single else 8) * width:
        raise QueryError("the model has another size than the job's")
    theta = np.frombuffer(data, dtype="<f4" if single else "<f8").astype(np.float64)
    if not np.isfinite(theta).all():
        raise QueryError("the model holds something that is no number")
    return theta
