"""One round of a job, as an agent takes it: checked against the plan, charged to the job's hold, summed exactly.

Whoever chooses the model that a round is asked at may choose it as he likes: privacy holds for every model, because a
row's vector is bounded for every model (`queries.training.statistics`). So an agent checks its form and nothing else.
Must not know: the network, noise, how the ledger stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from analytics_client.agent.ledger_jobs import JobHold
from analytics_client.agent.sources import Source
from analytics_client.agent.training import descent
from analytics_client.agent.training.packages import Installed
from protos.v1 import agent_pb2
from queries.accounting import Curve
from queries.errors import QueryError
from queries.training.design import Floats
from queries.training.gradients import Gradients
from queries.training.plan import JobPlan
from trust.identity.requests import VerifiedRequest
from trust.question import AnyPlan, model_hash, slot_id
from trust.release import request_envelope_hash
from trust.transcript import derive


@dataclass(frozen=True, slots=True)
class JobStep:
    """A round of a job: which of its paid rounds, and the model it is asked at."""

    slot: int
    theta: Floats
    model_hash: bytes
    gradients: descent.LocalGradients | None = None

    def sums(self, plan: JobPlan, source: Source, salt: bytes) -> NDArray[np.int64]:
        """Return the exact sum of this institution's rows at the model, `plan` being the step's (`part_of`).

        `salt` as for `Source.rows`, see `row_salt`.
        """
        rows = source.rows(plan.selection, salt)
        if plan.job.split:
            rows = _part(rows, plan, salt)
        if plan.job.gradual is None:
            return plan.sums(rows, self.theta)
        if plan.evaluates:
            return descent.scores(plan, plan.job.gradual.rate, rows, self.theta)
        return descent.sums(plan, rows, self.theta, self.gradients)


@dataclass(frozen=True, slots=True)
class Charge:
    """What a round costs, and under which id the ledger knows it."""

    id: bytes
    curve: Curve
    rho_nano: int
    job: JobHold | None


def step_of(announce: agent_pb2.Announce, plan: AnyPlan, installed: tuple[Installed, ...] = ()) -> JobStep | None:
    """Return the announced round of a job, None for a query. Raise QueryError where announcement and plan disagree.

    `installed` are the packages whose models may run here; raise PolicyDenied for another one.
    """
    if announce.HasField("job") != isinstance(plan, JobPlan):
        raise QueryError("the announcement does not say which round of the job it is")
    if not isinstance(plan, JobPlan):
        return None
    if announce.job.slot >= plan.slots:
        raise QueryError(f"the job paid for {plan.slots} rounds, and this is another one")
    statistic, gradients = plan.statistic, None
    if isinstance(statistic, Gradients):
        gradients = descent.local_gradients(statistic, installed)  # refuses now what could not be computed later
    theta = plan.decode_model(announce.job.model)
    name = model_hash(announce.job.model)
    if announce.job.model_hash not in (b"", name):
        raise QueryError("the model that came in pieces is not the announced one")
    return JobStep(announce.job.slot, theta, name, gradients)


def part_of(plan: AnyPlan, step: JobStep | None) -> AnyPlan:
    """Return what is asked now: of a job what the round's slot says, else the plan itself."""
    return plan.of_slot(step.slot) if step is not None and isinstance(plan, JobPlan) else plan


def check_cohort(plan: AnyPlan, invited: tuple[str, ...]) -> None:
    """Raise QueryError where a round asks an institution that its job does not name."""
    if isinstance(plan, JobPlan) and plan.job.institutions and not set(invited) <= set(plan.job.institutions):
        raise QueryError("the round asks institutions that the job does not name")


def charge_of(verified: VerifiedRequest, plan: AnyPlan, step: JobStep | None) -> Charge:
    """Return what is to be charged: a query's whole cost, or one round out of what its job holds."""
    if step is None or not isinstance(plan, JobPlan):
        return Charge(
            verified.request_id, Curve.of_statistic(verified.rho_nano, plan.dataset.delta), verified.rho_nano, None
        )
    hold = JobHold(
        id=verified.request_id,
        digest=request_envelope_hash(verified.payload),
        slots=plan.slots,
        charge=plan.cost,
        rho_nano=verified.rho_nano,
        expires_at=verified.expires_at,
    )
    return Charge(slot_id(verified.request_id, step.slot), plan.round_cost, verified.rho_nano // plan.slots, hold)


def row_salt(secret: bytes, verified: VerifiedRequest, plan: AnyPlan) -> bytes:
    """Return what decides which rows of a person are kept: one salt a request, and one for all jobs of a split.

    So a person whose row a model was trained on is never met again, with another row, when it is evaluated.
    """
    if isinstance(plan, JobPlan) and plan.job.split:
        return derive(secret, "split", verified.dataset.encode(), plan.job.split.encode())
    return derive(secret, "row-selection", verified.request_id)


def _part(rows: dict[str, Floats], plan: JobPlan, salt: bytes) -> dict[str, Floats]:
    """Return the rows that training sees, or those held out: by a keyed hash of the person's row, the same every time.

    A person has one row in a split, so this divides persons; persons with equal rows stay together.
    """
    table = np.ascontiguousarray(np.stack([rows[name] for name in sorted(rows)], axis=1), dtype="<f8")
    limit = int(plan.job.held_out * 2.0**64)
    held = np.fromiter(
        (int.from_bytes(blake2b(row.tobytes(), key=salt, digest_size=8).digest()) < limit for row in table),
        dtype=np.bool_,
        count=len(table),
    )
    chosen = held if plan.job.scored or plan.evaluates else ~held
    return {name: column[chosen] for name, column in rows.items()}
