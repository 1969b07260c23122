from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Dataset(_message.Message):
    __slots__ = ("name", "description", "privacy_unit", "max_rows", "max_institutions_per_person", "max_persons", "delta", "columns", "smallest_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_UNIT_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    MAX_INSTITUTIONS_PER_PERSON_FIELD_NUMBER: _ClassVar[int]
    MAX_PERSONS_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    SMALLEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    privacy_unit: str
    max_rows: int
    max_institutions_per_person: int
    max_persons: int
    delta: float
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    smallest_count: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., privacy_unit: _Optional[str] = ..., max_rows: _Optional[int] = ..., max_institutions_per_person: _Optional[int] = ..., max_persons: _Optional[int] = ..., delta: _Optional[float] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., smallest_count: _Optional[int] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "description", "unit", "nullable", "numeric", "categorical")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    NULLABLE_FIELD_NUMBER: _ClassVar[int]
    NUMERIC_FIELD_NUMBER: _ClassVar[int]
    CATEGORICAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    unit: str
    nullable: bool
    numeric: Numeric
    categorical: Categorical
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., unit: _Optional[str] = ..., nullable: _Optional[bool] = ..., numeric: _Optional[_Union[Numeric, _Mapping]] = ..., categorical: _Optional[_Union[Categorical, _Mapping]] = ...) -> None: ...

class Numeric(_message.Message):
    __slots__ = ("lower", "upper", "integer")
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    lower: float
    upper: float
    integer: bool
    def __init__(self, lower: _Optional[float] = ..., upper: _Optional[float] = ..., integer: _Optional[bool] = ...) -> None: ...

class Categorical(_message.Message):
    __slots__ = ("categories", "other")
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    categories: _containers.RepeatedScalarFieldContainer[str]
    other: bool
    def __init__(self, categories: _Optional[_Iterable[str]] = ..., other: _Optional[bool] = ...) -> None: ...
