"""agent.toml: what data an institution serves, who may ask what of it, and how much may be spent.

Read once and checked whole: unknown keys, wrong types and contradictions are refused with the key's name, because a
policy that is not understood must not be served. docs/agent.md describes every key. Must not know: data, the network.
"""

from __future__ import annotations

import glob
import json
import tomllib
from collections.abc import Mapping
from datetime import time
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from analytics_client.agent.grants import Budgets, DatasetBudget
from analytics_client.agent.training.packages import Installed
from queries import policy as rules
from queries.accounting import Budget
from queries.errors import ConfigError
from queries.policy import ANY, OPERATIONS, Policy
from queries.schema import Dataset

FILE = "agent.toml"
_POSTGRESQL = ("postgresql://", "postgres://")
_SPARK = ("spark://", "local[", "yarn", "k8s://")
_SUFFIXES: dict[str, Literal["csv", "parquet", "duckdb"]] = {
    ".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".duckdb": "duckdb",
}  # fmt: skip
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)]  # TOML has lists, no tuples


class _Table(BaseModel):
    """A TOML table that knows all its keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        if isinstance(given, dict):
            known = list(cls.model_fields)
            for key in given:
                if key not in known:
                    near = get_close_matches(str(key), known, n=1, cutoff=0.5)
                    advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                    raise ValueError(f"there is no key {key!r}: {advice}")
        return given


class ColumnConfig(_Table):
    """Where a schema column is found locally. `column` None: under its own name; `values` maps local codes."""

    column: str | None = None
    values: dict[str, str] = Field(default_factory=dict)


class DatasetConfig(_Table):
    """Where one dataset is: files, or a table of a database. After `load`, `path` is absolute and `format` is known."""

    path: str = ""
    connection: str | None = None
    table: str | None = Field(default=None, min_length=1)
    format: Literal["csv", "parquet", "duckdb"] | None = None
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    missing: Names = ()
    schema_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    opt_out: str | None = Field(default=None, min_length=1)
    columns: dict[str, ColumnConfig] = Field(default_factory=dict)

    @field_validator("columns", mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {name: {"column": body} if isinstance(body, str) else body for name, body in given.items()}
        return given

    @model_validator(mode="after")
    def _one_place(self) -> DatasetConfig:
        if bool(self.path) == (self.connection is not None):
            raise ValueError("say where the data are: either path, or connection and table")
        if self.connection is not None and self.table is None:
            raise ValueError("connection and table go together")
        if self.connection is not None:
            if not self.connection.startswith((*_POSTGRESQL, *_SPARK)):
                raise ValueError(
                    'a connection looks like "postgresql://reader@db.example.org/clinic" or "spark://host:7077"'
                )
            if urlsplit(self.connection).password or "password=" in self.connection:
                raise ValueError("no password belongs into this file: put it into ~/.pgpass, or set PGPASSWORD")
        return self

    @property
    def engine(self) -> Literal["duckdb", "postgresql", "spark"]:
        """Return what sums the data."""
        if self.connection is None:
            return "duckdb"
        return "spark" if self.connection.startswith(_SPARK) else "postgresql"

    def accepts(self, schema_hash: bytes) -> bool:
        """Return whether the published description is the one this institution has pinned, where it pinned one."""
        return self.schema_sha256 in (None, schema_hash.hex())

    def files(self) -> tuple[Path, ...]:
        """Return the files that `path` names now, sorted. Raise ConfigError where there is none."""
        literal = Path(self.path)
        matching = (Path(name) for name in glob.glob(self.path, recursive=True))
        found = [literal] if literal.is_file() else sorted(file for file in matching if file.is_file())
        if not found:
            raise ConfigError(f"there is no file {self.path}", hint=f"correct path in {FILE}")
        return tuple(found)


class RuleConfig(_Table):
    """One permission: all that is named here together, "*" for any."""

    name: str | None = None
    dataset: str
    analysts: Names = Field(min_length=1)
    purposes: Names = Field(min_length=1)
    operations: Names = Field(min_length=1)
    columns: Names
    max_epsilon_per_query: float
    max_queries_per_day: int | None = Field(default=None, ge=1)
    approval: Literal["automatic", "manual"] = "automatic"


class PolicyConfig(_Table):
    """What must hold for every answer, and the permissions."""

    minimum_cohort: int = rules.SMALLEST_COHORT
    colluders: int = 1
    quiet_hours: Names = ()
    rules: Annotated[tuple[RuleConfig, ...], Field(strict=False)] = ()

    @field_validator("quiet_hours")
    @classmethod
    def _windows(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for window in given:
            _hours(window)
        return given


class BudgetConfig(_Table):
    """How much epsilon, at the delta of the dataset's schema, may be spent of a dataset in all."""

    dataset: str
    total_epsilon: float
    per_analyst_epsilon: float
    analysts: dict[str, float] = Field(default_factory=dict)


