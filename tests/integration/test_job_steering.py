"""Whom a job asks, who may leave it, and what it waits for: over real gRPC, ledgers and stores."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness.consortium import Consortium
from harness.data import needs_data
from harness.training import AWARDS, FIVE, awards_at_five
from typer.testing import CliRunner

from analytics_client.agent.cli import app as agent_app
from analytics_client.agent.ledger import Ledger
from analytics_client.agent.responder import Responder
from analytics_client.session import Progress
from analytics_client.training import Trained
from analytics_server.coordinator import asking
from analytics_server.coordinator.asking import drawn
from analytics_server.store import Store
from queries.errors import CohortiumError, ConfigError, PolicyDenied, QueryError, QuorumError
from trust.tlog.entries import decode

pytestmark = needs_data


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with awards_at_five(tmp_path_factory.mktemp("steered")) as running:
        yield running


class Training:
    """A job that is trained in a thread of its own, and what it told."""

    def __init__(self, built: Consortium, on_round: Callable[[int], None], **asked: object) -> None:
        self.told: list[Progress] = []
        self.waiting = threading.Event()
        self.end: Trained | CohortiumError | None = None
        self._built, self._asked, self._on_round = built, asked, on_round
        self._thread = threading.Thread(target=self._train)
        self._thread.start()

    def _train(self) -> None:
        try:
            with self._built.session() as session:
                self.end = session.train("poisson", on_progress=self._tell, **(AWARDS | self._asked))  # type: ignore[arg-type]
        except CohortiumError as error:
            self.end = error

    def _tell(self, progress: Progress) -> None:
        self.told.append(progress)
        if progress.step == "waiting":
            self.waiting.set()
        if progress.step == "round":
            self._on_round(progress.rounds)

    def result(self) -> Trained | CohortiumError | None:
        self._thread.join(120)
        assert not self._thread.is_alive()
        return self.end


def running_job(built: Consortium) -> str:
    with built.session() as session:
        return next(job.request_id for job in session.jobs() if job.state == "running")


@contextmanager
def book(built: Consortium, institution: str) -> Iterator[Ledger]:
    with Ledger.read(built.folder / institution / "ledger.sqlite") as ledger:
        yield ledger


def test_only_the_named_institutions_are_asked(built: Consortium) -> None:
    named = ["hospital-d", "hospital-a", "hospital-c"]
    with built.session() as session:
        explained = session.explain_job("poisson", rho=5.0, institutions=named, **AWARDS)
        model = session.train("poisson", rho=5.0, rounds=3, institutions=named, **AWARDS)
        with pytest.raises(QuorumError, match="of those that the job names"):
            session.explain_job("poisson", rho=5.0, institutions=named[:2], **AWARDS)
    assert explained.institutions == tuple(sorted(named))
    assert {round_.invited for round_ in model.rounds} == {3}
    assert model.participants == tuple(sorted(named))
    with book(built, "hospital-b") as ledger:
        assert model.request_id not in {job.id.hex() for job in ledger.jobs()}


def test_agents_answer_no_round_that_asks_another(built: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "JobPlan", type("Nothing", (), {}))  # this coordinator asks whom it likes
    with book(built, "hospital-a") as ledger:
        before = ledger.jobs()
    with built.session() as session, pytest.raises(QueryError, match="institutions that the job does not name"):
        session.train("poisson", rho=5.0, rounds=3, institutions=FIVE[:4], **AWARDS)
    with book(built, "hospital-a") as ledger:
        assert ledger.jobs() == before


def test_a_fraction_is_drawn_anew_every_round(built: Consortium) -> None:
    with built.session() as session:
        explained = session.explain_job("poisson", rho=5.0, fraction=0.6, **AWARDS)
        model = session.train("poisson", rho=5.0, rounds=20, fraction=0.6, **AWARDS)
    assert explained.asked == 3
    assert "3 of them in each round" in " ".join(str(explained).split())
    assert {round_.invited for round_ in model.rounds} == {3}
    # 20 draws of 3 of 5: all alike, or one institution never among them, has probability below 6 * 0.4^20 < 10^-6.
    assert len({round_.survivors for round_ in model.rounds}) > 1
    assert model.participants == FIVE


def test_draws_keep_enough_organisations() -> None:
    who = {f"i{number}": f"o{number // 3}" for number in range(9)}
    serving = tuple(sorted(who))
    for _ in range(50):
        chosen = drawn(serving, who, 1 / 3, 3)
        assert len({who[name] for name in chosen}) == 3
        assert chosen == tuple(sorted(chosen))
        assert len(drawn(serving, who, 2 / 3, 1)) == 6
    assert drawn(serving, who, 0.0, 3) == drawn(serving, who, 1.0, 3) == serving


def test_a_steward_leaves_a_job_and_the_others_go_on(built: Consortium) -> None:
    stopped: list[str] = []

    def leave(rounds: int) -> None:
        if rounds == 2 and not stopped:
            stopped.append(running_job(built))
            folder = str(built.folder / "hospital-e")
            listed = CliRunner().invoke(agent_app, ["jobs", folder])
            assert f"{stopped[0][:12]}  ada on awards" in listed.output
            told = CliRunner().invoke(agent_app, ["stop", folder, stopped[0][:8], "--reason", "not our question"])
            assert told.exit_code == 0, told.output
            assert "of ada, after" in told.output

    ended = Training(built, leave, rho=60.0, rounds=12, spare_rounds=0).result()
    assert isinstance(ended, Trained)
    assert ended.complete
    last = ended.rounds[-1]
    assert last.survivors == FIVE[:4]
    taken = sum("hospital-e" in round_.survivors for round_ in ended.rounds)
    with book(built, "hospital-e") as ledger:
        job = next(job for job in ledger.jobs() if job.id.hex() == stopped[0])
        assert job.reason == "stopped by a steward: not our question"
        assert taken <= job.used <= taken + 1  # its vector of the round in hand may have left, and not be counted
        listed = CliRunner().invoke(agent_app, ["jobs", str(built.folder / "hospital-e"), "--json"])
        assert json.loads(listed.output)[0].keys() >= {"id", "reason", "used", "slots"}
        with pytest.raises(ConfigError, match="no running job"):
            ledger.stop_job(stopped[0], "again")
    assert f"job {stopped[0][:12]} of ada on awards was stopped by a steward: not our question" in statements(built)


def statements(built: Consortium) -> list[str]:
    store = Store.open(built.config.store_url)
    try:
        with store.read() as uow:
            entries = [decode(row.leaf) for row in uow.leaves(0, 100_000)]
    finally:
        store.close()
    return [entry.stated.text for entry in entries if entry.WhichOneof("event") == "stated"]


def test_too_many_leave_and_the_analyst_is_told_why(built: Consortium) -> None:
    done = threading.Event()

    def leave(rounds: int) -> None:
        if rounds >= 1 and not done.is_set():
            done.set()
            for institution in FIVE[:2]:  # of 5, 4 are needed
                with book(built, institution) as ledger:
                    ledger.stop_job(running_job(built)[:10], "enough")

    ended = Training(built, leave, rho=60.0, rounds=400, spare_rounds=0).result()
    assert isinstance(ended, PolicyDenied)
    assert "stopped by a steward: enough" in ended.message
    assert ended.rule == "stopped"


def test_who_is_late_is_left_out_and_asked_again(built: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vector of one institution waits until rounds have gone on without it."""
    quick, seen, vector = threading.Event(), [0], Responder._vector

    def slow(self: Responder, *asked: Any) -> Any:
        if self._me == "hospital-e" and not quick.is_set():
            quick.wait(120)
        return vector(self, *asked)

    def count(rounds: int) -> None:
        seen[0] = rounds
        if rounds == 2:
            quick.set()

    monkeypatch.setattr(Responder, "_vector", slow)
    try:
        training = Training(built, count, rho=60.0, rounds=8, spare_rounds=20, round_seconds=5)
        ended = training.result()
    finally:
        quick.set()
    assert isinstance(ended, Trained), ended
    assert ended.complete
    assert ended.rounds[0].survivors == ended.rounds[1].survivors == FIVE[:4]
    assert ended.rounds[-1].survivors == FIVE
    assert {round_.invited for round_ in ended.rounds} == {5}
    with book(built, "hospital-e") as ledger:
        job = next(job for job in ledger.jobs() if job.id.hex() == ended.request_id)
        taken = sum("hospital-e" in round_.survivors for round_ in ended.rounds)
        assert taken <= job.used < len({round_.slot for round_ in ended.rounds})


