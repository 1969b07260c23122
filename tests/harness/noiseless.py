"""Noise set to zero, for exactness tests only: no shipped code has a switch for it.

Both ends must know: agents draw zeros, and plans state a variance of zero, so that estimates correct for no noise.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from analytics_client.agent import responder
from queries.noise import NoiseShape
from queries.plan import Plan
from queries.training.plan import JobPlan

NONE = NoiseShape(refine_bits=0, share_variance=Fraction(0), central_variance=Fraction(0))


def remove_noise(patch: pytest.MonkeyPatch) -> None:
    """Until `patch` is undone, every release in this process is the exact sum."""
    silent: Callable[..., NoiseShape] = lambda _plan, _rho_nano, **_cohort: NONE  # noqa: E731 - replaces a method
    patch.setattr(Plan, "noise", silent)
    patch.setattr(JobPlan, "noise", silent)
    patch.setattr(responder, "share", lambda length, _variance, _scale: np.zeros(length, dtype=np.int64))
