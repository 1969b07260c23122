"""An agent's part in training jobs: which round of which job it is asked for, what that costs, and its exact sum."""

from analytics_client.agent.training.packages import Installed
from analytics_client.agent.training.rounds import Charge, JobStep, charge_of, check_cohort, part_of, row_salt, step_of

__all__ = ["Charge", "Installed", "JobStep", "charge_of", "check_cohort", "part_of", "row_salt", "step_of"]
