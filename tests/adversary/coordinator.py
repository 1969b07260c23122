"""What a malicious coordinator tries: to have one request answered more than once, and to compare the answers.

The coordinator of the town is real; what is changed is what a liar would change in its own copy of the code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from harness.consortium import Consortium

from adversary.analyst import Asked
from adversary.game import Evidence, pins_down
from adversary.town import TARGET_AGE
from analytics_client.session import Session
from analytics_client.verification import verify_release
from analytics_server.coordinator.hub import Hub
from analytics_server.store import RequestRow, UnitOfWork
from protos.v1 import analyst_pb2, envelope_pb2
from queries.accounting import NANO
from queries.encode import encode_query
from queries.errors import ServiceError, SignatureError
from queries.estimate import estimate
from queries.plan import make_plan
from queries.sql import parse
from trust.identity.requests import build_request


def _unless_known(original: Callable[..., None], refusal: type[Exception]) -> Callable[..., None]:
    """Have the store keep the first word on a request, and take every later one without a complaint."""

    def lenient(*args: Any, **row: Any) -> None:
        with suppress(refusal):
            original(*args, **row)

    return lenient


class Liar:
    """Runs signed requests again, with whom it likes."""

    def __init__(self, running: Consortium, patch: pytest.MonkeyPatch) -> None:
        self._running = running
        self._without: frozenset[str] = frozenset()
        original = Hub.serving

        def serving(hub: Hub, dataset: str, schema_hash: bytes, among: Any) -> tuple[str, ...]:
            return tuple(i for i in original(hub, dataset, schema_hash, among) if i not in self._without)

        patch.setattr(Hub, "serving", serving)
        # It forgets what it has answered, so that the same signed request begins a new round and runs until it ends.
        known = UnitOfWork.request
        patch.setattr(UnitOfWork, "add_request", _unless_known(UnitOfWork.add_request, SignatureError))
        patch.setattr(UnitOfWork, "finish_request", _unless_known(UnitOfWork.finish_request, ServiceError))
        patch.setattr(UnitOfWork, "check_runs", lambda *_a, **_k: None)

        def running_still(uow: UnitOfWork, request_id: bytes) -> RequestRow | None:
            row = known(uow, request_id)
            return row and replace(row, state="running", release=None, failure=None)

        patch.setattr(UnitOfWork, "request", running_still)

    @contextmanager
    def without(self, *institutions: str) -> Iterator[None]:
        """Leave institutions out of the rounds that begin now."""
        self._without = frozenset(institutions)
        try:
            yield
        finally:
            self._without = frozenset()


class Signed:
    """A request that an honest analyst has signed once, and that the coordinator holds."""

    def __init__(self, session: Session, sql: str, rho: float) -> None:
        dataset = session.describe(sql.split(" FROM ")[1].split(maxsplit=1)[0])
        listing = next(each for each in session.datasets() if each.dataset.name == dataset.name)
        self.session = session
        self.plan = make_plan(parse(sql, {dataset.name: dataset}), dataset)
        self.rho_nano = int(rho * NANO)
        self.request_id, self.envelope = build_request(
            key=session._key,
            consortium=session.profile.consortium,
            analyst=session.profile.id,
            purpose="exploration",
            dataset=dataset.name,
            schema_hash=listing.schema_hash,
            query=encode_query(self.plan.query),
            rho_nano=self.rho_nano,
            minimum_cohort=3,
            now=int(time.time()),
        )

    def run(self) -> Asked | str:
        """Have it answered; return the noisy number, or the code of the failure."""
        request = analyst_pb2.SubmitRequest(request=envelope_pb2.Envelope.FromString(self.envelope), steps=False)
        *_, last = self.session._stub.Submit(request, timeout=60)
        if last.step != "released":
            return str(last.failure.code)
        verified = verify_release(
            last, request_id=self.request_id, plan=self.plan, rho_nano=self.rho_nano, membership=self.session.membership
        )
        table = estimate(self.plan, list(verified.release.sums), verified.noise, len(verified.release.survivors))
        return Asked(float(table.outputs[0].value[0]), float(table.outputs[0].standard_error[0]))


def replay_and_average(session: Session, world: str, rho: float, times: int) -> tuple[Evidence, int]:
    """Announce one signed request `times` times and average what comes. Return how many answers were fresh."""
    signed = Signed(session, f"SELECT COUNT(*) AS x FROM {world} WHERE age = {TARGET_AGE}", rho)
    answers = [a for a in (signed.run() for _ in range(times)) if isinstance(a, Asked)]
    return _averaged(answers)


def _averaged(answers: list[Asked]) -> tuple[Evidence, int]:
    if not answers:
        return Evidence(guess=False), 0
    mean = sum(a.value for a in answers) / len(answers)
    error = answers[0].error / len(answers) ** 0.5
    return Evidence(mean > 0.5, rows_recovered=int(pins_down(error, 1.0))), len(answers)


def two_sets_of_survivors(liar: Liar, session: Session, world: str, rho: float, hospital: str) -> tuple[Evidence, int]:
    """Run one request with and without one hospital: the difference would be that hospital's own sum."""
    signed = Signed(session, f"SELECT COUNT(*) AS x FROM {world} WHERE age = {TARGET_AGE}", rho)
    first = signed.run()
    with liar.without(hospital):
        second = signed.run()
    both = [a for a in (first, second) if isinstance(a, Asked)]
    if len(both) == 2:
        error = (both[0].error ** 2 + both[1].error ** 2) ** 0.5
        return Evidence(both[0].value - both[1].value > 0.5, rows_recovered=int(pins_down(error, 1.0))), 2
    return _averaged(both)
