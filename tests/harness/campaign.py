"""A sandbox of real processes of which one is killed at a chosen point, and what must hold afterwards.

Four institutions, so that three are enough to go on (t = 3). Noise is drawn as always, but at a privacy cost at which
it rounds away: a vector that were added twice, or left out in silence, would show.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from analytics_client import connect, sandboxes
from analytics_client.agent.ledger import Ledger
from analytics_client.result import Result
from analytics_client.sandboxes import Sandbox, sandbox
from analytics_client.session import Session
from analytics_server.config import load
from analytics_server.store import Store
from harness.fatal import FATAL, POINTS
from harness.live import command
from queries.errors import CohortiumError
from trust.tlog.entries import decode

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
PERSONS = {"ash": 101, "birch": 113, "cedar": 127, "dogwood": 139}
"""By institution; no two sets of three or four of them have the same sum."""
EVERYONE = tuple(PERSONS)
COUNT = "SELECT COUNT(*) AS n FROM people"
RHO = 60.0
WITHIN_S = 40.0
PAUSE_S = 0.02
QUIET_S = 3.0
"""After this long without a request a process has done all that follows one: the newest head is witnessed after 1 s."""


@dataclass
class Point:
    """What a process did at one moment of its life, as `harness.fatal` wrote it down."""

    label: str
    round_id: str


class Campaign:
    """The sandbox, and the deaths in it."""

    def __init__(self, box: Sandbox, session: Session) -> None:
        self.box = box
        self.session = session

    # --- killing and waiting -------------------------------------------------------------------------------------

    def folder(self, name: str) -> Path:
        return self.box.server if name == "coordinator" else self.box.agent(name)

    def arm(self, name: str, label: str) -> None:
        """Have a process die when it comes to this point."""
        path = self.folder(name) / FATAL
        path.with_suffix(".new").write_text(label)
        path.with_suffix(".new").replace(path)

    def disarm(self, name: str) -> None:
        (self.folder(name) / FATAL).unlink()

    def wait_for_death(self, name: str) -> None:
        """Return once the process has killed itself; it fails the test if it is alive after a while."""
        code = self.box._processes[name].popen.wait(WITHIN_S)
        assert code == -9, f"{name} ended with {code}: {self.box._processes[name].last_words()}"

    def revive(self, name: str) -> None:
        """Start a process that has died, and return once all institutions serve."""
        self.disarm(name)
        if name == "coordinator":
            self.box.start_coordinator()
        else:
            self.box.start_agent(name)
        self.wait_until_served()

    def wait_until_served(self) -> None:
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                listing = self.session.datasets()[0]
            except CohortiumError:
                listing = None
            if listing is not None and listing.serving == tuple(sorted(EVERYONE)):
                return
            if time.monotonic() > deadline:
                said = {name: process.last_words() for name, process in self.box._processes.items()}
                raise AssertionError(f"only {listing and listing.serving} serve; last words: {said}")
            time.sleep(PAUSE_S)

    # --- asking --------------------------------------------------------------------------------------------------

    def ask(self) -> Result | CohortiumError:
        """Ask; a refusal that an analyst would read is an answer too, anything else fails the test."""
        try:
            result = self.session.query(COUNT, rho=RHO)
        except CohortiumError as error:
            return error
        expected = sum(PERSONS[name] for name in result.survivors)
        assert round(result.estimate("n").value) == expected, (result.survivors, expected, result.estimate("n"))
        return result

    def ask_and_kill(self, name: str, label: str) -> Result | CohortiumError:
        """Ask while a process is armed; start it again when it has died, as a supervisor would; return the answer."""
        answer = self.ask_and_maybe_kill(name, label)
        assert answer is not None, f"{name} never came to {label}"
        return answer

    def ask_and_maybe_kill(self, name: str, label: str) -> Result | CohortiumError | None:
        """As `ask_and_kill`, for a point that not every request passes: None where this one did not."""
        self.arm(name, label)
        with ThreadPoolExecutor(1) as other:
            asking = other.submit(self.ask)
            alive_after_answer_s = 0.0
            while self.box._processes[name].popen.poll() is None and alive_after_answer_s < QUIET_S:
                time.sleep(PAUSE_S)
                alive_after_answer_s += PAUSE_S if asking.done() else 0
            if self.box._processes[name].popen.poll() is None:
                self.disarm(name)
                return None
            self.wait_for_death(name)
            self.revive(name)
            return asking.result(WITHIN_S)

    def ask_everyone(self) -> Result:
        """Ask, and be answered with every institution's part in the sum, once."""
        result = self.ask()
        assert isinstance(result, Result), repr(result)
        assert result.survivors == tuple(sorted(EVERYONE))
        return result

    # --- what must hold ------------------------------------------------------------------------------------------

    def points(self, name: str) -> list[Point]:
        """Every point that an institution's agent, or the coordinator, has passed so far, over all its lives."""
        path = self.folder(name) / POINTS
        lines = path.read_text().splitlines() if path.exists() else []
        return [Point(*line.split("\t")) for line in lines]

    def check_agent(self, name: str) -> None:
        """Nothing was revealed twice, nothing sent before it was durable, and the ledger charges what may have left."""
        done: dict[str, Counter[str]] = defaultdict(Counter)
        for point in self.points(name):
            if not point.round_id:
                continue
            before = done[point.round_id]
            for sent, durable in (("answer", "reserve"), ("chunk", "upload"), ("round reveal", "reveal")):
                if point.label == f"before send {sent}":
                    assert before[f"after commit {durable}"], f"{name} sent its {sent} before it was durable"
            before[point.label] += 1
        for once in ("answer", "round confirm", "round reveal"):
            assert all(round_[f"before send {once}"] <= 1 for round_ in done.values()), f"{name} sent {once} twice"
        uploaded = sum(bool(round_["after commit upload"]) for round_ in done.values())
        with Ledger.read(self.folder(name) / "ledger.sqlite") as ledger:
            states = Counter(entry.state for entry in ledger.history(10_000))
            totals = [a.rho_nano for a in ledger.accounts() if not a.analyst]
        assert not states["reserved"], f"{name} keeps a reservation of a round that is over"
        assert states["charged"] == uploaded, f"{name} let {uploaded} vectors go and charged {states['charged']}"
        assert totals == [uploaded * round(RHO * 1e9)] or not (totals and uploaded)

    def wait_until_settled(self) -> None:
        """Return once no agent holds a reservation: the end of a round reaches it a moment after the analyst."""
        deadline = time.monotonic() + WITHIN_S
        for name in EVERYONE:
            while True:
                with Ledger.read(self.folder(name) / "ledger.sqlite") as ledger:
                    if all(entry.state != "reserved" for entry in ledger.history(10_000)):
                        break
                assert time.monotonic() < deadline, f"{name} keeps a reservation"
                time.sleep(PAUSE_S)

    def check_log(self, *, jobs: bool = False) -> None:
        """An auditor finds the log whole, and every request with exactly one end; with `jobs` also one a round."""
        verified = command("cohortium", "audit", "verify", profile=self.box.auditor)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        store = Store.open(load(self.box.server).store_url)
        try:
            with store.read() as uow:
                entries = [decode(row.leaf) for row in uow.leaves(0, 100_000)]
                assert not uow.running_requests()
        finally:
            store.close()
        begun = [e.requested.request_id for e in entries if e.WhichOneof("event") == "requested"]
        ended = [getattr(e, k).request_id for e in entries if (k := e.WhichOneof("event")) in ("released", "failed")]
        assert sorted(begun) == sorted(set(ended) if jobs else ended)

    def check_kept(self, result: Result, release: bytes) -> None:
        """A result that was delivered before is still there, to the byte."""
        assert self.session._resume(bytes.fromhex(result.request_id)).release == release

    def release_of(self, result: Result) -> bytes:
        return self.session._resume(bytes.fromhex(result.request_id)).release


@contextmanager
def campaign(folder: Path) -> Iterator[Campaign]:
    """Run a consortium whose processes can be told to die."""
    schema = folder / "people.toml"
    schema.write_text(SCHEMA)
    files = []
    for name, persons in PERSONS.items():
        files.append(folder / f"{name}.csv")
        files[-1].write_text("id,age\n" + "".join(f"{name}-{i},{i % 100}\n" for i in range(persons)))
    with pytest.MonkeyPatch.context() as patch:
        tests = Path(__file__).parents[1]  # and the code beside them, wherever another copy is installed
        patch.setenv("PYTHONPATH", f"{tests}{os.pathsep}{tests.parent}")
        patch.setattr(sandboxes, "AGENT", "harness.fatal:agent")
        patch.setattr(sandboxes, "COORDINATOR", "harness.fatal:coordinator")
        box = sandbox(schema, files, epsilon=1e6)
        with box:
            session = connect(box.analyst)
            try:
                yield Campaign(box, session)
            finally:
                session.close()
