"""What `cohortium-agent check` finds: whether the data fit, and in plain words what anyone could ask.

Counts of local rows are exact and for the steward's screen only. Must not know: the network, how findings are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from analytics_client.agent import config as configuration
from analytics_client.agent.config import FILE, AgentConfig, RuleConfig
from analytics_client.agent.sources import SourceReport, open_source
from analytics_client.agent.training.packages import load as load_model
from queries.accounting import Budget, Curve, epsilon_to_rho_nano
from queries.errors import ConfigError
from queries.policy import ANY, explain_policy
from queries.schema import Dataset, from_bytes, from_toml, schema_hash, to_bytes
from trust.identity import files


@dataclass(frozen=True, slots=True)
class Finding:
    """One dataset, the hash that pins its description, and how the local data fit it."""

    dataset: Dataset
    schema_hash: bytes
    source: SourceReport


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a steward should know before running the agent. `unchecked` datasets had no schema at hand."""

    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...]
    sentences: tuple[str, ...]


def read_schema(path: Path) -> tuple[Dataset, bytes]:
    """Read a schema file, TOML or published bytes, and return it with its hash. Raise ConfigError or SchemaError."""
    data = files.read(path)
    if path.suffix.lower() != ".toml":
        return from_bytes(data), schema_hash(data)
    try:
        dataset = from_toml(data.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", hint="give the schema's TOML file") from None
    return dataset, schema_hash(to_bytes(dataset))


def check(folder: Path, schemas: Sequence[Path]) -> Report:
    """Check an agent's folder against schema files: configuration, policy, budgets, and the data themselves.

    Raise ConfigError where the configuration contradicts itself or a schema, DataError where data do not fit,
    PolicyDenied where a model's package is not the one that is pinned.
    """
    config = configuration.load(folder)
    read = [_published(config, path) for path in schemas]
    published = {dataset.name: dataset for dataset, _ in read}
    for rule in config.policy.rules:
        if rule.dataset in published:
            _check_rule(rule, published[rule.dataset])
    for model in configuration.models(config):
        load_model(model)
    findings = []
    for dataset, hash_ in read:
        source = open_source(config.datasets[dataset.name], dataset, threads=config.engine.threads)
        try:
            findings.append(Finding(dataset, hash_, source.check()))
        finally:
            source.close()
    unchecked = []
    for name, local in config.datasets.items():
        if name not in published:
            if local.connection is None:
                local.files()
            unchecked.append(name)
    sentences = [*explain_policy(configuration.policy(config)), *_budget_sentences(config, published)]
    return Report(tuple(findings), tuple(unchecked), tuple(sentences))


def _published(config: AgentConfig, path: Path) -> tuple[Dataset, bytes]:
    dataset, hash_ = read_schema(path)
    local = config.datasets.get(dataset.name)
    if local is None:
        near = get_close_matches(dataset.name, config.datasets, n=1, cutoff=0.5)
        raise ConfigError(
            f"{FILE} has no table for dataset {dataset.name!r}",
            hint=f"did you mean {near[0]!r}?" if near else f"add [datasets.{dataset.name}] with a path",
        )
    if not local.accepts(hash_):
        raise ConfigError(
            f"{path.name} is not the description of {dataset.name!r} that {FILE} pins",
            hint=f'if it was read and agreed to: schema_sha256 = "{hash_.hex()}"',
        )
    return dataset, hash_


def _check_rule(rule: RuleConfig, dataset: Dataset) -> None:
    names = [column.name for column in dataset.columns]
    for name in rule.columns:
        if name not in (ANY, *names):
            near = get_close_matches(name, names, n=1, cutoff=0.5)
            raise ConfigError(
                f"{FILE}: a rule names column {name!r}, which dataset {dataset.name!r} does not have",
                hint=f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}",
            )


def _budget_sentences(config: AgentConfig, published: dict[str, Dataset]) -> list[str]:
    """Say for every rule and analyst how much that is in all."""
    sentences = []
    grants = {budget.dataset: budget for budget in config.budgets}
    for rule in config.policy.rules:
        grant = grants[rule.dataset]  # the configuration was refused if there were none
        for analyst in rule.analysts:
            who = "Each analyst" if analyst == ANY else f"Analyst {analyst!r}"
            epsilon = grant.analysts.get(analyst, grant.per_analyst_epsilon)
            sentence = f"{who} may spend epsilon {epsilon:g} of dataset {rule.dataset!r} in all"
            if rule.dataset in published:
                delta = published[rule.dataset].delta
                cost = epsilon_to_rho_nano(rule.max_epsilon_per_query, delta)
                times = Budget(epsilon, delta).left(Curve.zero()) // cost
                sentence += f" (at delta {delta:g}: {times} queries of the largest size allowed)"
            sentences.append(f"{sentence}; all analysts together {grant.total_epsilon:g}.")
    return list(dict.fromkeys(sentences))
