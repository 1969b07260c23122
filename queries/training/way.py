"""The way of a job: which of its paid rounds comes next, at which model, and whether one ends it.

A function of the releases, which are public: the coordinator goes it, and the analyst holds it to it. Must not know:
data, keys, why a round failed.
"""

from __future__ import annotations

from copy import copy

from queries.errors import QuorumError
from queries.training.course import make_course
from queries.training.design import Floats
from queries.training.evaluation import Patience
from queries.training.newton import Released
from queries.training.plan import JobPlan


class Way:
    """A job under way. Slots before `JobPlan.trains` train, the later ones evaluate what training has reached."""

    def __init__(self, plan: JobPlan) -> None:
        self._plan = plan
        self._course = make_course(plan)
        self._patience = Patience(plan)
        self._next, self._next_evaluation = 0, plan.trains
        self.trained = 0
        """How many rounds of training were released."""
        self.over = False
        """Whether the stopping rule has ended the job."""

    @property
    def theta(self) -> Floats:
        """The model that the next round is asked at."""
        return self._course.theta

    @property
    def slot(self) -> int | None:
        """The round to ask next, None at the end. Raise QuorumError where all paid rounds of training are used up."""
        if self.over:
            return None
        for slot in range(self._next_evaluation, self._plan.slots):
            after = self._plan.evaluated_after(slot)
            if after == self.trained:
                return slot
            if after > self.trained:
                break
        if self.trained == self._plan.job.rounds:
            return None
        if self._next >= self._plan.trains:
            raise QuorumError(
                "the job has used all rounds it paid for",
                hint="cohortium model shows what it had reached; a new job may keep more rounds to spare",
            )
        return self._next

    def expects(self, slot: int) -> bool:
        """Whether a release of this slot may come next: rounds before it may have failed."""
        if self.over or slot >= self._plan.slots:
            return False
        if slot >= self._plan.trains:
            return slot >= self._next_evaluation and self._plan.evaluated_after(slot) == self.trained
        return slot >= self._next and self.trained < self._plan.job.rounds

    def ends_with(self, slot: int, release: Released) -> bool:
        """Whether nothing follows on this release, which comes next."""
        if slot >= self._plan.trains:
            return slot == self._plan.slots - 1 or copy(self._patience).take(release.sums)
        return self.trained + 1 == self._plan.job.rounds and self._plan.evaluation is None

    def skip(self, slot: int) -> None:
        """A round has failed and its slot is used up. An evaluation is not repeated; training goes on without it."""
        if slot >= self._plan.trains:
            self._next_evaluation = slot + 1
        else:
            self._next = slot + 1

    def take(self, slot: int, release: Released) -> None:
        """Go on by one release. Raise QueryError where training diverged; `theta` is then the last good model."""
        self.skip(slot)
        if slot >= self._plan.trains:
            self.over = self._patience.take(release.sums)
        else:
            self.trained += 1
            self._course.take(release)
