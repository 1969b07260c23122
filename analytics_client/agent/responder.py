"""The agent's own judgement of an announced query, and its part in the round.

Everything the coordinator says is checked here again: the analyst's signature, the published description, the log's
proof, policy, budget, and the round's parameters. Plan and sensitivity are computed from the request, never taken from
the wire. Methods block (they sign, query, draw noise); `link` runs them in threads. Must not know: gRPC, files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from math import ceil

import numpy as np
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from analytics_client.agent import approvals, schedule
from analytics_client.agent import ledger_care as care
from analytics_client.agent.active import ActiveRound
from analytics_client.agent.announced import check_epoch, check_logged, check_shape, deny, included, question_of
from analytics_client.agent.journal import Journal
from analytics_client.agent.ledger import Ledger
from analytics_client.agent.noise import share
from analytics_client.agent.owed import Owed
from analytics_client.agent.served import Granted, Served
from analytics_client.agent.training import JobStep, charge_of, check_cohort, part_of, row_salt, step_of
from protos.v1 import agent_pb2
from queries.errors import (
    CohortiumError,
    DataError,
    LogError,
    PolicyDenied,
    QueryError,
    ServiceError,
)
from queries.noise import NoiseShape
from queries.policy import Decision, Policy, decide
from queries.training.plan import JobPlan
from trust.identity.activity import Activity
from trust.identity.membership import MembershipDocument
from trust.identity.requests import VerifiedRequest, verify_request
from trust.noise import layers
from trust.question import AnyPlan, facts_of, plan_of, shape_of
from trust.release import request_envelope_hash
from trust.secagg import AgentRound, Member, PairKeys, RoundParameters, parse_parameters
from trust.secagg.masks import Ring
from trust.secagg.packing import Lanes, pack
from trust.tlog.evidence import Shown
from trust.tlog.gossip import require_one_log
from trust.tlog.witness import Witness
from trust.transcript import frame

logger = structlog.get_logger("cohortium.agent")


class Responder:
    """Judges announcements one after the other and carries rounds to their end."""

    def __init__(
        self,
        *,
        me: str,
        identity_key: Ed25519PrivateKey,
        epoch_key: X25519PrivateKey,
        pair_keys: PairKeys,
        ledger: Ledger,
        granted: Callable[[], Granted],
        served: Mapping[str, Served],
        membership: MembershipDocument,
        witness: Witness,
        journal: Journal,
        owed: Owed,
        activities: Mapping[int, Sequence[Activity]],
        salt: bytes,
        work: Executor,
    ) -> None:
        self._me = me
        self._identity_key = identity_key
        self._epoch_key = epoch_key
        self._pair_keys = pair_keys
        self._ledger = ledger
        self._granted = granted
        self._served = served
        self._membership = membership
        self._members = {
            i.id: Member(i.id, i.organisation, i.identity_key, i.epoch_key) for i in membership.institutions
        }
        self._witness = witness
        self._journal = journal
        self._owed = owed
        self._activities = activities
        self._salt = salt
        self._work = work

    @property
    def serving(self) -> dict[str, bytes]:
        """Schema hash of every dataset that this agent answers for."""
        return {name: served.schema_hash for name, served in self._served.items()}

    def may_go_on(self, active: ActiveRound) -> bool:
        """Whether this membership still has the analyst of a round that was joined under an earlier one."""
        return active.analyst_key in self._membership.keys_in_use(active.analyst)

    def end_jobs_of_the_gone(self) -> None:
        """Give back what jobs hold whose analysts this membership does not have: no round of them can follow."""
        for entry in self._ledger.jobs():
            if not entry.reason and entry.analyst not in self._membership.identity_keys:
                self._ledger.end_job(entry.id, "its analyst is no member any more")

    # --- the announcement ----------------------------------------------------------------------------------------

    def answer(
        self, announce: agent_pb2.Announce, due: Mapping[bytes, bytes]
    ) -> tuple[agent_pb2.Answer, ActiveRound | None, LogError | None]:
        """Judge an announcement: return the signed answer, the round where it is a yes, and what is wrong with the log.

        `due` are the own decisions, by round, that its head has to show in the log.

        Nothing is reserved, and the round id is not used up, unless the answer is a yes; what is reserved then is
        durable before this returns.
        """
        decision = agent_pb2.Decision(institution=self._me)
        active: ActiveRound | None = None
        join = b""
        head: tuple[int, bytes] | None = None
        refusal: LogError | None = None

        def note(size: int, root: bytes) -> None:
            nonlocal head
            head = size, root  # made durable below, in one transaction with the reservation, before anything is sent

        line = ""
        try:
            try:
                parameters = parse_parameters(announce.parameters)
                decision.round_id, decision.request_id = parameters.round_id, parameters.request_id
            finally:
                line = self._advance(announce.head, note)  # in any case: the next announcement builds on this head
            self._check_own(announce.head, due)
            active, join = self._accept(announce, parameters, decision, head)
        except CohortiumError as error:
            deny(decision, error)
            refusal = error if isinstance(error, LogError) else None
            if head is not None:
                line = self._keep_head(head, line)
        decision.log_size, decision.log_root = self._witness.size, self._witness.root
        decision.own_size, decision.own_root = self._journal.head
        decision.epoch = self._membership.epoch
        encoded = decision.SerializeToString(deterministic=True)
        answer = agent_pb2.Answer(
            round_id=decision.round_id,
            decision=encoded,
            signature=self._identity_key.sign(frame("decision", encoded)),
            join=join,
        )
        self._record(answer, active)
        if line:
            answer.cosignature.size, answer.cosignature.line = self._witness.size, line
        return answer, active, refusal

    def _record(self, answer: agent_pb2.Answer, active: ActiveRound | None) -> None:
        """Make the signed decision an entry of the own log; where that fails, take a yes back and raise."""
        statement = agent_pb2.Answer(decision=answer.decision, signature=answer.signature)
        encoded = statement.SerializeToString(deterministic=True)
        if active is not None:
            active.statement = encoded
        try:
            self._journal.append(encoded)
        except ServiceError:
            if active is not None:
                self.end(active)
            raise

    def _keep_head(self, head: tuple[int, bytes], line: str) -> str:
        """Make a head durable after a refusal; return the cosignature, or "" where it could not be kept."""
        try:
            self._ledger.set_head(*head)
        except CohortiumError as error:
            logger.error("the log head could not be kept", reason=error.message, hint=error.hint)
            return ""
        return line

    def statements(self) -> list[tuple[int, agent_pb2.Statement]]:
        """Return, signed and by number, what this institution has to say in the log and is not known to be in it."""
        signed = []
        for said in care.unsent(self._ledger):
            content = agent_pb2.StatementContent(
                institution=self._me,
                number=said.number,
                at=said.at,
                about=said.about,
                text=said.text,
                subject=said.subject,
            ).SerializeToString(deterministic=True)
            signature = self._identity_key.sign(frame("statement", content))
            signed.append((said.number, agent_pb2.Statement(content=content, signature=signature)))
        return signed

    def stated(self, number: int) -> None:
        """A statement is in the log."""
        care.sent(self._ledger, number)

    def witness(self, head: agent_pb2.Head, due: Mapping[bytes, bytes]) -> agent_pb2.Cosignature:
        """Check that the log only grew, persist its head, then cosign it. `due` is as in `answer`.

        Raises LogError on a fork or rewind, and where the log does not hold this institution's word as it gave it.
        """
        line = self._advance(head, self._ledger.set_head)
        self._check_own(head, due)
        return agent_pb2.Cosignature(size=self._witness.size, line=line)

    def _advance(self, head: agent_pb2.Head, persist: Callable[[int, bytes], None]) -> str:
        return self._witness.advance(head.checkpoint, head.old_size, list(head.consistency), persist=persist)

    def _check_own(self, head: agent_pb2.Head, due: Mapping[bytes, bytes]) -> None:
        self._owed.check(
            head.recorded,
            due,
            institution=self._me,
            keys=lambda: self._membership.keys_of(self._me),
            size=self._witness.size,
            root=self._witness.root,
        )

    def _accept(
        self,
        announce: agent_pb2.Announce,
        parameters: RoundParameters,
        decision: agent_pb2.Decision,
        head: tuple[int, bytes] | None,
    ) -> tuple[ActiveRound, bytes]:
        verified = verify_request(
            announce.request.SerializeToString(deterministic=True),
            self._membership,
            self._membership.consortium,
            int(time.time()),
        )
        check_epoch(verified, self._membership)
        if parameters.request_id != verified.request_id:
            raise QueryError("the round was announced for another request than the one that came with it")
        if parameters.membership_hash != self._membership.hash:
            raise QueryError("the round was announced under another membership epoch", hint="ask again")
        entry = included(announce.inclusion, self._witness)
        if verified.seen is not None:
            seen = Shown(f"analyst {verified.analyst!r}", verified.seen.size, verified.seen.root, verified.seen_note)
            require_one_log(seen, self._witness.shown, list(announce.seen_consistency))
        served, plan = self._plan(verified)
        check_logged(entry, verified, shape_of(plan), self._activities)
        granted = self._granted()
        decision.policy_hash = granted.digest
        step = step_of(announce, plan, granted.models)
        check_cohort(plan, parameters.invited)
        if step is not None:
            self._ledger.end_expired_jobs()
            decision.slot, decision.model_hash = step.slot, step.model_hash
        part = part_of(plan, step)
        noise, lanes = check_shape(parameters, verified, part)
        core = AgentRound(
            announce.parameters,
            me=self._me,
            identity_key=self._identity_key,
            epoch_key=self._epoch_key,
            pair_keys=self._pair_keys,
            members=self._members,
            minimum_cohort=max(granted.policy.minimum_cohort, verified.minimum_cohort, self._membership.minimum_cohort),
            colluders=max(granted.policy.colluders, self._membership.colluders),
        )
        allowed = self._allow(granted.policy, verified, plan, parameters)
        charge = charge_of(verified, plan, step)
        question = question_of(verified, plan, allowed.rule)
        if allowed.approval:
            approvals.require(self._ledger, question, charge.id if charge.job is None else charge.job.id)
        join = core.join()  # nothing may fail between the reservation and the answer
        keys = core.layer_keys() if noise.layers else ()
        reservation = self._ledger.reserve(
            request_id=charge.id,
            digest=request_envelope_hash(verified.payload),
            dataset=verified.dataset,
            analyst=verified.analyst,
            charge=charge.curve,
            rho_nano=charge.rho_nano,
            job=charge.job,
            budgets=replace(granted.budgets.for_request(verified.dataset, verified.analyst), per_day=allowed.per_day),
            round_id=core.round_id,
            head=head,
            approval=question.id if allowed.approval else None,
        )
        decision.allowed, decision.rule = True, allowed.rule
        decision.rho_nano_before, decision.rho_nano_after = reservation.rho_nano_before, reservation.rho_nano_after
        decision.rho_nano_left, decision.rho_nano_left_all = reservation.left, reservation.left_all
        decision.budget_permille = ceil(reservation.used * 1000)
        salt = row_salt(self._salt, verified, plan)
        vector = self._work.submit(self._vector, _sums(served, part, step, salt), part, noise, lanes, keys)
        times = 1 if step is None else schedule.ROUND_STEPS
        asker = self._membership.person(verified.analyst)
        return ActiveRound(core, charge.id, vector, analyst=asker.id, analyst_key=asker.identity_key, times=times), join

    def _plan(self, verified: VerifiedRequest) -> tuple[Served, AnyPlan]:
        served = self._served.get(verified.dataset)
        if served is None:
            raise PolicyDenied(
                f"{self._me} does not serve dataset {verified.dataset!r}",
                rule="datasets",
                hint="its steward decides in agent.toml",
            )
        if served.schema_hash != verified.schema_hash:
            raise QueryError(f"the request was made for another description of {verified.dataset!r}", hint="ask again")
        return served, plan_of(verified, served.dataset)

    def _allow(self, policy: Policy, verified: VerifiedRequest, plan: AnyPlan, parameters: RoundParameters) -> Decision:
        """Return by which rule the request is allowed. Raises PolicyDenied."""
        facts = facts_of(verified, plan, minimum_cohort=parameters.minimum_cohort, colluders=parameters.colluders)
        decision = decide(policy, facts)
        if not decision.allowed:
            raise PolicyDenied(decision.message, rule=decision.rule, hint=decision.hint)
        return decision

    def _vector(
        self,
        ask: Callable[[], NDArray[np.int64]],
        plan: AnyPlan,
        noise: NoiseShape,
        lanes: Lanes,
        keys: Sequence[bytes],
    ) -> Ring:
        """Exact integer sums on the refined lattice, plus this agent's noise share, in lanes of ring elements.

        `keys` are those of the share's layers.
        """
        sums = ask()
        if np.abs(sums).max() > plan.largest_sum:  # the lanes rest on it
            raise DataError("a sum here is larger than the schema allows for", hint="compare max_persons with the data")
        sums = (sums << noise.refine_bits) + share(plan.length, noise.base_variance, noise.scale)
        return pack(sums + layers.draw(plan.length, noise, keys), lanes)

    # --- the round -----------------------------------------------------------------------------------------------

    def upload(self, active: ActiveRound) -> Iterator[bytes]:
        """Return the masked vector, with this agent's noise in it, chunk by chunk, after the charge is durable.

        Once the vector has left, enough others can open the sum without this agent: from here on it has been spent.
        """
        try:
            active.vector.exception()  # waits for it
            schedule.wait(active.since, steps=active.times)  # when it leaves says nothing about how long the data took
            vector = active.vector.result()
        except DataError as error:
            logger.error("the data could not answer", request=active.request_id.hex()[:12], reason=str(error))
            raise PolicyDenied("it cannot answer from its data now", rule="data") from error
        active.check()
        self._ledger.upload(active.request_id, active.id)
        active.sent = True
        return active.core.masked_chunks(vector)

    def reveal(self, active: ActiveRound, confirmations: bytes) -> bytes:
        """Return the REVEAL, after it is durable that this agent revealed."""
        active.check()
        message = active.core.on_confirmations(confirmations)
        self._ledger.reveal(active.request_id, active.id)
        return message

    def end_job(self, request_id: bytes) -> None:
        """A job is over: give back what its unused rounds hold. None of them can follow, whoever said so."""
        if self._ledger.end_job(request_id, "the coordinator ended it"):
            logger.info("job ended", request=request_id.hex()[:12])

    def end(self, active: ActiveRound) -> None:
        """Forget a round; what it reserved returns to the budget unless a vector was sent."""
        active.vector.cancel()
        active.core.close()
        if not active.sent:
            self._ledger.release(active.request_id, active.id)


def _sums(served: Served, plan: AnyPlan, step: JobStep | None, salt: bytes) -> Callable[[], NDArray[np.int64]]:
    """Return what computes the exact sums. `salt` is one for all rounds of a job: each reads the same rows."""
    if isinstance(plan, JobPlan):
        assert step is not None  # noqa: S101 - `step_of` sees to it
        return partial(step.sums, plan, served.source, salt)
    return partial(served.source.aggregate, plan, salt)
