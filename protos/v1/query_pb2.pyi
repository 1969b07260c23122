from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Query(_message.Message):
    __slots__ = ("dataset", "where", "keys", "aggregates", "rows_per_person", "derived")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    AGGREGATES_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_PERSON_FIELD_NUMBER: _ClassVar[int]
    DERIVED_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    where: Predicate
    keys: _containers.RepeatedCompositeFieldContainer[Key]
    aggregates: _containers.RepeatedCompositeFieldContainer[NamedAggregate]
    rows_per_person: int
    derived: _containers.RepeatedCompositeFieldContainer[Derived]
    def __init__(self, dataset: _Optional[str] = ..., where: _Optional[_Union[Predicate, _Mapping]] = ..., keys: _Optional[_Iterable[_Union[Key, _Mapping]]] = ..., aggregates: _Optional[_Iterable[_Union[NamedAggregate, _Mapping]]] = ..., rows_per_person: _Optional[int] = ..., derived: _Optional[_Iterable[_Union[Derived, _Mapping]]] = ...) -> None: ...

class Derived(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Expression
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Expression, _Mapping]] = ...) -> None: ...

class Expression(_message.Message):
    __slots__ = ("column", "number", "text", "arithmetic", "function", "bounded", "case", "truth")
    class Arithmetic(_message.Message):
        __slots__ = ("operator", "left", "right")
        OPERATOR_FIELD_NUMBER: _ClassVar[int]
        LEFT_FIELD_NUMBER: _ClassVar[int]
        RIGHT_FIELD_NUMBER: _ClassVar[int]
        operator: str
        left: Expression
        right: Expression
        def __init__(self, operator: _Optional[str] = ..., left: _Optional[_Union[Expression, _Mapping]] = ..., right: _Optional[_Union[Expression, _Mapping]] = ...) -> None: ...
    class Function(_message.Message):
        __slots__ = ("name", "argument")
        NAME_FIELD_NUMBER: _ClassVar[int]
        ARGUMENT_FIELD_NUMBER: _ClassVar[int]
        name: str
        argument: Expression
        def __init__(self, name: _Optional[str] = ..., argument: _Optional[_Union[Expression, _Mapping]] = ...) -> None: ...
    class Bounded(_message.Message):
        __slots__ = ("value", "lower", "upper")
        VALUE_FIELD_NUMBER: _ClassVar[int]
        LOWER_FIELD_NUMBER: _ClassVar[int]
        UPPER_FIELD_NUMBER: _ClassVar[int]
        value: Expression
        lower: float
        upper: float
        def __init__(self, value: _Optional[_Union[Expression, _Mapping]] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ...) -> None: ...
    class Case(_message.Message):
        __slots__ = ("branches", "otherwise")
        BRANCHES_FIELD_NUMBER: _ClassVar[int]
        OTHERWISE_FIELD_NUMBER: _ClassVar[int]
        branches: _containers.RepeatedCompositeFieldContainer[Expression.Branch]
        otherwise: Expression
        def __init__(self, branches: _Optional[_Iterable[_Union[Expression.Branch, _Mapping]]] = ..., otherwise: _Optional[_Union[Expression, _Mapping]] = ...) -> None: ...
    class Branch(_message.Message):
        __slots__ = ("when", "then")
        WHEN_FIELD_NUMBER: _ClassVar[int]
        THEN_FIELD_NUMBER: _ClassVar[int]
        when: Predicate
        then: Expression
        def __init__(self, when: _Optional[_Union[Predicate, _Mapping]] = ..., then: _Optional[_Union[Expression, _Mapping]] = ...) -> None: ...
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ARITHMETIC_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    BOUNDED_FIELD_NUMBER: _ClassVar[int]
    CASE_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    column: str
    number: float
    text: str
    arithmetic: Expression.Arithmetic
    function: Expression.Function
    bounded: Expression.Bounded
    case: Expression.Case
    truth: Predicate
    def __init__(self, column: _Optional[str] = ..., number: _Optional[float] = ..., text: _Optional[str] = ..., arithmetic: _Optional[_Union[Expression.Arithmetic, _Mapping]] = ..., function: _Optional[_Union[Expression.Function, _Mapping]] = ..., bounded: _Optional[_Union[Expression.Bounded, _Mapping]] = ..., case: _Optional[_Union[Expression.Case, _Mapping]] = ..., truth: _Optional[_Union[Predicate, _Mapping]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("number", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: float
    text: str
    def __init__(self, number: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class Predicate(_message.Message):
    __slots__ = ("comparison", "is_in", "is_null", "all_of", "any_of", "negation")
    class Comparison(_message.Message):
        __slots__ = ("column", "operator", "value")
        COLUMN_FIELD_NUMBER: _ClassVar[int]
        OPERATOR_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        column: str
        operator: str
        value: Value
        def __init__(self, column: _Optional[str] = ..., operator: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    class IsIn(_message.Message):
        __slots__ = ("column", "values")
        COLUMN_FIELD_NUMBER: _ClassVar[int]
        VALUES_FIELD_NUMBER: _ClassVar[int]
        column: str
        values: _containers.RepeatedCompositeFieldContainer[Value]
        def __init__(self, column: _Optional[str] = ..., values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...
    class NullTest(_message.Message):
        __slots__ = ("column",)
        COLUMN_FIELD_NUMBER: _ClassVar[int]
        column: str
        def __init__(self, column: _Optional[str] = ...) -> None: ...
    class Junction(_message.Message):
        __slots__ = ("parts",)
        PARTS_FIELD_NUMBER: _ClassVar[int]
        parts: _containers.RepeatedCompositeFieldContainer[Predicate]
        def __init__(self, parts: _Optional[_Iterable[_Union[Predicate, _Mapping]]] = ...) -> None: ...
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    IS_IN_FIELD_NUMBER: _ClassVar[int]
    IS_NULL_FIELD_NUMBER: _ClassVar[int]
    ALL_OF_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    NEGATION_FIELD_NUMBER: _ClassVar[int]
    comparison: Predicate.Comparison
    is_in: Predicate.IsIn
    is_null: Predicate.NullTest
    all_of: Predicate.Junction
    any_of: Predicate.Junction
    negation: Predicate
    def __init__(self, comparison: _Optional[_Union[Predicate.Comparison, _Mapping]] = ..., is_in: _Optional[_Union[Predicate.IsIn, _Mapping]] = ..., is_null: _Optional[_Union[Predicate.NullTest, _Mapping]] = ..., all_of: _Optional[_Union[Predicate.Junction, _Mapping]] = ..., any_of: _Optional[_Union[Predicate.Junction, _Mapping]] = ..., negation: _Optional[_Union[Predicate, _Mapping]] = ...) -> None: ...

class Key(_message.Message):
    __slots__ = ("column", "values")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    column: str
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, column: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class NamedAggregate(_message.Message):
    __slots__ = ("name", "count", "sum", "mean", "variance", "stddev", "histogram", "persons", "quantile", "skewness", "kurtosis", "covariance", "correlation", "line", "matrix", "linear_model", "mean_test", "group_test", "independence_test", "survival", "log_rank", "weight")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_FIELD_NUMBER: _ClassVar[int]
    STDDEV_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    PERSONS_FIELD_NUMBER: _ClassVar[int]
    QUANTILE_FIELD_NUMBER: _ClassVar[int]
    SKEWNESS_FIELD_NUMBER: _ClassVar[int]
    KURTOSIS_FIELD_NUMBER: _ClassVar[int]
    COVARIANCE_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    LINEAR_MODEL_FIELD_NUMBER: _ClassVar[int]
    MEAN_TEST_FIELD_NUMBER: _ClassVar[int]
    GROUP_TEST_FIELD_NUMBER: _ClassVar[int]
    INDEPENDENCE_TEST_FIELD_NUMBER: _ClassVar[int]
    SURVIVAL_FIELD_NUMBER: _ClassVar[int]
    LOG_RANK_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    name: str
    count: Count
    sum: Moment
    mean: Moment
    variance: Spread
    stddev: Spread
    histogram: Histogram
    persons: Persons
    quantile: Quantile
    skewness: Moment
    kurtosis: Moment
    covariance: Covariance
    correlation: Correlation
    line: Line
    matrix: Matrix
    linear_model: LinearModel
    mean_test: MeanTest
    group_test: GroupTest
    independence_test: IndependenceTest
    survival: Survival
    log_rank: LogRank
    weight: int
    def __init__(self, name: _Optional[str] = ..., count: _Optional[_Union[Count, _Mapping]] = ..., sum: _Optional[_Union[Moment, _Mapping]] = ..., mean: _Optional[_Union[Moment, _Mapping]] = ..., variance: _Optional[_Union[Spread, _Mapping]] = ..., stddev: _Optional[_Union[Spread, _Mapping]] = ..., histogram: _Optional[_Union[Histogram, _Mapping]] = ..., persons: _Optional[_Union[Persons, _Mapping]] = ..., quantile: _Optional[_Union[Quantile, _Mapping]] = ..., skewness: _Optional[_Union[Moment, _Mapping]] = ..., kurtosis: _Optional[_Union[Moment, _Mapping]] = ..., covariance: _Optional[_Union[Covariance, _Mapping]] = ..., correlation: _Optional[_Union[Correlation, _Mapping]] = ..., line: _Optional[_Union[Line, _Mapping]] = ..., matrix: _Optional[_Union[Matrix, _Mapping]] = ..., linear_model: _Optional[_Union[LinearModel, _Mapping]] = ..., mean_test: _Optional[_Union[MeanTest, _Mapping]] = ..., group_test: _Optional[_Union[GroupTest, _Mapping]] = ..., independence_test: _Optional[_Union[IndependenceTest, _Mapping]] = ..., survival: _Optional[_Union[Survival, _Mapping]] = ..., log_rank: _Optional[_Union[LogRank, _Mapping]] = ..., weight: _Optional[int] = ...) -> None: ...

class Count(_message.Message):
    __slots__ = ("column",)
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    column: str
    def __init__(self, column: _Optional[str] = ...) -> None: ...

class Moment(_message.Message):
    __slots__ = ("column",)
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    column: str
    def __init__(self, column: _Optional[str] = ...) -> None: ...

class Spread(_message.Message):
    __slots__ = ("column", "ddof")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    DDOF_FIELD_NUMBER: _ClassVar[int]
    column: str
    ddof: int
    def __init__(self, column: _Optional[str] = ..., ddof: _Optional[int] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("column", "edges")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    column: str
    edges: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, column: _Optional[str] = ..., edges: _Optional[_Iterable[float]] = ...) -> None: ...

class Persons(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Quantile(_message.Message):
    __slots__ = ("column", "q")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    Q_FIELD_NUMBER: _ClassVar[int]
    column: str
    q: float
    def __init__(self, column: _Optional[str] = ..., q: _Optional[float] = ...) -> None: ...

class Covariance(_message.Message):
    __slots__ = ("x", "y", "ddof")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    DDOF_FIELD_NUMBER: _ClassVar[int]
    x: str
    y: str
    ddof: int
    def __init__(self, x: _Optional[str] = ..., y: _Optional[str] = ..., ddof: _Optional[int] = ...) -> None: ...

class Correlation(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: str
    y: str
    def __init__(self, x: _Optional[str] = ..., y: _Optional[str] = ...) -> None: ...

class Line(_message.Message):
    __slots__ = ("part", "y", "x")
    PART_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    part: str
    y: str
    x: str
    def __init__(self, part: _Optional[str] = ..., y: _Optional[str] = ..., x: _Optional[str] = ...) -> None: ...

class Matrix(_message.Message):
    __slots__ = ("kind", "columns")
    KIND_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[str] = ..., columns: _Optional[_Iterable[str]] = ...) -> None: ...

class LinearModel(_message.Message):
    __slots__ = ("response", "predictors", "population")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    PREDICTORS_FIELD_NUMBER: _ClassVar[int]
    POPULATION_FIELD_NUMBER: _ClassVar[int]
    response: str
    predictors: _containers.RepeatedScalarFieldContainer[str]
    population: bool
    def __init__(self, response: _Optional[str] = ..., predictors: _Optional[_Iterable[str]] = ..., population: _Optional[bool] = ...) -> None: ...

class MeanTest(_message.Message):
    __slots__ = ("column", "mean", "other")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    column: str
    mean: float
    other: str
    def __init__(self, column: _Optional[str] = ..., mean: _Optional[float] = ..., other: _Optional[str] = ...) -> None: ...

class GroupTest(_message.Message):
    __slots__ = ("kind", "column", "by", "groups")
    KIND_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    column: str
    by: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[str] = ..., column: _Optional[str] = ..., by: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ...) -> None: ...

class IndependenceTest(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: str
    y: str
    def __init__(self, x: _Optional[str] = ..., y: _Optional[str] = ...) -> None: ...

class Survival(_message.Message):
    __slots__ = ("time", "event", "happened", "edges", "population")
    TIME_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    HAPPENED_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    POPULATION_FIELD_NUMBER: _ClassVar[int]
    time: str
    event: str
    happened: str
    edges: _containers.RepeatedScalarFieldContainer[float]
    population: bool
    def __init__(self, time: _Optional[str] = ..., event: _Optional[str] = ..., happened: _Optional[str] = ..., edges: _Optional[_Iterable[float]] = ..., population: _Optional[bool] = ...) -> None: ...

class LogRank(_message.Message):
    __slots__ = ("time", "event", "happened", "by", "edges", "groups")
    TIME_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    HAPPENED_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    time: str
    event: str
    happened: str
    by: str
    edges: _containers.RepeatedScalarFieldContainer[float]
    groups: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, time: _Optional[str] = ..., event: _Optional[str] = ..., happened: _Optional[str] = ..., by: _Optional[str] = ..., edges: _Optional[_Iterable[float]] = ..., groups: _Optional[_Iterable[str]] = ...) -> None: ...

class QueryRequest(_message.Message):
    __slots__ = ("consortium", "analyst", "purpose", "dataset", "schema_hash", "query", "rho_nano", "minimum_cohort", "issued_at", "expires_at", "nonce", "seen", "job", "epoch", "membership_hash")
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    ANALYST_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_COHORT_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_HASH_FIELD_NUMBER: _ClassVar[int]
    consortium: str
    analyst: str
    purpose: str
    dataset: str
    schema_hash: bytes
    query: bytes
    rho_nano: int
    minimum_cohort: int
    issued_at: int
    expires_at: int
    nonce: bytes
    seen: bytes
    job: bytes
    epoch: int
    membership_hash: bytes
    def __init__(self, consortium: _Optional[str] = ..., analyst: _Optional[str] = ..., purpose: _Optional[str] = ..., dataset: _Optional[str] = ..., schema_hash: _Optional[bytes] = ..., query: _Optional[bytes] = ..., rho_nano: _Optional[int] = ..., minimum_cohort: _Optional[int] = ..., issued_at: _Optional[int] = ..., expires_at: _Optional[int] = ..., nonce: _Optional[bytes] = ..., seen: _Optional[bytes] = ..., job: _Optional[bytes] = ..., epoch: _Optional[int] = ..., membership_hash: _Optional[bytes] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("request_id", "sums", "refine_bits", "invited", "threshold", "colluders", "survivors", "rho_nano", "slot", "model", "model_hash")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    REFINE_BITS_FIELD_NUMBER: _ClassVar[int]
    INVITED_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    COLLUDERS_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    RHO_NANO_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_HASH_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    sums: _containers.RepeatedScalarFieldContainer[int]
    refine_bits: int
    invited: int
    threshold: int
    colluders: int
    survivors: _containers.RepeatedScalarFieldContainer[str]
    rho_nano: int
    slot: int
    model: bytes
    model_hash: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., sums: _Optional[_Iterable[int]] = ..., refine_bits: _Optional[int] = ..., invited: _Optional[int] = ..., threshold: _Optional[int] = ..., colluders: _Optional[int] = ..., survivors: _Optional[_Iterable[str]] = ..., rho_nano: _Optional[int] = ..., slot: _Optional[int] = ..., model: _Optional[bytes] = ..., model_hash: _Optional[bytes] = ...) -> None: ...
