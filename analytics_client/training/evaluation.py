"""What an evaluation said of a model, verified. Must not know: the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analytics_client.result import Cost
from analytics_client.training.rounds import VerifiedRounds
from queries.accounting import NANO
from queries.errors import QueryError
from queries.training.evaluation import Evaluation, Metric, evaluate
from queries.training.plan import JobPlan

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the calibration and return matplotlib's axes: see `model_plots.plot_calibration`."""
        from analytics_client.model_plots import plot_calibration

        return plot_calibration(self, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "dataset": self.dataset,
            "question": self.question,
            "metrics": self.evaluation.to_dict(),
            "table": self.evaluation.table.tolist(),
            "count_error": self.evaluation.count_error,
            "calibration": [list(entry) for entry in self.evaluation.calibration],
            "cost": {"epsilon": self.cost.epsilon, "rho": self.cost.rho, "delta": self.cost.delta},
            "survivors": list(self.survivors),
            "request_id": self.request_id,
            "log_seq": self.log_seq,
        }

    def __str__(self) -> str:
        from analytics_client.render import to_text
        from analytics_client.render_models import evaluation_table

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
