"""Four hospitals, one private answer: the whole of Cohortium in half a minute, on real patients.

    make demo          or          python examples/demo.py

Starts a coordinator and four agents as separate processes on this machine, each agent over its own hospital's files,
and plays an analyst and an auditor. Beside every answer stands the pooled truth, which only a demo can know.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np
from pooled import SCHEMAS, bounded_mean, hospitals, pooled
from rich.console import Console
from rich.panel import Panel

from analytics_client import render
from analytics_client.audit import verify_database
from analytics_client.audit_session import AuditSession, open_log
from analytics_client.result import Result, flat_names, flat_values
from analytics_client.sandboxes import Sandbox, sandbox
from analytics_client.session import Progress, Question, Session
from protos.v1 import log_pb2
from queries.builder import _, count
from queries.errors import CohortiumError
from trust.tlog.entries import decode, sentence
from trust.tlog.merkle import leaf_hash

BUDGET = 3.0
VICTIM = "st-anne"
PATIENTS_SQL = (
    "SELECT sex, COUNT(*) AS n, AVG(age) AS age, STDDEV(age) AS age_sd FROM patients WHERE bmi >= 30 GROUP BY sex"
)
HISTOGRAM_SQL = "SELECT HISTOGRAM(age, 8) AS n FROM patients WHERE study_group = 'case'"
console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


class Score:
    """How many 95% intervals hold the truth."""

    def __init__(self) -> None:
        self.inside = 0
        self.all = 0


def main() -> None:
    """Run every scene; end with what it took."""
    began = time.monotonic()
    score = Score()
    box = sandbox(SCHEMAS, hospitals(), epsilon=BUDGET, on_step=lambda what: console.print(f"... {what}", style="dim"))
    with box as session:
        console.print(f"One coordinator and four agents run on this machine ({time.monotonic() - began:.1f} s).")
        look_around(session)
        explain(session)
        ask(session, score)
        lose_an_agent(box, session, score)
        overdraw(session)
        audit(box)
    console.print(
        f"\n{score.inside} of {score.all} intervals hold the pooled truth (95% are meant to)."
        f" Every process has ended. {time.monotonic() - began:.1f} s in all."
    )


# --- scenes ------------------------------------------------------------------------------------------------------


def look_around(session: Session) -> None:
    """What can be asked of whom."""
    scene("1  What there is", "published by governance, never read from data")
    console.print(render.datasets_table(session.datasets()))
    console.print(render.schema_table(session.describe("patients")))


def explain(session: Session) -> None:
    """What a question would disclose and cost."""
    scene("2  Explain before spending", PATIENTS_SQL)
    explanation = session.explain(PATIENTS_SQL, epsilon=1.0)
    console.print(render.explanation_table(explanation))
    console.print(f"n to ± 10 would need epsilon {explanation.epsilon_for('n', 10):.2f}.")


def ask(session: Session, score: Score) -> None:
    """Three answers beside the truth."""
    patients, labs = pooled("patients"), pooled("labs")
    scene("3  Ask", PATIENTS_SQL)
    result = timed(session, PATIENTS_SQL, epsilon=1.0)
    by_sex = patients[patients["bmi"] >= 30].groupby("sex")["age"]
    truth = by_sex.agg(["size", "mean", "std"]).to_numpy().ravel().tolist()
    beside_truth(result, truth, score)

    cap = session.describe("labs").max_rows
    expression = session.table("labs").filter(_.test == "hdl").agg(n=count(), hdl=_.value.mean())
    scene("   Many rows a person", f'labs.filter(_.test == "hdl").agg(n=count(), hdl=_.value.mean()), {cap} rows each')
    result = timed(session, expression, epsilon=1.0)
    beside_truth(result, bounded_mean(labs[labs["test"] == "hdl"], "patient_id", "value", cap), score)

    scene("   A histogram", HISTOGRAM_SQL)
    result = timed(session, HISTOGRAM_SQL, epsilon=1.0)
    ages = patients.loc[patients["study_group"] == "case", "age"]
    beside_truth(result, np.histogram(ages, bins=8, range=(18, 100))[0].tolist(), score)


def lose_an_agent(box: Sandbox, session: Session, score: Score) -> None:
    """SIGKILL in the middle of a round; the survivors answer."""
    scene("4  An agent dies in the middle of a round", f"{VICTIM} is killed with SIGKILL once it has joined")
    expression = session.table("labs").filter(_.test == "sbp").agg(n=count(), systolic=_.value.mean())

    def kill(progress: Progress) -> None:
        if progress.step == "joined":
            box.kill(VICTIM)

    result = timed(session, expression, epsilon=1.0, also=kill)
    survivors = pooled("labs", of=result.survivors)
    cap = session.describe("labs").max_rows
    beside_truth(result, bounded_mean(survivors[survivors["test"] == "sbp"], "patient_id", "value", cap), score)
    if VICTIM in result.survivors:
        console.print(f"{VICTIM} had finished its part before it died, so its data are in the answer.")
    console.print("The truth beside it is that of the survivors' data.")


def overdraw(session: Session) -> None:
    """A question that no institution's budget allows any more."""
    scene("5  Overdraw the budget", f"epsilon {BUDGET:g} more, where each hospital grants {BUDGET:g} in all")
    try:
        session.query("SELECT AVG(age) AS age FROM patients", epsilon=BUDGET)
    except CohortiumError as error:
        for line in (*render.refusal_lines(error), f"error: {error.message}", f"hint: {error.hint}"):
            console.print(f"  {line}", markup=False, soft_wrap=True)
    else:
        raise AssertionError("an overdraft was answered")