class EngineConfig(_Table):
    """How the local engine runs."""

    threads: int = Field(default=1, ge=1, le=256)


class ModelConfig(_Table):
    """A model of a package that may be trained here. After `load`, `wheel` is absolute."""

    name: str = Field(min_length=1, max_length=100)
    wheel: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class AgentConfig(_Table):
    """The whole of agent.toml."""

    datasets: dict[str, DatasetConfig] = Field(default_factory=dict)
    policy: PolicyConfig = PolicyConfig()
    budgets: Annotated[tuple[BudgetConfig, ...], Field(strict=False)] = ()
    engine: EngineConfig = EngineConfig()
    models: Annotated[tuple[ModelConfig, ...], Field(strict=False)] = ()


def load(directory: Path) -> AgentConfig:
    """Read and check agent.toml in an agent's folder. Raise ConfigError that names the key and says what to do."""
    return parse(read(directory), directory)


def read(directory: Path) -> str:
    """Return the text of agent.toml in an agent's folder. Raise ConfigError where there is none to read."""
    file = directory / FILE
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{file} is missing", hint="is this an agent's folder? cohortium-agent enrol makes one"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as UTF-8 text", hint="check its permissions and encoding") from error


def parse(text: str, directory: Path) -> AgentConfig:
    """Check the text of an agent.toml whose relative paths start from `directory`. Raise ConfigError as `load`."""
    try:
        config = AgentConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{FILE} is not valid TOML: {error}", hint="strings need quotes, tables [brackets]"
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{FILE}: {_first(error)}", hint="docs/agent.md describes every key") from error
    for problem in _contradictions(config):
        raise ConfigError(f"{FILE} contradicts itself: {problem}", hint="correct it; nothing is served until then")
    located = {name: _locate(name, dataset, directory) for name, dataset in config.datasets.items()}
    wheels = tuple(model.model_copy(update={"wheel": str(directory / model.wheel)}) for model in config.models)
    return config.model_copy(update={"datasets": located, "models": wheels})


def models(config: AgentConfig) -> tuple[Installed, ...]:
    """Return the packages whose models may be trained here."""
    return tuple(Installed(model.name, model.sha256, Path(model.wheel)) for model in config.models)


def policy(config: AgentConfig) -> Policy:
    """Return the policy as the pure rules that `queries.policy.decide` judges by."""
    return Policy(
        rules=tuple(
            rules.Rule(
                name=rule.name or f"rule {number}",
                analysts=rule.analysts,
                purposes=rule.purposes,
                datasets=(rule.dataset,),
                columns=rule.columns,
                operations=rule.operations,
                max_epsilon=rule.max_epsilon_per_query,
                approval=rule.approval == "manual",
                per_day=rule.max_queries_per_day,
            )
            for number, rule in enumerate(config.policy.rules, start=1)
        ),
        minimum_cohort=config.policy.minimum_cohort,
        colluders=config.policy.colluders,
        quiet=tuple(_hours(window) for window in config.policy.quiet_hours),
    )


def _hours(window: str) -> rules.Hours:
    """Read "22:00-06:00". Raise ValueError."""
    start, dash, end = window.partition("-")
    try:
        if not dash:
            raise ValueError
        return rules.Hours(time.fromisoformat(start.strip()), time.fromisoformat(end.strip()))
    except ValueError:
        raise ValueError(f'{window!r} is not a time of day, as in "22:00-06:00"') from None


def budgets(config: AgentConfig, schemas: Mapping[str, Dataset]) -> Budgets:
    """Return what is granted of the datasets whose published description is at hand: it carries delta."""
    granted = {}
    for budget in config.budgets:
        if budget.dataset not in schemas:
            continue
        delta = schemas[budget.dataset].delta
        granted[budget.dataset] = DatasetBudget(
            total=Budget(budget.total_epsilon, delta),
            each=Budget(budget.per_analyst_epsilon, delta),
            own={analyst: Budget(epsilon, delta) for analyst, epsilon in budget.analysts.items()},
        )
    return Budgets(granted)


def template(data: Mapping[str, str] | None = None) -> str:
    """Return the agent.toml that enrolment writes: the datasets given (name to path) and no rule, so it denies all."""
    tables = [f"[datasets.{name}]\npath = {_quoted(path)}\n" for name, path in (data or {}).items()]
    example = next(iter(data or {}), "patients")
    return _TEMPLATE.replace("@DATASETS@", "\n".join(tables) if tables else _EXAMPLE_DATASET).replace("@NAME@", example)


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    says = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {says[0].lower()}{says[1:]}" if where else says


