"""What a verified request asks: its plan, and what a policy may know of it. The same for the coordinator and an agent.

Everything is computed from the signed bytes and the published description. Must not know: ledgers, data, the network.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from queries.accounting import NANO, rho_to_epsilon
from queries.encode import decode_query
from queries.errors import QueryError
from queries.plan import Plan, make_plan
from queries.policy import RequestFacts
from queries.resolve import columns_used, operations_used, shape
from queries.schema import Dataset
from queries.training.encode import decode_job
from queries.training.plan import JobPlan, make_job_plan
from trust.identity.requests import VerifiedRequest
from trust.transcript import digest, integer

AnyPlan: TypeAlias = Plan | JobPlan


def plan_of(verified: VerifiedRequest, dataset: Dataset) -> AnyPlan:
    """Return the plan of a request made for this description. Raises QueryError and what `resolve` raises."""
    if verified.job:
        job = decode_job(verified.job)
        _check_dataset(verified, job.dataset)
        return make_job_plan(job, dataset, verified.rho_nano)
    query = decode_query(verified.query)
    _check_dataset(verified, query.dataset)
    return make_plan(query, dataset)


def _check_dataset(verified: VerifiedRequest, named: str) -> None:
    if named != verified.dataset:
        raise QueryError(f"the request names dataset {verified.dataset!r} but its query another one")


def facts_of(verified: VerifiedRequest, plan: AnyPlan, *, minimum_cohort: int, colluders: int) -> RequestFacts:
    """Return what a policy judges, by this machine's clock; cohort and colluders are the round's, not the request's."""
    query = plan.selection.query if isinstance(plan, JobPlan) else plan.query
    return RequestFacts(
        analyst=verified.analyst,
        roles=frozenset(verified.roles),
        purpose=verified.purpose,
        dataset=verified.dataset,
        columns=columns_used(query),
        operations=_job_operations(plan) if isinstance(plan, JobPlan) else operations_used(query),
        rho_nano=verified.rho_nano,
        epsilon=plan.epsilon()
        if isinstance(plan, JobPlan)
        else rho_to_epsilon(verified.rho_nano / NANO, plan.dataset.delta),
        minimum_cohort=minimum_cohort,
        colluders=colluders,
        at=datetime.now().astimezone(),
    )


def _job_operations(plan: JobPlan) -> frozenset[str]:
    if plan.job.scored:
        return frozenset({"evaluate"})
    return frozenset({"train", "evaluate"} if plan.job.evaluations else {"train"})


def shape_of(plan: AnyPlan) -> str:
    """Return operations and columns in one line without any literal, for the log."""
    return plan.job.shape if isinstance(plan, JobPlan) else shape(plan.query)


def model_hash(model: bytes) -> bytes:
    """32 bytes that name the exact numbers of a model; decisions and the log's `released` entries carry them."""
    return digest("model", model)


def slot_id(request_id: bytes, slot: int) -> bytes:
    """32 bytes that name one paid round of a job, as an agent's ledger knows it."""
    return digest("job-slot", request_id, integer(slot))
