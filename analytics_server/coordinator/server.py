"""`cohortium-server run`: the coordinator's process, put together.

One asyncio loop; SQL in one thread; two ports (mTLS for members, enrolment for newcomers). Everything durable is in the
store, so SIGKILL at any moment loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio
import structlog

from analytics_server import control
from analytics_server.audit.log import AuditLog
from analytics_server.audit.service import AuditServicer
from analytics_server.config import ServerConfig
from analytics_server.coordinator.agent_service import AgentServicer
from analytics_server.coordinator.analyst_service import AnalystServicer
from analytics_server.coordinator.chunks import add_agent_servicer
from analytics_server.coordinator.database import Database
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.enrolment import EnrolmentServicer
from analytics_server.coordinator.hub import Hub
from analytics_server.coordinator.mirror import Mirror
from analytics_server.coordinator.requests import RequestDesk
from analytics_server.coordinator.rounds import Deadlines
from analytics_server.coordinator.statements import Statements
from analytics_server.coordinator.witnessing import Witnessing
from analytics_server.store import SHARDS, Store
from analytics_server.store import instance as instances
from protos.v1 import analyst_pb2_grpc, audit_pb2_grpc, enrolment_pb2_grpc
from queries.errors import CohortiumError
from trust.rpc import server as rpc
from trust.rpc.process import run_until_signal

WITNESS_EVERY_S = 1.0
ORPHANS_EVERY_S = 2.0
GRACE_S = 2.0
logger = structlog.get_logger("cohortium.coordinator")


class Coordinator:
    """All services over one store."""

    def __init__(self, config: ServerConfig, *, deadlines: Deadlines) -> None:
        self._config = config
        self._store = Store.open(config.store_url, config.folder / SHARDS)
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._instance = instances.register(config.store_url, self._heard)
        except BaseException:
            self._store.close()
            raise
        self._database = Database(self._store)
        self._log = AuditLog(self._store, config.log_signer(), config.log_origin)
        self._directory = Directory(config.consortium, config.governance_key)
        self._hub = Hub()
        self._changed = asyncio.Event()
        self._witnessing = Witnessing(database=self._database, log=self._log, directory=self._directory, hub=self._hub)
        self._desk = RequestDesk(
            database=self._database,
            log=self._log,
            directory=self._directory,
            hub=self._hub,
            witnessing=self._witnessing,
            deadlines=deadlines,
            spool=config.folder,
            instance=self._instance.id,
        )
        self._agents = AgentServicer(
            hub=self._hub,
            directory=self._directory,
            witnessing=self._witnessing,
            statements=Statements(self._database, self._log, self._directory),
            jobs=self._desk.jobs,
        )

    async def run(self, on_ready: Callable[[str, str], None]) -> None:
        """Serve until cancelled. `on_ready` gets the members' and the newcomers' address once both ports listen."""
        members, newcomers = rpc.new_server(), rpc.new_server()
        try:
            await self._database.read(self._directory.reload)
            await self._desk.see_to_orphans(starting=True)
            addresses = await self._listen(members, newcomers)
            self._loop = asyncio.get_running_loop()
            async with asyncio.TaskGroup() as background:
                background.create_task(control.listen(self._config.folder, self._reload))
                background.create_task(self._show_heads())
                background.create_task(self._follow_directory())
                background.create_task(self._see_to_orphans())
                on_ready(*addresses)
        finally:
            self._loop = None
            await self._desk.stop()
            await members.stop(GRACE_S)
            await newcomers.stop(GRACE_S)
            self._database.close()
            self._instance.close()

    async def _listen(self, members: grpc.aio.Server, newcomers: grpc.aio.Server) -> tuple[str, str]:
        tls = self._config.tls()
        analyst_pb2_grpc.add_AnalystServicer_to_server(
            AnalystServicer(directory=self._directory, hub=self._hub, desk=self._desk, mirror=Mirror(self._database)),
            members,
        )
        add_agent_servicer(self._agents, members)
        audit_pb2_grpc.add_AuditServicer_to_server(
            AuditServicer(
                store=self._store,
                log=self._log,
                gate=self._directory.gate,
                governance_key=self._directory.governance_key,
            ),
            members,
        )
        enrolment_pb2_grpc.add_EnrolmentServicer_to_server(
            EnrolmentServicer(self._config, self._store, self._log), newcomers
        )
        host, enrolment_host = self._config.listen, self._config.enrolment_listen
        port = rpc.bind(members, host, rpc.mutual_credentials(tls.key, tls.chain, tls.ca))
        enrolment_port = rpc.bind(newcomers, enrolment_host, rpc.enrolment_credentials(tls.key, tls.chain))
        await members.start()
        await newcomers.start()
        return _with_port(host, port), _with_port(enrolment_host, enrolment_port)

    async def _reload(self) -> None:
        """Another process published or revoked: take it up, and tell every agent."""
        if not await self._database.read(self._directory.reload):
            return
        membership = self._directory.membership
        logger.info("reloaded", epoch=membership.epoch if membership else 0, datasets=sorted(self._directory.datasets))
        self._directory.gate.cut_off()
        self._desk.cut_off()
        for connection in self._hub.all():
            if self._directory.is_revoked(connection.id):
                self._hub.unregister(connection)
            else:
                self._agents.welcome(connection)

    def _heard(self, news: str) -> None:
        """Another coordinator, or a command elsewhere, wrote to the store. Called from a thread of the store's."""
        if news == instances.LOG:
            self._log.announce()
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _follow_directory(self) -> None:
        """Take up what was published elsewhere; once at the start, for what was heard before there was a loop."""
        while True:
            self._changed.clear()
            try:
                await self._reload()
            except CohortiumError as error:
                logger.error("what was published is not taken up yet", reason=error.message, hint=error.hint)
                await asyncio.sleep(ORPHANS_EVERY_S)
                continue
            await self._changed.wait()

    async def _see_to_orphans(self) -> None:
        """Now and then look whether another coordinator has died."""
        while True:
            await asyncio.sleep(ORPHANS_EVERY_S)
            try:
                await self._desk.see_to_orphans()
            except CohortiumError as error:
                logger.error("requests left running were not looked at", reason=error.message, hint=error.hint)

    async def _show_heads(self) -> None:
        """Every second have the log's newest head witnessed, so that releases are cosigned too."""
        while True:
            await asyncio.sleep(WITNESS_EVERY_S)
            try:
                await self._witnessing.catch_up()
            except CohortiumError as error:  # a full disk now must not end the coordinator
                logger.error("the log's head was not shown", reason=error.message, hint=error.hint)


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"


def serve(config: ServerConfig, on_ready: Callable[[str, str], None], *, deadlines: Deadlines | None = None) -> None:
    """Run the coordinator of a folder until SIGTERM or SIGINT. Raises ConfigError where it cannot start."""
    coordinator = Coordinator(config, deadlines=deadlines or Deadlines())
    run_until_signal(lambda: coordinator.run(on_ready))
    logger.info("stopped")
