"""The command `cohortium-agent`: what a data steward types.

Everything is imported inside the commands, so that `--help` answers at once. Must not know: how anything is computed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analytics_client.agent import keys_cli
from queries.errors import ConfigError
from trust.command import print_json, run_command

if TYPE_CHECKING:
    from rich.console import Console

    from analytics_client.agent.check import Finding, Report

app = typer.Typer(
    name="cohortium-agent",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Serve an institution's own data to its consortium: enrol once, check, then run.",
    epilog="What DIR/agent.toml may say is described in docs/agent.md.",
)
LEDGER = "ledger.sqlite"

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The agent's folder, made by enrol.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

Reason = Annotated[
    str, typer.Option("--reason", metavar="WHY", help="One line; the consortium's log shows it.", show_default=False)
]
Question = Annotated[str, typer.Argument(metavar="QUESTION", help="As `requests` lists it; its beginning will do.")]


app.command()(keys_cli.rotate)
app.command()(keys_cli.recover)


@app.command()
def enrol(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The invitation the operator gave you.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the agent.")],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="NAME=PATH", help="Serve this file as dataset NAME; may be given again."),
    ] = None,
    json: Json = False,
) -> None:
    """Join a consortium with an invitation. Keys are made here; agent.toml is written and allows nothing yet."""
    from analytics_client import enrolment
    from analytics_client.agent import config
    from trust.identity import files

    given = _named_paths(data or [])
    joined = enrolment.enrol(token, folder, roles=("agent",))
    files.write_new(folder / config.FILE, config.template(given).encode(), secret=False)
    if json:
        print_json({"id": joined.id, "consortium": joined.consortium, "folder": str(folder)})
        return
    typer.echo(f"You are agent {joined.id} of {joined.consortium}; your keys are in {folder}.")
    typer.echo(f"Next: say in {folder / config.FILE} who may ask what, then: cohortium-agent check {folder}")


@app.command()
def check(
    folder: Folder,
    schema: Annotated[
        list[Path] | None,
        typer.Option("--schema", metavar="FILE", help="A published schema to hold the data to; may be given again."),
    ] = None,
    json: Json = False,
) -> None:
    """Say whether data, policy and budgets fit, and in plain words what anyone could ask. Sends nothing."""
    from analytics_client.agent.check import check as examine

    report = examine(folder, schema or [])
    if json:
        print_json(_record(report))
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for finding in report.findings:
        _print_finding(console, finding)
    for name in report.unchecked:
        console.print(f"Dataset {name!r}: its files are there; give its --schema to check them.", markup=False)
    for sentence in report.sentences:
        console.print(sentence, markup=False)


@app.command()
def suggest_schema(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV or Parquet file with a header.")],
    *,
    name: Annotated[str, typer.Option(help="Name of the dataset; by default the file's.")] = "",
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there; it must not exist.")] = None,
) -> None:
    """Draft a schema from a data file, with what must be reviewed marked REVIEW. Stays on this machine."""
    from analytics_client.agent.suggest import suggest
    from trust.identity import files

    text = suggest(file, name)
    if output is None:
        typer.echo(text, nl=False)
    else:
        files.write_new(output, text.encode(), secret=True)
        typer.echo(f"Wrote {output}. Review it before it leaves this machine: parts of it come from the data.")


@app.command()
def omop(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the views and schema files.")],
    *,
    dialect: Annotated[str, typer.Option(help="postgres or duckdb.")] = "postgres",
    cdm: Annotated[str, typer.Option(help="Schema that holds the CDM's tables.")] = "cdm",
    target: Annotated[str, typer.Option(help="Schema in which the views are made.")] = "cohortium",
) -> None:
    """Write views and schema files that make an OMOP CDM 5.4 ready to serve. Connects to nothing."""
    from analytics_client.agent import omop as ready
    from trust.identity import files

    chosen = ready.dialect_named(dialect)
    texts = {"views.sql": ready.views(chosen, cdm=cdm, target=target)}
    texts |= {f"{name}.toml": text for name, text in ready.schemas().items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        files.write_new(folder / name, text.encode(), secret=False)
    typer.echo(f"Wrote {', '.join(texts)} to {folder}.")
    typer.echo("Have the database's owner run views.sql and grant the agent's user SELECT on the views.")


@app.command()
def run(folder: Folder) -> None:
    """Serve until stopped. Connects out to the coordinator; opens no port here."""
    from analytics_client.agent.runner import run as serve

    serve(folder)


@app.command()
def witness(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of an auditor, made by cohortium enrol.")],
    once: Annotated[bool, typer.Option("--once", help="Cosign the log as it is now, and stop.")] = False,
) -> None:
    """Watch the audit log for a body without data, such as an ethics board: cosign each head that continues the last.

    Refuses a log that was rewound, forked or rewritten, and exits with status 6 then.
    """
    from analytics_client.agent.watch import watch

    watch(folder, once=once, say=typer.echo)


@app.command()
def ledger(
    folder: Folder,
    acknowledge_loss: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", help="Start an empty ledger because the old one is lost; say why.", show_default=False
        ),
    ] = None,
    acknowledge: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Serve from an old copy, or under a clock that was set back; say why.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Latest requests to list.")] = 20,
    json: Json = False,
) -> None:
    """Show what was spent, what is left, and what was asked of this institution's data."""
    from analytics_client.agent import ledger_care
    from analytics_client.agent.balance import balances
    from analytics_client.agent.ledger import Ledger

    path = folder / LEDGER
    if acknowledge_loss is not None:
        Ledger.acknowledge_loss(path, acknowledge_loss).close()
    if acknowledge is not None:
        with Ledger.read(path) as book:
            ledger_care.acknowledge(book, acknowledge)
    with Ledger.read(path) as book:
        accounts, history, notes = balances(book.accounts()), book.history(limit), book.notes()
    if json:
        print_json(
            {
                "accounts": [{name: getattr(a, name) for name in a.__slots__} for a in accounts],
                "requests": [
                    {
                        "request_id": e.request_id.hex(),
                        "dataset": e.dataset,
                        "analyst": e.analyst,
                        "state": e.state,
                        "rho_nano": e.rho_nano,
                        "at": e.at,
                        "rounds": e.rounds,
                    }
                    for e in history
                ],
                "notes": [{"at": n.at, "text": n.text} for n in notes],
            }
        )
        return
    for balance in accounts:
        typer.echo(str(balance))
    if not accounts:
        typer.echo("Nothing was asked of this institution's data yet.")
    for note in notes:
        typer.echo(f"{_when(note.at)}  {note.text}")
    if history:
        from rich.console import Console
        from rich.table import Table

        table = Table("when (UTC)", "analyst", "dataset", "cost (rho)", "state", "request", box=None)
        for e in history:
            row = _when(e.at), e.analyst, e.dataset, f"{e.rho_nano / 1e9:g}", e.state, e.request_id.hex()[:16]
            table.add_row(*row)
        Console(highlight=False, markup=False).print(table)


