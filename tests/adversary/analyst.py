"""What a curious analyst tries: the questions that have opened other systems.

Each attack is a function of a session and of the world it may look at; `game.play` measures it. Must not know: anything
that an analyst has no access to.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from adversary.game import Evidence, pins_down
from adversary.town import HOSPITALS, OTHERS, RARE, TARGET_AGE, everybodys_glucose, true_illness
from analytics_client.session import Session
from protos.v1 import query_pb2
from queries.errors import BudgetError, CohortiumError
from queries.plan import Plan, centre, make_plan
from queries.sql import parse

MANY_BITS = 24
"""Last bits that agree by chance once in 2^24."""


@dataclass(frozen=True)
class Asked:
    """One released number and the standard deviation of its noise."""

    value: float
    error: float


def ask(session: Session, sql: str, rho: float) -> Asked:
    """Ask for one number."""
    estimate = session.query(sql, rho=rho).estimate("x")
    return Asked(estimate.value, estimate.standard_error)


def difference(session: Session, world: str, rho: float) -> Evidence:
    """Ask for everybody, then for everybody but the target; what is left is her (dsBase issue 251)."""
    everybody = ask(session, f"SELECT COUNT(*) AS x FROM {world}", rho / 2)
    others = ask(session, f"SELECT COUNT(*) AS x FROM {world} WHERE age <> {TARGET_AGE}", rho / 2)
    error = (everybody.error**2 + others.error**2) ** 0.5
    guess = everybody.value - others.value > 0.5
    return Evidence(guess, rows_recovered=int(pins_down(error, 1.0)))


def difference_of_sums(session: Session, world: str, rho: float) -> Evidence:
    """As `difference`, for the disease of a target who is known to be there."""
    everybody = ask(session, f"SELECT SUM(ill) AS x FROM {world}", rho / 2)
    others = ask(session, f"SELECT SUM(ill) AS x FROM {world} WHERE age <> {TARGET_AGE}", rho / 2)
    error = (everybody.error**2 + others.error**2) ** 0.5
    return Evidence(everybody.value - others.value > 0.5, rows_recovered=int(pins_down(error, 1.0)))


def one_hot(session: Session, world: str, rho: float) -> Evidence:
    """Mean of a column times a one-hot vector (dsBase issue 250): here the rows that a condition picks, one of them.

    The adversary knows that it is one, so what stands between it and the value is the noise in the sum alone: in `ill`,
    whose bounds are 0 and 1, half of that in the number that is released for it. (The interval of the mean says nothing
    here: where the noisy count happens to be large it is narrow, around a mean of as many rows that are not there.)
    """
    sql = f"SELECT AVG(ill) AS x FROM {world} WHERE age = {TARGET_AGE}"
    error = session.explain(sql, rho=rho).noise_total / 2
    picked = session.query(sql, rho=rho).estimate("x")
    return Evidence(picked.value > 0.5, rows_recovered=int(pins_down(error, 1.0)))


def one_hot_of_everybody(session: Session, world: str, rho: float) -> int:
    """Take every patient in turn by a condition of her age, and claim a value where the answer leaves only one.

    Return how many claims are right. The four hospitals have a patient of each age, so a sum lies between 0 and 4.
    """
    recovered = 0
    for patient in range(OTHERS):
        asked = ask(session, f"SELECT SUM(ill) AS x FROM {world} WHERE age = {20 + patient}", rho / OTHERS)
        truth = sum(true_illness(hospital, patient) for hospital in HOSPITALS)
        if pins_down(asked.error, 1.0) and round(asked.value) == truth:
            recovered += len(HOSPITALS) if truth in {0, len(HOSPITALS)} else 1
    return recovered


def rare_key(session: Session, world: str, rho: float) -> Evidence:
    """Group by a key that only the target has: is it there, and what is in its group?"""
    rows = session.query(f"SELECT diagnosis, COUNT(*) AS x FROM {world} GROUP BY diagnosis", rho=rho).table
    keys = [row.keys[0] for row in rows.rows]
    output = rows.outputs[0]
    if RARE not in keys:
        return Evidence(guess=False, rows_recovered=1)  # its absence would be an exact answer
    at = keys.index(RARE)
    return Evidence(bool(output.value[at] > 0.5), rows_recovered=int(pins_down(float(output.standard_error[at]), 1.0)))


def average_until_refused(session: Session, world: str, rho: float, times: int) -> tuple[Evidence, int]:
    """Ask the same again and again and average what comes. Return also how many were answered."""
    answers: list[Asked] = []
    for _ in range(times):
        try:
            answers.append(ask(session, f"SELECT COUNT(*) AS x FROM {world} WHERE age = {TARGET_AGE}", rho))
        except BudgetError:
            continue  # an adversary does not stop at a no
    if not answers:
        return Evidence(guess=False), 0
    mean = sum(a.value for a in answers) / len(answers)
    error = answers[0].error / len(answers) ** 0.5
    return Evidence(mean > 0.5, rows_recovered=int(pins_down(error, 1.0))), len(answers)


def low_bits(session: Session, world: str, rho: float) -> Evidence:
    """Compare the last bits of a released sum with those of the exact sums of both worlds (Mironov 2012).

    The adversary knows every patient but whether the target is one of them, so it knows both exact sums, on the lattice
    to the last bit. Noise that does not reach the last bits leaves those of one of them standing.
    """
    result = session.query(f"SELECT AVG(glucose) AS x FROM {world}", rho=rho)
    released = query_pb2.Release.FromString(session._resume(bytes.fromhex(result.request_id)).release)
    plan = make_plan(
        parse(f"SELECT AVG(glucose) AS x FROM {world}", {world: session.describe(world)}), session.describe(world)
    )
    at = [slot.kind for slot in plan.slots].index("linear")
    agreeing = {}
    for kind in ("absent", "benign"):
        exact = sum(lattice(value, plan) for value in everybodys_glucose(kind)) << released.refine_bits
        left = released.sums[at] - exact
        agreeing[kind] = (left & -left).bit_length() if left else 64
    if agreeing["absent"] == agreeing["benign"]:
        return Evidence(guess=bool(secrets.randbits(1)))
    return Evidence(agreeing["benign"] > agreeing["absent"], rows_recovered=int(max(agreeing.values()) > MANY_BITS))


def lattice(value: float, plan: Plan) -> int:
    """Return what a row adds to the slot of its glucose."""
    middle, half = centre(plan.dataset.numeric("glucose"))
    return round((value - middle) / half * (1 << plan.scale_bits))


def error_texts(session: Session, world: str) -> tuple[str, ...]:
    """Ask what cannot be answered, in every way that other systems answer with data, and collect what is said."""
    questions: list[Callable[[], object]] = [
        lambda: session.query(f"SELECT COUNT(*) AS x FROM {world} WHERE age = 101", rho=0.1),
        lambda: session.query(f"SELECT COUNT(*) AS x FROM {world} WHERE diagnosis = 'plague'", rho=0.1),
        lambda: session.query(f"SELECT AVG(agee) AS x FROM {world}", rho=0.1),
        lambda: session.query(f"SELECT id, COUNT(*) AS x FROM {world} GROUP BY id", rho=0.1),
        lambda: session.query(f"SELECT COUNT(*) AS x FROM {world}", rho=0.1),
        lambda: session.query(f"SELECT COUNT(*) AS x FROM {world}", rho=101.0),
        lambda: session.query(f"SELECT COUNT(*) AS x FROM {world}", rho=1e-30),
        lambda: session.query(f"SELECT age FROM {world}", rho=0.1),
        lambda: session.query(f"SELECT MAX(age) / 0 AS x FROM {world}", rho=0.1),
        lambda: session.query(f"SELECT SUM(1/(age-{TARGET_AGE})) AS x FROM {world}", rho=0.1),
        lambda: session.query(f"SELECT CAST(diagnosis AS INT) AS x FROM {world}", rho=0.1),
        lambda: session.query(f"SELECT COUNT(*) AS x FROM {world}", rho=0.1, minimum_cohort=5),
    ]
    said: list[str] = []
    for question in questions:
        try:
            question()
        except CohortiumError as error:
            parts = (type(error).__name__, error.message, error.hint or "", *(r.message for r in error.refusals))
            said.append(" | ".join(parts).replace(world, "WORLD"))
        else:
            said.append("answered")
    return tuple(said)
