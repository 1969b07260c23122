"""The noise of a release as agents and coordinator make it together: base and layers drawn, then layers taken off."""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from analytics_client.agent.noise import share
from queries.noise import NoiseShape
from trust.noise import layers


def noise_left(length: int, shape: NoiseShape, survivors: int, *, too_many: int = 0) -> NDArray[np.int64]:
    """Return what survivors' noise adds to a sum. `too_many` layers more, or fewer, are taken off than should be."""
    opened = sum(rung <= survivors for rung in shape.rungs) + too_many
    everyone = [[secrets.token_bytes(32) for _ in shape.layers] for _ in range(survivors)]
    total = np.zeros(length, dtype=np.int64)
    for keys in everyone:
        total += share(length, shape.base_variance, shape.scale) + layers.draw(length, shape, keys)
    layers.remove(total, shape, [keys[:opened] for keys in everyone])
    return total
