"""Deny by default, for the reason that is named."""

from dataclasses import replace
from datetime import UTC, datetime, time

import pytest

from queries.policy import ANY, OPERATIONS, Hours, Policy, RequestFacts, Rule, contradictions, decide, explain_policy

RULE = Rule(
    name="liver research",
    analysts=("ada",),
    purposes=("nafld",),
    datasets=("patients",),
    columns=("age", "sex"),
    operations=("count", "mean", "group_by"),
    max_epsilon=1.0,
)
POLICY = Policy(rules=(RULE,))
REQUEST = RequestFacts(
    analyst="ada",
    roles=frozenset({"analyst"}),
    purpose="nafld",
    dataset="patients",
    columns=frozenset({"age", "sex"}),
    operations=frozenset({"mean", "group_by"}),
    rho_nano=1_000_000,
    epsilon=0.5,
    minimum_cohort=3,
    colluders=1,
    at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
)


def test_a_request_within_a_rule_is_allowed_by_it() -> None:
    decision = decide(POLICY, REQUEST)
    assert (decision.allowed, decision.rule) == (True, "liver research")


def test_a_rule_without_approval_decides_before_one_with() -> None:
    by_hand = replace(RULE, name="by hand", operations=(ANY,), approval=True)
    policy = Policy(rules=(by_hand, replace(RULE, per_day=5)))
    decision = decide(policy, REQUEST)
    assert (decision.rule, decision.approval, decision.per_day) == ("liver research", False, 5)
    decision = decide(policy, replace(REQUEST, operations=frozenset({"variance"})))
    assert (decision.allowed, decision.rule, decision.approval) == (True, "by hand", True)
    said = " ".join(explain_policy(policy))
    assert "5 a day" in said
    assert "once a steward has approved each question" in said


def test_a_stricter_rule_above_does_not_hide_a_freer_one() -> None:
    assert not contradictions(Policy(rules=(replace(RULE, name="by hand", approval=True), RULE)))
    assert not contradictions(Policy(rules=(replace(RULE, name="few", per_day=1), RULE)))
    assert contradictions(Policy(rules=(replace(RULE, name="first"), replace(RULE, per_day=1))))


def test_no_rule_allows_nothing() -> None:
    decision = decide(Policy(), REQUEST)
    assert (decision.allowed, decision.rule) == (False, "default-deny")
    assert decision.hint


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"analyst": "eve"}, "analyst 'eve'"),
        ({"purpose": "marketing"}, "purpose 'marketing'"),
        ({"dataset": "visits"}, "dataset 'visits'"),
        ({"columns": frozenset({"age", "income"})}, "column 'income'"),
        ({"operations": frozenset({"histogram"})}, "operation 'histogram'"),
        ({"epsilon": 1.5}, "at most epsilon 1"),
    ],
)
def test_whatever_a_rule_does_not_name_is_denied(change: dict[str, object], word: str) -> None:
    decision = decide(POLICY, replace(REQUEST, **change))  # type: ignore[arg-type] # one field at a time
    assert (decision.allowed, decision.rule) == (False, "liver research")
    assert word in decision.message
    assert decision.hint


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"roles": frozenset({"auditor"})}, "role"),
        ({"roles": frozenset()}, "role"),
        ({"minimum_cohort": 2}, "minimum-cohort"),
        ({"colluders": 0}, "colluders"),
        ({"epsilon": float("nan")}, "cost"),
        ({"epsilon": 0.0}, "cost"),
        ({"rho_nano": 0}, "cost"),
    ],
)
def test_some_things_no_rule_can_allow(change: dict[str, object], rule: str) -> None:
    wide = Policy(rules=(Rule("all", (ANY,), (ANY,), (ANY,), (ANY,), (ANY,)),))
    assert decide(wide, REQUEST).allowed
    decision = decide(wide, replace(REQUEST, **change))  # type: ignore[arg-type] # one field at a time
    assert (decision.allowed, decision.rule) == (False, rule)