def audit(box: Sandbox) -> None:
    """The log, its verification, and what an insider's edit looks like."""
    scene("6  Audit", "the auditor reads the log, checks it, and tries to cheat it")
    with open_log(box.auditor) as log:
        entries = list(log.reader.entries())
        shown = entries[-14:]
        console.print(f"  ... {len(entries) - len(shown)} entries before", style="dim")
        for entry in shown:
            console.print(sentence(entry.seq, decode(entry.leaf)), markup=False, soft_wrap=True)
        with working("verifying the whole log"):
            report, _history = log.verify()
        console.print("\n" + report.text(), markup=False)
        report.require()
        rewrite_a_row(box, log)


def rewrite_a_row(box: Sandbox, log: AuditSession) -> None:
    """In a copy of the database, as someone with every right on it: drop the triggers, change a row and its hash."""
    copy = box.folder / "copy.sqlite"
    with closing(sqlite3.connect(box.server / "state.sqlite")) as live, closing(sqlite3.connect(copy)) as target:
        live.backup(target)
    with closing(sqlite3.connect(copy)) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        seq, leaf = next(
            (seq, leaf)
            for seq, leaf in database.execute("SELECT seq, leaf FROM audit_entry ORDER BY seq")
            if decode(leaf).WhichOneof("event") == "requested"
        )
        forged = log_pb2.LogEntry.FromString(leaf)
        forged.requested.analyst = forged.actor = "nobody"
        changed = forged.SerializeToString(deterministic=True)
        row = (changed, leaf_hash(changed), seq)
        database.execute("UPDATE audit_entry SET leaf = ?, leaf_hash = ? WHERE seq = ?", row)
        database.commit()
    console.print(f"\nIn a copy of the database, entry {seq} now says that nobody asked. Verification of the copy:")
    report = verify_database(copy, log.profile.governance_key)
    for finding in report.findings[:3]:
        console.print(f"  {finding}", markup=False, soft_wrap=True, style="red")
    if report.ok or report.findings[0].first != seq or report.findings[0].last != seq:
        raise AssertionError("the changed row was not named")


# --- showing -----------------------------------------------------------------------------------------------------


def scene(title: str, what: str) -> None:
    """A heading."""
    console.print()
    console.print(Panel(what, title=title, title_align="left", border_style="cyan"))


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Show that something is being done; gives a function that says what."""
    with console.status(what) as status:
        yield status.update


def timed(
    session: Session, question: Question, *, epsilon: float, also: Callable[[Progress], None] = lambda _: None
) -> Result:
    """Ask, showing each step; `also` is told of each as well."""
    began = time.monotonic()
    with working("asking") as say:

        def step(progress: Progress) -> None:
            say(f"{progress.step}: {', '.join(progress.institutions)}")
            also(progress)

        result = session.query(question, epsilon=epsilon, on_progress=step)
    console.print(
        f"{time.monotonic() - began:.2f} s, {result.participants}; {result.cost}", style="dim", soft_wrap=True
    )
    return result


def beside_truth(result: Result, truth: Sequence[float], score: Score) -> None:
    """Print every number of an answer beside what the pooled data say."""
    names = flat_names(result.table)
    rows: list[list[str]] = []
    for row in result.rows:
        for name, estimate in zip(names, flat_values(row), strict=True):
            true = truth[len(rows)]
            value, low, high = render.compact(estimate.value, estimate.low, estimate.high)
            inside = estimate.low <= true <= estimate.high
            score.inside, score.all = score.inside + inside, score.all + 1
            digits = len(value.partition(".")[2])
            mark = "inside" if inside else "outside"
            rows.append([*row.keys, name, value, f"{low} … {high}", render.number(true, digits), mark])
    console.print(render.grid([*result.table.keys, "", ">answer", "95% interval", ">pooled truth", ""], rows))


if __name__ == "__main__":
    main()
