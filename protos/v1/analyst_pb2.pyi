from protos.v1 import envelope_pb2 as _envelope_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OverviewRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OverviewResponse(_message.Message):
    __slots__ = ("membership", "datasets", "at")
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    membership: _envelope_pb2.Envelope
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetListing]
    at: int
    def __init__(self, membership: _Optional[_Union[_envelope_pb2.Envelope, _Mapping]] = ..., datasets: _Optional[_Iterable[_Union[DatasetListing, _Mapping]]] = ..., at: _Optional[int] = ...) -> None: ...

class DatasetListing(_message.Message):
    __slots__ = ("dataset", "serving")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    dataset: _envelope_pb2.Envelope
    serving: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dataset: _Optional[_Union[_envelope_pb2.Envelope, _Mapping]] = ..., serving: _Optional[_Iterable[str]] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("request", "steps")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    request: _envelope_pb2.Envelope
    steps: bool
    def __init__(self, request: _Optional[_Union[_envelope_pb2.Envelope, _Mapping]] = ..., steps: _Optional[bool] = ...) -> None: ...

class ResultRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    def __init__(self, request_id: _Optional[bytes] = ...) -> None: ...

class LeftRequest(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    def __init__(self, dataset: _Optional[str] = ...) -> None: ...

class LeftResponse(_message.Message):
    __slots__ = ("left",)
    LEFT_FIELD_NUMBER: _ClassVar[int]
    left: _containers.RepeatedCompositeFieldContainer[BudgetLeft]
    def __init__(self, left: _Optional[_Iterable[_Union[BudgetLeft, _Mapping]]] = ...) -> None: ...

class BudgetLeft(_message.Message):
    __slots__ = ("institution", "rho_nano")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_FIELD_NUMBER: _ClassVar[int]
    institution: str
    rho_nano: int
    def __init__(self, institution: _Optional[str] = ..., rho_nano: _Optional[int] = ...) -> None: ...

class JobsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobStatus]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobStatus, _Mapping]]] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("request_id", "state", "rounds", "request", "failure")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    state: str
    rounds: int
    request: _envelope_pb2.Envelope
    failure: Failure
    def __init__(self, request_id: _Optional[bytes] = ..., state: _Optional[str] = ..., rounds: _Optional[int] = ..., request: _Optional[_Union[_envelope_pb2.Envelope, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class RoundsRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    def __init__(self, request_id: _Optional[bytes] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    def __init__(self, request_id: _Optional[bytes] = ...) -> None: ...

class StopResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Progress(_message.Message):
    __slots__ = ("request_id", "step", "institutions", "release", "failure", "checkpoint", "proof", "statements", "consistency")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    INSTITUTIONS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    step: str
    institutions: _containers.RepeatedScalarFieldContainer[str]
    release: bytes
    failure: Failure
    checkpoint: bytes
    proof: LogProof
    statements: _containers.RepeatedScalarFieldContainer[bytes]
    consistency: _containers.RepeatedCompositeFieldContainer[Consistency]
    def __init__(self, request_id: _Optional[bytes] = ..., step: _Optional[str] = ..., institutions: _Optional[_Iterable[str]] = ..., release: _Optional[bytes] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., checkpoint: _Optional[bytes] = ..., proof: _Optional[_Union[LogProof, _Mapping]] = ..., statements: _Optional[_Iterable[bytes]] = ..., consistency: _Optional[_Iterable[_Union[Consistency, _Mapping]]] = ...) -> None: ...

class Consistency(_message.Message):
    __slots__ = ("old_size", "hashes")
    OLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    HASHES_FIELD_NUMBER: _ClassVar[int]
    old_size: int
    hashes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, old_size: _Optional[int] = ..., hashes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "hint", "refusals", "charged")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    CHARGED_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    hint: str
    refusals: _containers.RepeatedCompositeFieldContainer[Refused]
    charged: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., refusals: _Optional[_Iterable[_Union[Refused, _Mapping]]] = ..., charged: _Optional[bool] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("institution", "rule", "message")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    institution: str
    rule: str
    message: str
    def __init__(self, institution: _Optional[str] = ..., rule: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class LogProof(_message.Message):
    __slots__ = ("seq", "leaf", "hashes")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LEAF_FIELD_NUMBER: _ClassVar[int]
    HASHES_FIELD_NUMBER: _ClassVar[int]
    seq: int
    leaf: bytes
    hashes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, seq: _Optional[int] = ..., leaf: _Optional[bytes] = ..., hashes: _Optional[_Iterable[bytes]] = ...) -> None: ...
