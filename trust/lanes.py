"""How a plan's vector lies in ring elements, and back: the one answer that coordinator and agents both compute.

Must not know: data, how a round goes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from queries.noise import NoiseShape
from trust.noise import layers
from trust.question import AnyPlan
from trust.secagg.masks import Ring
from trust.secagg.packing import Lanes, lanes_for, unpack


def lanes_of(plan: AnyPlan, noise: NoiseShape, institutions: int) -> Lanes:
    """Return the lanes for the sum of as many institutions' vectors, each with its share of the noise.

    An agent must see to it that its exact sums are within `plan.largest_sum` before it packs them.
    """
    return lanes_for(
        plan.length,
        largest=plan.largest_sum << noise.refine_bits,
        addends=institutions,
        share_variance=noise.share_variance,
        scale=noise.scale,
    )


def read_sums(
    plan: AnyPlan, noise: NoiseShape, institutions: int, total: Ring, layer_keys: Collection[Sequence[bytes]]
) -> NDArray[np.int64]:
    """Return the `plan.length` noisy sums that a round's `total` holds, less the layers of noise that it opened.

    `institutions` were invited; `layer_keys` has of every survivor the keys of its opened layers. Takes a while where
    vectors are long.
    """
    sums = unpack(total, lanes_of(plan, noise, institutions), plan.length)
    layers.remove(sums, noise, layer_keys)
    return sums
