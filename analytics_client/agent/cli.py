"""The command `cohortium-agent`: what a data steward types.

Everything is imported inside the commands, so that `--help` answers at once. Must not know: how anything is computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analytics_client.agent import keys_cli, steward_cli
from analytics_client.agent.keys_cli import Folder, Json
from analytics_client.agent.steward_cli import LEDGER, when
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
        typer.echo(f"{when(note.at)}  {note.text}")
    if history:
        from rich.console import Console
        from rich.table import Table

        table = Table("when (UTC)", "analyst", "dataset", "cost (rho)", "state", "request", box=None)
        for e in history:
            row = when(e.at), e.analyst, e.dataset, f"{e.rho_nano / 1e9:g}", e.state, e.request_id.hex()[:16]
            table.add_row(*row)
        Console(highlight=False, markup=False).print(table)


app.command()(keys_cli.rotate)
app.command()(keys_cli.recover)
app.command()(steward_cli.renew)
app.command()(steward_cli.requests)
app.command("opt-out")(steward_cli.opt_out)
app.command()(steward_cli.jobs)
app.command()(steward_cli.stop)
app.command()(steward_cli.approve)
app.command()(steward_cli.deny)


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
