"""The attacks of docs/attacks.md, each played against a live consortium. Trials are a parameter: few in tests."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from harness.consortium import Consortium

from adversary import analyst, coordinator, outside
from adversary.game import Evidence, Outcome, attribute_bound, lower_limit, membership_bound, play
from adversary.town import HOSPITALS, TARGET_AGE

RHO = 0.05
"""What one attack may spend on one target; an epsilon of 1.45 at delta 10^-6."""
LEARNT = 8
"""Sights of each world from which an adversary learns."""
Attack = Callable[["Field"], Outcome]


@dataclass(frozen=True)
class Field:
    """Where an attack takes place."""

    running: Consortium
    patch: pytest.MonkeyPatch
    trials: int


def _membership(field: Field, name: str, tried: str, attack: Callable[..., Evidence], rho: float = RHO) -> Outcome:
    with field.running.session() as session:
        return play(
            name,
            tried,
            lambda coin: attack(session, "benign" if coin else "absent", rho),
            bound=membership_bound(rho),
            trials=field.trials,
        )


def _attribute(field: Field, name: str, tried: str, attack: Callable[..., Evidence], rho: float = RHO) -> Outcome:
    with field.running.session() as session:
        return play(
            name,
            tried,
            lambda coin: attack(session, "sickly" if coin else "benign", rho),
            bound=attribute_bound(rho),
            trials=field.trials,
        )


def differencing(field: Field) -> Outcome:
    """dsBase issue 251."""
    return _membership(
        field, "differencing, membership", "a count, and the same without the target", analyst.difference
    )


def differencing_of_sums(field: Field) -> Outcome:
    """dsBase issue 251, for a value."""
    return _attribute(
        field, "differencing, disease", "a sum, and the same without the target", analyst.difference_of_sums
    )


def one_hot(field: Field) -> Outcome:
    """dsBase issue 250."""
    return _attribute(field, "one-hot mean", "the mean over a condition that only the target meets", analyst.one_hot)


def one_hot_of_everybody(field: Field) -> Outcome:
    """dsBase issue 250, row by row."""
    with field.running.session() as session:
        recovered = analyst.one_hot_of_everybody(session, "absent", 40 * RHO)
    return Outcome(
        "one-hot, row by row", "every patient in turn by an age of its own", 0.0, 0.0, 0.0, recovered, analyst.OTHERS
    )


def rare_key(field: Field) -> Outcome:
    """A group of one."""
    return _membership(field, "rare group key", "GROUP BY a diagnosis that only the target has", analyst.rare_key)


def low_bits(field: Field) -> Outcome:
    """Mironov 2012."""
    return _membership(
        field, "last bits", "last bits of the released sum beside those of both exact sums", analyst.low_bits
    )


def replay(field: Field) -> Outcome:
    """One signed request, answered again and again."""
    most = 0
    with pytest.MonkeyPatch.context() as patch, field.running.session() as session:
        coordinator.Liar(field.running, patch)

        def attack(coin: bool) -> Evidence:
            nonlocal most
            evidence, answers = coordinator.replay_and_average(session, "benign" if coin else "absent", RHO, 3)
            most = max(most, answers)
            return evidence

        outcome = play("replay and retry averaging", "", attack, bound=membership_bound(RHO), trials=field.trials)
    tried = f"one signed request, announced three times by a lying coordinator; answered {most} times at most"
    return replace(outcome, tried=tried, low=1.0 if most > 1 else outcome.low)


def two_sets(field: Field) -> Outcome:
    """One request, with and without a hospital."""
    most = 0
    with pytest.MonkeyPatch.context() as patch, field.running.session() as session:
        liar = coordinator.Liar(field.running, patch)

        def attack(coin: bool) -> Evidence:
            nonlocal most
            world = "benign" if coin else "absent"
            evidence, answers = coordinator.two_sets_of_survivors(liar, session, world, RHO, HOSPITALS[0])
            most = max(most, answers)
            return evidence

        outcome = play("two sets of survivors", "", attack, bound=membership_bound(RHO), trials=field.trials)
    tried = f"one signed request with and without the target's hospital; answered {most} times at most"
    return replace(outcome, tried=tried, low=1.0 if most > 1 else outcome.low)


def timing(field: Field) -> Outcome:
    """How long it takes with and without the target."""
    with field.running.session() as session:

        def ask(coin: bool) -> float:
            world = "benign" if coin else "absent"
            return outside.seconds(session, f"SELECT COUNT(*) AS x FROM {world} WHERE age = {TARGET_AGE}", RHO)

        threshold, slower = outside.learn_times(ask, field.trials // 2)
        return play(
            "timing",
            "how long an answer takes, after learning on both worlds",
            lambda coin: Evidence((ask(coin) > threshold) == slower),
            bound=0.0,
            trials=field.trials,
        )


def _tell_apart(name: str, tried: str, see: Callable[[bool], object], trials: int, learnt: int = LEARNT) -> Outcome:
    """Play with what should be the same in both worlds: sights of both are learnt, then worlds are told by them."""
    seen = {world: Counter(see(world) for _ in range(learnt)) for world in (False, True)}

    def attack(coin: bool) -> Evidence:
        sight = see(coin)
        absent, present = seen[False][sight], seen[True][sight]
        return Evidence(present > absent if present != absent else bool(secrets.randbits(1)))

    return play(name, tried, attack, bound=0.0, trials=trials)


def payload(field: Field) -> Outcome:
    """Sizes of all messages of a round."""
    with pytest.MonkeyPatch.context() as patch, field.running.session() as session:
        watcher = outside.Watcher(patch)

        def see(coin: bool) -> object:
            world = "benign" if coin else "absent"
            return watcher.sizes(session, f"SELECT COUNT(*) AS x FROM {world} WHERE age = {TARGET_AGE}", RHO)

        return _tell_apart("payload size", "kind and size of every message of a round", see, field.trials)


def error_text(field: Field) -> Outcome:
    """What refusals say."""
    with field.running.session() as session:

        def see(coin: bool) -> object:
            return analyst.error_texts(session, "benign" if coin else "absent")

        return _tell_apart("error text", "a dozen questions, most of which cannot be answered", see, field.trials)


def progress(field: Field) -> Outcome:
    """What is reported while a question runs."""
    with field.running.session() as session:

        def see(coin: bool) -> object:
            world = "benign" if coin else "absent"
            return outside.progress_of(session, f"SELECT COUNT(*) AS x FROM {world} WHERE age = {TARGET_AGE}", RHO)

        # Who answers first varies, so there are many sights of one world.
        return _tell_apart("progress counts", "every report on the way to an answer", see, field.trials, 4 * LEARNT)


def fork(field: Field) -> Outcome:
    """Noise that a forked process repeats."""
    variance = Fraction(10**12)
    equal = sum(outside.forked_shares(length, variance) for length in (100, 60_000))
    return Outcome("fork", "noise drawn by a process and by its fork", 0.0, 0.0, 0.0, equal // 100, field.trials)


def repeated(field: Field, *, budget_rho: float, each: float, times: int, worlds: int) -> Outcome:
    """One question as often as the budget lasts, and far beyond; each trial has a budget of its own."""
    answered = right = recovered = 0
    with field.running.session() as session:
        for copy in range(worlds):
            coin = bool(secrets.randbits(1))
            world = ("benign" if coin else "absent") + (f"_{copy}" if copy else "")
            evidence, count = analyst.average_until_refused(session, world, each, times)
            answered = max(answered, count)
            right += evidence.guess == coin
            recovered += evidence.rows_recovered
    overspent = max(0.0, answered * each - budget_rho)
    return Outcome(
        "the same query again and again",
        f"{times} times; {answered} were answered",
        max(0.0, 2 * right / worlds - 1),
        1.0 if overspent > 1e-9 else lower_limit(right, worlds),
        membership_bound(budget_rho),
        recovered,
        worlds,
    )


def racing(field: Field, *, budget_rho: float, each: float, threads: int, world: str) -> Outcome:
    """More questions at one moment than the budget admits."""
    answered = outside.race(field.running, world, each, threads)
    spent = answered * each
    return Outcome(
        "concurrent spends",
        f"{2 * threads} questions of two analysts at one moment",
        membership_bound(spent),
        membership_bound(spent) if spent > budget_rho + 1e-9 else 0.0,
        membership_bound(budget_rho),
        0,
        2 * threads,
    )


GENEROUS: tuple[Attack, ...] = (
    differencing,
    differencing_of_sums,
    one_hot,
    one_hot_of_everybody,
    rare_key,
    low_bits,
    replay,
    two_sets,
    timing,
    payload,
    error_text,
    progress,
    fork,
)
"""Attacks on one target each, where no budget is in the way."""