def test_the_coordinator_holds_the_longest_round(built: Consortium) -> None:
    with book(built, "hospital-a") as ledger:
        before = len(ledger.jobs())
    with built.session() as session:
        assert "within 600 s" in " ".join(
            str(session.explain_job("poisson", rho=1.0, round_seconds=600, **AWARDS)).split()  # type: ignore[arg-type]
        )
        with pytest.raises(QueryError, match="for at most 3,600 s"):
            session.train("poisson", rho=1.0, round_seconds=3601, **AWARDS)  # type: ignore[arg-type]
    with book(built, "hospital-a") as ledger:
        assert len(ledger.jobs()) == before


def test_a_job_waits_for_institutions_and_goes_on(built: Consortium) -> None:
    away = threading.Event()

    def cut(rounds: int) -> None:
        if rounds == 2 and not away.is_set():
            away.set()
            for institution in FIVE[:3]:
                built.agents[institution].stop()

    training = Training(built, cut, rho=60.0, rounds=6, spare_rounds=6)
    assert training.waiting.wait(60)
    assert next(p for p in training.told if p.step == "waiting").reason.startswith("'awards' is served by 2")
    told: list[Progress] = []
    with built.session() as other, ThreadPoolExecutor(1) as pool:
        watching = pool.submit(other.watch, running_job(built), told.append)
        while not any(progress.step == "waiting" for progress in told):
            assert not watching.done(), watching.result()
            threading.Event().wait(0.02)
        for institution in FIVE[:3]:
            built.start_agent(institution)
        ended = training.result()
        watched = watching.result(60)
    assert isinstance(ended, Trained), ended
    assert ended.complete
    assert watched.to_dict() == ended.to_dict()
    # Who comes late is told of the rounds before it too.
    assert [p.rounds for p in told if p.step in ("round", "released")] == [1, 2, 3, 4, 5, 6]
    assert [p.loss for p in told if p.step == "round"] == list(ended.losses[:5])
    assert ended.rounds[-1].survivors == FIVE


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"fraction": 1.5}, "fraction must be"),
        ({"fraction": -0.1}, "fraction must be"),
        ({"institutions": [""]}, "names"),
        ({"round_seconds": 1}, "round_seconds must be from 5"),
        ({"round_seconds": 100_000}, "round_seconds must be from 5"),
    ],
)
def test_bad_choices_are_refused(built: Consortium, asked: dict[str, object], said: str) -> None:
    with built.session() as session, pytest.raises(CohortiumError, match=said):
        session.explain_job("poisson", rho=1.0, **AWARDS, **asked)  # type: ignore[arg-type]


def test_reasons_are_needed(built: Consortium, tmp_path: Path) -> None:
    with book(built, "hospital-a") as ledger:
        for words in ("", "two\nlines"):
            with pytest.raises(ConfigError):
                ledger.stop_job("00", words)
        with pytest.raises(ConfigError, match="no running job"):
            ledger.stop_job("", "why")
