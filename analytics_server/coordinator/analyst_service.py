"""The service analysts call: what can be asked of whom, asking it, and the result after a disconnect."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import grpc

from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.hub import Hub
from analytics_server.coordinator.mirror import Mirror
from analytics_server.coordinator.requests import RequestDesk
from protos.v1 import analyst_pb2, analyst_pb2_grpc, envelope_pb2
from trust.rpc.server import peer as peer_of
from trust.rpc.server import serves

ALWAYS_TOLD = {"logged", "round", "evaluated", "retried", "released", "failed"}
PIECE = 1 << 20
"""Most bytes of a release in one message."""

Context = grpc.aio.ServicerContext[object, object]


class AnalystServicer(analyst_pb2_grpc.AnalystServicer):
    """Overview, Submit and Result."""

    def __init__(self, *, directory: Directory, hub: Hub, desk: RequestDesk, mirror: Mirror) -> None:
        self.gate = directory.gate
        self._directory = directory
        self._hub = hub
        self._desk = desk
        self._mirror = mirror

    @serves("analyst", "auditor", "steward", "operator")
    async def Overview(  # noqa: N802 - named by the service definition
        self, _request: analyst_pb2.OverviewRequest, context: Context
    ) -> analyst_pb2.OverviewResponse:
        """Return the membership in force and every published dataset, with who serves it now."""
        self._directory.require_member(peer_of(context))
        return analyst_pb2.OverviewResponse(
            membership=envelope_pb2.Envelope.FromString(self._directory.membership_envelope),
            datasets=[
                analyst_pb2.DatasetListing(
                    dataset=envelope_pb2.Envelope.FromString(published.envelope),
                    serving=self._hub.serving(published.dataset.name, published.schema_hash, self._directory.members),
                )
                for published in self._directory.datasets.values()
            ],
            at=int(time.time()),
        )

    @serves("analyst")
    async def Submit(  # noqa: N802 - named by the service definition
        self, request: analyst_pb2.SubmitRequest, context: Context
    ) -> AsyncIterator[analyst_pb2.Progress]:
        """Run a signed request; the stream reports its steps and ends with the release or the failure."""
        async for progress in self._desk.submit(request.request, peer_of(context)):
            if not request.steps and progress.step not in ALWAYS_TOLD:
                continue
            for message in _in_pieces(progress):
                yield message

    @serves("analyst")
    async def Result(  # noqa: N802 - named by the service definition
        self, request: analyst_pb2.ResultRequest, context: Context
    ) -> AsyncIterator[analyst_pb2.Progress]:
        """Tell the end of one of the analyst's own requests, waiting for it where it is still running."""
        for message in _in_pieces(await self._desk.result(request.request_id, peer_of(context))):
            yield message

    @serves("analyst")
    async def Jobs(  # noqa: N802 - named by the service definition
        self, _request: analyst_pb2.JobsRequest, context: Context
    ) -> analyst_pb2.JobsResponse:
        """List the caller's own training jobs."""
        return analyst_pb2.JobsResponse(jobs=await self._desk.jobs.listed(peer_of(context)))

    @serves("analyst")
    async def Rounds(  # noqa: N802 - named by the service definition
        self, request: analyst_pb2.RoundsRequest, context: Context
    ) -> AsyncIterator[analyst_pb2.Progress]:
        """Tell what the rounds of one of the caller's own jobs have released."""
        for progress in await self._desk.jobs.rounds(request.request_id, peer_of(context)):
            for message in _in_pieces(progress):
                yield message

    @serves("analyst")
    async def Left(  # noqa: N802 - named by the service definition
        self, request: analyst_pb2.LeftRequest, context: Context
    ) -> analyst_pb2.LeftResponse:
        """Tell what the caller could still spend of a dataset, by what the log says."""
        peer = peer_of(context)
        self._directory.require_member(peer)
        left = await self._mirror.left(self._directory.dataset(request.dataset).dataset.name, peer.id)
        return analyst_pb2.LeftResponse(
            left=[analyst_pb2.BudgetLeft(institution=i, rho_nano=rho_nano) for i, rho_nano in sorted(left.items())]
        )

    @serves("analyst", "steward")
    async def Stop(  # noqa: N802 - named by the service definition
        self, request: analyst_pb2.StopRequest, context: Context
    ) -> analyst_pb2.StopResponse:
        """End a training job after the round in hand."""
        peer = peer_of(context)
        self._desk.jobs.stop(request.request_id, peer, steward=peer.role == "steward")
        return analyst_pb2.StopResponse()


def _in_pieces(progress: analyst_pb2.Progress) -> Iterator[analyst_pb2.Progress]:
    """Yield a report in messages that the wire takes: a release of a million cells is larger than one may be."""
    release = progress.release
    if len(release) <= PIECE:
        yield progress
        return
    last = (len(release) - 1) // PIECE * PIECE
    for start in range(0, last, PIECE):
        piece = release[start : start + PIECE]
        yield analyst_pb2.Progress(request_id=progress.request_id, step="release", release=piece)
    end = analyst_pb2.Progress()
    end.CopyFrom(progress)
    end.release = release[last:]
    yield end
