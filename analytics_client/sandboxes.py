"""A throwaway consortium on this machine, over one's own files.

    from analytics_client import sandbox
    with sandbox("patients.toml", ["a.csv", "b.csv", "c.csv"]) as session:
        print(session.query("SELECT COUNT(*) AS n FROM patients", epsilon=1.0))

Everything in it is real: one coordinator and one agent per institution as processes of their own, keys made on the
spot, mTLS on loopback, noise, ledgers, the audit log. State lives in a temporary folder; every process ends and the
folder goes when the sandbox is left, or when the process that made it is killed. Must not know: how any of it works
inside; it runs the same commands that people type.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from analytics_client import tether
from analytics_client.agent_file import render_agent_file
from analytics_client.batch import Batch
from analytics_client.enrolment import enrol
from analytics_client.session import Session, connect
from queries import schema as schemas
from queries.errors import ConfigError, ServiceError

ANALYST, AUDITOR = "ada", "otto"
CONSORTIUM = "sandbox"
AGENT, COORDINATOR = "analytics_client.agent.cli:main", "analytics_server.cli:main"
OPERATOR = "analytics_server.cli:app"
SMALLEST = 3
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 5.0
"""How long processes may take to end by themselves before they are killed."""
PORT_ATTEMPTS = 3
"""Ports are chosen free, but another program may take one before the coordinator does."""
_PORT_TAKEN, _READY = "is taken", "is ready"
_PEOPLE = {ANALYST: "analyst", AUDITOR: "auditor"}


@dataclass(frozen=True)
class Data:
    """An institution's file of one dataset; `columns` maps schema columns to local ones as in agent.toml."""

    path: Path
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Institution:
    """An institution of a sandbox: its id, its organisation's name, and its data by dataset."""

    id: str
    organisation: str
    data: Mapping[str, Data]


