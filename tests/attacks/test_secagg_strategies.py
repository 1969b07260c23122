"""Every strategy of a coordinator at small n, with real agents: lists, orders, duplicates, silence, colluding signers.

An agent's answer depends on what it is shown and on nothing else, so the agents' answers to every list and every set of
confirmations are taken once, from the real state machines; then all combinations are enumerated over that table. That
what was shown before changes no answer into another, but only into a refusal, is enumerated too: every order of
messages, duplicates among them.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable

import pytest

from protos.v1 import secagg_pb2 as pb
from queries.errors import RoundError
from trust.secagg import AgentRound, messages
from trust.secagg.keys import confirm_statement, survivors_hash
from trust.secagg.rehearsal import Consortium, Rehearsal

Names = tuple[str, ...]


def subsets(names: Iterable[str]) -> list[Names]:
    names = tuple(names)
    return [who for size in range(len(names) + 1) for who in itertools.combinations(names, size)]


class Game:
    """A round up to UPLOAD, with every honest agent ready to be shown any survivor list."""

    def __init__(self, n: int, threshold: int, colluders: int) -> None:
        self.consortium = Consortium("abcde"[:n])
        rungs = range(threshold + 1, n + 1)
        encoded = self.consortium.parameters(length=1, threshold=threshold, colluders=colluders, rungs=rungs)
        self.rehearsal = Rehearsal(self.consortium, encoded)
        self.everyone = self.rehearsal.parameters.invited
        self.colluders = self.everyone[n - colluders :]
        self.honest = self.everyone[: n - colluders]
        self.rehearsal.join(self.everyone)
        self.rehearsal.upload(self.everyone)
        self.manifests = pb.Survivors.FromString(self.rehearsal.survivors).manifests

    def survivors(self, who: Names) -> bytes:
        shown = [manifest for manifest in self.manifests if manifest.member in who]
        return pb.Survivors(manifests=shown).SerializeToString(deterministic=True)

    def colluders_confirm(self, who: Names, member: str) -> messages.Confirm:
        """A colluder signs whatever is asked."""
        round_id, roster_hash = self.rehearsal.parameters.round_id, self.rehearsal.coordinator._roster_hash
        named = [(manifest.member, manifest.vector_hash) for manifest in self.manifests if manifest.member in who]
        statement = confirm_statement(round_id, roster_hash, survivors_hash(round_id, roster_hash, named), member)
        return messages.Confirm(member, self.consortium.identity_keys[member].sign(statement))

    def confirms(self, lists: list[Names]) -> dict[Names, dict[str, messages.Confirm]]:
        """Per list, the CONFIRM of each honest agent that accepts it when shown it first."""
        answers: dict[Names, dict[str, messages.Confirm]] = {}
        for who in lists:
            answers[who] = {}
            for name in self.honest:
                agent = copy.copy(self.rehearsal.agents[name])
                try:
                    answers[who][name] = messages.Confirm.parse(agent.on_survivors(self.survivors(who)), name)
                except RoundError:
                    continue
        return answers

    def reveals(self, name: str, who: Names, confirms: list[messages.Confirm]) -> bool:
        """Whether an agent that confirmed `who` reveals when shown these confirmations."""
        agent: AgentRound = copy.copy(self.rehearsal.agents[name])
        agent.on_survivors(self.survivors(who))
        try:
            agent.on_confirmations(messages.encode_confirmations(sorted(confirms, key=lambda c: c.member)))
        except RoundError:
            return False
        return True


@pytest.mark.parametrize(("n", "threshold", "colluders"), [(3, 3, 1), (4, 3, 1), (5, 4, 1), (5, 4, 2)])
def test_no_strategy_opens_two_sets_or_one_below_the_bound(n: int, threshold: int, colluders: int) -> None:
    game = Game(n, threshold, colluders)
    answers = game.confirms(subsets(game.everyone))
    acceptable = [who for who, confirms in answers.items() if confirms]
    assert acceptable == [who for who in subsets(game.everyone) if len(who) >= threshold]
    assert all(set(answers[who]) == set(game.honest) for who in acceptable)

    opens: dict[tuple[str, Names, Names], bool] = {}
    for who in acceptable:
        confirms = answers[who] | {name: game.colluders_confirm(who, name) for name in game.colluders}
        for signers in subsets(game.everyone):
            for name in game.honest:
                opens[name, who, signers] = game.reveals(name, who, [confirms[signer] for signer in signers])

    opened_somewhere = 0
    for shown in itertools.product([None, *acceptable], repeat=len(game.honest)):  # None is silence
        freed: set[Names] = set()
        for who in acceptable:
            confirmed = tuple(name for name, seen in zip(game.honest, shown, strict=True) if seen == who)
            best = tuple(sorted(confirmed + game.colluders))  # more signatures than these cannot be had
            revealing = [name for name in confirmed if any(opens[name, who, s] for s in subsets(best))]
            if len(revealing) + colluders >= threshold:  # enough shares of everyone, of the kind that `who` says
                freed.add(who)
            else:
                assert len(revealing) == 0 or len(confirmed) + colluders >= threshold
        assert len(freed) <= 1, f"two sets opened when the agents were shown {shown}"
        assert all(len(who) >= threshold for who in freed)
        opened_somewhere += bool(freed)
    assert opened_somewhere  # the honest strategy is among them


@pytest.mark.parametrize(("n", "threshold"), [(3, 3), (4, 3), (5, 4)])
def test_confirmations_of_one_list_never_free_the_shares_of_another(n: int, threshold: int) -> None:
    game = Game(n, threshold, 1)
    lists = [who for who in subsets(game.everyone) if len(who) >= threshold]
    answers = game.confirms(lists)
    for one, other in itertools.permutations(lists, 2):
        confirms = answers[other] | {name: game.colluders_confirm(other, name) for name in game.colluders}
        assert not game.reveals("a", one, list(confirms.values()))


Shown = tuple[str, Names]
"""A message to one agent: its kind, and the survivor list that it is about."""


def everything_that_can_be_shown(game: Game) -> dict[Shown, bytes]:
    """After the upload: each list, all signatures under each list, the same with one of them twice, the roster again.

    Signatures are everybody's under every list, honest members' too, which is more than any coordinator can have: what
    is refused with all of them is refused with some.
    """
    shown: dict[Shown, bytes] = {("roster", ()): game.rehearsal.rosters["a"]}
    threshold = game.rehearsal.parameters.threshold
    for who in (game.everyone[: threshold - 1], *(who for who in subsets(game.everyone) if len(who) >= threshold)):
        signed = [game.colluders_confirm(who, name) for name in game.everyone]
        shown["survivors", who] = game.survivors(who)
        shown["confirmations", who] = messages.encode_confirmations(signed)
        shown["doubled confirmations", who] = messages.encode_confirmations([*signed[:-1], signed[-2]])
    return shown


def show(agent: AgentRound, kind: str, message: bytes) -> bytes | None:
    """The agent's answer, or None where it refuses."""
    calls = {"roster": agent.on_roster, "survivors": agent.on_survivors}
    try:
        return calls.get(kind, agent.on_confirmations)(message)
    except RoundError:
        return None


