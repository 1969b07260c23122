"""Who may say what to the coordinator of a round, and when; whether enough of them said it.

What the order of steps is stands in `steps`. Must not know: what messages hold, what is done with them.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager

from queries.errors import CohortiumError, ProtocolViolation, QuorumError
from trust.secagg.parameters import Member, RoundParameters, check_members, organisations
from trust.secagg.refusals import LateMessage, OutOfStep
from trust.secagg.steps import COORDINATOR_STEPS, CoordinatorState

_ORDER = list(CoordinatorState)


class Admission:
    """The state of a round, and who in it broke the protocol and how."""

    def __init__(self, parameters: RoundParameters, members: Mapping[str, Member]) -> None:
        """Begin a round. Raises UnacceptableRound where the members are not those that the parameters need."""
        check_members(parameters, members)
        self.parameters = parameters
        self.state = CoordinatorState.REGISTERING if parameters.drawn else CoordinatorState.JOINING
        self.blamed: dict[str, str] = {}
        self._members = members

    @contextmanager
    def _from(self, member: str, event: str, expected: Sequence[str], already: Container[str]) -> Iterator[None]:
        """Admit one message: the step is open, the sender belongs, is not blamed and has not sent this before."""
        step = next(state for state, name in COORDINATOR_STEPS if name == event)
        try:
            if (self.state, event) not in COORDINATOR_STEPS:
                refusal = LateMessage if _ORDER.index(self.state) > _ORDER.index(step) else OutOfStep
                state = self.state.value
                raise refusal(f"institution {member} sent its {event} while the round is {state}", party=member)
            if member in self.blamed:
                raise OutOfStep(f"institution {member} already broke the protocol in this round", party=member)
            if member not in expected:
                raise OutOfStep(f"institution {member} sent its {event} to a round it is not in", party=member)
            if member in already:
                raise OutOfStep(f"institution {member} sent its {event} twice", party=member)
            yield
        except LateMessage:
            raise
        except ProtocolViolation as violation:
            raise self._blame(violation) from violation.__cause__

    @contextmanager
    def _close(self, event: str) -> Iterator[None]:
        """End a step, or the round if that fails."""
        after = COORDINATOR_STEPS.get((self.state, event))
        if after is None:
            raise OutOfStep(f"the round is {self.state.value}: {event!r} is not possible", party="coordinator")
        try:
            yield
        except CohortiumError as error:
            self.state = CoordinatorState.FAILED
            if isinstance(error, ProtocolViolation):
                self._blame(error)
            raise
        self.state = after

    def _blame(self, violation: ProtocolViolation) -> ProtocolViolation:
        self.blamed.setdefault(violation.party, violation.message)
        return violation

    def _check_cohort(self, names: Sequence[str], did: str) -> None:
        self._check_threshold(len(names), did)
        found, least = organisations(names, self._members), self.parameters.minimum_cohort
        if found < least:
            raise QuorumError(
                f"institutions of {found} organisations {did}, and the minimum cohort is {least}",
                hint="wait until more institutions are connected",
            )

    def _check_threshold(self, found: int, did: str) -> None:
        if found < self.parameters.threshold:
            raise QuorumError(
                f"{found} of {len(self.parameters.invited)} institutions {did}, "
                f"and {self.parameters.threshold} are needed",
                hint="wait until more institutions are connected",
            )
