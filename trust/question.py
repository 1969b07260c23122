"""What a verified request asks: its plan, and what a policy may know of it. The same for the coordinator and an agent.

Everything is computed from the signed bytes and the published description. Must not know: ledgers, data, the network.
"""

from __future__ import annotations

from datetime import datetime

from queries.accounting import NANO, rho_to_epsilon
from queries.encode import decode_query
from queries.errors import QueryError
from queries.plan import Plan, make_plan
from queries.policy import RequestFacts
from queries.resolve import columns_used, operations_used
from queries.schema import Dataset
from trust.identity.requests import VerifiedRequest


def plan_of(verified: VerifiedRequest, dataset: Dataset) -> Plan:
    """Return the plan of a request made for this description. Raises QueryError and what `resolve` raises."""
    query = decode_query(verified.query)
    if query.dataset != verified.dataset:
        raise QueryError(f"the request names dataset {verified.dataset!r} but its query another one")
    return make_plan(query, dataset)


def facts_of(verified: VerifiedRequest, plan: Plan, *, minimum_cohort: int, colluders: int) -> RequestFacts:
    """Return what a policy judges, by this machine's clock; cohort and colluders are the round's, not the request's."""
    return RequestFacts(
        analyst=verified.analyst,
        roles=frozenset(verified.roles),
        purpose=verified.purpose,
        dataset=verified.dataset,
        columns=columns_used(plan.query),
        operations=operations_used(plan.query),
        rho_nano=verified.rho_nano,
        epsilon=rho_to_epsilon(verified.rho_nano / NANO, plan.dataset.delta),
        minimum_cohort=minimum_cohort,
        colluders=colluders,
        at=datetime.now().astimezone(),
    )