def _locate(name: str, dataset: DatasetConfig, directory: Path) -> DatasetConfig:
    if dataset.opt_out is not None:
        listed = str(directory.resolve() / Path(dataset.opt_out).expanduser())
        dataset = dataset.model_copy(update={"opt_out": listed})
    if dataset.connection is not None:
        return dataset
    path = str(directory.resolve() / Path(dataset.path).expanduser())
    found = dataset.format or _SUFFIXES.get(Path(path).suffix.lower())
    if found is None:
        raise ConfigError(
            f"{FILE}: datasets.{name}: {Path(path).name!r} does not end in .csv, .parquet or .duckdb",
            hint='add format = "csv", "parquet" or "duckdb"',
        )
    if (found == "duckdb") != (dataset.table is not None):
        raise ConfigError(
            f"{FILE}: datasets.{name}: table goes with a connection or a DuckDB file, and a DuckDB file with a table",
            hint='as in path = "clinic.duckdb" and table = "main.patients"',
        )
    return dataset.model_copy(update={"path": path, "format": found})


def _contradictions(config: AgentConfig) -> list[str]:
    """Return what contradicts itself, one sentence each."""
    found = [_decapitalised(problem) for problem in rules.contradictions(policy(config))]
    epsilon: dict[str, float] = {}
    for budget in config.budgets:
        where = f"the budget of {budget.dataset!r}"
        grants = (budget.total_epsilon, budget.per_analyst_epsilon, *budget.analysts.values())
        if budget.dataset in epsilon:
            found.append(f"there are two budgets for {budget.dataset!r}")
        if not all(isfinite(grant) and grant > 0 for grant in grants):
            found.append(f"{where} grants an epsilon that is not a finite number above 0")
        elif max(grants) > budget.total_epsilon:
            found.append(f"{where} grants one analyst more than total_epsilon grants all together")
        epsilon[budget.dataset] = max(grants[1:])
        found += _unknown_dataset(config, where, budget.dataset)
    for number, rule in enumerate(config.policy.rules, start=1):
        where = f"rule {rule.name or number!r}"
        found += _unknown_dataset(config, where, rule.dataset)
        if rule.dataset not in epsilon:
            found.append(f"{where} allows queries of {rule.dataset!r}, but no [[budgets]] entry pays for them")
        elif rule.max_epsilon_per_query > epsilon[rule.dataset]:
            found.append(
                f"{where} allows a query of epsilon {rule.max_epsilon_per_query:g}, more than any budget holds"
            )
    names = [model.name for model in config.models]
    found += [f"two models are named {name!r}" for name in sorted(set(names)) if names.count(name) > 1]
    return found


def _unknown_dataset(config: AgentConfig, where: str, name: str) -> list[str]:
    if name in config.datasets:
        return []
    near = get_close_matches(name, config.datasets, n=1, cutoff=0.5)
    advice = f": did you mean {near[0]!r}?" if near else ""
    return [f"{where} names dataset {name!r}, which has no [datasets] table{advice}"]


def _decapitalised(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:].rstrip(".")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string of printable text is a TOML basic string


_EXAMPLE_DATASET = """\
# [datasets.patients]
# path = "patients.csv"              # CSV, Parquet or DuckDB; "exports/*.parquet" reads several files as one
# [datasets.patients.columns.sex]    # only where local names or codes differ from the published ones
# column = "GENDER"
# values = { "0" = "male", "1" = "female" }
"""

_TEMPLATE = f"""\
# What this institution serves, to whom, and for how much. Every key is described in docs/agent.md.
# As it stands it answers nothing: there is no rule yet. Check it with: cohortium-agent check DIR

@DATASETS@
[policy]
minimum_cohort = {rules.SMALLEST_COHORT}       # fewest institutions that must answer together
colluders = 1            # institutions that may collude with the coordinator and still learn nothing more
# quiet_hours = ["22:00-06:00"]    # when nothing is answered, by the clock of this machine

# [[policy.rules]]
# dataset = "@NAME@"
# analysts = ["ada"]               # "{ANY}" for any enrolled analyst
# purposes = ["{ANY}"]
# operations = ["count", "mean"]   # {", ".join(OPERATIONS)}
# columns = ["{ANY}"]
# max_epsilon_per_query = 0.5
# max_queries_per_day = 20         # of each analyst
# approval = "manual"              # a steward looks at each question: cohortium-agent requests DIR

# [[budgets]]
# dataset = "@NAME@"
# total_epsilon = 10.0             # all analysts together, at the dataset's delta
# per_analyst_epsilon = 2.0
"""
