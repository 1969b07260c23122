"""Rounds with drawn neighbours that are small enough to run in a moment.

The bounds want more than 500 members; here a dozen draw eight of each other, four of them as partners, by the same
code. Up to three may vanish from any such graph. What is tested is what everybody checks, not how likely a graph is to
be unsafe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trust.secagg import parameters
from trust.secagg.bounds import Degree

NAMES = tuple(f"h{i:02}" for i in range(12))
THRESHOLD = 8
DEGREE = Degree(holders=8, threshold=5, partners=4, least=1)


@contextmanager
def small_graphs(degree: Degree | None = DEGREE) -> Iterator[None]:
    """Draw neighbours in rounds of more than six, to this degree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameters, "LARGEST_FULL_GRAPH", 6)
        patch.setattr(parameters, "degree", lambda *_arguments: degree)
        yield
