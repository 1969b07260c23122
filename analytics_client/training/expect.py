"""What clusters and trees may be expected to be worth under a round's noise, from public numbers alone.

`deviation` is the noise's standard deviation in each number of a round, in units of one row's largest contribution.
"""

from __future__ import annotations

from queries.estimate import Z95
from queries.training.boosting import WEIGHT_CURVATURE, Boosting
from queries.training.kmeans import Clustering

ASSUMED_PERSONS = 10_000


def clusters_sentence(statistic: Clustering, deviation: float) -> str:
    """Say what noise does to sizes and centres."""
    size, sums, _ = statistic.deviations(deviation)
    each = ASSUMED_PERSONS / statistic.how.count
    return (
        f"sizes ± {Z95 * size:.2g} and centres ± {Z95 * sums / each:.2g} (95%) from a round's noise alone, for"
        f" {ASSUMED_PERSONS:,} persons in clusters of one size; columns scaled to run from -1 to 1"
    )


def clusters_warning(statistic: Clustering, deviation: float, max_persons: int) -> str:
    """Say that the noise drowns the clusters; "" where it may not."""
    persons = min(ASSUMED_PERSONS, max_persons)
    error = Z95 * statistic.deviations(deviation)[1] / (persons / statistic.how.count)
    if error < 0.5:
        return ""
    return (
        f"even {persons:,} persons would leave centres uncertain by {error:.2g} on a scale from -1 to 1: spend more"
        " epsilon, or ask for fewer clusters, columns or rounds"
    )


def trees_sentence(statistic: Boosting, deviation: float) -> str:
    """Say what noise does to a leaf."""
    return (
        f"the noise in a leaf is that of ± {_leaf(statistic, deviation):.3g} persons (95%);"
        f" {ASSUMED_PERSONS:,} persons come to {ASSUMED_PERSONS / statistic.leaves:,.0f} a leaf"
    )


def trees_warning(statistic: Boosting, deviation: float, max_persons: int) -> str:
    """Say that the noise drowns leaves or histograms; "" where it may not."""
    persons = min(ASSUMED_PERSONS, max_persons)
    leaf = _leaf(statistic, deviation)
    if leaf > persons / statistic.leaves:
        return (
            f"the noise in a leaf outweighs the {persons / statistic.leaves:,.0f} of {persons:,} persons that reach it:"
            " spend more epsilon, or grow fewer or less deep trees"
        )
    if statistic.how.splits == "histogram":
        cells = len(statistic.columns) ** 0.5 * max(statistic.bins) ** 0.5
        if leaf * cells > persons:
            return (
                f"the noise in a histogram outweighs all of {persons:,} persons, so no split will be found:"
                ' spend more epsilon, use fewer columns, bins or trees, or splits = "random"'
            )
    return ""


def _leaf(statistic: Boosting, deviation: float) -> float:
    """Persons, each of the largest curvature, that the noise in a leaf (of one category) may be taken for."""
    return Z95 * deviation / WEIGHT_CURVATURE * statistic.scales[1] / statistic.largest_curvature
