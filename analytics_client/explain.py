"""What a query would disclose, cost and be worth, before anything is spent.

Everything is computed here from the published schema and the list of institutions that serve the dataset now, by the
same `queries.plan` that every agent uses. Must not know: the network.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isqrt, sqrt
from typing import Any

from analytics_client.result import Cost
from queries.accounting import NANO, rho_to_epsilon
from queries.errors import QueryError, QuorumError
from queries.estimate import ExpectedWidth, expected_widths
from queries.noise import MAX_RHO_NANO, NoiseShape
from queries.plan import Plan
from queries.resolve import shape as question_of
from trust.secagg import default_threshold

SMALLEST_COHORT = 3


@dataclass(frozen=True)
class Explanation:
    """What a query would disclose and cost if `institutions` were asked now. Make one with `Session.explain`."""

    plan: Plan
    noise: NoiseShape
    cost: Cost
    institutions: tuple[str, ...]
    threshold: int
    colluders: int
    widths: tuple[ExpectedWidth, ...]
    left: Mapping[str, int] = field(default_factory=dict)
    """Rho, in units of 1e-9, that the analyst could still spend at institutions, by what the log says; it may lag."""

    @property
    def refusals_expected(self) -> tuple[str, ...]:
        """Institutions whose budget, by what the log says, no longer covers this."""
        asked = round(self.cost.rho * NANO)
        return tuple(i for i in self.institutions if self.left.get(i, asked) < asked)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.plan.dataset.name

    @property
    def question(self) -> str:
        """Operations and columns, without literals."""
        return question_of(self.plan.query)

    @property
    def weights(self) -> dict[str, int]:
        """Weights of the outputs in lowest terms; nothing where they share the cost evenly."""
        weights = {named.name: named.weight for named in self.plan.query.aggregates}
        return weights if set(weights.values()) != {1} else {}

    @property
    def sensitivity(self) -> float:
        """Most that one person can move the released vector, as a Euclidean distance in units of one row.

        For a dataset without a delta, the sum of what it moves every number by.
        """
        moved = self.plan.delta_one if self.noise.pure else sqrt(self.plan.delta_squared)
        return moved / 2.0**self.plan.scale_bits

    @property
    def noise_per_institution(self) -> float:
        """Standard deviation of what each institution adds to every number, in units of one row over its weight."""
        return self._deviation(float(self.noise.share_variance))

    @property
    def noise_total(self) -> float:
        """Standard deviation of the noise in every number when all institutions answer, in the same units."""
        return self._deviation(float(self.noise.total_variance(len(self.institutions))))

    @property
    def noise_fewest(self) -> float:
        """As `noise_total`, when as many vanish as may."""
        return self._deviation(float(self.noise.total_variance(self.threshold)))

    @property
    def noise_of_curator(self) -> float:
        """What a trusted curator who held all data would add for the same privacy, in the same units."""
        return self._deviation(float(self.noise.central_variance))

    def epsilon_for(self, output: str, half_width: float) -> float:
        """Return the epsilon at which the interval of an output is about `half_width` to each side.

        Exact for counts, sums and histograms; for other outputs under what `widths` assumes of the data. Raise
        QueryError where there is no such output, or where no cost reaches the width.
        """
        found = next((w for w in self.widths if w.name == output), None)
        if found is None:
            known = ", ".join(w.name for w in self.widths)
            raise QueryError(f"no output {output!r} has an interval", hint=f"possible for: {known}")
        if not half_width > 0:
            raise QueryError("a width must be above 0")
        rho = self.cost.rho * (found.half_width / half_width) ** 2
        if found.assumed_rows is not None:
            rho = self._search(output, half_width)
        if rho * NANO > MAX_RHO_NANO:
            raise QueryError(
                f"no epsilon makes {output!r} that precise",
                hint="ask for a coarser answer or limit the rows per person",
            )
        return rho_to_epsilon(rho, self.plan.dataset.delta)

    def epsilons_for(self, half_width: float) -> dict[str, float | None]:
        """Return `epsilon_for` of every output that has an interval, None where no epsilon is enough."""
        if not half_width > 0:
            raise QueryError("a width must be above 0")
        needed: dict[str, float | None] = {}
        for width in self.widths:
            try:
                needed[width.name] = self.epsilon_for(width.name, half_width)
            except QueryError:
                needed[width.name] = None
        return needed

    def _search(self, output: str, half_width: float) -> float:
        """Return the least rho, to a thousandth of it, at which an output is expected to be as precise as that."""

        def enough(rho_nano: int) -> bool:
            try:
                noise = self.plan.noise(
                    rho_nano, threshold=self.threshold, colluders=self.colluders, invited=len(self.institutions)
                )
            except QueryError:  # so little that the noise would leave the ring
                return False
            widths = expected_widths(self.plan, noise, len(self.institutions))
            return next(w.half_width for w in widths if w.name == output) <= half_width

        low, high = 1, MAX_RHO_NANO
        if not enough(high):
            return (high + 1) / NANO
        while high - low > max(1, low // 1000):
            middle = isqrt(low * high) if high > 2 * low else (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high / NANO

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what people read: a label and a sentence each."""
        cells, slots, rows = len(self.plan.cells), len(self.plan.slots), self.plan.rows_per_person
        kinds = Counter(slot.kind for slot in self.plan.slots)
        per_cell = ", ".join(f"{kind} {count}" if count > 1 else kind for kind, count in kinds.items())
        each, curator = self.noise_per_institution, self.noise_of_curator
        spare = len(self.institutions) - self.threshold
        yield "releases", f"{self.plan.length:,} numbers: {cells:,} {_plural('cell', cells)} of {slots} ({per_cell})"
        if self.weights:
            shares = ", ".join(f"{name} {weight}" for name, weight in self.weights.items())
            yield "weights", f"{shares}: the noise below is divided by a number's weight"
        if least := self.plan.dataset.smallest_count:
            yield "withholds", f"groups and bins whose noisy count of persons is below {least:,}, as the dataset says"
        yield (
            "sensitivity",
            f"{self.sensitivity:.6g}: how far one person, with up to {rows} {_plural('row', rows)}, moves them"
            + (" in all" if self.noise.pure else ""),
        )
        yield (
            "Laplace noise" if self.noise.pure else "noise",
            f"standard deviation {self.noise_total:.4g} in each, when all answer"
            + (f", {self.noise_fewest:.4g} when only {self.threshold} do" if spare else "")
            + f"; a trusted curator adds {curator:.4g}",
        )
        yield (
            "",
            f"every institution adds {each:.4g}, enough where {self.colluders} of them help the coordinator to cheat",
        )
        for width in self.widths:
            assumed = f", for a group of {width.assumed_rows:,} rows" if width.assumed_rows else ""
            yield f"expect {width.name}", f"± {width.half_width:.3g} (95%){assumed}"
        yield "costs", str(self.cost)
        known = [self.left[i] for i in self.institutions if i in self.left]
        if self.refusals_expected:
            who = ", ".join(self.refusals_expected)
            yield "budget", f"by what the log says, no longer covers this at: {who}; their own ledgers decide"
        elif known:
            epsilon = rho_to_epsilon(min(known) / NANO, self.plan.dataset.delta)
            yield "budget", f"covers this; the log says that one query of epsilon {epsilon:.3g} would fit everywhere"
        yield "asks", f"{len(self.institutions)} institutions: {', '.join(self.institutions)}"
        yield "needs", f"{self.threshold} of them to the end" + (f"; {spare} may vanish" if spare else "")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; `to_json` and `--json` print exactly this."""
        return {
            "dataset": self.dataset,
            "question": self.question,
            "cells": len(self.plan.cells),
            "slots": [
                {"kind": slot.kind, "column": slot.column, "weight": gain}
                for slot, gain in zip(self.plan.slots, self.plan.gains, strict=True)
            ],
            "weights": self.weights,
            "length": self.plan.length,
            "scale_bits": self.plan.scale_bits,
            "refine_bits": self.noise.refine_bits,
            "rows_per_person": self.plan.rows_per_person,
            "delta_squared": str(self.plan.delta_squared),
            "delta_one": str(self.plan.delta_one),
            "sensitivity": self.sensitivity,
            "noise": {
                "per_institution": self.noise_per_institution,
                "total": self.noise_total,
                "fewest": self.noise_fewest,
                "curator": self.noise_of_curator,
            },
            "expected": [
                {"output": w.name, "half_width": w.half_width, "assumed_rows": w.assumed_rows} for w in self.widths
            ],
            "cost": {"epsilon": self.cost.epsilon, "rho": self.cost.rho, "delta": self.cost.delta},
            "budget": {
                "left_rho": {i: nano / NANO for i, nano in sorted(self.left.items())},
                "refusals_expected": list(self.refusals_expected),
            },
            "institutions": list(self.institutions),
            "threshold": self.threshold,
            "colluders": self.colluders,
        }

    def to_json(self) -> str:
        """Return `to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        from analytics_client.render import explanation_table, to_text

        return to_text(explanation_table(self))

    def _deviation(self, variance: float) -> float:
        return sqrt(variance) / 2.0 ** (self.plan.scale_bits + self.noise.refine_bits)


def explain(
    plan: Plan,
    rho_nano: int,
    *,
    institutions: tuple[str, ...],
    colluders: int,
    left: Mapping[str, int] | None = None,
) -> Explanation:
    """Return the explanation of a plan at a cost if these institutions are asked.

    Raise QuorumError where they are too few for any round, QueryError where cost or cohort is impossible.
    """
    if len(institutions) < SMALLEST_COHORT:
        raise QuorumError(
            f"only {len(institutions)} institutions serve {plan.dataset.name!r} now; a query needs {SMALLEST_COHORT}",
            hint="cohortium datasets shows who serves what",
        )
    threshold = default_threshold(len(institutions))
    noise = plan.noise(rho_nano, threshold=threshold, colluders=colluders, invited=len(institutions))
    return Explanation(
        plan=plan,
        noise=noise,
        cost=cost_of(rho_nano, plan.dataset.delta),
        institutions=institutions,
        threshold=threshold,
        colluders=colluders,
        widths=expected_widths(plan, noise, len(institutions)),
        left=left or {},
    )


def cost_of(rho_nano: int, delta: float) -> Cost:
    """Return a cost in all its units."""
    rho = rho_nano / NANO
    return Cost(rho, rho_to_epsilon(rho, delta), delta)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"
