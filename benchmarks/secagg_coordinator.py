"""The process of the coordinator in whole rounds that are timed: its real services, and rounds without a request."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from secagg_consortium import (
    BARE,
    PATIENCE,
    Case,
    run,
    sum_of,
)

from analytics_server.config import load
from analytics_server.coordinator.agent_service import AgentServicer
from analytics_server.coordinator.chunks import add_agent_servicer
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.hub import Hub
from analytics_server.coordinator.outcomes import RoundFailed
from analytics_server.coordinator.rounds import Round
from analytics_server.store import Store
from protos.v1 import agent_pb2, envelope_pb2
from trust.rpc import server as rpc
from trust.secagg import make_parameters


class TimedRound(Round):
    """A round that notes when its first chunk came in and when its last upload was complete."""

    first_chunk = last_upload = 0.0

    def upload_of(self, member: str) -> Any:
        self.first_chunk = self.first_chunk or time.perf_counter()
        return super().upload_of(member)

    def finish_upload(self, member: str) -> None:
        super().finish_upload(member)
        self.last_upload = time.perf_counter()


class NoLog:
    """Stands where the log's services do."""

    async def newest_of(self, _institution: str) -> bytes:
        return b""

    async def look_up(self, _institution: str, _owed: object) -> list[int]:
        return []

    def cosigned(self, _institution: str, _cosignature: object) -> None:
        """There is no head to cosign."""

    async def ended(self) -> list[bytes]:
        return []


class BenchCoordinator:
    """The services that agents connect to, and rounds without a request behind them."""

    def __init__(self, folder: Path) -> None:
        self._config = load(folder / "server")
        self._directory = Directory(self._config.consortium, self._config.governance_key)
        store = Store.open(self._config.store_url)
        with store.read() as uow:
            self._directory.reload(uow)
        store.close()
        self._hub = Hub()
        self._server = rpc.new_server()
        self.bare = BareStreams()

    async def start(self) -> int:
        tls = self._config.tls()
        servicer = AgentServicer(
            hub=self._hub,
            directory=self._directory,
            witnessing=NoLog(),  # type: ignore[arg-type]  # rounds alone are measured
            statements=NoLog(),  # type: ignore[arg-type]  # likewise
            jobs=NoLog(),  # type: ignore[arg-type]  # likewise
        )
        add_agent_servicer(servicer, self._server)
        self._server.add_generic_rpc_handlers((self.bare,))
        port = rpc.bind(self._server, "127.0.0.1:0", rpc.mutual_credentials(tls.key, tls.chain, tls.ca))
        await self._server.start()
        return port

    async def stop(self) -> None:
        await self._server.stop(0)

    async def expect(self, connected: int) -> None:
        """Return once exactly so many institutions are connected and serve."""
        while sum(bool(c.serving) for c in self._hub.all()) != connected or len(self._hub.all()) != connected:
            await asyncio.sleep(0.02)

    async def round(self, case: Case) -> dict[str, Any]:
        """Run one round and check its sum; returns seconds, the survivors' number and when uploads began and ended."""
        document = self._directory.in_force()
        parameters = make_parameters(
            membership_hash=document.hash,
            request_id=os.urandom(32),
            invited=case.names,
            minimum_cohort=document.minimum_cohort,
            colluders=document.colluders,
            length=case.length,
            ring_bits=case.ring_bits,
        )
        steps: dict[str, float] = {}
        cpu, start = time.process_time(), time.perf_counter()
        round_ = TimedRound(
            parameters,
            members={name: self._directory.members[name] for name in case.names},
            hub=self._hub,
            deadlines=PATIENCE,
            on_step=lambda step, _who: steps.__setitem__(step, round(time.perf_counter() - start, 3)),
        )
        round_.start()
        announce = agent_pb2.ToAgent(
            announce=agent_pb2.Announce(parameters=parameters, request=envelope_pb2.Envelope())
        )
        for name in case.names:
            connection = self._hub.get(name)
            assert connection is not None, name
            connection.send(announce)
        try:
            total = await round_.finish(_nothing_to_log)
        except RoundFailed as failure:
            raise AssertionError(f"{failure}: {round_.dropouts[:3]}") from failure
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        assert set(round_.survivors) == set(case.names) - case.gone, round_.dropouts[:3]
        assert np.array_equal(total, sum_of(round_.survivors, case.length, case.dtype)), "the sum is wrong"
        return {
            "seconds": seconds,
            "cpu": cpu,
            "steps": steps,
            "upload_seconds": round_.last_upload - round_.first_chunk,
        }


async def _nothing_to_log() -> None:
    """Decisions go into the log in production."""


class BareStreams(grpc.GenericRpcHandler):
    """Streams of raw bytes under the same mTLS, read and forgotten: the fastest that this transport receives."""

    def __init__(self) -> None:
        self.first = self.last = 0.0
        self.received = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.stream_unary_rpc_method_handler(self._drain) if handler_call_details.method == BARE else None

    async def _drain(self, _messages: AsyncIterator[bytes], context: Any) -> bytes:
        while (message := await context.read()) is not grpc.aio.EOF:
            self.first = self.first or time.perf_counter()
            self.received += len(message)
        self.last = time.perf_counter()
        return b""


def coordinator_process(folder: Path, pipe: Connection) -> None:
    """Serve, and do what the pipe says: ("expect", n), ("round", Case), ("bare",), ("stop",)."""

    async def main() -> None:
        bench = BenchCoordinator(folder)
        pipe.send(await bench.start())
        while True:
            command, *arguments = await asyncio.to_thread(pipe.recv)
            match command:
                case "expect":
                    pipe.send(await bench.expect(*arguments))
                case "round":
                    pipe.send(await bench.round(*arguments))
                case "bare":
                    bare = bench.bare
                    pipe.send((bare.received, bare.last - bare.first))
                    bare.first, bare.received = 0.0, 0
                case "stop":
                    await bench.stop()
                    return

    run(main)
