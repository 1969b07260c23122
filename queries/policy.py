"""Allow or deny a request: one pure function of a policy and of facts about the request, deny by default.

The coordinator runs it and every agent runs it again over its own policy. Decisions and their words depend on policy
and request alone, never on data. Must not know: files, clocks, ledgers (a budget's balance is decided there).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time
from math import isfinite

ANY = "*"
"""Stands in a rule for every value. An empty list allows none."""
OPERATIONS = (
    "count", "count_persons", "sum", "mean", "variance", "stddev", "histogram", "derive",
    "quantile", "skewness", "kurtosis", "group_by", "where", "covariance", "correlation",
    "regression", "matrix", "linear_model", "mean_test", "group_test", "independence_test", "survival", "log_rank",
    "train", "evaluate",
)  # fmt: skip
"""What a query may do, as `queries.resolve.operations_used` names it."""
SMALLEST_COHORT = 3


@dataclass(frozen=True, slots=True)
class Hours:
    """A daily window, from `start` up to but without `end`, over midnight where `end` is earlier."""

    start: time
    end: time

    def __contains__(self, at: time) -> bool:
        if self.start <= self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end

    def __str__(self) -> str:
        return f"{self.start:%H:%M} to {self.end:%H:%M}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One permission. A request is allowed where it satisfies every field of some rule; ANY stands for every value.

    `max_epsilon` bounds one request, at the dataset's delta; None sets no bound beyond the ledger's budgets. With
    `approval` a steward looks at each question first. `per_day` are answered to an analyst in 24 hours; None for any.
    """

    name: str
    analysts: tuple[str, ...]
    purposes: tuple[str, ...]
    datasets: tuple[str, ...]
    columns: tuple[str, ...]
    operations: tuple[str, ...]
    max_epsilon: float | None = None
    approval: bool = False
    per_day: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What one party allows. `quiet` hours are in the timezone of `RequestFacts.at`."""

    rules: tuple[Rule, ...] = ()
    minimum_cohort: int = SMALLEST_COHORT
    colluders: int = 1
    quiet: tuple[Hours, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What a decision may depend on: the request, verified, and nothing about data.

    `minimum_cohort` is the round's, `colluders` how many colluding institutions its noise tolerates, `at` the deciding
    party's own time, with a timezone.
    """

    analyst: str
    roles: frozenset[str]
    purpose: str
    dataset: str
    columns: frozenset[str]
    operations: frozenset[str]
    rho_nano: int
    epsilon: float
    minimum_cohort: int
    colluders: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer. `rule` is the name of the rule that decided, `hint` what the analyst can do about a denial.

    What is allowed may still need a steward's approval and is limited to `per_day`: who keeps the books sees to both.
    """

    allowed: bool
    rule: str
    message: str
    hint: str = ""
    approval: bool = False
    per_day: int | None = None


def decide(policy: Policy, request: RequestFacts) -> Decision:
    """Return the decision. Without a rule that allows the request it is denied; the nearest rule says why.

    Of several that allow it the first decides, those without approval before those with.
    """
    for objection in _objections(policy, request):
        return objection
    if not policy.rules:
        return Decision(False, "default-deny", "no rule of this policy allows anything", "ask the steward for a rule")
    nearest: list[Decision] = []
    for rule in sorted(policy.rules, key=lambda rule: rule.approval):
        unmet = list(_unmet(rule, request))
        if not unmet:
            message = f"allowed by rule {rule.name!r}"
            return Decision(True, rule.name, message, approval=rule.approval, per_day=rule.per_day)
        if not nearest or len(unmet) < len(nearest):
            nearest = unmet
    return nearest[0]


def _objections(policy: Policy, request: RequestFacts) -> Iterator[Decision]:
    """Yield what stands against a request whatever the rules say."""
    if "analyst" not in request.roles:
        yield Decision(False, "role", f"{request.analyst!r} is not an analyst", "ask governance for the analyst role")
    if not isfinite(request.epsilon) or request.epsilon <= 0 or request.rho_nano <= 0:
        yield Decision(False, "cost", "a request must cost something", "choose epsilon between 0.01 and 10")
    if request.minimum_cohort < max(policy.minimum_cohort, SMALLEST_COHORT):
        yield Decision(
            False,
            "minimum-cohort",
            f"at least {max(policy.minimum_cohort, SMALLEST_COHORT)} institutions must answer together",
            "ask with a larger minimum cohort",
        )
    if request.colluders < policy.colluders:
        yield Decision(
            False,
            "colluders",
            f"noise must hold against {policy.colluders} colluding institutions",
            "governance must publish a membership that tolerates as many",
        )
    for hours in policy.quiet:
        if request.at.timetz().replace(tzinfo=None) in hours:
            yield Decision(False, "quiet-hours", f"nothing is answered from {hours}", "ask again later")


def _unmet(rule: Rule, request: RequestFacts) -> Iterator[Decision]:
    """Yield a denial for each condition of a rule that the request does not meet."""

    def denial(message: str, hint: str) -> Decision:
        return Decision(False, rule.name, f"rule {rule.name!r} {message}", hint)

    for kind, asked, allowed in (
        ("analyst", {request.analyst}, rule.analysts),
        ("dataset", {request.dataset}, rule.datasets),
        ("purpose", {request.purpose}, rule.purposes),
        ("column", request.columns, rule.columns),
        ("operation", request.operations, rule.operations),
    ):
        missing = sorted(asked - set(allowed)) if ANY not in allowed else []
        if missing:
            yield denial(f"does not allow {kind} {missing[0]!r}", f"allowed: {', '.join(sorted(allowed)) or 'none'}")
    if rule.max_epsilon is not None and request.epsilon > rule.max_epsilon:
        yield denial(f"allows at most epsilon {rule.max_epsilon:g} a query", "ask with a smaller epsilon")


def explain_policy(policy: Policy) -> list[str]:
    """Return the policy in plain sentences, for the steward who wrote it."""
    cohort = max(policy.minimum_cohort, SMALLEST_COHORT)
    lines = [
        f"Answers only together with others: at least {cohort} institutions in a round.",
        f"Keeps its promise even if {policy.colluders} of them collude with the coordinator."
        if policy.colluders
        else "Assumes that no other institution colludes with the coordinator.",
    ]
    lines += [f"Answers nothing from {hours}." for hours in policy.quiet]
    if not policy.rules:
        return [*lines, "Allows nothing: there is no rule."]
    for rule in policy.rules:
        cost = (
            "any epsilon its budget still holds"
            if rule.max_epsilon is None
            else f"epsilon {rule.max_epsilon:g} a query"
        )
        lines.append(
            f"Rule {rule.name!r}: {_words(rule.analysts, 'analyst')} may ask {_words(rule.datasets, 'dataset')} for "
            f"{_words(rule.purposes, 'purpose')}, using {_words(rule.columns, 'column')} and "
            f"{_words(rule.operations, 'operation')}, at {cost}"
            + (f", {rule.per_day} a day" if rule.per_day is not None else "")
            + (", once a steward has approved each question." if rule.approval else ".")
        )
    return [*lines, "Denies everything else."]


def contradictions(policy: Policy) -> list[str]:
    """Return what contradicts itself or can never take effect in a policy, one sentence each."""
    found = []
    if policy.minimum_cohort < SMALLEST_COHORT:
        found.append(
            f"minimum_cohort is {policy.minimum_cohort}: no round has fewer than {SMALLEST_COHORT} institutions."
        )
    if policy.colluders < 0:
        found.append("colluders is negative.")
    elif policy.colluders > policy.minimum_cohort - 2:
        found.append(
            f"{policy.colluders} colluders leave fewer than two honest institutions of {policy.minimum_cohort}."
        )
    found += [
        f"Quiet hours {hours} are empty: start and end are equal." for hours in policy.quiet if hours.start == hours.end
    ]
    seen: dict[str, Rule] = {}
    for rule in policy.rules:
        if rule.name in seen:
            found.append(f"Two rules are named {rule.name!r}.")
        found += _rule_contradictions(rule)
        found += [
            f"Rule {rule.name!r} never decides: rule {earlier.name!r} above it allows all of it."
            for earlier in seen.values()
            if _covers(earlier, rule)
        ]
        seen.setdefault(rule.name, rule)
    return found


def _rule_contradictions(rule: Rule) -> Iterator[str]:
    where = f"Rule {rule.name!r}"
    if not rule.name:
        yield "A rule has no name."
    for field in ("analysts", "purposes", "datasets", "columns", "operations"):
        values: tuple[str, ...] = getattr(rule, field)
        if not values and field != "columns":
            yield f"{where} allows nothing: {field} is empty."
        if ANY in values and len(values) > 1:
            yield f"{where}: {field} names {ANY!r} and others beside it."
    for operation in rule.operations:
        if operation not in (ANY, *OPERATIONS):
            yield f"{where}: there is no operation {operation!r} (known: {', '.join(OPERATIONS)})."
    if rule.max_epsilon is not None and not (isfinite(rule.max_epsilon) and rule.max_epsilon > 0):
        yield f"{where} allows nothing: max_epsilon is not a finite number above 0."


def _covers(wide: Rule, narrow: Rule) -> bool:
    """Return whether every request that `narrow` allows is allowed by `wide` too."""
    pairs = (
        (wide.analysts, narrow.analysts),
        (wide.purposes, narrow.purposes),
        (wide.datasets, narrow.datasets),
        (wide.columns, narrow.columns),
        (wide.operations, narrow.operations),
    )
    if not all(ANY in outer or set(inner) <= set(outer) for outer, inner in pairs):
        return False
    if wide.approval and not narrow.approval:
        return False
    if wide.per_day is not None and (narrow.per_day is None or narrow.per_day > wide.per_day):
        return False
    if wide.max_epsilon is None:
        return True
    return narrow.max_epsilon is not None and narrow.max_epsilon <= wide.max_epsilon


def _words(values: tuple[str, ...], kind: str) -> str:
    if ANY in values:
        return f"any {kind}"
    if not values:
        return f"no {kind}"
    return f"{kind} {values[0]}" if len(values) == 1 else f"{kind}s {', '.join(values)}"
