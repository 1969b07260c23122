"""The analyst's side of a training job: what it would cost, its rounds verified one by one, and the model they give.

The model is computed here, from releases that were each found in the audit log; the coordinator's own computation is
only compared with it. Must not know: the network, files, how anything is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from analytics_client.gossip import verify_witnessed
from analytics_client.result import Cost
from analytics_client.verification import COORDINATOR, TELL, verify_release
from protos.v1 import analyst_pb2
from queries.accounting import NANO
from queries.errors import ConfigError, ProtocolViolation, QueryError, QuorumError
from queries.estimate import Z95
from queries.plan import NoiseShape
from queries.training import newton
from queries.training.course import make_course
from queries.training.design import Floats
from queries.training.evaluation import Evaluation, Metric, evaluate
from queries.training.gradients import Gradients
from queries.training.job import Descent, Job, Term
from queries.training.plan import JobPlan
from queries.training.statistics import Glm
from trust.identity.membership import MembershipDocument
from trust.lanes import lanes_of
from trust.question import model_hash
from trust.secagg import default_threshold

SMALLEST_COHORT = 3
ASSUMED_PERSONS = 10_000
_AGREE = 1e-6


@dataclass(frozen=True, slots=True)
class Round:
    """A verified round: whose data are in it, and where it is logged."""

    number: int
    slot: int
    survivors: tuple[str, ...]
    invited: int
    log_seq: int


@dataclass(frozen=True)
class VerifiedRounds:
    """A job's releases, in order, with the newest log head that covers them."""

    rounds: tuple[Round, ...]
    releases: tuple[newton.Released, ...]
    theta: Floats
    diverged: bool
    log_size: int
    log_root: bytes
    log_note: bytes


