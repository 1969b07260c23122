"""What an agent puts on the wire is the protobuf message that the coordinator reads."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from analytics_client.agent.chunks import encode_chunk
from protos.v1 import agent_pb2


@given(round_id=st.binary(max_size=40), data=st.binary(min_size=1, max_size=400), manifest=st.binary(max_size=200))
@example(round_id=bytes(32), data=bytes(127), manifest=b"")
@example(round_id=bytes(32), data=bytes(128), manifest=b"m")
@example(round_id=bytes(32), data=bytes(1 << 20), manifest=bytes(300))
def test_the_bytes_are_those_of_the_message(round_id: bytes, data: bytes, manifest: bytes) -> None:
    message = agent_pb2.UploadChunk(round_id=round_id, data=data, manifest=manifest)
    assert encode_chunk(round_id, data, manifest) == message.SerializeToString(deterministic=True)
