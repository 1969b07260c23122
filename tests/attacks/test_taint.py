"""Canaries in the data and in a literal: nothing that leaves an institution, or is written down anywhere, holds one.

Runs a consortium over marked data, answers, refuses and fails, then reads everything that came out: standard output and
error of both sides, errors and progress that analysts saw, the bytes agents sent, every file but the data themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from harness.consortium import Consortium, consortium

from analytics_client.agent import responder as judging
from analytics_client.agent.responder import Responder
from analytics_server.coordinator.agent_service import AgentServicer
from analytics_server.coordinator.chunks import Chunk
from analytics_server.coordinator.hub import AgentConnection
from protos.v1 import agent_pb2
from queries.errors import CohortiumError

INSTITUTIONS = ("ash", "birch", "cedar")
SCHEMA = """
name = "people"
privacy_unit = "who"
max_persons = 1000
[columns.income]
type = "number"
lower = 0
upper = 10000000
[columns.town]
type = "category"
categories = ["north", "south"]
other = true
"""
PERSON, TOWN, TEXT = "CANARYPERSON", "CANARYTOWN", "CANARYTEXT"
INCOMES = (3141592.5, 2718281.5, 5772156.5)
LITERAL = 4669201.5
QUERIES = (
    f"SELECT COUNT(*) AS n, AVG(income) AS m FROM people WHERE income < {LITERAL}",
    "SELECT town, COUNT(*) AS n, SUM(income) AS s FROM people GROUP BY town",
)


def _rows(institution: str) -> str:
    rows = (f"{PERSON}{institution}{i},{INCOMES[i % 3]},{('north', TOWN)[i % 2]}\n" for i in range(211))
    return "who,income,town\n" + "".join(rows)


class Watch:
    """What comes out while it is on, and the exact sums that must not."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.out: list[bytes] = []
        self.sums: list[int] = []
        self.answered = 0
        dispatch, take, vector = AgentServicer._dispatch, AgentServicer._take, Responder._vector

        def tapped_dispatch(service: AgentServicer, message: agent_pb2.FromAgent, connection: AgentConnection) -> None:
            self.out.append(message.SerializeToString())
            dispatch(service, message, connection)

        async def tapped_take(service: AgentServicer, member: str, message: Chunk) -> None:
            self.out.append(message.round_id + bytes(message.data) + message.manifest)
            await take(service, member, message)

        def tapped_vector(responder: Responder, ask: Callable[[], Any], *rest: Any) -> Any:
            sums = ask()
            self.sums += [int(value) for value in sums]
            return vector(responder, lambda: sums, *rest)

        patch.setattr(AgentServicer, "_dispatch", tapped_dispatch)
        patch.setattr(AgentServicer, "_take", tapped_take)
        patch.setattr(Responder, "_vector", tapped_vector)

    def ask(self, running: Consortium, sql: str, **cost: float) -> None:
        """Ask as an analyst, and keep all that the analyst sees but the noisy answer."""
        try:
            with running.session() as session:
                session.query(sql, on_progress=lambda step: self.out.append(repr(step).encode()), **cost)
                self.answered += 1
        except CohortiumError as error:
            self.out += [str(error).encode(), repr(error.refusals).encode()]


def canaries(watch: Watch, *, literal: bool) -> dict[str, bytes]:
    """What to look for, by name: texts, numbers as text and as float64, exact sums as text and as int64."""
    found = {text: text.encode() for text in (PERSON, TOWN, TEXT)}
    for number in (*INCOMES, *((LITERAL,) if literal else ())):
        found[f"text of {number}"] = str(number)[:-2].encode()
        found[f"float of {number}"] = struct.pack("<d", number)
    for value in {v for v in watch.sums if abs(v) >= 1 << 40}:
        found[f"sum {value}"] = str(value).encode()
        found[f"int of sum {value}"] = struct.pack("<q", value)
    return found


def leaks(where: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    return [
        f"{name} in {place}" for place, content in where.items() for name, mark in wanted.items() if mark in content
    ]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Consortium]:
    files = {}
    for name in INSTITUTIONS:
        (tmp_path / f"data-{name}.csv").write_text(_rows(name))
        files[name] = {"people": f'path = "{tmp_path}/data-{name}.csv"'}
    with consortium(tmp_path, [SCHEMA], files, epsilon=4.0) as built:
        yield built


def _written(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("data-"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def _stored(running: Consortium) -> dict[str, bytes]:
    """Every value of every table of the coordinator's database."""
    engine = sa.create_engine(running.config.store_url)
    tables = sa.MetaData()
    with engine.connect() as connection:
        tables.reflect(connection)
        stored = {
            f"table {table.name}": b"\n".join(
                bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                for row in connection.execute(sa.select(table))
                for value in row
            )
            for table in tables.sorted_tables
        }
    engine.dispose()
    return stored


def test_nothing_that_comes_out_holds_a_canary(
    running: Consortium, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(monkeypatch)
    for sql in QUERIES:
        watch.ask(running, sql, epsilon=1.0)
    assert watch.answered == len(QUERIES)
    watch.ask(running, QUERIES[0], epsilon=30.0)  # over budget
    watch.ask(running, "SELECT STDDEV(income) FROM people WHERE town = 'nowhere'", epsilon=0.1)
    assert watch.sums
    assert max(watch.sums) > 1 << 40
    for name in INSTITUTIONS:  # data that no longer fit, while everything runs
        (running.folder / f"data-{name}.csv").write_text(_rows(name) + f"{PERSON}x,{TEXT},north\n")
    watch.ask(running, QUERIES[1], epsilon=0.5)
    for name in INSTITUTIONS:
        (running.folder / f"data-{name}.csv").unlink()
    watch.ask(running, QUERIES[1], epsilon=0.5)
    running.stop()
    printed = "".join(capfd.readouterr()).encode()
    assert b"the data could not answer" in printed  # the failures did happen, and were said
    out = {"standard output": printed} | {f"message {i}": content for i, content in enumerate(watch.out)}
    written = _written(running.folder) | _stored(running)
    assert {"server/server.toml", "ash/ledger.sqlite", "table audit_entry"} <= written.keys()
    assert b"people" in written["table audit_entry"]
    assert leaks(out, canaries(watch, literal=True)) == []
    # The store keeps the signed requests, whose literals the analyst chose; nothing of the data.
    assert leaks(written, canaries(watch, literal=False)) == []


def test_a_planted_leak_is_found(
    running: Consortium, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(monkeypatch)
    pack = judging.pack

    def talkative(vector: np.ndarray, lanes: Any) -> Any:
        judging.logger.info("packed", first=watch.sums[0], largest=max(watch.sums))
        return pack(vector, lanes)

    monkeypatch.setattr(judging, "pack", talkative)
    watch.ask(running, QUERIES[0], epsilon=1.0)
    assert watch.answered == 1
    printed = "".join(capfd.readouterr()).encode()
    assert leaks({"standard output": printed}, canaries(watch, literal=True))