def verify_rounds(
    progresses: Sequence[analyst_pb2.Progress], *, request_id: bytes, plan: JobPlan, membership: MembershipDocument
) -> VerifiedRounds:
    """Return the job's rounds. Raise as `verify_release` for any, and ProtocolViolation where they are no sequence."""
    rounds: list[Round] = []
    releases: list[newton.Released] = []
    course, diverged = make_course(plan), False
    size, root, note, last_slot, last_seq = 0, b"", b"", -1, -1
    for number, progress in enumerate(progresses):
        verified = verify_release(
            progress, request_id=request_id, plan=plan, rho_nano=plan.rho_nano, membership=membership
        )
        release = verified.release
        verify_witnessed(
            progress,
            release.survivors,
            request_id=request_id,
            membership=membership,
            head=(verified.log_size, verified.log_root),
        )
        if diverged or not last_slot < release.slot < plan.slots or verified.log_seq <= last_seq:
            raise _violation("released rounds of a job out of their order")
        if release.model_hash:
            own = plan.encode_model(course.theta)
            if model_hash(own) != release.model_hash:
                raise _violation("asked a round of a job at another model than the releases before it give")
            release.model = own
        asked_at = plan.decode_model(release.model)
        if not np.allclose(asked_at, course.theta, rtol=_AGREE, atol=_AGREE):
            raise _violation("asked a round of a job at another model than the releases before it give")
        survivors = len(release.survivors)
        sums, deviation = plan.read(list(release.sums), verified.noise, survivors)
        releases.append(newton.Released(asked_at, sums, deviation, survivors))
        rounds.append(Round(number + 1, release.slot, tuple(release.survivors), release.invited, verified.log_seq))
        last_slot, last_seq = release.slot, verified.log_seq
        if verified.log_size > size:
            size, root, note = verified.log_size, verified.log_root, verified.log_note
        try:
            course.take(releases[-1])
        except QueryError:  # the model before it is the last good one; nothing may follow
            diverged = True
    return VerifiedRounds(tuple(rounds), tuple(releases), course.theta, diverged, size, root, note)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model: every number in it follows from releases that are in the audit log.

    `theta` are its numbers on the unit scale. `complete` is False where the job ended early: then the model is that of
    the rounds it had. `cost` is what those rounds cost, spare and unused ones not among them.
    """

    plan: JobPlan
    theta: Floats
    request_id: str
    cost: Cost
    rounds: tuple[Round, ...]
    complete: bool
    log_size: int

    @property
    def job(self) -> Job:
        """What was asked."""
        return self.plan.job

    @property
    def participants(self) -> tuple[str, ...]:
        """Every institution whose data are in some round, sorted."""
        return tuple(sorted({name for round_ in self.rounds for name in round_.survivors}))

    def predict(self, columns: Any) -> Any:
        """Return predictions for a mapping or frame of the model's columns, values as published.

        Shape (rows,) for numbers and log hazard ratios, (rows, classes) probabilities in the order of the published
        categories. Raise QueryError where a column is missing.
        """
        design = self.plan.statistic.design
        values = {}
        for name in {factor for term in self.job.terms for factor in term}:
            try:
                column = columns[name]
            except KeyError:
                raise QueryError(f"the model needs column {name!r} to predict") from None
            if name in design.categories:
                codes = {key: float(code) for code, key in enumerate(design.categories[name])}
                values[name] = np.array([codes.get(str(value), float("nan")) for value in column])
            else:
                values[name] = np.asarray(column, dtype=np.float64)
        x = design.matrix(values)
        statistic = self.plan.statistic
        return statistic.mean(x, self.theta) if isinstance(statistic, Glm | Gradients) else x @ self.theta

    def save(self, path: Path) -> None:
        """Write the weights as safetensors, with what they are in its metadata. Raise ConfigError without safetensors.

        A network's layers are `layer0.weight` (inputs, outputs), `layer0.bias` and so on; a regression has `theta`.
        """
        try:
            from safetensors.numpy import save_file
        except ImportError:
            raise ConfigError("writing weights needs safetensors", hint="pip install safetensors") from None
        statistic = self.plan.statistic
        tensors = {"theta": self.theta}
        if isinstance(statistic, Gradients) and statistic.network:
            tensors = {}
            for number, (weights, biases) in enumerate(statistic.parts(self.theta)):
                tensors[f"layer{number}.weight"] = np.ascontiguousarray(weights)
                tensors[f"layer{number}.bias"] = np.ascontiguousarray(biases)
        save_file(tensors, path, metadata={"cohortium": self.to_json(), "columns": ", ".join(statistic.design.names)})

    def to_dict(self) -> dict[str, Any]:
        """Return everything but a network's weights as plain values; `to_json` and `--json` print exactly this."""
        return {
            "dataset": self.job.dataset,
            "question": self.job.shape,
            "model": self.job.model,
            "complete": self.complete,
            "weights": len(self.theta),
            "cost": {"epsilon": self.cost.epsilon, "rho": self.cost.rho, "delta": self.cost.delta},
            "rounds": [
                {"number": r.number, "survivors": list(r.survivors), "invited": r.invited, "log_seq": r.log_seq}
                for r in self.rounds
            ],
            "request_id": self.request_id,
            "log_size": self.log_size,
        }

    def to_json(self) -> str:
        """Return `to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def card(self) -> str:
        """Return a model card in Markdown: what it is, on whose data, at which privacy cost, and where the proof is."""
        from analytics_client.model_card import card

        return card(self)

    def __str__(self) -> str:
        from analytics_client.render import model_table, to_text

        return to_text(model_table(self))


@dataclass(frozen=True, eq=False)
class GradientModel(Trained):
    """A model trained by gradients. What the noise did to it is not known; held-out rows tell what it is worth."""

    @property
    def values(self) -> dict[str, float]:
        """A regression's coefficients in the data's own units, without intervals; empty for a network."""
        statistic = self.plan.statistic
        if not isinstance(statistic, Gradients) or statistic.glm is None:
            return {}
        return newton.values_of(self.plan, self.theta)

    def to_dict(self) -> dict[str, Any]:
        """As `Trained.to_dict`, with a regression's coefficients."""
        return super().to_dict() | {"coefficients": [{"name": n, "value": v} for n, v in self.values.items()]}


@dataclass(frozen=True, eq=False)
class TrainedModel(Trained):
    """A regression by Newton steps, with intervals."""

    fit: newton.Fit

    @property
    def coefficients(self) -> tuple[newton.Coefficient, ...]:
        """The coefficients in the data's own units, each with its interval."""
        return self.fit.coefficients

    def coefficient(self, name: str) -> newton.Coefficient:
        """Return one by its name, as in `coefficients`. Raise KeyError where there is none."""
        for found in self.coefficients:
            if found.name == name:
                return found
        raise KeyError(f"no coefficient {name!r}; there are {', '.join(c.name for c in self.coefficients)}")

    def to_dict(self) -> dict[str, Any]:
        """As `Trained.to_dict`, with coefficients, deviances and the noisy count."""
        fit = self.fit
        return super().to_dict() | {
            "coefficients": [asdict(coefficient) for coefficient in self.coefficients],
            "converged": fit.converged,
            "count": fit.count,
            "deviance": fit.deviance,
            "null_deviance": fit.null_deviance,
            "log_likelihood": fit.log_likelihood,
        }

    def to_pandas(self) -> Any:
        """Return the coefficients as a frame indexed by name."""
        import pandas as pd

        return pd.DataFrame([asdict(coefficient) for coefficient in self.coefficients]).set_index("name")


