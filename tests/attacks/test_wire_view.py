"""All that the coordinator's process receives in a live round, byte by byte: uniform, never the same, equally long.

The core's own view is attacked in test_secagg_view; here the bytes are taken where gRPC hands them over. Noise is taken
out, so that what hides a vector is its mask alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness.consortium import Consortium, consortium
from harness.noiseless import remove_noise
from scipy.stats import chi2

from analytics_client.agent.active import ActiveRound
from analytics_client.agent.responder import Responder
from analytics_server.coordinator.agent_service import AgentServicer
from analytics_server.coordinator.chunks import Chunk
from analytics_server.coordinator.hub import AgentConnection
from protos.v1 import agent_pb2

INSTITUTIONS = ("ash", "birch", "cedar", "dogwood")
BINS = 2048
SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 10000
[columns.age]
type = "number"
lower = 0
upper = 100
"""


class Tap:
    """What agents send and what they meant: per institution the control messages, the uploads, the true vectors."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.control: dict[str, list[agent_pb2.FromAgent]] = {name: [] for name in INSTITUTIONS}
        self.uploads: dict[str, bytes] = dict.fromkeys(INSTITUTIONS, b"")
        self.vectors: dict[str, np.ndarray] = {}
        dispatch, take, upload = AgentServicer._dispatch, AgentServicer._take, Responder.upload

        def tapped_dispatch(service: AgentServicer, message: agent_pb2.FromAgent, connection: AgentConnection) -> None:
            self.control[connection.id].append(message)
            dispatch(service, message, connection)

        async def tapped_take(service: AgentServicer, member: str, message: Chunk) -> None:
            self.uploads[member] += bytes(message.data)
            await take(service, member, message)

        def tapped_upload(responder: Responder, active: ActiveRound) -> Iterator[bytes]:
            self.vectors[responder._me] = active.vector.result().copy()
            return upload(responder, active)

        patch.setattr(AgentServicer, "_dispatch", tapped_dispatch)
        patch.setattr(AgentServicer, "_take", tapped_take)
        patch.setattr(Responder, "upload", tapped_upload)

    def sizes(self) -> dict[str, list[tuple[str, int]]]:
        """Step and length of every protocol message, in order: JOIN first, then what followed on the roster."""
        return {
            name: [
                ("join", len(message.answer.join))
                if message.HasField("answer")
                else (message.round.step, len(message.round.payload))
                for message in sent
                if not message.HasField("cosignature")
            ]
            for name, sent in self.control.items()
        }


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    folder: Path = tmp_path_factory.mktemp("wire")
    files = {}
    for number, name in enumerate(INSTITUTIONS):
        path = folder / f"{name}.csv"
        rows = (f"{name}{i},{(i * 37 % 1000) / 10}\n" for i in range(400 + 100 * number))
        path.write_text("id,age\n" + "".join(rows))
        files[name] = {"people": f'path = "{path}"'}
    with consortium(folder, [SCHEMA], files) as built:
        yield built


def test_what_the_coordinator_receives_says_nothing_of_one_institution(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 12 chi-square tests of bytes raises a false alarm with probability 1e-7."""
    remove_noise(monkeypatch)
    taps = []
    with running.session() as session:
        # The second question is the first once more; the third finds nobody.
        for least in ("00", "00", "99"):
            with pytest.MonkeyPatch.context() as patch:
                tap = Tap(patch)
                table = session.query(f"SELECT HISTOGRAM(age, {BINS}) AS n FROM people WHERE age >= {least}.95", rho=1)
                taps.append(tap)
            total = sum(tap.vectors.values())
            assert [round(row.values[0].value) for row in table.rows] == list(total.view(np.int64))
    bound = chi2.ppf(1 - 1e-7, 255)
    for tap in taps:
        for name in INSTITUTIONS:
            assert len(tap.uploads[name]) == 8 * BINS
            counts = np.bincount(np.frombuffer(tap.uploads[name], np.uint8), minlength=256)
            expected = 8 * BINS / 256
            assert ((counts - expected) ** 2 / expected).sum() < bound
            masked = np.frombuffer(tap.uploads[name], "<u8")
            assert (masked != tap.vectors[name]).all()
    once, again, nobody = taps
    for name in INSTITUTIONS:
        assert (once.vectors[name] == again.vectors[name]).all()
        assert not nobody.vectors[name].any()
        one, two = (np.frombuffer(tap.uploads[name], "<u8") for tap in (once, again))
        assert (one != two).all()
    # Beside the vectors, everything has the same kind and length, whatever the data.
    assert once.sizes() == nobody.sizes()
