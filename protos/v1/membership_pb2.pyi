from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_ANALYST: _ClassVar[Role]
    ROLE_STEWARD: _ClassVar[Role]
    ROLE_AUDITOR: _ClassVar[Role]
    ROLE_OPERATOR: _ClassVar[Role]
    ROLE_AGENT: _ClassVar[Role]
ROLE_UNSPECIFIED: Role
ROLE_ANALYST: Role
ROLE_STEWARD: Role
ROLE_AUDITOR: Role
ROLE_OPERATOR: Role
ROLE_AGENT: Role

class Membership(_message.Message):
    __slots__ = ("consortium", "epoch", "previous_hash", "issued_at", "institutions", "people", "log_key", "log_origin", "minimum_cohort", "colluders", "key_changes", "valid_until", "activities")
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    INSTITUTIONS_FIELD_NUMBER: _ClassVar[int]
    PEOPLE_FIELD_NUMBER: _ClassVar[int]
    LOG_KEY_FIELD_NUMBER: _ClassVar[int]
    LOG_ORIGIN_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_COHORT_FIELD_NUMBER: _ClassVar[int]
    COLLUDERS_FIELD_NUMBER: _ClassVar[int]
    KEY_CHANGES_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    ACTIVITIES_FIELD_NUMBER: _ClassVar[int]
    consortium: str
    epoch: int
    previous_hash: bytes
    issued_at: int
    institutions: _containers.RepeatedCompositeFieldContainer[Institution]
    people: _containers.RepeatedCompositeFieldContainer[Person]
    log_key: bytes
    log_origin: str
    minimum_cohort: int
    colluders: int
    key_changes: _containers.RepeatedCompositeFieldContainer[KeyChange]
    valid_until: int
    activities: _containers.RepeatedCompositeFieldContainer[Activity]
    def __init__(self, consortium: _Optional[str] = ..., epoch: _Optional[int] = ..., previous_hash: _Optional[bytes] = ..., issued_at: _Optional[int] = ..., institutions: _Optional[_Iterable[_Union[Institution, _Mapping]]] = ..., people: _Optional[_Iterable[_Union[Person, _Mapping]]] = ..., log_key: _Optional[bytes] = ..., log_origin: _Optional[str] = ..., minimum_cohort: _Optional[int] = ..., colluders: _Optional[int] = ..., key_changes: _Optional[_Iterable[_Union[KeyChange, _Mapping]]] = ..., valid_until: _Optional[int] = ..., activities: _Optional[_Iterable[_Union[Activity, _Mapping]]] = ...) -> None: ...

class Institution(_message.Message):
    __slots__ = ("id", "organisation", "identity_key", "epoch_key", "epoch_key_signature")
    ID_FIELD_NUMBER: _ClassVar[int]
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_KEY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_KEY_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    id: str
    organisation: str
    identity_key: bytes
    epoch_key: bytes
    epoch_key_signature: bytes
    def __init__(self, id: _Optional[str] = ..., organisation: _Optional[str] = ..., identity_key: _Optional[bytes] = ..., epoch_key: _Optional[bytes] = ..., epoch_key_signature: _Optional[bytes] = ...) -> None: ...

class Person(_message.Message):
    __slots__ = ("id", "roles", "identity_key", "service")
    ID_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    id: str
    roles: _containers.RepeatedScalarFieldContainer[Role]
    identity_key: bytes
    service: Service
    def __init__(self, id: _Optional[str] = ..., roles: _Optional[_Iterable[_Union[Role, str]]] = ..., identity_key: _Optional[bytes] = ..., service: _Optional[_Union[Service, _Mapping]] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("expires_at", "datasets")
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    expires_at: int
    datasets: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, expires_at: _Optional[int] = ..., datasets: _Optional[_Iterable[str]] = ...) -> None: ...

class Activity(_message.Message):
    __slots__ = ("name", "category", "legal_basis", "purposes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    LEGAL_BASIS_FIELD_NUMBER: _ClassVar[int]
    PURPOSES_FIELD_NUMBER: _ClassVar[int]
    name: str
    category: str
    legal_basis: str
    purposes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., category: _Optional[str] = ..., legal_basis: _Optional[str] = ..., purposes: _Optional[_Iterable[str]] = ...) -> None: ...

class KeyChange(_message.Message):
    __slots__ = ("id", "epoch", "old_key", "new_key", "old_signature", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OLD_KEY_FIELD_NUMBER: _ClassVar[int]
    NEW_KEY_FIELD_NUMBER: _ClassVar[int]
    OLD_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    epoch: int
    old_key: bytes
    new_key: bytes
    old_signature: bytes
    reason: str
    def __init__(self, id: _Optional[str] = ..., epoch: _Optional[int] = ..., old_key: _Optional[bytes] = ..., new_key: _Optional[bytes] = ..., old_signature: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...
