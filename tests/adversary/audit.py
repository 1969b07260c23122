"""Empirical audits: what the released values themselves prove about the privacy they have.

Two tests look at many releases with and without one person. The **GDP audit** estimates mu, the distance of the two
means in standard deviations, which rho-zCDP by Gaussian noise bounds by sqrt(2 rho). The **event audit** looks at how
often a release exceeds a threshold, which (epsilon, delta) bounds by p1 <= e^epsilon p0 + delta. Both state a lower
limit that a right mechanism exceeds once in 10^6 audits.

The in-process path releases vectors: coordinate i of a vector is the i-th release of a count, which is sound because
shares draw every coordinate independently (docs/noise.md). Everything between is the product's: plan, lattice, shares
by the agent's sampler with their layers, lanes, masks, sum, unmasking, layers taken off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from adversary.game import FALSE_ALARM
from analytics_client.agent.noise import share
from queries import ir
from queries.accounting import NANO, rho_to_epsilon
from queries.noise import NoiseShape
from queries.plan import Plan, make_plan
from queries.schema import Dataset, from_toml
from trust.noise import layers
from trust.secagg import default_threshold
from trust.secagg.rehearsal import Consortium, Rehearsal

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Share = Callable[[int, Fraction, Fraction | None], Integers]


@dataclass(frozen=True)
class Verdict:
    """What an audit proves: a lower limit, and the promise that it must not exceed."""

    estimate: float
    low: float
    promised: float

    @property
    def violated(self) -> bool:
        """Whether the releases cannot come from a mechanism that keeps the promise."""
        return self.low > self.promised


def gdp_audit(without: Floats, with_person: Floats, rho: float) -> Verdict:
    """Estimate mu from releases in both worlds; its lower limit against sqrt(2 rho).

    The estimate is (mean1 - mean0) / s with pooled s, whose own error is about sqrt((1/n0 + 1/n1) + mu^2 / 2(n0+n1)).
    """
    n0, n1 = len(without), len(with_person)
    pooled = math.sqrt((without.var(ddof=1) * (n0 - 1) + with_person.var(ddof=1) * (n1 - 1)) / (n0 + n1 - 2))
    if pooled == 0:
        return Verdict(math.inf, math.inf, math.sqrt(2 * rho))
    mu = abs(float(with_person.mean() - without.mean())) / pooled
    error = math.sqrt(1 / n0 + 1 / n1 + mu * mu / (2 * (n0 + n1)))
    return Verdict(mu, mu - float(stats.norm.isf(FALSE_ALARM)) * error, math.sqrt(2 * rho))


def event_audit(without: Floats, with_person: Floats, rho: float, delta: float) -> Verdict:
    """Estimate epsilon from how often releases exceed a threshold, at the delta for which rho was converted.

    The thresholds are chosen on one half of the releases, and the limits (Clopper and Pearson) are taken on the other.
    """
    half0, half1 = len(without) // 2, len(with_person) // 2
    thresholds = np.quantile(np.concatenate([without[:half0], with_person[:half1]]), np.linspace(0.001, 0.999, 400))

    def proven(zeros: Floats, ones: Floats, at: Floats) -> Floats:
        """Lower limits of epsilon for each threshold."""
        k0 = len(zeros) - np.searchsorted(np.sort(zeros), at, side="right")
        k1 = len(ones) - np.searchsorted(np.sort(ones), at, side="right")
        p0_high = stats.beta.isf(FALSE_ALARM / 2, k0 + 1, np.maximum(len(zeros) - k0, 1))
        p1_low = stats.beta.ppf(FALSE_ALARM / 2, np.maximum(k1, 1), len(ones) - k1 + 1)
        return np.where(p1_low > delta, np.log(np.maximum(p1_low - delta, 1e-300) / p0_high), -np.inf)

    best = thresholds[[int(np.argmax(proven(without[:half0], with_person[:half1], thresholds)))]]
    judged0, judged1 = without[half0:], with_person[half1:]
    estimate = math.log(max((judged1 > best).mean(), 1e-300) / max((judged0 > best).mean(), 1 / len(judged0)))
    return Verdict(estimate, float(proven(judged0, judged1, best)[0]), rho_to_epsilon(rho, delta))


@dataclass(frozen=True)
class Setting:
    """A cohort that releases counts, seen by a coalition of the coordinator and `colluders` institutions."""

    rho: float
    institutions: int = 5
    colluders: int = 1
    survivors: int | None = None
    """How many upload; as few as can be, where None."""
    pure: bool = False
    """Whether the dataset has no delta."""
    too_many: int = 0
    """A bug to plant: so many layers of noise are taken off beyond those that the survivors allow."""

    @property
    def alive(self) -> int:
        """How many upload."""
        return self.threshold if self.survivors is None else self.survivors

    @property
    def threshold(self) -> int:
        """t: how few survivors a release may have."""
        return default_threshold(self.institutions)

    def dataset(self) -> Dataset:
        """The description of what is counted."""
        return from_toml(_SCHEMA.format(delta="0" if self.pure else "1e-6"))

    def plan(self) -> Plan:
        """The plan of one count."""
        return make_plan(ir.Query("audited", (ir.NamedAggregate("n", ir.Count()),)), self.dataset())

    def noise(self) -> NoiseShape:
        """The noise of its cost."""
        return self.plan().noise(
            int(self.rho * NANO), threshold=self.threshold, colluders=self.colluders, invited=self.institutions
        )


_SCHEMA = """
name = "audited"
privacy_unit = "id"
max_persons = 1000
delta = {delta}
[columns.age]
type = "integer"
lower = 0
upper = 100
"""


def releases(setting: Setting, count: int, *, person: bool, draw: Share = share, rows: int = 1) -> Floats:
    """Return `count` releases of a count, in persons, less the known sum of everybody else, as the coalition sees them.

    The round has taken off the layers that are not needed, and the coalition the noise that its own members know: what
    is left is the noise of the honest survivors. `rows` is what the person moves a count by.
    """
    noise = setting.noise()
    shift = (rows << noise.refine_bits) if person else 0
    rehearsal = _joined(setting, count, noise)
    names = rehearsal.parameters.invited[: setting.alive]
    vectors = {}
    for name in names:
        keys = rehearsal.layer_keys.get(name, ())
        vectors[name] = draw(count, noise.base_variance, noise.scale) + layers.draw(count, noise, keys)
    vectors[names[0]] += shift
    total = _through_the_protocol(rehearsal, vectors)
    opened = len(rehearsal.coordinator.layer_keys[0]) + setting.too_many
    layers.remove(total, noise, [rehearsal.layer_keys.get(name, ())[:opened] for name in names])
    left = total.astype(np.float64)
    for name in names[setting.alive - setting.colluders :]:
        taken_off = layers.draw(count, noise, rehearsal.layer_keys.get(name, ())[:opened])
        known = (vectors[name] - taken_off).astype(np.float64)
        left -= known
        # It also looks whether its noise predicts that of others, as it would if keys were shared.
        left -= known * float(np.cov(left, known)[0, 1] / known.var())
    return left / float(1 << noise.refine_bits)


def _joined(setting: Setting, count: int, noise: NoiseShape) -> Rehearsal:
    """A round of the product's agents and coordinator, up to the roster."""
    names = [f"institution-{i}" for i in range(setting.institutions)]
    cohort = Consortium(names)
    rehearsal = Rehearsal(
        cohort,
        cohort.parameters(length=count, colluders=setting.colluders, threshold=setting.threshold, rungs=noise.rungs),
    )
    rehearsal.join(names)
    return rehearsal


