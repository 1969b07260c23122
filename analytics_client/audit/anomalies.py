"""What in a log is worth a look. A finding is a question for a person, never a verdict: noise protects all the same.

    differencing  the same question with one column more or less in its WHERE, or of a cohort with one institution
                  more or less: two answers whose difference speaks of few persons, or of one institution
    repeated      one question asked again and again (its literals are not in the log, so they may differ)
    burst         many requests of one analyst in a short time
    reworded      a denied request that was allowed when it came back in other words, or for another purpose
    budget        an institution that signed that a budget is nearly used, or that denied for want of one
    cosigning     an institution of the membership that no longer cosigns the log's heads
    omitted       a decision that an institution numbered and the log does not have: late, lost on the way, or left out
    back-dated    an entry that claims to be older than a head without it that a witness had cosigned
    split view    a decision under a head that is not among the log's own

Sources: I. Dinur and K. Nissim (PODS 2003) on differencing; the rest is what auditors of clinical systems look for.
Pure: works on requests that `asked` put together, and on a report of `verify`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from analytics_client.audit.asked import Asked
from analytics_client.audit.report import Report
from trust.tlog.entries import moment

Kind = Literal[
    "differencing", "repeated", "burst", "reworded", "budget", "cosigning", "omitted", "back-dated", "split view"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
BUDGET_RULE = "budget"
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on something is worth a look."""

    differencing_days: float = 30.0
    repeated: int = 5
    burst: int = 30
    burst_minutes: float = 60.0
    reworded_hours: float = 24.0
    silent_hours: float = 24.0
    budget_used: float = 0.9


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something worth a look: what, whose, and the numbers of the entries that show it, ascending."""

    kind: Kind
    at_ms: int
    analyst: str
    dataset: str
    text: str
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Question:
    """A shape taken apart: what is computed by which groups, and the columns that select the rows."""

    computed: str
    where: frozenset[str]

    @classmethod
    def of(cls, shape: str) -> _Question:
        computed, _, where = shape.partition(" where ")
        return cls(computed, frozenset(where.split(", ")) - {""})


def anomalies(
    asked: Sequence[Asked], report: Report | None = None, thresholds: Thresholds | None = None
) -> list[Anomaly]:
    """Return what is worth a look, oldest first. `report` is of the same log; without it cosigning is not judged."""
    limits = thresholds or Thresholds()
    found = [
        *_differencing(asked, limits),
        *_repeated(asked, limits),
        *_bursts(asked, limits),
        *_reworded(asked, limits),
        *_budgets_ending(asked, limits),
        *_budgets_ended(asked),
        *_omitted(asked),
        *(_silent(report, limits) if report is not None else ()),
        *(_back_dated(report) if report is not None else ()),
        *(_split_views(report) if report is not None else ()),
    ]
    return sorted(found, key=lambda a: (a.at_ms, KINDS.index(a.kind), a.seqs))


def _differencing(asked: Iterable[Asked], limits: Thresholds) -> Iterable[Anomaly]:
    """Compare every released request with the latest one of each neighbouring kind: linear in the log's length."""
    span = limits.differencing_days * _DAY_MS
    latest: dict[tuple[str, str, frozenset[str]], list[Asked]] = defaultdict(list)
    for request in asked:
        if request.outcome != "released":
            continue
        question = _Question.of(request.shape)
        known = latest[request.dataset, question.computed, question.where]
        neighbours: list[tuple[Asked, str]] = []
        for (dataset, computed, where), others in latest.items():
            differs = where ^ question.where
            if (dataset, computed) == (request.dataset, question.computed) and len(differs) == 1 and others:
                neighbours.append((others[-1], f"but for a condition on {min(differs)}"))
        for other in reversed(known[-8:]):
            changed = frozenset(other.survivors) ^ frozenset(request.survivors)
            if len(changed) == 1:
                neighbours.append((other, f"but for {min(changed)} in the cohort"))
                break
        known.append(request)
        for other, but in neighbours:
            if request.at_ms - other.at_ms <= span:
                whose = "" if other.analyst == request.analyst else f" by {other.analyst}"
                yield _of(
                    "differencing", request, f"{request.shape}: entry {other.seq}{whose} asked the same {but}", other
                )


def _repeated(asked: Iterable[Asked], limits: Thresholds) -> Iterable[Anomaly]:
    groups = _grouped(asked, lambda r: (r.analyst, r.dataset, r.shape))
    for same in groups:
        answered = [r for r in same if r.outcome == "released"]
        if len(answered) >= limits.repeated:
            yield _of("repeated", answered[-1], f"{answered[-1].shape}: answered {len(answered)} times", *answered[:-1])


def _bursts(asked: Iterable[Asked], limits: Thresholds) -> Iterable[Anomaly]:
    span = int(limits.burst_minutes * 60_000)
    for same in _grouped(asked, lambda r: (r.analyst,)):
        start, run = 0, 0  # the window's first request; the end of the burst that was told last
        bursts: list[list[int]] = []
        for end, request in enumerate(same):
            while request.at_ms - same[start].at_ms > span:
                start += 1
            if end - start + 1 >= limits.burst:
                if bursts and start <= run:
                    bursts[-1][1] = end
                else:
                    bursts.append([start, end])
                run = end
        for first, last in bursts:
            requests = same[first : last + 1]
            minutes = max(1, round((requests[-1].at_ms - requests[0].at_ms) / 60_000))
            yield _of("burst", requests[-1], f"{len(requests)} requests within {minutes} minutes", *requests[:-1])


