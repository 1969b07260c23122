"""Secure aggregation: the coordinator learns the sum of one cohort's vectors and nothing else.

Two pure state machines, `AgentRound` and `CoordinatorRound`, exchange bytes through whatever transport the caller has.
The protocol is that of Bonawitz et al. (CCS 2017) in its variant against active adversaries, with the long-lived keys
of Flamingo (S&P 2023); docs/secure-aggregation.md has it message by message. Must not know: transport, database, query.
"""

from trust.secagg.agent import LARGEST_CHUNK, AgentRound
from trust.secagg.coordinator import CoordinatorRound
from trust.secagg.keys import PairKeys
from trust.secagg.parameters import Member, RoundParameters, default_threshold, make_parameters, parse_parameters
from trust.secagg.refusals import LateMessage
from trust.secagg.steps import AgentState, CoordinatorState
from trust.secagg.upload import UploadSink

__all__ = [
    "LARGEST_CHUNK",
    "AgentRound",
    "AgentState",
    "CoordinatorRound",
    "CoordinatorState",
    "LateMessage",
    "Member",
    "PairKeys",
    "RoundParameters",
    "UploadSink",
    "default_threshold",
    "make_parameters",
    "parse_parameters",
]