@dataclass(frozen=True)
class JobExplanation:
    """What a job would disclose, cost and be worth if `institutions` were asked now."""

    plan: JobPlan
    noise: NoiseShape
    cost: Cost
    institutions: tuple[str, ...]
    threshold: int
    colluders: int

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation of the guaranteed noise in units of one person's largest contribution."""
        return sqrt(float(self.noise.central_variance) / 4.0**self.noise.refine_bits / self.plan.delta_squared)

    @property
    def bytes_per_round(self) -> int:
        """What each institution uploads a round."""
        lanes = lanes_of(self.plan, self.noise, len(self.institutions))
        return lanes.elements(self.plan.length) * lanes.ring_bits // 8

    def coefficient_error(self, persons: int = ASSUMED_PERSONS) -> float:
        """Return roughly what the noise alone adds to a coefficient: half a 95% interval, on the unit scale.

        A coefficient on the unit scale multiplies a column that runs from -1 to 1. Assumes values spread evenly over
        their bounds and balanced labels; a guess for planning, made of public numbers alone.
        """
        statistic = self.plan.statistic
        if self.plan.job.gradual is not None:
            return float("nan")
        unit = 2.0 ** (self.plan.scale_bits + self.noise.refine_bits)
        deviation = sqrt(float(self.noise.total_variance(len(self.institutions)))) / unit
        moments = statistic.moments(np.zeros(statistic.length), newton.initial(self.plan), deviation)
        curvature = {"logistic": 0.25, "multinomial": 0.2}.get(self.plan.job.model, 1.0) / 3
        kept = max(1, self.plan.job.rounds // 2)
        return Z95 * moments.deviations[0] / (persons * curvature) / sqrt(kept)

    @property
    def warning(self) -> str:
        """Say that so little can be learnt at this cost that the job is not worth it; "" where it may be."""
        how = self.plan.job.gradual
        if how is not None:
            return self._descent_warning(how)
        persons = min(ASSUMED_PERSONS, self.plan.dataset.max_persons)
        expected = self.coefficient_error(persons)
        if isfinite(expected) and expected < 2:
            return ""
        return (
            f"even {persons:,} persons would leave coefficients uncertain by"
            f" {expected:.2g} on a scale where 2 is much: spend more epsilon, or use fewer predictors or rounds"
        )

    def _descent_warning(self, how: Descent) -> str:
        ratio = self.noise_to_signal
        if ratio is None or ratio < 30:
            return ""
        return (
            f"the noise in a round is {ratio:.3g} times as long as the longest gradient that {how.batch:,.0f} persons"
            " can have together: spend more epsilon, take a larger batch, or a smaller model"
        )

    @property
    def noise_to_signal(self) -> float | None:
        """Length of a round's noise over that of the longest sum of `batch` persons; None for Newton steps."""
        how = self.plan.job.gradual
        if how is None:
            return None
        many = how.batch if how.method == "sgd" else len(self.institutions)
        total = self.noise.total_variance(len(self.institutions)) * self.plan.length
        return sqrt(float(total)) / 2.0**self.noise.refine_bits / self.plan.row_norm / many

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what people read: a label and a sentence each."""
        job = self.plan.job
        yield "trains", job.shape
        yield "rounds", f"{job.rounds}, and {job.spare_rounds} to spare for rounds that fail"
        yield (
            "releases",
            f"{self.plan.length:,} numbers a round; each institution uploads {self.bytes_per_round:,} bytes",
        )
        yield "noise", f"{self.noise_multiplier:.3g} times what one person can contribute, in each number of a round"
        ratio = self.noise_to_signal
        if ratio is not None:
            yield "expect", f"noise {ratio:.3g} times as long as the longest gradient a round can have"
        else:
            yield (
                "expect",
                (
                    f"± {self.coefficient_error():.2g} (95%) from the noise alone, for {ASSUMED_PERSONS:,} persons;"
                    " columns scaled to run from -1 to 1"
                ),
            )
        if self.warning:
            yield "warning", self.warning
        yield "costs", f"{self.cost} in all; rounds that are not used are given back"
        yield "asks", f"{len(self.institutions)} institutions: {', '.join(self.institutions)}"
        yield "needs", f"{self.threshold} of them to the end of each round"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "dataset": self.plan.dataset.name,
            "question": self.plan.job.shape,
            "rounds": self.plan.job.rounds,
            "spare_rounds": self.plan.job.spare_rounds,
            "length": self.plan.length,
            "bytes_per_round": self.bytes_per_round,
            "noise_multiplier": self.noise_multiplier,
            "coefficient_error": None if self.noise_to_signal is not None else self.coefficient_error(),
            "noise_to_signal": self.noise_to_signal,
            "warning": self.warning,
            "cost": {"epsilon": self.cost.epsilon, "rho": self.cost.rho, "delta": self.cost.delta},
            "institutions": list(self.institutions),
            "threshold": self.threshold,
            "colluders": self.colluders,
        }

    def __str__(self) -> str:
        from analytics_client.render import job_table, to_text

        return to_text(job_table(self))


def explain_job(plan: JobPlan, cost: Cost, *, institutions: tuple[str, ...], colluders: int) -> JobExplanation:
    """Return the explanation of a job. Raise QuorumError where too few institutions serve the dataset for any round."""
    if len(institutions) < SMALLEST_COHORT:
        raise QuorumError(
            f"only {len(institutions)} institutions serve {plan.dataset.name!r} now; a job needs {SMALLEST_COHORT}",
            hint="cohortium datasets shows who serves what",
        )
    threshold = default_threshold(len(institutions))
    noise = plan.noise(plan.rho_nano, threshold=threshold, colluders=colluders, invited=len(institutions))
    return JobExplanation(plan, noise, cost, institutions, threshold, colluders)


def parse_terms(features: Sequence[str]) -> tuple[Term, ...]:
    """Return the terms that features name: "age", or "age:sex" for a product. Raise QueryError on an empty name."""
    terms = tuple(tuple(part.strip() for part in feature.split(":")) for feature in features)
    if not terms or not all(name for term in terms for name in term):
        raise QueryError("a model needs features", hint='for example features = ["age", "sex", "age:sex"]')
    return terms


@dataclass(frozen=True)
class EvaluationResult:
    """What a model is worth on the rows it was evaluated on: verified, with intervals for those rows."""

    evaluation: Evaluation
    question: str
    dataset: str
    request_id: str
    cost: Cost
    survivors: tuple[str, ...]
    log_seq: int

    def __getitem__(self, name: str) -> Metric:
        return self.evaluation[name]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every measure with its interval."""
        return self.evaluation.metrics

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "dataset": self.dataset,
            "question": self.question,
            "metrics": {m.name: {"value": m.value, "low": m.low, "high": m.high} for m in self.metrics},
            "table": self.evaluation.table.tolist(),
            "count_error": self.evaluation.count_error,
            "calibration": [list(entry) for entry in self.evaluation.calibration],
            "cost": {"epsilon": self.cost.epsilon, "rho": self.cost.rho, "delta": self.cost.delta},
            "survivors": list(self.survivors),
            "request_id": self.request_id,
            "log_seq": self.log_seq,
        }

    def __str__(self) -> str:
        from analytics_client.render import evaluation_table, to_text

        return to_text(evaluation_table(self))


