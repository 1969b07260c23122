"""A whole consortium in one process: real gRPC over mTLS on loopback, real stores, real ledgers, real DuckDB.

Coordinator and agents each run in a thread with an event loop of their own, so that a test can reach into one of them,
stop it, or replace its noise. Tests that kill processes use the sandbox instead.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analytics_client.agent.runner import Agent
from analytics_client.enrolment import enrol
from analytics_client.session import Session, connect
from analytics_server import governance
from analytics_server.config import ServerConfig, load
from analytics_server.control import poke
from analytics_server.coordinator.enrolment import invite
from analytics_server.coordinator.rounds import Deadlines
from analytics_server.coordinator.server import Coordinator

EVERYTHING = """
[policy]
minimum_cohort = 3
colluders = 1

[[policy.rules]]
dataset = "{dataset}"
analysts = ["*"]
purposes = ["*"]
operations = ["*"]
columns = ["*"]
max_epsilon_per_query = {epsilon}

[[budgets]]
dataset = "{dataset}"
total_epsilon = {epsilon}
per_analyst_epsilon = {epsilon}
"""
QUICK = Deadlines(join=5, upload=20, confirm=5, reveal=5)


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A coroutine that runs in a thread of its own until it is stopped."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._work())
        self._ready.set()
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass  # stopped, as asked
        except BaseException as error:  # shown to the test by `stop` or `error`
            self.error = error
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()

    def stop(self) -> None:
        """Cancel and wait."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(20)
        assert not self._thread.is_alive(), "it does not stop"


class Consortium:
    """A coordinator, agents by id, and analysts' folders."""

    def __init__(self, folder: Path, schemas: list[str], *, store: str = "state.sqlite", deadlines: Deadlines = QUICK):
        self.folder = folder
        self.schemas = schemas
        self.deadlines = deadlines
        self.agents: dict[str, Running] = {}
        self.agent_objects: dict[str, Agent] = {}
        self.config: ServerConfig = governance.initialise(
            folder / "server",
            consortium="test-consortium",
            address=f"127.0.0.1:{free_port()}",
            enrolment_address=f"127.0.0.1:{free_port()}",
            governance=None,
            store=store,
            minimum_cohort=3,
            colluders=1,
            now=datetime.now(UTC),
        )
        with governance.opened(self.config) as (opened, log):
            office = governance.open_governance(folder / "server" / governance.FOLDER, self.config)
            for text in schemas:
                governance.publish_dataset(opened, log, office, text)
        self.coordinator: Running | None = None
        self.coordinator_object: Coordinator | None = None

    def start_coordinator(self) -> None:
        """Start the coordinator, and return once both ports listen."""
        ready = threading.Event()
        coordinator = Coordinator(load(self.folder / "server"), deadlines=self.deadlines)
        self.coordinator_object = coordinator
        self.coordinator = Running(lambda: coordinator.run(lambda _a, _b: ready.set()))
        if not ready.wait(10):
            raise AssertionError(f"the coordinator did not start: {self.coordinator.error}")

    def enrol(self, role: str, participant: str, organisation: str = "") -> Path:
        """Invite and enrol a participant; return its folder."""
        with governance.opened(self.config) as (opened, log):
            invitation = invite(
                opened,
                log,
                self.config,
                role=role,
                participant=participant,
                organisation=organisation or participant,
                valid_hours=1,
                now=datetime.now(UTC),
            )
        target = self.folder / participant
        enrol(invitation.to_token(), target, roles=[role])
        return target

    def publish(self) -> None:
        """Publish the next membership epoch, and have the running coordinator look."""
        with governance.opened(self.config) as (opened, log):
            office = governance.open_governance(self.folder / "server" / governance.FOLDER, self.config)
            governance.publish_membership(opened, log, self.config, office, now=int(datetime.now(UTC).timestamp()))
        poke(self.folder / "server")

    def start_agent(self, participant: str) -> None:
        """Start an enrolled agent."""
        agent = Agent(self.folder / participant)
        self.agent_objects[participant] = agent
        self.agents[participant] = Running(agent.run)

    def wait_until_served(self, dataset: str, institutions: int, seconds: float = 20) -> None:
        """Return once as many institutions serve the dataset."""
        end = datetime.now(UTC).timestamp() + seconds
        assert self.coordinator_object is not None
        hub, directory = self.coordinator_object._hub, self.coordinator_object._directory
        while datetime.now(UTC).timestamp() < end:
            published = directory.datasets.get(dataset)
            if published is not None:
                serving = hub.serving(dataset, published.schema_hash, directory.members)
                if len(serving) == institutions:
                    return
            failed = [f"{name}: {running.error}" for name, running in self.agents.items() if running.error]
            assert not failed, failed
            threading.Event().wait(0.02)
        raise AssertionError(f"{dataset} is not served by {institutions} institutions")

    def session(self, analyst: str = "ada") -> Session:
        """Open a session for an enrolled analyst."""
        return connect(self.folder / analyst)

    def stop(self) -> None:
        """Stop everything."""
        for running in self.agents.values():
            running.stop()
        if self.coordinator is not None:
            self.coordinator.stop()


@contextmanager
def consortium(
    folder: Path,
    schemas: list[str],
    files: Mapping[str, Mapping[str, str]],
    *,
    epsilon: float = 1000.0,
    agent_toml: str = EVERYTHING,
    store: str = "state.sqlite",
    deadlines: Deadlines = QUICK,
    analysts: tuple[str, ...] = ("ada",),
) -> Iterator[Consortium]:
    """Run a consortium. `files` is, per institution, a table of agent.toml per dataset (TOML text after its header)."""
    with ExitStack() as stack:
        built = Consortium(folder, schemas, store=store, deadlines=deadlines)
        stack.callback(built.stop)
        built.start_coordinator()
        for institution, datasets in files.items():
            target = built.enrol("agent", institution)
            tables = [f"[datasets.{name}]\n{body}\n" for name, body in datasets.items()]
            rules = "".join(
                agent_toml.format(dataset=name, epsilon=epsilon)
                if number == 0
                else agent_toml[agent_toml.index("[[policy.rules]]") :].format(dataset=name, epsilon=epsilon)
                for number, name in enumerate(datasets)
            )
            (target / "agent.toml").write_text("\n".join(tables) + rules)
        for analyst in analysts:
            built.enrol("analyst", analyst)
        built.enrol("auditor", "olga")
        built.publish()
        for institution in files:
            built.start_agent(institution)
        names = {name for datasets in files.values() for name in datasets}
        for name in sorted(names):
            built.wait_until_served(name, sum(name in datasets for datasets in files.values()))
        yield built
