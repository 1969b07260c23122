"""Uploads as they go onto the wire: `UploadChunk` around a piece of a masked vector, without a message in between.

A message of 1 MiB that is built, encoded and forgotten gives its memory back to the system and asks for it again with
every chunk: that takes three times as long as hashing the chunk. The bytes here are the ones that protobuf would make:
an encoded message is its encoded fields, one after the other. Must not know: rounds, what is in a chunk.
"""

from __future__ import annotations

from typing import Any, cast

import grpc.aio

from protos.v1 import agent_pb2

_UPLOAD = "/" + agent_pb2.DESCRIPTOR.services_by_name["AgentLink"].full_name + "/Upload"
_LENGTH_DELIMITED = 2
_DATA_TAG = agent_pb2.UploadChunk.DESCRIPTOR.fields_by_name["data"].number << 3 | _LENGTH_DELIMITED

Uploads = grpc.aio.StreamUnaryCall[bytes, agent_pb2.UploadReceipt]


def open_uploads(channel: grpc.aio.Channel) -> Uploads:
    """Open the stream that takes what `encode_chunk` returns."""
    receipt = agent_pb2.UploadReceipt.FromString
    method: Any = channel.stream_unary(_UPLOAD, request_serializer=None, response_deserializer=receipt)
    return cast("Uploads", method())


def encode_chunk(round_id: bytes, data: bytes, manifest: bytes = b"") -> bytes:
    """Return the encoded `UploadChunk`; the manifest goes with the last of a vector."""
    before = agent_pb2.UploadChunk(round_id=round_id).SerializeToString()
    after = agent_pb2.UploadChunk(manifest=manifest).SerializeToString()
    return b"".join((before, bytes((_DATA_TAG,)), _varint(len(data)), data, after))


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first, the top bit set in all but the last."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
