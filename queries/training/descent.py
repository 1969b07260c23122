"""How a job trains by noisy gradients instead of Newton steps: a value, with what may be said of it.

Must not know: data, the wire, how models follow from releases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from queries.errors import QueryError
from queries.schema import Dataset, Numeric

if TYPE_CHECKING:
    from queries.training.job import Job

NETWORKS = ("mlp", "cnn")
DESCENDING = (*NETWORKS, "package")
"""Models that only gradients train."""
Method: TypeAlias = Literal["sgd", "average"]
METHODS: tuple[Method, ...] = get_args(Method)
Optimizer: TypeAlias = Literal["sgd", "momentum", "adam"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
MAX_LAYERS = 6
MAX_WIDTH = 16_384
MAX_KERNEL = 15
_BOUNDS = (
    ("rate", 0.0, 1.0), ("noise_multiplier", 0.1, 1e4), ("clip", 0.0, 1e6), ("batch", 1.0, 1e10),
    ("learning_rate", 0.0, 1e6), ("momentum", 0.0, 0.9999), ("seed", 0, 2**32 - 1), ("local_steps", 0, 100_000),
    ("local_rate", 0.0, 1e6), ("proximal", 0.0, 1e6),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Descent:
    """Training by noisy gradients instead of Newton steps.

    "sgd": every round each person takes part with probability `rate`, the gradient of each is clipped to the norm
    `clip`, the noise is `noise_multiplier` times that, and the sum is divided by `batch`, a public number. "average":
    every institution takes `local_steps` steps on its own rows, and its change, clipped to `clip`, is averaged; noise
    is relative to twice the clip, as far as one person may move it. `proximal` pulls local steps back (FedProx).

    A network has `hidden` layers of these widths. Before them, "cnn" has convolutions with as many `filters`, over
    patches of `kernel` x `kernel`, each followed by the largest of every `pool` x `pool`; its terms are the pixels of
    an `image` of (height, width, channels), row by row, the channels of a pixel together.
    """

    method: Method
    optimizer: Optimizer
    rate: float
    noise_multiplier: float
    clip: float
    batch: float
    learning_rate: float
    momentum: float = 0.9
    hidden: tuple[int, ...] = ()
    seed: int = 0
    local_steps: int = 0
    local_rate: float = 0.0
    proximal: float = 0.0
    image: tuple[int, ...] = ()
    filters: tuple[int, ...] = ()
    kernel: int = 0
    pool: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the image that a convolutional network sees."""
        high, wide, channels = self.image
        return high, wide, channels


def check_descent(job: Job, dataset: Dataset) -> None:
    """Raise QueryError where a job cannot be trained as its `descent` says."""
    how = job.descent
    if how is None:
        if job.model in DESCENDING:
            raise QueryError(f"a {job.model} is trained by gradients", hint='say method = "sgd"')
        return
    if job.model in ("cox", "kmeans", "boosting"):
        raise QueryError(f"{job.model} is not trained by gradients of persons", hint="leave the method out")
    if how.method not in METHODS or how.optimizer not in OPTIMIZERS:
        raise QueryError("the job asks for an unknown method or optimizer", hint=", ".join((*METHODS, *OPTIMIZERS)))
    for name, low, high in _BOUNDS:
        value = getattr(how, name)
        if not (math.isfinite(value) and low <= value <= high):
            raise QueryError(f"{name} must be from {low:g} to {high:g}")
    if how.rate <= 0 or how.clip <= 0 or how.learning_rate <= 0:
        raise QueryError("rate, clip and learning_rate must be above 0")
    _check_network(job, how, dataset)
    if how.method == "average" and (how.rate != 1 or how.local_steps < 1 or how.local_rate <= 0):
        raise QueryError("averaging takes rate = 1, and local_steps and local_rate above 0")
    if how.method == "sgd" and (how.local_steps or how.local_rate or how.proximal):
        raise QueryError("only averaging takes local steps", hint='method = "average"')
    if job.selection.rows_per_person != 1 or (how.rate < 1 and dataset.max_institutions_per_person != 1):
        raise QueryError(
            "gradients are of persons: one row each, and in a sample from one institution each",
            hint="rows_per_person = 1; where persons are at several institutions use rate = 1",
        )


def _check_network(job: Job, how: Descent, dataset: Dataset) -> None:
    if (how.hidden != ()) > (job.model in NETWORKS) or (how.hidden == () and job.model == "mlp"):
        raise QueryError(
            f"a network has 1 to {MAX_LAYERS} hidden layers of up to {MAX_WIDTH:,}, a regression none",
            hint="hidden = [32, 16]",
        )
    if not all(1 <= width <= MAX_WIDTH for width in (*how.hidden, *how.filters)):
        raise QueryError(f"a layer has 1 to {MAX_WIDTH:,} outputs", hint="hidden = [32, 16]")
    if len(how.hidden) + len(how.filters) > MAX_LAYERS:
        raise QueryError(f"a network has at most {MAX_LAYERS} layers before the last")
    if job.model != "cnn":
        if how.image or how.filters or how.kernel or how.pool:
            raise QueryError("only a cnn has image, filters, kernel and pool", hint='model = "cnn"')
        return
    if len(how.image) != 3 or not how.filters or not 1 <= how.kernel <= MAX_KERNEL or how.kernel % 2 == 0:
        raise QueryError(
            f"a cnn needs an image of three numbers, filters, and an odd kernel of up to {MAX_KERNEL}",
            hint="image = [height, width, channels], filters = [8, 16], kernel = 3, pool = 2",
        )
    if math.prod(how.image) != len(job.terms) or not all(
        len(term) == 1 and isinstance(dataset.column(term[0]).kind, Numeric) for term in job.terms
    ):
        raise QueryError(
            f"an image of {' x '.join(map(str, how.image))} takes as many numeric columns, not {len(job.terms)} terms",
            hint="list its pixels row by row, the channels of a pixel together",
        )
    if how.pool < 1 or how.pool ** len(how.filters) > min(how.image[:2]):
        raise QueryError(
            "nothing is left of the image after so much pooling",
            hint="use a smaller pool, or fewer filters; 1 keeps all",
        )
