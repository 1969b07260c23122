"""How a plan's vector lies in ring elements: the one answer that coordinator and agents both compute.

Must not know: data, how a round goes.
"""

from __future__ import annotations

from queries.plan import NoiseShape
from trust.question import AnyPlan
from trust.secagg.packing import Lanes, lanes_for


def lanes_of(plan: AnyPlan, noise: NoiseShape, institutions: int) -> Lanes:
    """Return the lanes for the sum of as many institutions' vectors, each with its share of the noise.

    An agent must see to it that its exact sums are within `plan.largest_sum` before it packs them.
    """
    return lanes_for(
        plan.length,
        largest=plan.largest_sum << noise.refine_bits,
        addends=institutions,
        share_variance=noise.share_variance,
    )