def _reworded(asked: Iterable[Asked], limits: Thresholds) -> Iterable[Anomaly]:
    span = limits.reworded_hours * _HOUR_MS
    for same in _grouped(asked, lambda r: (r.analyst, r.dataset)):
        for denied, later in pairwise(_until_allowed(same)):
            if not (denied.denials() and later.at_ms - denied.at_ms <= span):
                continue
            turned = sorted({d.institution for d in denied.denials()} & later.allowed_by())
            changed = [
                what
                for what, a, b in (
                    ("question", denied.shape, later.shape),
                    ("purpose", denied.purpose, later.purpose),
                    ("cost", denied.rho_nano, later.rho_nano),
                )
                if a != b
            ]
            if turned and changed:
                rules = ", ".join(sorted({d.rule for d in denied.denials() if d.institution in turned}))
                text = f"{', '.join(turned)} denied it ({rules}) and allowed it with another {' and '.join(changed)}"
                yield _of("reworded", later, text, denied)


def _until_allowed(same: Sequence[Asked]) -> Iterable[Asked]:
    """Leave out what nobody decided: it says nothing either way."""
    return (request for request in same if request.decisions)


def _budgets_ended(asked: Iterable[Asked]) -> Iterable[Anomaly]:
    """Tell once for each institution and account that requests began to fail for want of budget, and when last."""
    empty: dict[tuple[str, str, str], list[tuple[Asked, int]]] = defaultdict(list)
    for request in asked:
        for decision in request.denials():
            if decision.rule == BUDGET_RULE and decision.institution:
                empty[decision.institution, request.analyst, request.dataset].append((request, decision.spent_before))
    for (institution, _, _), denied in empty.items():
        request = denied[-1][0]
        text = f"{institution} has no budget left for such a request: {len(denied)} denied"
        yield _of("budget", request, text, *(r for r, _ in denied[:-1]))


def _budgets_ending(asked: Iterable[Asked], limits: Thresholds) -> Iterable[Anomaly]:
    """Tell once for each institution and account that little is left, as the institution itself signed."""
    told: set[tuple[str, str, str]] = set()
    for request in asked:
        for decision in request.decisions:
            account = decision.institution, request.analyst, request.dataset
            used = decision.signed().budget_permille / 1000
            if decision.allowed and used >= limits.budget_used and account not in told:
                told.add(account)
                yield _of("budget", request, f"{decision.institution} has used {used:.0%} of a budget")


def _omitted(asked: Iterable[Asked]) -> Iterable[Anomaly]:
    """Every decision says how many its institution made before: a number that is missing, or there twice, is told."""
    numbered: dict[str, dict[int, Asked]] = defaultdict(dict)
    for request in asked:
        for decision in request.decisions:
            signed = decision.signed()
            if not signed.own_root:
                continue  # of a version without a journal
            known = numbered[decision.institution]
            if signed.own_size in known:
                text = f"{decision.institution} made two decisions number {signed.own_size}: was its journal restored?"
                yield _of("omitted", request, text, known[signed.own_size])
            known[signed.own_size] = request
    for institution, known in numbered.items():
        for before, after in pairwise(sorted(known)):
            if after - before > 1:
                numbers = str(before + 1) if after - before == 2 else f"{before + 1} to {after - 1}"
                text = f"the log lacks decision {numbers} of {institution}: cohortium audit reconcile tells which"
                yield _of("omitted", known[after], text, known[before])


def _silent(report: Report, limits: Thresholds) -> Iterable[Anomaly]:
    for name, (size, at_ms) in sorted(report.silent_since.items()):
        if report.until_ms - at_ms > limits.silent_hours * _HOUR_MS:
            text = (
                f"{name} cosigned nothing after the head of {size} entries ({moment(at_ms)[:16]})"
                if size
                else f"{name} never cosigned a head"
            )
            yield Anomaly("cosigning", report.until_ms, "", "", text, (max(size - 1, 0),))


def _back_dated(report: Report) -> Iterable[Anomaly]:
    told: set[int] = set()
    for seq, witness, at_ms in report.back_dated:
        if seq not in told:
            told.add(seq)
            text = f"{witness} cosigned a head without this entry at {moment(at_ms)[:16]}, later than it claims"
            yield Anomaly("back-dated", at_ms, "", "", text, (seq,))


def _split_views(report: Report) -> Iterable[Anomaly]:
    for seq, institution, size, at_ms in report.strange_heads:
        text = f"{institution} was shown a head of {size} entries that is not among this log's"
        yield Anomaly("split view", at_ms, "", "", text, (seq,))


def _grouped(asked: Iterable[Asked], key: Callable[[Asked], tuple[str, ...]]) -> Iterable[list[Asked]]:
    groups: dict[tuple[str, ...], list[Asked]] = defaultdict(list)
    for request in asked:
        groups[key(request)].append(request)
    return groups.values()


def _of(kind: Kind, request: Asked, text: str, *others: Asked) -> Anomaly:
    seqs = tuple(sorted({request.seq, *(other.seq for other in others)}))
    return Anomaly(kind, request.at_ms, request.analyst, request.dataset, text, seqs)
