"""Federated averaging without privacy, as the yardstick of private rounds: mTLS streams, local steps, a mean.

The same certificates, gRPC options, message size, event loops per agent and number formats as the product's rounds; the
local steps are those of `agent.training.descent`, over rows that are at hand. Nothing is checked, logged or hidden.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from analytics_client import profile as profiles
from analytics_client.agent.training import descent
from analytics_server.config import ServerConfig
from queries.training.gradients import Gradients
from queries.training.plan import JobPlan
from trust.rpc import server as rpc
from trust.rpc.channel import TlsIdentity, connect_aio

METHOD = "/bench.Plain/Rounds"
PIECE = 1 << 20
Values = dict[str, np.ndarray]


class Coordinator(grpc.GenericRpcHandler):
    """Sends the model to every agent in pieces, takes theirs, and averages them as they arrive."""

    def __init__(self, theta: np.ndarray, agents: int) -> None:
        self.theta = theta.astype(np.float32)
        self.agents = agents
        self.connected: list[Any] = []
        self.done = asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        wanted = handler_call_details.method == METHOD
        return grpc.stream_stream_rpc_method_handler(self._serve) if wanted else None

    async def _serve(self, _messages: AsyncIterator[bytes], context: Any) -> None:
        self.connected.append(context)
        await self.done.wait()

    async def round(self) -> None:
        model = self.theta.tobytes()
        total = np.zeros(len(self.theta), dtype=np.float64)
        await asyncio.gather(*(self._exchange(context, model, total) for context in self.connected))
        self.theta = (total / self.agents).astype(np.float32)

    async def _exchange(self, context: Any, model: bytes, total: np.ndarray) -> None:
        for start in range(0, len(model), PIECE):
            await context.write(model[start : start + PIECE])
        place = 0
        while place < len(total):
            part = np.frombuffer(await context.read(), dtype=np.float32)
            total[place : place + len(part)] += part
            place += len(part)


async def agent(address: str, tls: TlsIdentity, plan: JobPlan, values: Values) -> None:
    """Take models and send back what local steps make of them, until the stream ends."""
    statistic = plan.statistic
    assert isinstance(statistic, Gradients)
    random, gradients = np.random.Generator(np.random.SFC64(1)), descent.local_gradients(statistic)
    channel = await connect_aio(address, tls)
    stream = channel.stream_stream(METHOD)()
    size = 4 * plan.length
    while True:
        pieces, got = [], 0
        while got < size:
            piece = await stream.read()
            if piece is grpc.aio.EOF:
                await channel.close()
                return
            pieces.append(piece)
            got += len(piece)
        theta = np.frombuffer(b"".join(pieces), dtype=np.float32).astype(np.float64)
        local = await asyncio.to_thread(descent.local_steps, statistic, gradients, values, theta, random)
        sent = memoryview(local.astype(np.float32).tobytes())
        for start in range(0, size, PIECE):
            await stream.write(bytes(sent[start : start + PIECE]))


def seconds_per_round(
    config: ServerConfig, folders: list[Path], plan: JobPlan, values: list[Values], rounds: int
) -> list[float]:
    """Return the seconds of each of so many rounds after a first one. Agents run in threads with loops of their own."""
    identities = [profiles.load(folder).tls() for folder in folders]
    found: list[float] = []

    async def main() -> None:
        coordinator = Coordinator(plan.statistic.initial(), len(folders))  # type: ignore[attr-defined]
        tls = config.tls()
        server = grpc.aio.server(options=rpc.OPTIONS)
        server.add_generic_rpc_handlers((coordinator,))
        port = rpc.bind(server, "127.0.0.1:0", rpc.mutual_credentials(tls.key, tls.chain, tls.ca))
        await server.start()
        threads = [
            threading.Thread(target=lambda i=i, v=v: asyncio.run(agent(f"127.0.0.1:{port}", i, plan, v)), daemon=True)
            for i, v in zip(identities, values, strict=True)
        ]
        for thread in threads:
            thread.start()
        while len(coordinator.connected) < len(folders):
            await asyncio.sleep(0.01)
        for _ in range(rounds + 1):
            started = time.perf_counter()
            await coordinator.round()
            found.append(time.perf_counter() - started)
        coordinator.done.set()
        await server.stop(1)
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)

    asyncio.run(main())
    return found[1:]
