"""What keeps a job, and who waits for it, from hanging: used slots, lost connections, requests that nobody runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.consortium import Consortium
from harness.data import needs_data
from harness.training import AWARDS, awards_at_five

from analytics_client.agent.ledger import Ledger
from analytics_client.session import Progress
from analytics_client.training import TrainedModel
from analytics_server.coordinator.asking import Checked
from analytics_server.coordinator.ends import failure_of
from analytics_server.coordinator.live import Live
from analytics_server.coordinator.requests import RequestDesk
from queries.errors import CohortiumError, QuorumError, RoundError
from trust.question import slot_id

pytestmark = needs_data


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with awards_at_five(tmp_path_factory.mktemp("recovery")) as running:
        yield running


def test_a_slot_that_one_institution_has_used_is_passed_over(
    built: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enough others would answer, but the job needs all five: to ask the same slot again would go on for ever."""
    reserve = Ledger.reserve

    def used(self: Ledger, **asked: object) -> object:
        job = asked["job"]
        if "hospital-a" in str(self._path) and job is not None and asked["request_id"] == slot_id(job.id, 0):  # type: ignore[attr-defined]
            raise RoundError("this request was already answered here")
        return reserve(self, **asked)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "reserve", used)
    with ThreadPoolExecutor(1) as pool, built.session() as session:
        training = pool.submit(
            lambda: session.train("poisson", rho=50.0, rounds=2, spare_rounds=1, minimum_cohort=5, **AWARDS)  # type: ignore[arg-type]
        )
        try:
            model = training.result(90)
        except TimeoutError:
            built.coordinator_object._desk.jobs.stop(  # type: ignore[union-attr] # or the pool would wait for ever
                next(iter(built.coordinator_object._desk.jobs._running)),
                None,
                steward=True,  # type: ignore[union-attr, arg-type]
            )
            raise
    assert [round_.slot for round_ in model.rounds] == [1, 2]
    assert model.complete


def test_progress_goes_on_after_a_restart_and_nothing_is_told_twice(built: Consortium) -> None:
    told: list[Progress] = []
    two = threading.Event()

    def tell(progress: Progress) -> None:
        told.append(progress)
        if progress.rounds >= 2:
            two.set()

    def train() -> TrainedModel | CohortiumError:
        try:
            with built.session() as session:
                found = session.train("poisson", rho=90.0, rounds=30, spare_rounds=5, on_progress=tell, **AWARDS)  # type: ignore[arg-type]
                assert isinstance(found, TrainedModel)
                return found
        except CohortiumError as error:
            return error

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train)
        assert two.wait(60)
        assert built.coordinator is not None
        built.coordinator.stop()
        built.start_coordinator()
        model = training.result(300)
    assert isinstance(model, TrainedModel), model
    rounds = [progress for progress in told if progress.step in ("round", "released")]
    assert [progress.rounds for progress in rounds] == list(range(1, 31))
    assert [progress.loss for progress in rounds[:-1]] == list(model.losses[:-1])


def test_whoever_waits_for_a_request_that_nobody_runs_is_told_its_end(
    built: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[bytes] = []

    async def lose(self: RequestDesk, checked: Checked, live: Live, enter: object) -> None:
        del enter
        await self._enter(checked)
        del self._live[checked.verified.request_id]
        ids.append(checked.verified.request_id)
        live.end(failure_of(checked.verified.request_id, QuorumError("lost")))

    monkeypatch.setattr(RequestDesk, "_run", lose)
    desk = built.coordinator_object._desk  # type: ignore[union-attr]
    with built.session() as session, ThreadPoolExecutor(1) as pool:
        with pytest.raises(QuorumError, match="lost"):
            session.query("SELECT COUNT(*) AS n FROM awards", rho=0.1)
        waiting = pool.submit(session._resume, ids[0])
        threading.Event().wait(0.3)
        assert not waiting.done()
        loop = built.coordinator._loop  # type: ignore[union-attr]
        assert asyncio.run_coroutine_threadsafe(desk.see_to_orphans(), loop).result(30) == 1
        assert waiting.result(30).step == "failed"
        assert asyncio.run_coroutine_threadsafe(desk.see_to_orphans(), loop).result(30) == 0
