"""What an agent puts on the wire is the protobuf message, and what the coordinator reads is what protobuf reads."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from analytics_client.agent.chunks import encode_chunk
from analytics_server.coordinator.chunks import decode_chunk
from protos.v1 import agent_pb2


@given(round_id=st.binary(max_size=40), data=st.binary(min_size=1, max_size=400), manifest=st.binary(max_size=200))
@example(round_id=bytes(32), data=bytes(127), manifest=b"")
@example(round_id=bytes(32), data=bytes(128), manifest=b"m")
@example(round_id=bytes(32), data=bytes(1 << 20), manifest=bytes(300))
def test_the_bytes_are_those_of_the_message(round_id: bytes, data: bytes, manifest: bytes) -> None:
    message = agent_pb2.UploadChunk(round_id=round_id, data=data, manifest=manifest)
    assert encode_chunk(round_id, data, manifest) == message.SerializeToString(deterministic=True)


FIELDS = st.tuples(st.sampled_from([0x0A, 0x12, 0x1A]), st.binary(max_size=200))


def read(message: bytes) -> tuple[bytes, bytes, bytes] | None:
    try:
        chunk = decode_chunk(message)
    except DecodeError:
        return None
    return chunk.round_id, bytes(chunk.data), chunk.manifest


def read_by_protobuf(message: bytes) -> tuple[bytes, bytes, bytes] | None:
    try:
        chunk = agent_pb2.UploadChunk.FromString(message)
    except DecodeError:
        return None
    return chunk.round_id, chunk.data, chunk.manifest


@given(round_id=st.binary(max_size=40), data=st.binary(max_size=400), manifest=st.binary(max_size=200))
@example(round_id=bytes(32), data=bytes(1 << 20), manifest=bytes(300))
def test_what_an_agent_sends_is_read(round_id: bytes, data: bytes, manifest: bytes) -> None:
    assert read(encode_chunk(round_id, data, manifest)) == (round_id, data, manifest)


@given(st.lists(FIELDS, max_size=6), st.integers(0, 3))
def test_fields_in_any_order_repeated_or_cut_short_are_read_as_protobuf_does(
    fields: list[tuple[int, bytes]], cut: int
) -> None:
    message = b"".join(bytes([tag, len(value) & 0x7F | 0x80, len(value) >> 7]) + value for tag, value in fields)
    message = message[: len(message) - cut]
    assert read(message) == read_by_protobuf(message)


@given(st.binary(max_size=60))
@example(b"\x0a\x80\x80\x80\x80\x80\x00")  # a length of more bytes than any needs
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")  # and one that is negative
@example(b"\x20\x07\x0a\x01r")  # a field that nobody knows
@example(b"\x0a")
def test_any_bytes_are_read_or_refused_as_protobuf_does(message: bytes) -> None:
    assert read(message) == read_by_protobuf(message)


def test_data_is_not_copied() -> None:
    message = encode_chunk(bytes(32), bytes(100))
    assert decode_chunk(message).data.obj is message