@dataclass(frozen=True)
class _Process:
    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        """The error it ended with, else its last line."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it said nothing"])[-1][:300]


def sandbox(
    schema: str | Path | Sequence[str | Path],
    files: Sequence[str | Path | Institution],
    *,
    epsilon: float = 20.0,
    on_step: Callable[[str], None] = lambda _: None,
) -> Sandbox:
    """Return a sandbox to enter with `with`: one institution per file, or as each `Institution` says.

    `schema` is a schema file, or several where institutions hold several datasets. `epsilon` is the budget of each
    dataset. `on_step` is told what is being done. Raise ConfigError or SchemaError at once for files that are missing,
    fewer than three of them, or a schema that contradicts itself.
    """
    paths = [Path(schema)] if isinstance(schema, str | Path) else [Path(one) for one in schema]
    datasets = {}
    for path in paths:
        try:
            datasets[schemas.from_toml(path.read_text(encoding="utf-8")).name] = path.resolve()
        except OSError as error:
            raise ConfigError(
                f"the schema file {path} cannot be read: {error.strerror}", hint="see docs/schema.md"
            ) from None
    institutions = _institutions(files, datasets)
    if len(institutions) < SMALLEST:
        raise ConfigError(
            f"a consortium needs at least {SMALLEST} institutions, and this would have {len(institutions)}",
            hint="give one file per institution; with fewer than three, a sum would tell one about another",
        )
    return Sandbox(datasets, institutions, epsilon=epsilon, on_step=on_step)


def _institutions(files: Sequence[str | Path | Institution], datasets: Mapping[str, Path]) -> tuple[Institution, ...]:
    """Give plain files an institution each, named after the file."""
    found: dict[str, Institution] = {}
    for item in files:
        if isinstance(item, Institution):
            institution = item
        else:
            if len(datasets) != 1:
                raise ConfigError(
                    "which dataset does a file hold?", hint="name it: Institution(id, organisation, data)"
                )
            name = re.sub(r"[^a-z0-9._-]+", "-", Path(item).stem.lower()).strip("-._") or "institution"
            while name in found:
                name += "-2"
            institution = Institution(name, name, {next(iter(datasets)): Data(Path(item))})
        for data in institution.data.values():
            if not data.path.is_file():
                raise ConfigError(f"there is no file {data.path}", hint="check its name")
        if institution.id in found:
            raise ConfigError(f"two institutions are named {institution.id!r}", hint="give each its own id")
        found[institution.id] = institution
    return tuple(found.values())


class Sandbox:
    """A consortium that lives as long as its `with` block, which gives a session of an analyst."""

    def __init__(
        self,
        datasets: Mapping[str, Path],
        institutions: tuple[Institution, ...],
        *,
        epsilon: float,
        on_step: Callable[[str], None],
    ) -> None:
        self.institutions = institutions
        self._datasets = datasets
        self._epsilon = epsilon
        self._on_step = on_step
        self._folder: Path | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._processes: dict[str, _Process] = {}
        self._session: Session | None = None

    @property
    def folder(self) -> Path:
        """The temporary folder; raises ConfigError outside the `with` block."""
        if self._folder is None:
            raise ConfigError("this sandbox is not running", hint="enter it: with sandbox(...) as session:")
        return self._folder

    @property
    def analyst(self) -> Path:
        """Profile folder of the analyst whose session the `with` block gives."""
        return self.folder / ANALYST

    @property
    def auditor(self) -> Path:
        """Profile folder of an auditor."""
        return self.folder / AUDITOR

    @property
    def server(self) -> Path:
        """The coordinator's folder; its database is `state.sqlite`."""
        return self.folder / "server"

    def agent(self, institution: str) -> Path:
        """The folder of an institution's agent."""
        return self.folder / "agents" / institution

    def kill(self, name: str) -> None:
        """End a process at once with SIGKILL: an institution's agent, or "coordinator"."""
        self._processes[name].popen.send_signal(signal.SIGKILL)
        self._processes[name].popen.wait()

    def start_agent(self, institution: str) -> None:
        """Start an institution's agent, again after `kill`."""
        self._start(institution, AGENT, self.agent(institution))

    def start_coordinator(self) -> None:
        """Start the coordinator, again after `kill`."""
        self._start("coordinator", COORDINATOR, self.server)

    def __enter__(self) -> Session:
        if self._folder is not None:
            raise ConfigError("this sandbox is running already", hint="make another one")
        self._folder = Path(tempfile.mkdtemp(prefix="cohortium-"))
        try:
            self._keeper = tether.start(["remove", str(self._folder)], log=subprocess.DEVNULL)
            self._found()
            self._session = self._when_ready()
        except BaseException:
            self.close()
            raise
        return self._session

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every process and remove the folder. Safe to call twice."""
        if self._session is not None:
            self._session.close()
            self._session = None
        # Agents first: a coordinator that goes first makes each of them try to reach it again.
        coordinator = self._processes.pop("coordinator", None)
        _stop(list(self._processes.values()))
        _stop([coordinator] if coordinator else [])
        self._processes.clear()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()  # the keeper finds nothing left to remove, and ends
            self._keeper.wait()
            self._keeper = None

    # --- founding ------------------------------------------------------------------------------------------------

    def _found(self) -> None:
        """Found the consortium, enrol everyone, publish, and start every process."""
        with Batch(OPERATOR) as server:
            for attempt in range(1, PORT_ATTEMPTS + 1):
                self._on_step("founding a consortium")
                tokens = self._initialise(server)
                if self._admit_all(tokens, last_attempt=attempt == PORT_ATTEMPTS):
                    break
                shutil.rmtree(self.server)
            self._on_step(f"starting {len(self.institutions)} agents")
            for institution in self.institutions:
                text = render_agent_file(institution.data, analyst=ANALYST, epsilon=self._epsilon)
                (self.agent(institution.id) / "agent.toml").write_text(text, encoding="utf-8")
                self.start_agent(institution.id)
            server.run("membership", "publish", str(self.server))

    def _initialise(self, server: Batch) -> dict[str, str]:
        """Make the consortium and publish its datasets; return an invitation for everyone, by id."""
        folder = str(self.server)
        member, newcomer = (f"127.0.0.1:{port}" for port in _free_ports(2))
        server.run("init", folder, "--name", CONSORTIUM, "--address", member, "--enrolment-address", newcomer)
        for path in self._datasets.values():
            server.run("dataset", "add", folder, str(path))
        roles = [("agent", one.id, one.organisation) for one in self.institutions]
        roles += [("analyst", ANALYST, ""), ("auditor", AUDITOR, "")]
        return {
            name: json.loads(
                server.run("invite", folder, "--role", role, "--id", name, "--organisation", organisation, "--json")
            )["token"]
            for role, name, organisation in roles
        }

    def _admit_all(self, tokens: Mapping[str, str], *, last_attempt: bool) -> bool:
        """Start the coordinator and enrol everyone; False where a port was taken meanwhile and another go is due."""
        self.start_coordinator()
        try:
            self._wait_for_port()
            self._on_step(f"enrolling {len(tokens)} participants")
            (self.folder / "agents").mkdir(exist_ok=True)
            with ThreadPoolExecutor(max_workers=4) as threads:
                for _ in threads.map(self._enrol, tokens, tokens.values()):
                    """Results are awaited one by one, so that the first error is raised."""
        except ServiceError:
            coordinator = self._processes["coordinator"]
            if coordinator.popen.poll() is None:
                raise
            words = coordinator.last_words()
            if last_attempt or _PORT_TAKEN not in words:
                raise ServiceError(f"the coordinator ended: {words}") from None
            return False
        return True

    def _wait_for_port(self) -> None:
        """Wait until the coordinator says that it listens. Raise ServiceError where it ends instead."""
        coordinator = self._processes["coordinator"]
        deadline = time.monotonic() + READY_WITHIN_S
        while _READY not in coordinator.log.read_text(errors="replace"):
            if coordinator.popen.poll() is not None or time.monotonic() > deadline:
                raise ServiceError(f"the coordinator does not start: {coordinator.last_words()}")
            time.sleep(0.02)

    def _enrol(self, name: str, token: str) -> None:
        if name in _PEOPLE:
            enrol(token, self.folder / name, roles=(_PEOPLE[name],))
        else:
            enrol(token, self.agent(name), roles=("agent",))

    # --- processes -----------------------------------------------------------------------------------------------

    def _start(self, name: str, target: str, folder: Path) -> None:
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            popen = tether.start(["run", target, "run", str(folder)], log=out)
        self._processes[name] = _Process(name, popen, log)

    def _when_ready(self) -> Session:
        """Return a session once every institution serves all that it holds. Raise ServiceError where one cannot."""
        session = connect(self.analyst)
        try:
            deadline = time.monotonic() + READY_WITHIN_S
            while missing := self._not_serving(session):
                for process in self._processes.values():
                    if process.popen.poll() is not None:
                        raise ServiceError(f"{process.name} ended: {process.last_words()}", hint="check its file")
                if time.monotonic() > deadline:
                    name = missing[0]
                    raise ServiceError(f"{name} serves nothing yet: {self._processes[name].last_words()}")
                time.sleep(0.05)
        except BaseException:
            session.close()
            raise
        return session

    def _not_serving(self, session: Session) -> list[str]:
        serving = {item.dataset.name: item.serving for item in session.datasets()}
        return [
            institution.id
            for institution in self.institutions
            if any(institution.id not in serving.get(name, ()) for name in institution.data)
        ]


def _stop(processes: Sequence[_Process]) -> None:
    """Ask processes to end, all at once, and kill those that do not."""
    for process in processes:
        if process.popen.stdin is not None:
            process.popen.stdin.close()  # the tether: it ends by itself
        process.popen.terminate()
    deadline = time.monotonic() + STOP_WITHIN_S
    for process in processes:
        try:
            process.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()


def _free_ports(count: int) -> list[int]:
    """Return ports of loopback that are free now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
