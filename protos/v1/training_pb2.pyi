from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainingJob(_message.Message):
    __slots__ = ("selection", "model", "label", "terms", "rounds", "spare_rounds", "event", "edges", "ridge")
    class Term(_message.Message):
        __slots__ = ("columns",)
        COLUMNS_FIELD_NUMBER: _ClassVar[int]
        columns: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, columns: _Optional[_Iterable[str]] = ...) -> None: ...
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    SPARE_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    RIDGE_FIELD_NUMBER: _ClassVar[int]
    selection: bytes
    model: str
    label: str
    terms: _containers.RepeatedCompositeFieldContainer[TrainingJob.Term]
    rounds: int
    spare_rounds: int
    event: str
    edges: _containers.RepeatedScalarFieldContainer[float]
    ridge: float
    def __init__(self, selection: _Optional[bytes] = ..., model: _Optional[str] = ..., label: _Optional[str] = ..., terms: _Optional[_Iterable[_Union[TrainingJob.Term, _Mapping]]] = ..., rounds: _Optional[int] = ..., spare_rounds: _Optional[int] = ..., event: _Optional[str] = ..., edges: _Optional[_Iterable[float]] = ..., ridge: _Optional[float] = ...) -> None: ...
