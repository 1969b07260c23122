"""Rounds whose members draw their neighbours, over real connections: a dozen institutions by the code for over 500."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.consortium import Consortium, consortium
from harness.drawn import NAMES, small_graphs
from harness.noiseless import remove_noise

from analytics_client.agent.active import ActiveRound
from analytics_client.agent.responder import Responder
from analytics_client.session import Progress
from analytics_server.coordinator.rounds import Deadlines
from queries.errors import PolicyDenied, QuorumError
from trust.secagg import agent as secagg_agent

SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
nullable = false
"""
ROWS = 20
COUNT = "SELECT COUNT(*) AS n, SUM(age) AS years FROM people"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    folder: Path = tmp_path_factory.mktemp("drawn")
    files = {}
    for name in NAMES:
        path = folder / f"{name}.csv"
        path.write_text("id,age\n" + "".join(f"{name}-{i},{30 + i}\n" for i in range(ROWS)))
        files[name] = {"people": f'path = "{path}"'}
    deadlines = Deadlines(join=5, upload=5, confirm=5, reveal=5)
    with small_graphs(), consortium(folder, [SCHEMA], files, deadlines=deadlines) as built:
        yield built


def test_a_dozen_draw_neighbours_and_the_sum_is_exact(running: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    remove_noise(monkeypatch)
    steps: list[Progress] = []
    with running.session() as session:
        result = session.query(COUNT, rho=0.1, on_progress=steps.append)
    assert result.estimate("n").value == len(NAMES) * ROWS
    assert result.estimate("years").value == pytest.approx(len(NAMES) * sum(30 + i for i in range(ROWS)), rel=1e-9)
    assert result.survivors == NAMES
    assert [step.step for step in steps] == [
        "logged",
        "announced",
        "registered",
        "joined",
        "uploaded",
        "confirmed",
        "revealed",
        "released",
    ]


def test_members_that_vanish_before_their_upload_are_left_out_of_the_sum(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_noise(monkeypatch)
    original = Responder.upload

    def upload(responder: Responder, active: ActiveRound) -> Iterator[bytes]:
        if responder._me in NAMES[:2]:
            raise PolicyDenied("gone", rule="test")
        return original(responder, active)

    monkeypatch.setattr(Responder, "upload", upload)
    with running.session() as session:
        result = session.query(COUNT, rho=0.1)
    assert result.survivors == NAMES[2:]
    assert result.estimate("n").value == (len(NAMES) - 2) * ROWS


def test_members_that_register_and_then_vanish_are_no_neighbours(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_noise(monkeypatch)
    original = secagg_agent.AgentRound.on_cohort

    def on_cohort(core: secagg_agent.AgentRound, message: bytes) -> bytes:
        if core._me == NAMES[5]:
            raise QuorumError("gone")
        return original(core, message)

    monkeypatch.setattr(secagg_agent.AgentRound, "on_cohort", on_cohort)
    with running.session() as session:
        result = session.query(COUNT, rho=0.1)
    assert NAMES[5] not in result.survivors
    assert result.estimate("n").value == (len(NAMES) - 1) * ROWS


def test_a_dealer_that_cheats_a_neighbour_is_found_and_left_out(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_noise(monkeypatch)
    original = secagg_agent.deal

    class Wrong:
        """Keys with which nobody can open what the dealer seals."""

        def secret(self, peer: bytes) -> bytes:
            return bytes(31) + peer[:1]

    def deal(terms: Any, me: str, members: Any, pair_keys: Any, random_bytes: Any) -> Any:
        return original(terms, me, members, Wrong() if me == NAMES[3] else pair_keys, random_bytes)

    monkeypatch.setattr(secagg_agent, "deal", deal)
    with running.session() as session:
        result = session.query(COUNT, rho=0.1)
    assert NAMES[3] not in result.survivors
    assert result.estimate("n").value == (len(NAMES) - 1) * ROWS
