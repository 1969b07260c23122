from protos.v1 import analyst_pb2 as _analyst_pb2
from protos.v1 import envelope_pb2 as _envelope_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromAgent(_message.Message):
    __slots__ = ("hello", "answer", "round", "cosignature", "serving", "statement")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    COSIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    answer: Answer
    round: RoundMessage
    cosignature: Cosignature
    serving: Serving
    statement: Statement
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., round: _Optional[_Union[RoundMessage, _Mapping]] = ..., cosignature: _Optional[_Union[Cosignature, _Mapping]] = ..., serving: _Optional[_Union[Serving, _Mapping]] = ..., statement: _Optional[_Union[Statement, _Mapping]] = ...) -> None: ...

class ToAgent(_message.Message):
    __slots__ = ("welcome", "announce", "round", "closed", "head", "job_closed", "statement_logged", "model_piece")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    JOB_CLOSED_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_LOGGED_FIELD_NUMBER: _ClassVar[int]
    MODEL_PIECE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    announce: Announce
    round: RoundMessage
    closed: RoundClosed
    head: Head
    job_closed: JobClosed
    statement_logged: StatementLogged
    model_piece: ModelPiece
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., announce: _Optional[_Union[Announce, _Mapping]] = ..., round: _Optional[_Union[RoundMessage, _Mapping]] = ..., closed: _Optional[_Union[RoundClosed, _Mapping]] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., job_closed: _Optional[_Union[JobClosed, _Mapping]] = ..., statement_logged: _Optional[_Union[StatementLogged, _Mapping]] = ..., model_piece: _Optional[_Union[ModelPiece, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("log_size", "at", "version", "owed")
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OWED_FIELD_NUMBER: _ClassVar[int]
    log_size: int
    at: int
    version: str
    owed: _containers.RepeatedCompositeFieldContainer[OwnDecision]
    def __init__(self, log_size: _Optional[int] = ..., at: _Optional[int] = ..., version: _Optional[str] = ..., owed: _Optional[_Iterable[_Union[OwnDecision, _Mapping]]] = ...) -> None: ...

class OwnDecision(_message.Message):
    __slots__ = ("request_id", "round_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    round_id: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., round_id: _Optional[bytes] = ...) -> None: ...

class Serving(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Served]
    def __init__(self, datasets: _Optional[_Iterable[_Union[Served, _Mapping]]] = ...) -> None: ...

class Served(_message.Message):
    __slots__ = ("dataset", "schema_hash")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    schema_hash: bytes
    def __init__(self, dataset: _Optional[str] = ..., schema_hash: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("membership", "datasets", "at", "cosigned")
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    COSIGNED_FIELD_NUMBER: _ClassVar[int]
    membership: _envelope_pb2.Envelope
    datasets: _containers.RepeatedCompositeFieldContainer[_envelope_pb2.Envelope]
    at: int
    cosigned: bytes
    def __init__(self, membership: _Optional[_Union[_envelope_pb2.Envelope, _Mapping]] = ..., datasets: _Optional[_Iterable[_Union[_envelope_pb2.Envelope, _Mapping]]] = ..., at: _Optional[int] = ..., cosigned: _Optional[bytes] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("checkpoint", "old_size", "consistency", "recorded")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    OLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    checkpoint: bytes
    old_size: int
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    recorded: _containers.RepeatedCompositeFieldContainer[_analyst_pb2.LogProof]
    def __init__(self, checkpoint: _Optional[bytes] = ..., old_size: _Optional[int] = ..., consistency: _Optional[_Iterable[bytes]] = ..., recorded: _Optional[_Iterable[_Union[_analyst_pb2.LogProof, _Mapping]]] = ...) -> None: ...

class Announce(_message.Message):
    __slots__ = ("parameters", "request", "head", "inclusion", "seen_consistency", "job")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    INCLUSION_FIELD_NUMBER: _ClassVar[int]
    SEEN_CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    parameters: bytes
    request: _envelope_pb2.Envelope
    head: Head
    inclusion: _analyst_pb2.LogProof
    seen_consistency: _containers.RepeatedScalarFieldContainer[bytes]
    job: JobRound
    def __init__(self, parameters: _Optional[bytes] = ..., request: _Optional[_Union[_envelope_pb2.Envelope, _Mapping]] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., inclusion: _Optional[_Union[_analyst_pb2.LogProof, _Mapping]] = ..., seen_consistency: _Optional[_Iterable[bytes]] = ..., job: _Optional[_Union[JobRound, _Mapping]] = ...) -> None: ...

class JobRound(_message.Message):
    __slots__ = ("slot", "model", "model_hash")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_HASH_FIELD_NUMBER: _ClassVar[int]
    slot: int
    model: bytes
    model_hash: bytes
    def __init__(self, slot: _Optional[int] = ..., model: _Optional[bytes] = ..., model_hash: _Optional[bytes] = ...) -> None: ...

class ModelPiece(_message.Message):
    __slots__ = ("model_hash", "size", "data")
    MODEL_HASH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    model_hash: bytes
    size: int
    data: bytes
    def __init__(self, model_hash: _Optional[bytes] = ..., size: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("round_id", "decision", "signature", "join", "cosignature")
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    COSIGNATURE_FIELD_NUMBER: _ClassVar[int]
    round_id: bytes
    decision: bytes
    signature: bytes
    join: bytes
    cosignature: Cosignature
    def __init__(self, round_id: _Optional[bytes] = ..., decision: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., join: _Optional[bytes] = ..., cosignature: _Optional[_Union[Cosignature, _Mapping]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("institution", "request_id", "round_id", "allowed", "code", "rule", "message", "hint", "rho_nano_before", "rho_nano_after", "log_size", "log_root", "own_size", "own_root", "budget_permille", "rho_nano_left", "rho_nano_left_all", "epoch", "policy_hash", "slot", "model_hash")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_BEFORE_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_AFTER_FIELD_NUMBER: _ClassVar[int]
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    LOG_ROOT_FIELD_NUMBER: _ClassVar[int]
    OWN_SIZE_FIELD_NUMBER: _ClassVar[int]
    OWN_ROOT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_LEFT_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_LEFT_ALL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POLICY_HASH_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    MODEL_HASH_FIELD_NUMBER: _ClassVar[int]
    institution: str
    request_id: bytes
    round_id: bytes
    allowed: bool
    code: str
    rule: str
    message: str
    hint: str
    rho_nano_before: int
    rho_nano_after: int
    log_size: int
    log_root: bytes
    own_size: int
    own_root: bytes
    budget_permille: int
    rho_nano_left: int
    rho_nano_left_all: int
    epoch: int
    policy_hash: bytes
    slot: int
    model_hash: bytes
    def __init__(self, institution: _Optional[str] = ..., request_id: _Optional[bytes] = ..., round_id: _Optional[bytes] = ..., allowed: _Optional[bool] = ..., code: _Optional[str] = ..., rule: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., rho_nano_before: _Optional[int] = ..., rho_nano_after: _Optional[int] = ..., log_size: _Optional[int] = ..., log_root: _Optional[bytes] = ..., own_size: _Optional[int] = ..., own_root: _Optional[bytes] = ..., budget_permille: _Optional[int] = ..., rho_nano_left: _Optional[int] = ..., rho_nano_left_all: _Optional[int] = ..., epoch: _Optional[int] = ..., policy_hash: _Optional[bytes] = ..., slot: _Optional[int] = ..., model_hash: _Optional[bytes] = ...) -> None: ...

class Cosignature(_message.Message):
    __slots__ = ("size", "line")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    size: int
    line: str
    def __init__(self, size: _Optional[int] = ..., line: _Optional[str] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ("content", "signature")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    signature: bytes
    def __init__(self, content: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class StatementContent(_message.Message):
    __slots__ = ("institution", "number", "at", "about", "text", "subject")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    institution: str
    number: int
    at: int
    about: str
    text: str
    subject: bytes
    def __init__(self, institution: _Optional[str] = ..., number: _Optional[int] = ..., at: _Optional[int] = ..., about: _Optional[str] = ..., text: _Optional[str] = ..., subject: _Optional[bytes] = ...) -> None: ...

class StatementLogged(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class RoundMessage(_message.Message):
    __slots__ = ("round_id", "step", "payload")
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    round_id: bytes
    step: str
    payload: bytes
    def __init__(self, round_id: _Optional[bytes] = ..., step: _Optional[str] = ..., payload: _Optional[bytes] = ...) -> None: ...

class RoundClosed(_message.Message):
    __slots__ = ("round_id", "outcome")
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    round_id: bytes
    outcome: str
    def __init__(self, round_id: _Optional[bytes] = ..., outcome: _Optional[str] = ...) -> None: ...

class JobClosed(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    def __init__(self, request_id: _Optional[bytes] = ...) -> None: ...

class UploadChunk(_message.Message):
    __slots__ = ("round_id", "data", "manifest")
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    round_id: bytes
    data: bytes
    manifest: bytes
    def __init__(self, round_id: _Optional[bytes] = ..., data: _Optional[bytes] = ..., manifest: _Optional[bytes] = ...) -> None: ...

class UploadReceipt(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
