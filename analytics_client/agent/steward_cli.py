"""What `cohortium-agent` does for a steward's decisions: on questions, jobs, budgets, and persons who opted out.

Everything is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from analytics_client.agent.keys_cli import Folder, Json
from queries.errors import ConfigError
from trust.command import print_json

LEDGER = "ledger.sqlite"
Reason = Annotated[
    str, typer.Option("--reason", metavar="WHY", help="One line; the consortium's log shows it.", show_default=False)
]
Question = Annotated[str, typer.Argument(metavar="QUESTION", help="As `requests` lists it; its beginning will do.")]


def when(at: int) -> str:
    """Return unix seconds as people read them, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"


def renew(
    folder: Folder,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Whose budget begins a new period.")],
    *,
    reason: Reason,
    analyst: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only this analyst's account; else all of the dataset.", show_default=False),
    ] = None,
) -> None:
    """Begin a new budget period: what was charged so far no longer counts. The consortium's log records why.

    The promise of a budget is then one for each period: their epsilons add up for whoever was asked about in both.
    """
    from analytics_client.agent import ledger_care
    from analytics_client.agent.ledger import Ledger

    with Ledger.read(folder / LEDGER) as book:
        renewed = ledger_care.renew(book, dataset, analyst, reason)
    for owner in renewed:
        typer.echo(f"Renewed on dataset {dataset!r}: {owner or 'all analysts together'}.")


def requests(
    folder: Folder,
    every: Annotated[bool, typer.Option("--all", help="Also those that were decided or have expired.")] = False,
    json: Json = False,
) -> None:
    """List the questions that wait for your approval. They cost nothing while they wait."""
    from analytics_client.agent import approvals
    from analytics_client.agent.ledger import Ledger

    with Ledger.read(folder / LEDGER) as book:
        found = approvals.queue(book, all_states=every)
    if json:
        print_json([{name: getattr(question, name) for name in question.__slots__} for question in found])
        return
    for question in found:
        said = f": {question.reason}" if question.reason else ""
        typer.echo(
            f"{question.name}  {question.state}{said}\n"
            f"    {question.analyst} asks {question.dataset} for {question.shape}, rho {question.rho_nano / 1e9:g}\n"
            f"    purpose: {question.purpose}\n"
            f"    under rule {question.rule!r}, since {when(question.at)}, until {when(question.expires_at)} UTC"
        )
    if not found:
        typer.echo("No question waits for approval.")


def opt_out(
    folder: Folder,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset, whose agent.toml table has opt_out.")],
    persons: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PERSON]...", help="Ids as in the data; - reads one a line from standard input."),
    ] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take them off the list instead.")] = False,
) -> None:
    """Leave persons out of every answer, or count them again. The list holds salted hashes, no ids."""
    import sys

    from analytics_client.agent import config, opt_out

    table = config.load(folder).datasets.get(dataset)
    if table is None or table.opt_out is None:
        raise ConfigError(
            f"dataset {dataset!r} has no opt-out list", hint=f'add to [datasets.{dataset}]: opt_out = "opt-out.txt"'
        )
    named = [line for person in persons or [] for line in (sys.stdin if person == "-" else [person])]
    listed = opt_out.change(Path(table.opt_out), named, withdraw=withdraw)
    typer.echo(f"{listed:,} {'person is' if listed == 1 else 'persons are'} left out of {dataset!r}.")


def jobs(folder: Folder, json: Json = False) -> None:
    """List the training jobs that this institution takes or took part in, those that run first."""
    from analytics_client.agent.ledger import Ledger

    with Ledger.read(folder / LEDGER) as book:
        found = book.jobs()
    if json:
        record = [{name: getattr(job, name) for name in job.__slots__} | {"id": job.id.hex()} for job in found]
        print_json(record)
        return
    for job in found:
        state = job.reason or f"runs, until {when(job.expires_at)} UTC at most"
        typer.echo(
            f"{job.id.hex()[:12]}  {job.analyst} on {job.dataset}: {job.used} of {job.slots} paid rounds,"
            f" rho {job.rho_nano / 1e9:g}\n    {state}"
        )
    if not found:
        typer.echo("No training job was taken part in yet.")


def stop(
    folder: Folder,
    job: Annotated[str, typer.Argument(metavar="JOB", help="As `jobs` lists it; its beginning will do.")],
    *,
    reason: Reason,
) -> None:
    """Take no further part in a training job: it goes on without this institution if enough others are left.

    What it did not use returns to the budget at once. The analyst and the consortium's log are told the reason.
    """
    from analytics_client.agent.ledger import Ledger

    with Ledger.read(folder / LEDGER) as book:
        stopped = book.stop_job(job, reason)
    typer.echo(
        f"Stopped: job {stopped.id.hex()[:12]} of {stopped.analyst}, after {stopped.used} of {stopped.slots} rounds."
    )


def approve(folder: Folder, question: Question, *, reason: Reason) -> None:
    """Approve a question that waits: it is answered once, when the analyst asks it again within a week."""
    _decide(folder, question, reason, approve=True)


def deny(folder: Folder, question: Question, *, reason: Reason) -> None:
    """Deny a question, or take back an approval that was not used. The analyst is told the reason."""
    _decide(folder, question, reason, approve=False)


def _decide(folder: Path, question: str, reason: str, *, approve: bool) -> None:
    from analytics_client.agent import approvals
    from analytics_client.agent.ledger import Ledger

    with Ledger.read(folder / LEDGER) as book:
        decided = approvals.decide(book, question, approve=approve, reason=reason)
    typer.echo(f"{decided.state.capitalize()}: question {decided.name} of {decided.analyst} on {decided.dataset!r}.")
