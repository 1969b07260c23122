"""The command `cohortium`: what analysts and auditors type.

Everything is imported inside the commands, so that `--help` answers at once. Answers go to standard output, as a table
or as JSON; progress and errors go to standard error. Must not know: how anything is computed or sent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analytics_client.audit_views_cli import app as audit_app
from analytics_client.identity_cli import PEOPLE
from analytics_client.identity_cli import app as identity_app
from analytics_client.training_cli import app as training_app
from trust.command import print_json, run_command

if TYPE_CHECKING:
    from analytics_client.session import Progress, Session

app = typer.Typer(
    name="cohortium",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ask statistical questions of hospitals' data without seeing them, and check the log of who asked what.",
    epilog="Begin without a consortium: cohortium sandbox --help",
)
app.add_typer(audit_app, name="audit")
app.add_typer(training_app)
app.add_typer(identity_app, name="identity")

Profile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        envvar="COHORTIUM_PROFILE",
        metavar="DIR",
        help="Your folder in the consortium.",
        show_default="~/.cohortium",
    ),
]
Sql = Annotated[str, typer.Argument(metavar="SQL", help='As in "SELECT sex, AVG(age) FROM patients GROUP BY sex".')]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Epsilon = Annotated[
    float | None,
    typer.Option(metavar="E", help="What the answer may cost, as epsilon at the dataset's delta.", show_default=False),
]
Rho = Annotated[
    float | None,
    typer.Option(metavar="R", help="The same as zCDP rho, instead of epsilon.", show_default=False),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=W,...",
        help="How outputs share the cost: one of weight 2 has half the noise of one of weight 1.",
        show_default="evenly",
    ),
]


@app.command()
def enrol(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The invitation your operator gave you.")],
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Join a consortium with an invitation. Your keys are made here and never leave this machine.

    Where the invitation names an identity provider, you sign in there with a browser, on any machine.
    """
    from analytics_client import enrolment
    from analytics_client.profile import default_folder

    joined = enrolment.enrol(token, profile or default_folder(), roles=PEOPLE, sign_in=_sign_in)
    if as_json:
        print_json(
            {"id": joined.id, "role": joined.role, "consortium": joined.consortium, "folder": str(joined.folder)}
        )
        return
    typer.echo(f"You are {joined.id} ({joined.role}) of {joined.consortium}; your keys are in {joined.folder}.")
    typer.echo("You can begin as soon as the operator has published the membership that names you.")


@app.command()
def datasets(profile: Profile = None, as_json: Json = False) -> None:
    """List the published datasets and the institutions that serve them now."""
    from analytics_client import render

    with _session(profile) as session:
        listings = session.datasets()
    if as_json:
        print_json([render.listing_record(item) for item in listings])
        return
    render.stdout().print(render.datasets_table(listings))


@app.command()
def describe(
    dataset: Annotated[str, typer.Argument(metavar="DATASET")], profile: Profile = None, as_json: Json = False
) -> None:
    """Show a dataset's published columns, bounds and categories."""
    from analytics_client import render

    with _session(profile) as session:
        published = session.describe(dataset)
    if as_json:
        print_json(render.dataset_record(published))
    else:
        render.stdout().print(render.schema_table(published))