def _through_the_protocol(rehearsal: Rehearsal, vectors: Mapping[str, Integers]) -> Integers:
    """Mask the vectors, sum them and unmask the sum."""
    for name, vector in vectors.items():
        rehearsal.vectors[name] = vector.view(np.uint64)
    rehearsal.upload(list(vectors))
    rehearsal.confirm(list(vectors))
    return rehearsal.reveal(list(vectors)).view(np.int64)


# --- bugs to plant: an audit that cannot find them is worth nothing -------------------------------------------------


def forgetful() -> Share:
    """A share function whose first caller of every release adds nothing: one noise share of three is missing."""
    calls = 0

    def draw(length: int, variance: Fraction, scale: Fraction | None) -> Integers:
        nonlocal calls
        calls += 1
        return np.zeros(length, dtype=np.int64) if calls == 1 else share(length, variance, scale)

    return draw


def averaged(times: int = 2) -> Share:
    """A share function that is asked again for the same release, so that the mean of the answers can be taken."""

    def draw(length: int, variance: Fraction, scale: Fraction | None) -> Integers:
        total = sum(share(length, variance, scale) for _ in range(times))
        return np.asarray(total // times, dtype=np.int64)

    return draw


def one_key() -> Share:
    """A share function whose key is the same at every institution, the colluding ones included."""
    kept: list[Integers] = []

    def draw(length: int, variance: Fraction, scale: Fraction | None) -> Integers:
        if not kept:
            kept.append(share(length, variance, scale))
        return kept[0]

    return draw


def clamping() -> Share:
    """A share function that clamps what an institution without patients would send at zero."""

    def draw(length: int, variance: Fraction, scale: Fraction | None) -> Integers:
        return np.maximum(share(length, variance, scale), 0)

    return draw
