from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainingJob(_message.Message):
    __slots__ = ("selection", "model", "label", "terms", "rounds", "spare_rounds", "event", "edges", "ridge", "descent", "split", "held_out", "scored", "clusters", "trees", "institutions", "fraction", "package", "evaluate_every", "patience", "round_seconds")
    class Package(_message.Message):
        __slots__ = ("name", "sha256", "blocks")
        class Block(_message.Message):
            __slots__ = ("count", "spread")
            COUNT_FIELD_NUMBER: _ClassVar[int]
            SPREAD_FIELD_NUMBER: _ClassVar[int]
            count: int
            spread: float
            def __init__(self, count: _Optional[int] = ..., spread: _Optional[float] = ...) -> None: ...
        NAME_FIELD_NUMBER: _ClassVar[int]
        SHA256_FIELD_NUMBER: _ClassVar[int]
        BLOCKS_FIELD_NUMBER: _ClassVar[int]
        name: str
        sha256: bytes
        blocks: _containers.RepeatedCompositeFieldContainer[TrainingJob.Package.Block]
        def __init__(self, name: _Optional[str] = ..., sha256: _Optional[bytes] = ..., blocks: _Optional[_Iterable[_Union[TrainingJob.Package.Block, _Mapping]]] = ...) -> None: ...
    class Clusters(_message.Message):
        __slots__ = ("count", "seed")
        COUNT_FIELD_NUMBER: _ClassVar[int]
        SEED_FIELD_NUMBER: _ClassVar[int]
        count: int
        seed: int
        def __init__(self, count: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...
    class Trees(_message.Message):
        __slots__ = ("count", "depth", "bins", "splits", "learning_rate", "smoothing", "seed")
        COUNT_FIELD_NUMBER: _ClassVar[int]
        DEPTH_FIELD_NUMBER: _ClassVar[int]
        BINS_FIELD_NUMBER: _ClassVar[int]
        SPLITS_FIELD_NUMBER: _ClassVar[int]
        LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
        SMOOTHING_FIELD_NUMBER: _ClassVar[int]
        SEED_FIELD_NUMBER: _ClassVar[int]
        count: int
        depth: int
        bins: int
        splits: str
        learning_rate: float
        smoothing: float
        seed: int
        def __init__(self, count: _Optional[int] = ..., depth: _Optional[int] = ..., bins: _Optional[int] = ..., splits: _Optional[str] = ..., learning_rate: _Optional[float] = ..., smoothing: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...
    class Descent(_message.Message):
        __slots__ = ("method", "optimizer", "rate", "noise_multiplier", "clip", "batch", "learning_rate", "momentum", "hidden", "seed", "local_steps", "local_rate", "proximal", "image", "filters", "kernel", "pool")
        METHOD_FIELD_NUMBER: _ClassVar[int]
        OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
        RATE_FIELD_NUMBER: _ClassVar[int]
        NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
        CLIP_FIELD_NUMBER: _ClassVar[int]
        BATCH_FIELD_NUMBER: _ClassVar[int]
        LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
        MOMENTUM_FIELD_NUMBER: _ClassVar[int]
        HIDDEN_FIELD_NUMBER: _ClassVar[int]
        SEED_FIELD_NUMBER: _ClassVar[int]
        LOCAL_STEPS_FIELD_NUMBER: _ClassVar[int]
        LOCAL_RATE_FIELD_NUMBER: _ClassVar[int]
        PROXIMAL_FIELD_NUMBER: _ClassVar[int]
        IMAGE_FIELD_NUMBER: _ClassVar[int]
        FILTERS_FIELD_NUMBER: _ClassVar[int]
        KERNEL_FIELD_NUMBER: _ClassVar[int]
        POOL_FIELD_NUMBER: _ClassVar[int]
        method: str
        optimizer: str
        rate: float
        noise_multiplier: float
        clip: float
        batch: float
        learning_rate: float
        momentum: float
        hidden: _containers.RepeatedScalarFieldContainer[int]
        seed: int
        local_steps: int
        local_rate: float
        proximal: float
        image: _containers.RepeatedScalarFieldContainer[int]
        filters: _containers.RepeatedScalarFieldContainer[int]
        kernel: int
        pool: int
        def __init__(self, method: _Optional[str] = ..., optimizer: _Optional[str] = ..., rate: _Optional[float] = ..., noise_multiplier: _Optional[float] = ..., clip: _Optional[float] = ..., batch: _Optional[float] = ..., learning_rate: _Optional[float] = ..., momentum: _Optional[float] = ..., hidden: _Optional[_Iterable[int]] = ..., seed: _Optional[int] = ..., local_steps: _Optional[int] = ..., local_rate: _Optional[float] = ..., proximal: _Optional[float] = ..., image: _Optional[_Iterable[int]] = ..., filters: _Optional[_Iterable[int]] = ..., kernel: _Optional[int] = ..., pool: _Optional[int] = ...) -> None: ...
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
    DESCENT_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    TREES_FIELD_NUMBER: _ClassVar[int]
    INSTITUTIONS_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_EVERY_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    ROUND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    selection: bytes
    model: str
    label: str
    terms: _containers.RepeatedCompositeFieldContainer[TrainingJob.Term]
    rounds: int
    spare_rounds: int
    event: str
    edges: _containers.RepeatedScalarFieldContainer[float]
    ridge: float
    descent: TrainingJob.Descent
    split: str
    held_out: float
    scored: _containers.RepeatedScalarFieldContainer[float]
    clusters: TrainingJob.Clusters
    trees: TrainingJob.Trees
    institutions: _containers.RepeatedScalarFieldContainer[str]
    fraction: float
    package: TrainingJob.Package
    evaluate_every: int
    patience: int
    round_seconds: int
    def __init__(self, selection: _Optional[bytes] = ..., model: _Optional[str] = ..., label: _Optional[str] = ..., terms: _Optional[_Iterable[_Union[TrainingJob.Term, _Mapping]]] = ..., rounds: _Optional[int] = ..., spare_rounds: _Optional[int] = ..., event: _Optional[str] = ..., edges: _Optional[_Iterable[float]] = ..., ridge: _Optional[float] = ..., descent: _Optional[_Union[TrainingJob.Descent, _Mapping]] = ..., split: _Optional[str] = ..., held_out: _Optional[float] = ..., scored: _Optional[_Iterable[float]] = ..., clusters: _Optional[_Union[TrainingJob.Clusters, _Mapping]] = ..., trees: _Optional[_Union[TrainingJob.Trees, _Mapping]] = ..., institutions: _Optional[_Iterable[str]] = ..., fraction: _Optional[float] = ..., package: _Optional[_Union[TrainingJob.Package, _Mapping]] = ..., evaluate_every: _Optional[int] = ..., patience: _Optional[int] = ..., round_seconds: _Optional[int] = ...) -> None: ...