def evaluation_of(plan: JobPlan, verified: VerifiedRounds, request_id: bytes) -> EvaluationResult:
    """Return what an evaluation's round says. Raise QueryError where it has none."""
    if not verified.rounds:
        raise QueryError("the evaluation ended before its round")
    release, round_ = verified.releases[0], verified.rounds[0]
    return EvaluationResult(
        evaluation=evaluate(plan, release.sums, release.deviation),
        question=plan.job.shape,
        dataset=plan.job.dataset,
        request_id=request_id.hex(),
        cost=Cost(plan.round_rho_nano / NANO, plan.epsilon(1), plan.dataset.delta),
        survivors=round_.survivors,
        log_seq=round_.log_seq,
    )


def model_of(plan: JobPlan, verified: VerifiedRounds, request_id: bytes) -> Trained:
    """Return the model of a job's verified rounds. Raise QueryError where there is none, or no good one."""
    count = len(verified.rounds)
    if plan.job.scored:
        raise QueryError("this job evaluates a model and trains none", hint="session.evaluate returned what it says")
    releases = verified.releases[:-1] if verified.diverged else verified.releases
    if not releases:
        raise QueryError("the job ended before its first round gave a model: there is none")
    cost = Cost(count * plan.round_rho_nano / NANO, plan.epsilon(count), plan.dataset.delta)
    complete = count == plan.job.rounds and not verified.diverged
    named = request_id.hex()
    if plan.job.gradual is not None:
        return GradientModel(plan, verified.theta, named, cost, verified.rounds, complete, verified.log_size)
    fit = newton.fit(plan, releases)
    return TrainedModel(plan, fit.theta, named, cost, verified.rounds, complete, verified.log_size, fit)


def cost_of_job(plan: JobPlan) -> Cost:
    """Return what is set aside for a whole job."""
    return Cost(plan.rho_nano / NANO, plan.epsilon(), plan.dataset.delta)


def _violation(what: str) -> ProtocolViolation:
    return ProtocolViolation(f"the coordinator {what}", party=COORDINATOR, hint=TELL)