@app.command()
def explain(
    sql: Sql,
    *,
    epsilon: Epsilon = None,
    rho: Rho = None,
    weights: Weights = None,
    within: Annotated[
        float | None,
        typer.Option(metavar="X", help="Also say which epsilon gives each output to plus or minus X."),
    ] = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Show what a query would disclose, cost and be worth. Spends nothing. Without a cost: at epsilon 1."""
    from analytics_client import render
    from queries.weights import read_weights

    if epsilon is None and rho is None:
        epsilon = 1.0
    shares = read_weights(weights) if weights is not None else None
    with _session(profile) as session:
        explanation = session.explain(sql, epsilon=epsilon, rho=rho, weights=shares)
    needed = explanation.epsilons_for(within) if within is not None else {}
    if as_json:
        print_json(explanation.to_dict() | ({"epsilon_for_width": needed} if needed else {}))
        return
    render.stdout().print(render.explanation_table(explanation))
    for name, answer in needed.items():
        needs = f"needs epsilon {answer:.3g}" if answer is not None else "is not possible at any epsilon"
        typer.echo(f"{name} to ± {within:g} {needs}")


@app.command()
def query(
    sql: Sql,
    *,
    epsilon: Epsilon = None,
    rho: Rho = None,
    weights: Weights = None,
    purpose: Annotated[
        str, typer.Option(help="Why you ask; institutions decide on it and it is logged.")
    ] = "exploration",
    minimum_cohort: Annotated[int, typer.Option(metavar="N", help="Refuse an answer of fewer institutions.")] = 3,
    profile: Profile = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with the full precision.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write it: .csv, .json, .parquet, .html, or a picture: .png, .svg, .pdf."
        ),
    ] = None,
    mock: Annotated[
        bool, typer.Option("--dry-run", help="Answer from invented rows: asks nobody, spends nothing.")
    ] = False,
) -> None:
    """Ask, and print the answer with 95% intervals. Say what it may cost with --epsilon or --rho."""
    from analytics_client import render
    from analytics_client.result import check_writable
    from queries.errors import CohortiumError
    from queries.weights import read_weights

    if output is not None:
        check_writable(output)  # before anything is spent
    shares = read_weights(weights) if weights is not None else None
    with _session(profile) as session:
        try:
            if mock:
                result = session.dry_run(sql, epsilon=epsilon, rho=rho, weights=shares)
            else:
                with _steps_shown() as show:
                    result = session.query(
                        sql,
                        epsilon=epsilon,
                        rho=rho,
                        weights=shares,
                        purpose=purpose,
                        minimum_cohort=minimum_cohort,
                        on_progress=show,
                    )
        except CohortiumError as error:
            for line in render.refusal_lines(error):
                typer.echo(line, err=True)
            raise
    if output is not None:
        result.save(output)
    if as_json:
        print_json(result.to_dict())
    elif as_csv:
        typer.echo(result.to_csv(), nl=False)
    else:
        render.stdout().print(render.result_table(result))


@app.command()
def cost(
    *,
    epsilon: Epsilon = None,
    rho: Rho = None,
    delta: Annotated[float, typer.Option(metavar="D", help="At which delta epsilon counts (see describe).")] = 1e-6,
    budget: Annotated[
        float | None, typer.Option(metavar="E", help="Also say how many fit this epsilon in all.", show_default=False)
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", help="A training job of N rounds, not a query.", show_default=False)
    ] = None,
    noise: Annotated[
        float | None, typer.Option(metavar="M", help="The job's noise multiplier.", show_default=False)
    ] = None,
    batch: Annotated[
        float | None, typer.Option(metavar="B", help="Persons expected in a round.", show_default=False)
    ] = None,
    persons: Annotated[float | None, typer.Option(metavar="P", help="... out of so many.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Convert privacy costs, count what a budget allows, and price a training job. Asks nobody, spends nothing."""
    from analytics_client import cost as costs
    from queries.errors import BudgetError

    found: costs.QueryCost | costs.JobCost
    if rounds is None:
        if noise is not None or batch is not None or persons is not None:
            raise BudgetError("--noise, --batch and --persons are about a job", hint="say its --rounds too")
        found = costs.of_query(delta=delta, epsilon=epsilon, rho=rho, budget=budget)
    else:
        if rho is not None or (batch is None) != (persons is None) or (persons is not None and not persons > 0):
            raise BudgetError(
                "a job has --rounds with --epsilon or --noise", hint="and --batch B --persons P where it samples"
            )
        rate = 1.0 if batch is None or persons is None else batch / persons
        found = costs.of_job(delta=delta, rounds=rounds, rate=rate, epsilon=epsilon, multiplier=noise, budget=budget)
    if as_json:
        print_json(found.to_dict())
        return
    for line in found.lines():
        typer.echo(line)


@app.command()
def sandbox(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="CSV or Parquet, one per institution; at least 3.")
    ],
    schema: Annotated[Path, typer.Option(metavar="SCHEMA.toml", help="What the files hold; see docs/schema.md.")],
    command: Annotated[
        str | None,
        typer.Option(
            "--command", "-c", metavar="LINE", help="Run one line of the prompt and exit.", show_default=False
        ),
    ] = None,
    budget: Annotated[float, typer.Option(metavar="E", help="Epsilon that may be spent in all.")] = 20.0,
    as_json: Json = False,
) -> None:
    """Start a throwaway consortium on this machine over your own files, and ask it questions.

    Real processes, keys, noise and log; everything is gone when you leave.
    """
    from analytics_client.prompt import Prompt
    from analytics_client.sandboxes import sandbox as start

    box = start(schema, files, epsilon=budget, on_step=lambda text: typer.echo(text, err=True))
    with box as session:
        prompt = Prompt(session, box.auditor, as_json=as_json)
        if command is not None:
            prompt.run(command)
        else:
            prompt.loop()


@contextmanager
def _steps_shown() -> Iterator[Callable[[Progress], None]]:
    """Show a query's steps on standard error while it runs, where someone is looking."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("asking") as status:

        def show(progress: Progress) -> None:
            who = f" by {', '.join(progress.institutions)}" if progress.institutions else ""
            status.update(f"{progress.step}{who}")

        yield show


def _sign_in(issuer: str, client_id: str, nonce: str) -> str:
    from analytics_client.device_flow import Prompt, sign_in

    def tell(prompt: Prompt) -> None:
        where = f" (or {prompt.whole})" if prompt.whole else ""
        typer.echo(f"Sign in at {prompt.address} with the code {prompt.code}{where}. Waiting ...", err=True)

    return sign_in(issuer, client_id, nonce, tell=tell)


def _session(profile: Path | None) -> Session:
    from analytics_client.session import connect

    return connect(profile)


def main() -> None:
    """Entry point of the `cohortium` command."""
    run_command(app)
