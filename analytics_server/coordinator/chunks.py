"""Uploads as they come off the wire: an `UploadChunk` whose data stays where the transport put it.

protobuf would copy a piece of 1 MiB twice, into memory that is asked of the system anew each time: half as long again
as hashing it takes. Here fields are found where they lie; whatever is not plainly laid out is left to protobuf. Must
not know: rounds, what is in a chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import grpc
import grpc.aio

from protos.v1 import agent_pb2, agent_pb2_grpc

_SERVICE = agent_pb2.DESCRIPTOR.services_by_name["AgentLink"].full_name
_LENGTH_DELIMITED = 2
_FIELDS = {f.number << 3 | _LENGTH_DELIMITED: f.name for f in agent_pb2.UploadChunk.DESCRIPTOR.fields}
"""Field names by tag; all of them are byte strings."""
_LONGEST_LENGTH = 5
"""Bytes of a varint below 2^35; no message is as long."""


class Chunk(NamedTuple):
    """A piece of a masked vector; `data` is a view of the message that it came in."""

    round_id: bytes
    data: memoryview
    manifest: bytes


def decode_chunk(message: bytes) -> Chunk:
    """Return what protobuf would read. Raises protobuf's DecodeError where it would."""
    view, at = memoryview(message), 0
    found = {"round_id": view[:0], "data": view[:0], "manifest": view[:0]}
    while at < len(message):
        name = _FIELDS.get(message[at])
        start, size = _length(message, at + 1)
        if name is None or size < 0 or start + size > len(message):
            parsed = agent_pb2.UploadChunk.FromString(message)
            return Chunk(parsed.round_id, memoryview(parsed.data), parsed.manifest)
        at = start + size
        found[name] = view[start:at]
    return Chunk(bytes(found["round_id"]), found["data"], bytes(found["manifest"]))


def _length(message: bytes, at: int) -> tuple[int, int]:
    """Return where the varint at `at` ends, and its value; -1 where it does not end soon enough."""
    value = 0
    for count, byte in enumerate(message[at : at + _LONGEST_LENGTH]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return at + count + 1, value
    return at, -1


def add_agent_servicer(servicer: agent_pb2_grpc.AgentLinkServicer, server: grpc.aio.Server) -> None:
    """As the generated function, but `Upload` reads `Chunk`s."""
    agent_pb2_grpc.add_AgentLinkServicer_to_server(servicer, server)
    upload = grpc.stream_unary_rpc_method_handler(
        servicer.Upload,
        request_deserializer=decode_chunk,
        response_serializer=agent_pb2.UploadReceipt.SerializeToString,
    )
    server.add_registered_method_handlers(_SERVICE, {"Upload": upload})  # type: ignore[attr-defined]  # not in the stubs