@app.command()
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


@app.command()
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
            f"    under rule {question.rule!r}, since {_when(question.at)}, until {_when(question.expires_at)} UTC"
        )
    if not found:
        typer.echo("No question waits for approval.")


@app.command("opt-out")
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


@app.command()
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
        state = job.reason or f"runs, until {_when(job.expires_at)} UTC at most"
        typer.echo(
            f"{job.id.hex()[:12]}  {job.analyst} on {job.dataset}: {job.used} of {job.slots} paid rounds,"
            f" rho {job.rho_nano / 1e9:g}\n    {state}"
        )
    if not found:
        typer.echo("No training job was taken part in yet.")


@app.command()
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


@app.command()
def approve(folder: Folder, question: Question, *, reason: Reason) -> None:
    """Approve a question that waits: it is answered once, when the analyst asks it again within a week."""
    _decide(folder, question, reason, approve=True)


@app.command()
def deny(folder: Folder, question: Question, *, reason: Reason) -> None:
    """Deny a question, or take back an approval that was not used. The analyst is told the reason."""
    _decide(folder, question, reason, approve=False)


def _decide(folder: Path, question: str, reason: str, *, approve: bool) -> None:
    from analytics_client.agent import approvals
    from analytics_client.agent.ledger import Ledger

    with Ledger.read(folder / LEDGER) as book:
        decided = approvals.decide(book, question, approve=approve, reason=reason)
    typer.echo(f"{decided.state.capitalize()}: question {decided.name} of {decided.analyst} on {decided.dataset!r}.")


def main() -> None:
    """Run the command."""
    run_command(app)


def _named_paths(given: list[str]) -> dict[str, str]:
    paths = {}
    for item in given:
        name, equals, path = item.partition("=")
        if not (name and equals and path):
            raise ConfigError(f"--data {item!r} is not NAME=PATH", hint="as in --data patients=/data/patients.csv")
        paths[name] = str(Path(path).expanduser().resolve())
    return paths


def _print_finding(console: Console, finding: Finding) -> None:
    from rich.table import Table

    source = finding.source
    console.print(
        f"Dataset {finding.dataset.name!r}: {source.rows:,} rows of {source.persons:,} persons, at most "
        f"{source.most_rows:,} each ({finding.dataset.max_rows:,} used); "
        f"{source.without_person:,} rows without a person.",
        markup=False,
    )
    table = Table("column", "local name", "missing", "clipped", "unpublished", box=None)
    for column in source.columns:
        counts = (column.missing, column.clipped, column.unpublished)
        table.add_row(column.name, repr(column.local), *(f"{count:,}" if count else "" for count in counts))
    console.print(table, markup=False)
    console.print(f'To serve no other description: schema_sha256 = "{finding.schema_hash.hex()}"', markup=False)


def _record(report: Report) -> dict[str, object]:
    return {
        "datasets": [
            {
                "name": finding.dataset.name,
                "schema_sha256": finding.schema_hash.hex(),
                "rows": finding.source.rows,
                "persons": finding.source.persons,
                "without_person": finding.source.without_person,
                "most_rows": finding.source.most_rows,
                "columns": [{name: getattr(c, name) for name in c.__slots__} for c in finding.source.columns],
            }
            for finding in report.findings
        ],
        "unchecked": list(report.unchecked),
        "policy": list(report.sentences),
    }


def _when(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
