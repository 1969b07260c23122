"""The analyst's side of a training job: what it would cost, its rounds verified one by one, and the model they give.

Everything is computed here from releases that were each found in the audit log. Must not know: the network, files, how
anything is shown.
"""

from analytics_client.training.evaluation import EvaluationResult, evaluation_of
from analytics_client.training.explain import JobExplanation, cost_of_job, explain_job
from analytics_client.training.models import ClusterModel, GradientModel, Trained, TrainedModel, TreeModel, model_of
from analytics_client.training.rounds import EvaluatedRound, Round, VerifiedRounds, verify_rounds

__all__ = [
    "ClusterModel",
    "EvaluatedRound",
    "EvaluationResult",
    "GradientModel",
    "JobExplanation",
    "Round",
    "Trained",
    "TrainedModel",
    "TreeModel",
    "VerifiedRounds",
    "cost_of_job",
    "evaluation_of",
    "explain_job",
    "model_of",
    "verify_rounds",
]
