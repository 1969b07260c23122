"""The commands about training: `cohortium train`, `evaluate`, `jobs`, `watch`, `stop`, `model`.

Must not know: how jobs run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trust.command import print_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analytics_client.session import Progress
    from analytics_client.training import Trained

app = typer.Typer()

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
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
PICTURES = (".png", ".svg", ".pdf")
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also draw coefficients or the learning curve (.png, .svg).", show_default=False),
]
After = Annotated[
    int | None, typer.Option("--rounds", help="The model after so many rounds; else the latest.", show_default=False)
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The first digits of a job's id, as `jobs` lists it.")]


@app.command()
def train(
    file: Annotated[Path, typer.Argument(metavar="JOB.toml", help="What to train; see docs/training.md.")],
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Only show what it would cost and be worth.")] = False,
    card: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a model card (Markdown).", show_default=False)
    ] = None,
    plot: Plot = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Train a model by a job file, and print it, coefficients with 95% intervals."""
    from analytics_client import job_file, render, render_models
    from analytics_client.session import connect
    from queries.errors import CohortiumError

    _check_picture(plot)
    asked = job_file.load(file)
    with connect(profile) as session:
        if explain:
            about = {key: value for key, value in asked.items() if key not in {"purpose", "minimum_cohort"}}
            explanation = session.explain_job(about.pop("model"), **about)
            if as_json:
                print_json(explanation.to_dict())
            else:
                render.stdout().print(render_models.job_table(explanation))
            return
        try:
            with _rounds_shown(asked.get("rounds")) as show:
                model = session.train(asked.pop("model"), on_progress=show, **asked)
        except CohortiumError as error:
            for line in render.refusal_lines(error):
                typer.echo(line, err=True)
            raise
    _print(model, card, as_json=as_json)
    if plot is not None:
        _draw(model.plot, plot)


@app.command()
def evaluate(
    job: JobId,
    *,
    rounds: After = None,
    epsilon: Annotated[float | None, typer.Option(help="What it may cost; or --rho.", show_default=False)] = None,
    rho: Annotated[float | None, typer.Option(help="What it may cost, in zCDP.", show_default=False)] = None,
    purpose: Annotated[str, typer.Option(help="What for; policies decide by it.")] = "exploration",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw the calibration.", show_default=False)
    ] = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Measure the model that a job has reached, on the persons that it held out: accuracy, AUC, RMSE and so on."""
    from analytics_client import render, render_models
    from analytics_client.session import connect
    from queries.errors import CohortiumError

    _check_picture(plot)
    with connect(profile) as session:
        try:
            found = session.evaluate(session.model(job, rounds=rounds), epsilon=epsilon, rho=rho, purpose=purpose)
        except CohortiumError as error:
            for line in render.refusal_lines(error):
                typer.echo(line, err=True)
            raise
    if as_json:
        print_json(found.to_dict())
    else:
        render.stdout().print(render_models.evaluation_table(found))
    if plot is not None:
        _draw(found.plot, plot)


@app.command()
def jobs(profile: Profile = None, as_json: Json = False) -> None:
    """List your training jobs."""
    from analytics_client import render, render_models
    from analytics_client.session import connect

    with connect(profile) as session:
        found = session.jobs()
    if as_json:
        print_json([asdict(job) for job in found])
    else:
        render.stdout().print(render_models.jobs_table(found))


@app.command()
def watch(job: JobId, profile: Profile = None, as_json: Json = False) -> None:
    """Wait for a job to end, and print its model."""
    from analytics_client.session import connect

    with connect(profile) as session, _rounds_shown(None) as show:
        model = session.watch(job, show)
    _print(model, None, as_json=as_json)


@app.command()
def stop(job: JobId, profile: Profile = None) -> None:
    """End a job after the round in hand. What it did not use is given back."""
    from analytics_client.session import connect

    with connect(profile) as session:
        session.stop(job)
    typer.echo("It ends after the round in hand; `cohortium model` shows what it had reached.")


@app.command()
def model(
    job: JobId,
    *,
    rounds: After = None,
    card: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a model card (Markdown).", show_default=False)
    ] = None,
    plot: Plot = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Print the model that a job has reached, verified against the audit log."""
    from analytics_client.session import connect

    _check_picture(plot)
    with connect(profile) as session:
        found = session.model(job, rounds=rounds)
    _print(found, card, as_json=as_json)
    if plot is not None:
        _draw(found.plot, plot)


def _check_picture(path: Path | None) -> None:
    """Raise ConfigError where a picture could not be written: before anything is asked."""
    from analytics_client.result import check_writable
    from queries.errors import ConfigError

    if path is None:
        return
    if path.suffix.lower() not in PICTURES:
        raise ConfigError(f"{path.name} is no picture", hint=f"one of {', '.join(PICTURES)}")
    check_writable(path)


def _draw(draw: Callable[[], Axes], path: Path) -> None:
    from matplotlib import pyplot

    figure: Any = draw().get_figure(root=True)
    try:
        figure.savefig(path, dpi=150)
    finally:
        pyplot.close(figure)


def _print(model: Trained, card: Path | None, *, as_json: bool) -> None:
    from analytics_client import render, render_models

    if card is not None:
        card.write_text(model.card(), encoding="utf-8")
    if as_json:
        print_json(model.to_dict())
    else:
        render.stdout().print(render_models.model_table(model))


@contextmanager
def _rounds_shown(rounds: Any) -> Iterator[Callable[[Progress], None] | None]:
    """Show rounds on standard error while a job runs, where someone is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    seen = {"loss": "", "measure": ""}
    with Console(stderr=True).status("asking") as status:

        def show(progress: Progress) -> None:
            who = f" by {', '.join(progress.institutions)}" if progress.institutions else ""
            why = f": {progress.reason}" if progress.reason else ""
            spent = f", epsilon {progress.epsilon:.3g} spent" if progress.rounds else ""
            seen["loss"] = f", loss {progress.loss:.4g}" if progress.loss is not None else seen["loss"]
            if progress.measure is not None:
                name, value = progress.measure
                seen["measure"] = f", {name} {value:.4g} after {progress.rounds}"
            number = f"round {progress.rounds + 1}{f' of {rounds}' if rounds else ''}"
            status.update(f"{number}: {progress.step}{who}{why}{spent}{seen['loss']}{seen['measure']}")

        yield show
