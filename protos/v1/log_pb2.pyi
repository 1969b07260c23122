from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogEntry(_message.Message):
    __slots__ = ("at_ms", "actor", "invited", "enrolled", "revoked", "membership_published", "dataset_published", "requested", "decided", "round_ended", "released", "failed", "log_read", "log_started", "identity_changed", "stated", "key_change_asked", "key_changed", "service_scoped", "shard_sealed", "shard_expired")
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    INVITED_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    DATASET_PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_FIELD_NUMBER: _ClassVar[int]
    DECIDED_FIELD_NUMBER: _ClassVar[int]
    ROUND_ENDED_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    LOG_READ_FIELD_NUMBER: _ClassVar[int]
    LOG_STARTED_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_CHANGED_FIELD_NUMBER: _ClassVar[int]
    STATED_FIELD_NUMBER: _ClassVar[int]
    KEY_CHANGE_ASKED_FIELD_NUMBER: _ClassVar[int]
    KEY_CHANGED_FIELD_NUMBER: _ClassVar[int]
    SERVICE_SCOPED_FIELD_NUMBER: _ClassVar[int]
    SHARD_SEALED_FIELD_NUMBER: _ClassVar[int]
    SHARD_EXPIRED_FIELD_NUMBER: _ClassVar[int]
    at_ms: int
    actor: str
    invited: Invited
    enrolled: Enrolled
    revoked: Revoked
    membership_published: MembershipPublished
    dataset_published: DatasetPublished
    requested: Requested
    decided: Decided
    round_ended: RoundEnded
    released: Released
    failed: Failed
    log_read: LogRead
    log_started: LogStarted
    identity_changed: IdentityChanged
    stated: Stated
    key_change_asked: KeyChangeAsked
    key_changed: KeyChanged
    service_scoped: ServiceScoped
    shard_sealed: ShardSealed
    shard_expired: ShardExpired
    def __init__(self, at_ms: _Optional[int] = ..., actor: _Optional[str] = ..., invited: _Optional[_Union[Invited, _Mapping]] = ..., enrolled: _Optional[_Union[Enrolled, _Mapping]] = ..., revoked: _Optional[_Union[Revoked, _Mapping]] = ..., membership_published: _Optional[_Union[MembershipPublished, _Mapping]] = ..., dataset_published: _Optional[_Union[DatasetPublished, _Mapping]] = ..., requested: _Optional[_Union[Requested, _Mapping]] = ..., decided: _Optional[_Union[Decided, _Mapping]] = ..., round_ended: _Optional[_Union[RoundEnded, _Mapping]] = ..., released: _Optional[_Union[Released, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., log_read: _Optional[_Union[LogRead, _Mapping]] = ..., log_started: _Optional[_Union[LogStarted, _Mapping]] = ..., identity_changed: _Optional[_Union[IdentityChanged, _Mapping]] = ..., stated: _Optional[_Union[Stated, _Mapping]] = ..., key_change_asked: _Optional[_Union[KeyChangeAsked, _Mapping]] = ..., key_changed: _Optional[_Union[KeyChanged, _Mapping]] = ..., service_scoped: _Optional[_Union[ServiceScoped, _Mapping]] = ..., shard_sealed: _Optional[_Union[ShardSealed, _Mapping]] = ..., shard_expired: _Optional[_Union[ShardExpired, _Mapping]] = ...) -> None: ...

class LogEntries(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[LogEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[LogEntry, _Mapping]]] = ...) -> None: ...

class IdentityChanged(_message.Message):
    __slots__ = ("participant", "erased")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    ERASED_FIELD_NUMBER: _ClassVar[int]
    participant: str
    erased: bool
    def __init__(self, participant: _Optional[str] = ..., erased: _Optional[bool] = ...) -> None: ...

class ShardSealed(_message.Message):
    __slots__ = ("first", "end", "root", "file_hash")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    FILE_HASH_FIELD_NUMBER: _ClassVar[int]
    first: int
    end: int
    root: bytes
    file_hash: bytes
    def __init__(self, first: _Optional[int] = ..., end: _Optional[int] = ..., root: _Optional[bytes] = ..., file_hash: _Optional[bytes] = ...) -> None: ...

class ShardExpired(_message.Message):
    __slots__ = ("first", "end", "root")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    first: int
    end: int
    root: bytes
    def __init__(self, first: _Optional[int] = ..., end: _Optional[int] = ..., root: _Optional[bytes] = ...) -> None: ...

class LogStarted(_message.Message):
    __slots__ = ("consortium", "governance_key")
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    GOVERNANCE_KEY_FIELD_NUMBER: _ClassVar[int]
    consortium: str
    governance_key: bytes
    def __init__(self, consortium: _Optional[str] = ..., governance_key: _Optional[bytes] = ...) -> None: ...

class Invited(_message.Message):
    __slots__ = ("participant", "role", "expires_at", "recovery_reason")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_REASON_FIELD_NUMBER: _ClassVar[int]
    participant: str
    role: str
    expires_at: int
    recovery_reason: str
    def __init__(self, participant: _Optional[str] = ..., role: _Optional[str] = ..., expires_at: _Optional[int] = ..., recovery_reason: _Optional[str] = ...) -> None: ...

class Enrolled(_message.Message):
    __slots__ = ("participant", "role", "identity_key", "service", "vouched_by")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VOUCHED_BY_FIELD_NUMBER: _ClassVar[int]
    participant: str
    role: str
    identity_key: bytes
    service: bool
    vouched_by: str
    def __init__(self, participant: _Optional[str] = ..., role: _Optional[str] = ..., identity_key: _Optional[bytes] = ..., service: _Optional[bool] = ..., vouched_by: _Optional[str] = ...) -> None: ...

class ServiceScoped(_message.Message):
    __slots__ = ("participant", "expires_at", "datasets")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    participant: str
    expires_at: int
    datasets: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, participant: _Optional[str] = ..., expires_at: _Optional[int] = ..., datasets: _Optional[_Iterable[str]] = ...) -> None: ...

