"""Whether a request may be asked at all: by whom it is signed, of what, under which policy. Must not know: rounds."""

from __future__ import annotations

import time

from analytics_server.coordinator import records
from analytics_server.coordinator.asking import Checked, Tools
from queries.errors import IdentityError, PolicyDenied, QueryError
from queries.policy import decide
from queries.training.plan import JobPlan
from trust.identity.names import Peer
from trust.identity.requests import verify_request
from trust.question import facts_of, plan_of, shape_of


async def admit(envelope: bytes, peer: Peer, tools: Tools) -> Checked:
    """Everything that can be said without asking anyone. Raises the error that the analyst reads.

    What is not a well-formed request of a member leaves no trace; one that the coordinator's policy denies does.
    """
    membership = tools.directory.require_member(peer)
    verified = verify_request(envelope, membership, membership.consortium, int(time.time()))
    if verified.analyst != peer.id:
        raise IdentityError(
            f"the request is signed by {verified.analyst!r} but sent by {peer.id!r}",
            hint="submit with the profile that signed",
        )
    published = tools.directory.dataset(verified.dataset)
    if verified.schema_hash != published.schema_hash:
        raise QueryError(
            f"dataset {verified.dataset!r} has a newer description than the one this request was made for",
            hint="fetch it again (cohortium describe) and ask again",
        )
    plan = plan_of(verified, published.dataset)
    longest = tools.deadlines.longest
    if isinstance(plan, JobPlan) and plan.job.round_seconds > longest:
        raise QueryError(
            f"this coordinator waits for a round for at most {longest:,} s, and the job asks for"
            f" {plan.job.round_seconds:,}",
            hint=f"round_seconds = {longest}",
        )
    cohort = max(verified.minimum_cohort, membership.minimum_cohort)
    facts = facts_of(verified, plan, minimum_cohort=cohort, colluders=membership.colluders)
    decision = decide(tools.directory.coordinator_policy(), facts)
    if not decision.allowed:
        entries = [
            records.requested(verified, shape_of(plan), membership.activity(verified.purpose)),
            records.denied_here(verified, decision.rule),
        ]
        await tools.database.write(lambda uow: tools.log.append_in(uow, entries))
        raise PolicyDenied(decision.message, rule=f"coordinator: {decision.rule}", hint=decision.hint)
    return Checked(verified, envelope, plan)
