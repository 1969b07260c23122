from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class RoundParameters(_message.Message):
    __slots__ = ("membership_hash", "request_id", "invited", "threshold", "minimum_cohort", "colluders", "length", "ring_bits", "nonce")
    MEMBERSHIP_HASH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INVITED_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_COHORT_FIELD_NUMBER: _ClassVar[int]
    COLLUDERS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    RING_BITS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    membership_hash: bytes
    request_id: bytes
    invited: _containers.RepeatedScalarFieldContainer[str]
    threshold: int
    minimum_cohort: int
    colluders: int
    length: int
    ring_bits: int
    nonce: bytes
    def __init__(self, membership_hash: _Optional[bytes] = ..., request_id: _Optional[bytes] = ..., invited: _Optional[_Iterable[str]] = ..., threshold: _Optional[int] = ..., minimum_cohort: _Optional[int] = ..., colluders: _Optional[int] = ..., length: _Optional[int] = ..., ring_bits: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...
