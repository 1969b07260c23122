from protos.v1 import envelope_pb2 as _envelope_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EntriesRequest(_message.Message):
    __slots__ = ("first", "limit", "kind", "dataset", "actor", "request_id", "follow", "institution", "outcome", "since_ms", "before_ms")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    first: int
    limit: int
    kind: str
    dataset: str
    actor: str
    request_id: str
    follow: bool
    institution: str
    outcome: str
    since_ms: int
    before_ms: int
    def __init__(self, first: _Optional[int] = ..., limit: _Optional[int] = ..., kind: _Optional[str] = ..., dataset: _Optional[str] = ..., actor: _Optional[str] = ..., request_id: _Optional[str] = ..., follow: _Optional[bool] = ..., institution: _Optional[str] = ..., outcome: _Optional[str] = ..., since_ms: _Optional[int] = ..., before_ms: _Optional[int] = ...) -> None: ...

class EntriesPage(_message.Message):
    __slots__ = ("entries", "tree_size")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    TREE_SIZE_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    tree_size: int
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., tree_size: _Optional[int] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("seq", "leaf")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LEAF_FIELD_NUMBER: _ClassVar[int]
    seq: int
    leaf: bytes
    def __init__(self, seq: _Optional[int] = ..., leaf: _Optional[bytes] = ...) -> None: ...

class ProofRequest(_message.Message):
    __slots__ = ("seq", "old_size")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    seq: int
    old_size: int
    def __init__(self, seq: _Optional[int] = ..., old_size: _Optional[int] = ...) -> None: ...

class ProofResponse(_message.Message):
    __slots__ = ("checkpoint", "inclusion", "consistency")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    INCLUSION_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    checkpoint: bytes
    inclusion: _containers.RepeatedScalarFieldContainer[bytes]
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, checkpoint: _Optional[bytes] = ..., inclusion: _Optional[_Iterable[bytes]] = ..., consistency: _Optional[_Iterable[bytes]] = ...) -> None: ...

class HeadsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HeadsResponse(_message.Message):
    __slots__ = ("checkpoint", "membership", "memberships", "cosigned", "first", "peaks")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIPS_FIELD_NUMBER: _ClassVar[int]
    COSIGNED_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    PEAKS_FIELD_NUMBER: _ClassVar[int]
    checkpoint: bytes
    membership: _envelope_pb2.Envelope
    memberships: _containers.RepeatedCompositeFieldContainer[_envelope_pb2.Envelope]
    cosigned: bytes
    first: int
    peaks: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, checkpoint: _Optional[bytes] = ..., membership: _Optional[_Union[_envelope_pb2.Envelope, _Mapping]] = ..., memberships: _Optional[_Iterable[_Union[_envelope_pb2.Envelope, _Mapping]]] = ..., cosigned: _Optional[bytes] = ..., first: _Optional[int] = ..., peaks: _Optional[_Iterable[bytes]] = ...) -> None: ...

class WitnessRequest(_message.Message):
    __slots__ = ("size", "cosignature", "wait_s")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    COSIGNATURE_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    size: int
    cosignature: str
    wait_s: int
    def __init__(self, size: _Optional[int] = ..., cosignature: _Optional[str] = ..., wait_s: _Optional[int] = ...) -> None: ...

class WitnessResponse(_message.Message):
    __slots__ = ("checkpoint", "consistency")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    checkpoint: bytes
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, checkpoint: _Optional[bytes] = ..., consistency: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CheckpointsRequest(_message.Message):
    __slots__ = ("first_size",)
    FIRST_SIZE_FIELD_NUMBER: _ClassVar[int]
    first_size: int
    def __init__(self, first_size: _Optional[int] = ...) -> None: ...

class CheckpointsPage(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, checkpoints: _Optional[_Iterable[bytes]] = ...) -> None: ...
