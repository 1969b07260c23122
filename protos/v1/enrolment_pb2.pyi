from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EnrolRequest(_message.Message):
    __slots__ = ("invitation_id", "secret", "csr", "identity_key", "epoch_key", "epoch_key_signature", "proof", "at", "id_token")
    INVITATION_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_KEY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_KEY_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    ID_TOKEN_FIELD_NUMBER: _ClassVar[int]
    invitation_id: str
    secret: bytes
    csr: bytes
    identity_key: bytes
    epoch_key: bytes
    epoch_key_signature: bytes
    proof: bytes
    at: int
    id_token: str
    def __init__(self, invitation_id: _Optional[str] = ..., secret: _Optional[bytes] = ..., csr: _Optional[bytes] = ..., identity_key: _Optional[bytes] = ..., epoch_key: _Optional[bytes] = ..., epoch_key_signature: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., at: _Optional[int] = ..., id_token: _Optional[str] = ...) -> None: ...

class EnrolResponse(_message.Message):
    __slots__ = ("participant", "consortium", "certificate_chain", "address")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    participant: str
    consortium: str
    certificate_chain: bytes
    address: str
    def __init__(self, participant: _Optional[str] = ..., consortium: _Optional[str] = ..., certificate_chain: _Optional[bytes] = ..., address: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("participant", "csr", "proof", "at")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    participant: str
    csr: bytes
    proof: bytes
    at: int
    def __init__(self, participant: _Optional[str] = ..., csr: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., at: _Optional[int] = ...) -> None: ...

class RotateRequest(_message.Message):
    __slots__ = ("participant", "new_key", "epoch_key", "epoch_key_signature", "old_signature", "proof", "at")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    NEW_KEY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_KEY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_KEY_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    OLD_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    participant: str
    new_key: bytes
    epoch_key: bytes
    epoch_key_signature: bytes
    old_signature: bytes
    proof: bytes
    at: int
    def __init__(self, participant: _Optional[str] = ..., new_key: _Optional[bytes] = ..., epoch_key: _Optional[bytes] = ..., epoch_key_signature: _Optional[bytes] = ..., old_signature: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., at: _Optional[int] = ...) -> None: ...

class RotateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Invitation(_message.Message):
    __slots__ = ("consortium", "address", "ca", "governance_key", "invitation_id", "secret", "participant", "role", "expires_at", "recovery", "issuer", "client_id")
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CA_FIELD_NUMBER: _ClassVar[int]
    GOVERNANCE_KEY_FIELD_NUMBER: _ClassVar[int]
    INVITATION_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    consortium: str
    address: str
    ca: bytes
    governance_key: bytes
    invitation_id: str
    secret: bytes
    participant: str
    role: str
    expires_at: int
    recovery: bool
    issuer: str
    client_id: str
    def __init__(self, consortium: _Optional[str] = ..., address: _Optional[str] = ..., ca: _Optional[bytes] = ..., governance_key: _Optional[bytes] = ..., invitation_id: _Optional[str] = ..., secret: _Optional[bytes] = ..., participant: _Optional[str] = ..., role: _Optional[str] = ..., expires_at: _Optional[int] = ..., recovery: _Optional[bool] = ..., issuer: _Optional[str] = ..., client_id: _Optional[str] = ...) -> None: ...
