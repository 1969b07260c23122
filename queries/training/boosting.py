"""Gradient-boosted trees as rounds of histograms: what a row adds, and what a tree predicts (Friedman 2001).

Columns are cut into bins by their published bounds or keys. In a round that splits a level, a row adds to one bin of
every column, in the node of the tree that it has reached; in a round that fills leaves, to its leaf alone:

    a_g gradient | a_h curvature, each divided by sqrt d where it is added d times | a_l loss | a_n 1

so its norm is at most 1 whatever the trees before it are. Of three or more categories every tree is one a category,
which ask the same questions: gradient p - y and curvature p (1 - p) of the softmax are vectors with an entry a category
(Friedman 2001, algorithm 6). A model is one vector: how many rounds it has had, then per tree its splits, level by
level, and its leaves. Must not know: noise, where rows come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

from queries.errors import QueryError
from queries.schema import Categorical, Dataset
from queries.training.design import Design, Floats, make_design
from queries.training.job import Job
from queries.training.options import Trees
from queries.training.statistics import Moments

WEIGHT_GRADIENT, WEIGHT_CURVATURE, WEIGHT_LOSS, WEIGHT_COUNT = sqrt(0.60), sqrt(0.30), sqrt(0.05), sqrt(0.05)
NO_SPLIT = -1
CODES = 512
"""A split is column * CODES + cut. A row goes right where its bin is above the cut, or its category is the cut."""
LARGEST_LOGIT = 8.0
Codes = NDArray[np.int64]


class Boosting:
    """See `statistics.Statistic`.

    Scores, (rows, outputs), are log odds of the second of two categories, logits of more, or a number on the scale of
    -1 to 1.
    """

    def __init__(self, job: Job, dataset: Dataset, how: Trees) -> None:
        self.how = how
        self.design: Design = make_design(job, dataset)
        self.columns = tuple(term[0] for term in job.terms)
        self._label = job.label
        kinds = [dataset.column(name).kind for name in self.columns]
        if any(isinstance(kind, Categorical) and len(kind.keys) > CODES for kind in kinds):
            raise QueryError(f"trees divide categories of at most {CODES} keys", hint="leave the column out")
        self.categorical = np.array([isinstance(kind, Categorical) for kind in kinds])
        self.bins = tuple(len(kind.keys) if isinstance(kind, Categorical) else how.bins for kind in kinds)
        self.offsets = np.concatenate([[0], np.cumsum(self.bins)[:-1]])
        self.nodes, self.leaves = 2**how.depth - 1, 2**how.depth
        cells = self.leaves
        if how.splits == "histogram":
            cells = max(cells, 2 ** (how.depth - 1) * sum(self.bins))
        kind = dataset.column(job.label).kind
        self.classes = len(kind.keys) if isinstance(kind, Categorical) else 0
        self.outputs = self.classes if self.classes > 2 else 1
        self.width = 1 + how.count * (self.nodes + self.leaves * self.outputs)
        self.length = self.work = 2 * self.outputs * cells + 2
        self.centre = (0.0, 1.0)
        if not isinstance(kind, Categorical):
            self.centre = (kind.lower / 2 + kind.upper / 2, kind.upper / 2 - kind.lower / 2)
        self.largest_score = LARGEST_LOGIT if self.classes else 1.0
        self.largest_curvature = 0.25 if self.classes else 1.0
        """Of one person and one output."""
        self.scales = (1.0, 0.25, log1p(exp(LARGEST_LOGIT))) if self.classes else (2.0, 1.0, 2.0)
        """Bounds on the norms of a row's gradient and curvature, and on its loss."""
        if self.outputs > 1:
            # p^2 (1 - p)^2 is at most 4/27 p, and the p sum to 1; logits lie within twice the largest of each other.
            self.scales = (sqrt(2.0), sqrt(4 / 27), 2 * LARGEST_LOGIT + log(self.classes))

    # --- a model -----------------------------------------------------------------------------------------------------

    def initial(self) -> Floats:
        """Return the model before its first round: no split and no leaf, or the splits that follow from the seed."""
        theta = np.zeros(self.width)
        splits, _ = self._parts(theta)
        splits[:] = NO_SPLIT
        if self.how.splits == "random":
            random = np.random.Generator(np.random.PCG64(self.how.seed))
            for tree in splits:
                self._draw(tree, random)
        return theta

    def _draw(self, tree: Floats, random: np.random.Generator) -> None:
        """Fill one tree with questions that still divide what reaches them: a column at random, then a cut."""
        boxes: list[list[list[int]]] = [[list(range(count)) for count in self.bins]]
        for node in range(self.nodes):
            box = boxes[node]
            open_ = [column for column, left in enumerate(box) if len(left) > 1]
            right = [list(left) for left in box]
            if open_:
                column = open_[int(random.random() * len(open_))]
                left = box[column]
                if self.categorical[column]:
                    cut = left[int(random.random() * len(left))]
                    box[column], right[column] = [key for key in left if key != cut], [cut]
                else:
                    cut = left[int(random.random() * (len(left) - 1))]
                    box[column], right[column] = [b for b in left if b <= cut], [b for b in left if b > cut]
                tree[node] = column * CODES + cut
            boxes += [[list(left) for left in box], right]  # as of a heap: children of node are 2 node + 1 and + 2

    def _parts(self, theta: Floats) -> tuple[Floats, Floats]:
        """Return views of the splits, (trees, nodes), and of the leaves, (trees, leaves * outputs)."""
        trees = theta[1:].reshape(self.how.count, self.nodes + self.leaves * self.outputs)
        return trees[:, : self.nodes], trees[:, self.nodes :]

    def stage(self, theta: Floats) -> tuple[int, int]:
        """Return how many trees are complete, and how many levels of the next one are split.

        A model is whatever the coordinator sends: anything but a stage is taken as the nearest.
        """
        done = int(min(max(theta[0], 0.0), float(self.how.rounds)))
        if self.how.splits == "random":
            return done, self.how.depth
        return divmod(done, self.how.rounds_each)

    def codes(self, theta: Floats) -> Codes:
        """Return the splits, (trees, nodes), as whole numbers within what a split can be."""
        splits, _ = self._parts(theta)
        return np.clip(np.rint(splits), NO_SPLIT, len(self.columns) * CODES - 1).astype(np.int64)

    def put_splits(self, theta: Floats, tree: int, level: int, codes: Codes) -> None:
        """Write the splits of a level of a tree, in place."""
        self._parts(theta)[0][tree, 2**level - 1 : 2 ** (level + 1) - 1] = codes

    def put_leaves(self, theta: Floats, tree: int, values: Floats) -> None:
        """Write the leaves of a tree, (leaves, outputs), in place."""
        self._parts(theta)[1][tree] = values.reshape(-1)

    # --- rows --------------------------------------------------------------------------------------------------------

    def binned(self, values: Mapping[str, Floats]) -> Codes:
        """Return the bin of each row in each column, (rows, columns); -1 where a value is none."""
        out = np.empty((len(next(iter(values.values()))), len(self.columns)), dtype=np.int64)
        for place, name in enumerate(self.columns):
            given = np.asarray(values[name], dtype=np.float64)
            if self.categorical[place]:
                bin_ = given
            else:
                mid, half = self.design.centres[name]
                bin_ = np.floor((np.clip((given - mid) / half, -1.0, 1.0) + 1) / 2 * self.bins[place])
            sound = np.isfinite(given)
            out[:, place] = np.where(sound, np.clip(np.nan_to_num(bin_), 0, self.bins[place] - 1), -1)
        return out

    def reached(self, bins: Codes, splits: Codes, levels: int) -> Codes:
        """Return the node that each row reaches after so many levels of a tree, from 0."""
        node = np.zeros(len(bins), dtype=np.int64)
        rows = np.arange(len(bins))
        for level in range(levels):
            code = splits[2**level - 1 + node]
            column, cut = np.maximum(code, 0) // CODES, np.maximum(code, 0) % CODES
            at = bins[rows, column]
            right = np.where(self.categorical[column], at == cut, at > cut) & (code >= 0)
            node = 2 * node + right
        return node

    def scores(self, bins: Codes, theta: Floats) -> Floats:
        """Return what the complete trees say of each row together, (rows, outputs)."""
        complete, _ = self.stage(theta)
        codes, leaves = self.codes(theta), self._parts(theta)[1].reshape(self.how.count, self.leaves, self.outputs)
        out = np.zeros((len(bins), self.outputs))
        for tree in range(min(complete, self.how.count)):
            out += self.how.learning_rate * leaves[tree, self.reached(bins, codes[tree], self.how.depth)]
        return np.clip(out, -self.largest_score, self.largest_score)

    def predict(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """See `statistics.Statistic`. Rows that lack a value are no numbers."""
        bins = self.binned({name: values[name] for name in self.columns})
        score = self.scores(bins, theta)
        score[(bins < 0).any(axis=1)] = np.nan
        if not self.classes:
            mid, half = self.centre
            out: Floats = score[:, 0] * half + mid
            return out
        if self.outputs > 1:
            return _softmax(score)
        chance = _expit(score[:, 0])
        return np.stack([1 - chance, chance], axis=1)

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """See `statistics.Statistic`."""
        bins = self.binned({name: values[name] for name in self.columns})
        gradient, curvature, loss = self._derivatives(values[self._label], self.scores(bins, theta))
        complete, levels = self.stage(theta)
        splits = self.codes(theta)[min(complete, self.how.count - 1)]
        node = self.reached(bins, splits, levels)
        out = np.zeros((len(bins), self.length))
        rows = np.arange(len(bins))
        filling = levels == self.how.depth
        cells = node[:, None] if filling else node[:, None] * sum(self.bins) + self.offsets + np.maximum(bins, 0)
        share = sqrt(cells.shape[1])
        places = 2 * self.outputs * cells[:, :, None] + np.arange(self.outputs)
        at = rows[:, None, None]
        out[at, places] = (gradient / self.scales[0] * (WEIGHT_GRADIENT / share))[:, None, :]
        out[at, places + self.outputs] = (curvature / self.scales[1] * (WEIGHT_CURVATURE / share))[:, None, :]
        out[:, -2] = loss / self.scales[2] * WEIGHT_LOSS
        out[:, -1] = WEIGHT_COUNT
        out[(bins < 0).any(axis=1)] = np.nan
        return out

    def _derivatives(self, label: Floats, score: Floats) -> tuple[Floats, Floats, Floats]:
        """Return gradient and curvature of each row's loss by its scores, (rows, outputs), and the loss, (rows,)."""
        if self.outputs > 1:
            hit = (label[:, None] == np.arange(self.classes)).astype(np.float64)
            hit[hit.sum(axis=1) == 0] = np.nan  # a label outside the categories: the row adds nothing
            chance = _softmax(score)
            loss = np.logaddexp.reduce(score, axis=1) - (hit * score).sum(axis=1)
            return chance - hit, chance * (1 - chance), loss
        y = label[:, None]
        if self.classes:
            chance = _expit(score)
            return chance - y, chance * (1 - chance), (np.logaddexp(0.0, score) - y * score)[:, 0]
        mid, half = self.centre
        error = score - np.clip((y - mid) / half, -1.0, 1.0)
        return error, np.ones_like(error), (error**2 / 2)[:, 0]

    def moments(self, sums: Floats, theta: Floats, deviation: float) -> Moments:
        """Trees have no moments: their histograms are read by `forest`."""
        del sums, theta, deviation
        raise TypeError("trees have no moments")


def _expit(score: Floats) -> Floats:
    out: Floats = np.exp(-np.logaddexp(0.0, -score))
    return out


def _softmax(score: Floats) -> Floats:
    out: Floats = np.exp(score - np.logaddexp.reduce(score, axis=1)[:, None])
    return out