class Revoked(_message.Message):
    __slots__ = ("participant", "reason")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    participant: str
    reason: str
    def __init__(self, participant: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class KeyChangeAsked(_message.Message):
    __slots__ = ("participant", "old_key", "new_key", "reason")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    OLD_KEY_FIELD_NUMBER: _ClassVar[int]
    NEW_KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    participant: str
    old_key: bytes
    new_key: bytes
    reason: str
    def __init__(self, participant: _Optional[str] = ..., old_key: _Optional[bytes] = ..., new_key: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class KeyChanged(_message.Message):
    __slots__ = ("participant", "old_key", "new_key", "reason", "epoch")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    OLD_KEY_FIELD_NUMBER: _ClassVar[int]
    NEW_KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    participant: str
    old_key: bytes
    new_key: bytes
    reason: str
    epoch: int
    def __init__(self, participant: _Optional[str] = ..., old_key: _Optional[bytes] = ..., new_key: _Optional[bytes] = ..., reason: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class MembershipPublished(_message.Message):
    __slots__ = ("epoch", "membership_hash")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_HASH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    membership_hash: bytes
    def __init__(self, epoch: _Optional[int] = ..., membership_hash: _Optional[bytes] = ...) -> None: ...

class DatasetPublished(_message.Message):
    __slots__ = ("dataset", "schema_hash")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    schema_hash: bytes
    def __init__(self, dataset: _Optional[str] = ..., schema_hash: _Optional[bytes] = ...) -> None: ...

class Requested(_message.Message):
    __slots__ = ("request_id", "envelope_hash", "analyst", "purpose", "dataset", "shape", "rho_nano", "minimum_cohort", "activity", "category")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_HASH_FIELD_NUMBER: _ClassVar[int]
    ANALYST_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_COHORT_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    envelope_hash: bytes
    analyst: str
    purpose: str
    dataset: str
    shape: str
    rho_nano: int
    minimum_cohort: int
    activity: str
    category: str
    def __init__(self, request_id: _Optional[bytes] = ..., envelope_hash: _Optional[bytes] = ..., analyst: _Optional[str] = ..., purpose: _Optional[str] = ..., dataset: _Optional[str] = ..., shape: _Optional[str] = ..., rho_nano: _Optional[int] = ..., minimum_cohort: _Optional[int] = ..., activity: _Optional[str] = ..., category: _Optional[str] = ...) -> None: ...

class Decided(_message.Message):
    __slots__ = ("request_id", "institution", "allowed", "rule", "statement", "rho_nano_before", "rho_nano_after", "policy_hash")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_BEFORE_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_AFTER_FIELD_NUMBER: _ClassVar[int]
    POLICY_HASH_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    institution: str
    allowed: bool
    rule: str
    statement: bytes
    rho_nano_before: int
    rho_nano_after: int
    policy_hash: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., institution: _Optional[str] = ..., allowed: _Optional[bool] = ..., rule: _Optional[str] = ..., statement: _Optional[bytes] = ..., rho_nano_before: _Optional[int] = ..., rho_nano_after: _Optional[int] = ..., policy_hash: _Optional[bytes] = ...) -> None: ...

class Stated(_message.Message):
    __slots__ = ("institution", "about", "text", "subject", "statement")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    institution: str
    about: str
    text: str
    subject: bytes
    statement: bytes
    def __init__(self, institution: _Optional[str] = ..., about: _Optional[str] = ..., text: _Optional[str] = ..., subject: _Optional[bytes] = ..., statement: _Optional[bytes] = ...) -> None: ...

class RoundEnded(_message.Message):
    __slots__ = ("request_id", "round_id", "invited", "roster", "survivors", "dropouts", "outcome")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    INVITED_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    DROPOUTS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    round_id: bytes
    invited: _containers.RepeatedScalarFieldContainer[str]
    roster: _containers.RepeatedScalarFieldContainer[str]
    survivors: _containers.RepeatedScalarFieldContainer[str]
    dropouts: _containers.RepeatedCompositeFieldContainer[Dropout]
    outcome: str
    def __init__(self, request_id: _Optional[bytes] = ..., round_id: _Optional[bytes] = ..., invited: _Optional[_Iterable[str]] = ..., roster: _Optional[_Iterable[str]] = ..., survivors: _Optional[_Iterable[str]] = ..., dropouts: _Optional[_Iterable[_Union[Dropout, _Mapping]]] = ..., outcome: _Optional[str] = ...) -> None: ...

class Dropout(_message.Message):
    __slots__ = ("institution", "step", "reason")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    institution: str
    step: str
    reason: str
    def __init__(self, institution: _Optional[str] = ..., step: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Released(_message.Message):
    __slots__ = ("request_id", "release_hash", "mechanism", "rho_nano", "survivors", "slot", "model_hash")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_HASH_FIELD_NUMBER: _ClassVar[int]
    MECHANISM_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    MODEL_HASH_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    release_hash: bytes
    mechanism: str
    rho_nano: int
    survivors: int
    slot: int
    model_hash: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., release_hash: _Optional[bytes] = ..., mechanism: _Optional[str] = ..., rho_nano: _Optional[int] = ..., survivors: _Optional[int] = ..., slot: _Optional[int] = ..., model_hash: _Optional[bytes] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("request_id", "reason", "charged")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CHARGED_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    reason: str
    charged: bool
    def __init__(self, request_id: _Optional[bytes] = ..., reason: _Optional[str] = ..., charged: _Optional[bool] = ...) -> None: ...

class LogRead(_message.Message):
    __slots__ = ("what", "first", "last")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    what: str
    first: int
    last: int
    def __init__(self, what: _Optional[str] = ..., first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...