@pytest.mark.parametrize(("n", "threshold", "colluders"), [(3, 3, 1), (4, 3, 1), (5, 4, 1)])
def test_no_order_of_messages_gets_a_second_list_or_a_second_answer(n: int, threshold: int, colluders: int) -> None:
    """All sequences of three: an agent has two answers left after its upload, so a third message would be one more."""
    game = Game(n, threshold, colluders)
    held = dict(game.rehearsal.agents["a"]._held)
    shown = everything_that_can_be_shown(game)
    freed: set[tuple[Shown, ...]] = set()
    for sequence in itertools.product(shown, repeat=3):
        agent = copy.copy(game.rehearsal.agents["a"])
        confirmed: list[Names] = []
        revealed: list[tuple[messages.Opening, ...]] = []
        for kind, who in sequence:
            answer = show(agent, kind, shown[kind, who])
            if answer is None:
                continue
            if kind == "survivors":
                confirmed.append(who)
            else:
                assert kind == "confirmations"
                assert confirmed == [who], "shares were revealed for another list than the one confirmed"
                revealed.append(messages.parse_reveal(answer, "a", n))
        assert len(confirmed) <= 1
        assert len(revealed) <= 1
        assert all(len(who) >= threshold for who in confirmed)
        for openings in revealed:
            freed.add(sequence[:2])
            (who,) = confirmed
            level = len(who) - threshold  # never a seed further up the chain than so many survivors allow
            kinds = [held[dealer].of_seeds[level] if dealer in who else held[dealer].of_key for dealer in game.everyone]
            assert openings == tuple(kinds)
    enough = [who for who in subsets(game.everyone) if len(who) >= threshold]
    assert freed == {(("survivors", who), ("confirmations", who)) for who in enough}