def test_a_stricter_cohort_is_kept_and_a_laxer_one_is_not() -> None:
    assert decide(replace(POLICY, minimum_cohort=4), REQUEST).rule == "minimum-cohort"
    assert decide(replace(POLICY, minimum_cohort=4), replace(REQUEST, minimum_cohort=4)).allowed
    assert decide(replace(POLICY, minimum_cohort=1), replace(REQUEST, minimum_cohort=2)).rule == "minimum-cohort"


def test_quiet_hours_pass_over_midnight() -> None:
    night = replace(POLICY, quiet=(Hours(time(22), time(6)),))
    for hour, allowed in ((21, True), (22, False), (23, False), (0, False), (5, False), (6, True), (12, True)):
        at = REQUEST.at.replace(hour=hour)
        assert decide(night, replace(REQUEST, at=at)).allowed == allowed
    day = replace(POLICY, quiet=(Hours(time(9), time(17)),))
    assert decide(day, REQUEST).rule == "quiet-hours"
    assert decide(day, replace(REQUEST, at=REQUEST.at.replace(hour=17))).allowed


def test_any_rule_may_allow_and_the_nearest_explains_a_denial() -> None:
    other = replace(RULE, name="other", analysts=("bob",), purposes=("audit",), datasets=("visits",))
    assert decide(Policy(rules=(other, RULE)), REQUEST).rule == "liver research"
    decision = decide(Policy(rules=(other, RULE)), replace(REQUEST, epsilon=2.0))
    assert (decision.allowed, decision.rule) == (False, "liver research")


def test_an_empty_list_allows_only_what_asks_for_none() -> None:
    counts = replace(RULE, columns=(), operations=("count",))
    request = replace(REQUEST, columns=frozenset(), operations=frozenset({"count"}))
    assert decide(Policy(rules=(counts,)), request).allowed
    assert not decide(Policy(rules=(counts,)), replace(request, columns=frozenset({"age"}))).allowed


def test_a_policy_explains_itself() -> None:
    text = "\n".join(explain_policy(replace(POLICY, quiet=(Hours(time(22), time(6)),))))
    for word in (
        "at least 3",
        "1 of them",
        "22:00 to 06:00",
        "ada",
        "patients",
        "age, sex",
        "epsilon 1",
        "everything else",
    ):
        assert word in text
    assert "no rule" in explain_policy(Policy())[-1]
    assert "any analyst" in "\n".join(explain_policy(Policy(rules=(replace(RULE, analysts=(ANY,), max_epsilon=None),))))


def test_a_sound_policy_has_no_contradictions() -> None:
    assert contradictions(POLICY) == []
    assert contradictions(Policy()) == []
    assert contradictions(Policy(rules=(replace(RULE, operations=OPERATIONS),))) == []


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        (replace(POLICY, minimum_cohort=2), "minimum_cohort"),
        (replace(POLICY, colluders=-1), "negative"),
        (replace(POLICY, colluders=2), "honest"),
        (replace(POLICY, quiet=(Hours(time(8), time(8)),)), "empty"),
        (Policy(rules=(RULE, replace(RULE, analysts=("bob",)))), "Two rules"),
        (Policy(rules=(replace(RULE, max_epsilon=None), replace(RULE, name="narrow"))), "never decides"),
        (Policy(rules=(replace(RULE, analysts=()),)), "analysts is empty"),
        (Policy(rules=(replace(RULE, datasets=(ANY, "patients")),)), "others beside"),
        (Policy(rules=(replace(RULE, operations=("averages",)),)), "no operation 'averages'"),
        (Policy(rules=(replace(RULE, max_epsilon=0.0),)), "max_epsilon"),
        (Policy(rules=(replace(RULE, max_epsilon=float("nan")),)), "max_epsilon"),
        (Policy(rules=(replace(RULE, name=""),)), "no name"),
    ],
)
def test_contradictions_are_named(policy: Policy, word: str) -> None:
    assert any(word in sentence for sentence in contradictions(policy))
