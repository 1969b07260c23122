from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RoundParameters(_message.Message):
    __slots__ = ("membership_hash", "request_id", "invited", "threshold", "minimum_cohort", "colluders", "length", "ring_bits", "nonce", "rungs")
    MEMBERSHIP_HASH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INVITED_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_COHORT_FIELD_NUMBER: _ClassVar[int]
    COLLUDERS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    RING_BITS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    RUNGS_FIELD_NUMBER: _ClassVar[int]
    membership_hash: bytes
    request_id: bytes
    invited: _containers.RepeatedScalarFieldContainer[str]
    threshold: int
    minimum_cohort: int
    colluders: int
    length: int
    ring_bits: int
    nonce: bytes
    rungs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, membership_hash: _Optional[bytes] = ..., request_id: _Optional[bytes] = ..., invited: _Optional[_Iterable[str]] = ..., threshold: _Optional[int] = ..., minimum_cohort: _Optional[int] = ..., colluders: _Optional[int] = ..., length: _Optional[int] = ..., ring_bits: _Optional[int] = ..., nonce: _Optional[bytes] = ..., rungs: _Optional[_Iterable[int]] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("member", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: str
    signature: bytes
    def __init__(self, member: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Cohort(_message.Message):
    __slots__ = ("present",)
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    present: bytes
    def __init__(self, present: _Optional[bytes] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("public_part", "signature", "shares")
    PUBLIC_PART_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    public_part: bytes
    signature: bytes
    shares: _containers.RepeatedCompositeFieldContainer[SealedShare]
    def __init__(self, public_part: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., shares: _Optional[_Iterable[_Union[SealedShare, _Mapping]]] = ...) -> None: ...

class JoinPublic(_message.Message):
    __slots__ = ("member", "round_key", "seed_commitment", "share_root", "graph_seed")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    ROUND_KEY_FIELD_NUMBER: _ClassVar[int]
    SEED_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    SHARE_ROOT_FIELD_NUMBER: _ClassVar[int]
    GRAPH_SEED_FIELD_NUMBER: _ClassVar[int]
    member: str
    round_key: bytes
    seed_commitment: bytes
    share_root: bytes
    graph_seed: bytes
    def __init__(self, member: _Optional[str] = ..., round_key: _Optional[bytes] = ..., seed_commitment: _Optional[bytes] = ..., share_root: _Optional[bytes] = ..., graph_seed: _Optional[bytes] = ...) -> None: ...

class SealedShare(_message.Message):
    __slots__ = ("sealed", "key_hash", "seed_hash")
    SEALED_FIELD_NUMBER: _ClassVar[int]
    KEY_HASH_FIELD_NUMBER: _ClassVar[int]
    SEED_HASH_FIELD_NUMBER: _ClassVar[int]
    sealed: bytes
    key_hash: bytes
    seed_hash: bytes
    def __init__(self, sealed: _Optional[bytes] = ..., key_hash: _Optional[bytes] = ..., seed_hash: _Optional[bytes] = ...) -> None: ...

class Roster(_message.Message):
    __slots__ = ("entries", "present", "graph_seeds")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    GRAPH_SEEDS_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[RosterEntry]
    present: bytes
    graph_seeds: bytes
    def __init__(self, entries: _Optional[_Iterable[_Union[RosterEntry, _Mapping]]] = ..., present: _Optional[bytes] = ..., graph_seeds: _Optional[bytes] = ...) -> None: ...

class RosterEntry(_message.Message):
    __slots__ = ("public_part", "signature", "share", "proof")
    PUBLIC_PART_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    public_part: bytes
    signature: bytes
    share: SealedShare
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, public_part: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., share: _Optional[_Union[SealedShare, _Mapping]] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Complaint(_message.Message):
    __slots__ = ("member", "dealers", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    DEALERS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: str
    dealers: _containers.RepeatedScalarFieldContainer[str]
    signature: bytes
    def __init__(self, member: _Optional[str] = ..., dealers: _Optional[_Iterable[str]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("member", "vector_hash", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    VECTOR_HASH_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: str
    vector_hash: bytes
    signature: bytes
    def __init__(self, member: _Optional[str] = ..., vector_hash: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Survivors(_message.Message):
    __slots__ = ("manifests", "present", "vector_hashes")
    MANIFESTS_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_HASHES_FIELD_NUMBER: _ClassVar[int]
    manifests: _containers.RepeatedCompositeFieldContainer[Manifest]
    present: bytes
    vector_hashes: bytes
    def __init__(self, manifests: _Optional[_Iterable[_Union[Manifest, _Mapping]]] = ..., present: _Optional[bytes] = ..., vector_hashes: _Optional[bytes] = ...) -> None: ...

class Confirm(_message.Message):
    __slots__ = ("member", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: str
    signature: bytes
    def __init__(self, member: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Confirmations(_message.Message):
    __slots__ = ("confirms",)
    CONFIRMS_FIELD_NUMBER: _ClassVar[int]
    confirms: _containers.RepeatedCompositeFieldContainer[Confirm]
    def __init__(self, confirms: _Optional[_Iterable[_Union[Confirm, _Mapping]]] = ...) -> None: ...

class Reveal(_message.Message):
    __slots__ = ("openings",)
    OPENINGS_FIELD_NUMBER: _ClassVar[int]
    openings: _containers.RepeatedCompositeFieldContainer[Opening]
    def __init__(self, openings: _Optional[_Iterable[_Union[Opening, _Mapping]]] = ...) -> None: ...

class Opening(_message.Message):
    __slots__ = ("share", "salt")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    share: bytes
    salt: bytes
    def __init__(self, share: _Optional[bytes] = ..., salt: _Optional[bytes] = ...) -> None: ...
