"""One secure-aggregation round over the network: drives `trust.secagg.CoordinatorRound` with the agents' streams.

The protocol's rules live in the core; here are only the clock and the connections: who is still expected in a step, who
is gone, when a step is over. Must not know: SQL, the log, what the sums mean.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from analytics_server.coordinator.hub import Hub
from analytics_server.coordinator.outcomes import Dropout, RoundFailed, RoundRestart, SignedDecision
from protos.v1 import agent_pb2
from queries.errors import ProtocolViolation, RoundError, SignatureError
from trust.identity import keys
from trust.rpc.errors import from_code
from trust.secagg import CoordinatorRound, Member, UploadSink, parse_parameters
from trust.secagg.masks import Ring
from trust.secagg.refusals import LateMessage
from trust.secagg.spool import SMALL_BYTES, spool_in
from trust.transcript import frame

LARGE_ROSTER = 64
"""Members above whom rosters are made off the event loop: among 500 they are 160 MB, and take seconds."""

_LATE_STEPS = ("confirm", "reveal")
"""After the vectors are in."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a step may take before those who have not answered count as dropped out."""

    join: float = 15.0
    """Also for opening the dealt shares."""
    upload: float = 120.0
    confirm: float = 15.0
    reveal: float = 15.0
    longest: int = 3600
    """What a training job may ask for instead, from a round's announcement until the vectors are in."""


class Round:
    """One attempt: announce, JOIN, roster, UPLOAD, CONFIRM, REVEAL. All methods run on the event loop."""

    def __init__(
        self,
        parameters: bytes,
        *,
        members: Mapping[str, Member],
        hub: Hub,
        deadlines: Deadlines,
        on_step: Callable[[str, Iterable[str]], None],
        spool: Path | None = None,
        seconds: int = 0,
    ) -> None:
        """`spool` is the folder in which large uploads wait until they are complete. `seconds` after its start the
        vectors must be in; 0: each step has its own deadline.
        """
        self._core = CoordinatorRound(parameters, members=members, spool=spool_in(spool))
        self.encoded_parameters = parameters
        self.parameters = parse_parameters(parameters)
        self._members = members
        self._hub = hub
        self._deadlines = deadlines
        self._on_step = on_step
        self._seconds = seconds
        self._began = 0.0
        self._step = "announce"
        self._waiting: set[str] = set()
        self._progressed = asyncio.Event()
        self._gone: set[str] = set()
        self._uploading: dict[str, UploadSink] = {}
        self._reached: list[str] = []
        self._uploaded: set[str] = set()
        self._adding = asyncio.Lock()  # one vector at a time, and none while a step is closed
        self._asked_to_reveal: frozenset[str] = frozenset()
        self.id = self.parameters.round_id
        self.head: tuple[int, bytes] | None = None
        """Size and root of the log's head that goes with the announcement; who answers says that it has seen it."""
        self.decisions: dict[str, SignedDecision] = {}
        self.dropouts: list[Dropout] = []

    # --- what the streams report ---------------------------------------------------------------------------------

    def on_message(self, member: str, message: agent_pb2.FromAgent) -> None:
        """Handle an agent's answer or round message. What breaks the protocol drops its sender, by name."""
        if member in self._gone:
            return
        try:
            if message.WhichOneof("message") == "answer":
                self._on_answer(member, message.answer)
            else:
                self._on_round(member, message.round.step, message.round.payload)
        except LateMessage:
            return  # a slow member is not a bad one
        except RoundError as error:
            self.drop(member, error.message)

    def _on_answer(self, member: str, answer: agent_pb2.Answer) -> None:
        if self._step != "join" or member not in self._waiting:
            raise ProtocolViolation(f"institution {member} answered an announcement out of turn", party=member)
        try:
            keys.verify(
                self._members[member].identity_key,
                answer.signature,
                frame("decision", answer.decision),
                what="a decision",
            )
        except SignatureError as error:
            raise ProtocolViolation(f"institution {member} sent a decision it did not sign", party=member) from error
        decision = agent_pb2.Decision()
        try:
            decision.ParseFromString(answer.decision)
        except Exception as error:  # protobuf's DecodeError lives in different modules per back end
            raise ProtocolViolation(f"institution {member} sent a malformed decision", party=member) from error
        if (decision.institution, decision.round_id, decision.request_id) != (
            member,
            self.id,
            self.parameters.request_id,
        ):
            raise ProtocolViolation(f"institution {member} sent a decision on another request", party=member)
        if decision.allowed and self.head is not None and (decision.log_size, decision.log_root) != self.head:
            raise ProtocolViolation(f"institution {member} answered under another head than the one sent", party=member)
        signed = agent_pb2.Answer(decision=answer.decision, signature=answer.signature)
        self.decisions[member] = SignedDecision(decision, signed.SerializeToString(deterministic=True))
        if decision.allowed:
            self._core.on_join(member, answer.join)
            self._answered(member)
        else:
            self.drop(member, f"refused: {decision.rule or decision.code}")

    def _on_round(self, member: str, step: str, payload: bytes) -> None:
        match step:
            case "abandon":
                self.drop(member, f"abandoned: {payload[:300].decode(errors='replace')}")
            case "join" if self._step == "cohort":
                self._core.on_join(member, payload)
                self._answered(member)
            case "ready" if self._step == "roster":
                self._answered(member)
            case "complaint":
                self._core.on_complaint(member, payload)
                self._answered(member)
            case "confirm":
                self._core.on_confirm(member, payload)
                self._answered(member)
            case "reveal":
                self._core.on_reveal(member, payload)
                self._answered(member)
            case _:
                raise ProtocolViolation(f"institution {member} sent {step[:20]!r} in step {self._step!r}", party=member)

    def upload_of(self, member: str) -> UploadSink | None:
        """Return where the member's chunks go, None once it is out; raise ProtocolViolation where none is expected."""
        if member in self._gone:
            return None
        sink = self._uploading.get(member)
        if sink is None:
            if self._step != "upload" or member not in self._waiting:
                raise ProtocolViolation(f"institution {member} uploads out of turn", party=member)
            sink = self._uploading[member] = self._core.start_upload(member)
        return sink

    async def take_manifest(self, member: str, sink: UploadSink, manifest: bytes) -> None:
        """Verify a complete upload and add it to the sum. Raises CohortiumError where it is not what it must be."""
        self._waiting.discard(member)  # it has answered in time, even where the sum is busy
        async with self._adding:
            if self.parameters.vector_bytes < SMALL_BYTES:
                sink.finish(manifest)
            else:
                await asyncio.to_thread(sink.finish, manifest)
            self.finish_upload(member)

    def finish_upload(self, member: str) -> None:
        """The member's upload is in the sum."""
        self._uploading.pop(member, None)  # gone already where the connection was lost meanwhile
        self._uploaded.add(member)
        self._answered(member)

    def drop(self, member: str, reason: str) -> None:
        """The member takes no further part."""
        if member in self._gone or member not in self._members:
            return
        self._gone.add(member)
        self.dropouts.append(Dropout(member, self._step, reason))
        self._waiting.discard(member)
        if sink := self._uploading.pop(member, None):
            sink.drop()
        self._progressed.set()

    def lost(self, member: str) -> None:
        """The member's connection closed."""
        self.drop(member, "connection lost")

    def _answered(self, member: str) -> None:
        self._waiting.discard(member)
        self._reached.append(member)
        self._progressed.set()

    # --- the four steps ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Expect the answers of everyone invited: to be called before the announcement is sent."""
        self._began = asyncio.get_running_loop().time()
        for member in self.invited:
            connection = self._hub.get(member)
            if connection is not None:
                connection.rounds[self.id] = self
        self._begin("join", (m for m in self.invited if self._hub.get(m) is not None))
        for member in self.invited:
            if member not in self._waiting:
                self.lost(member)

    async def finish(self, on_decided: Callable[[], Awaitable[None]]) -> Ring:
        """Take the announced round to its sum. `on_decided` makes the agents' decisions durable in the log, and is
        awaited before anything can be revealed.

        Raises RoundFailed, RoundRestart, or PolicyDenied and the like where too many institutions refused; the
        connections are told the outcome by the caller.
        """
        try:
            return await self._steps(on_decided)
        except RoundError as error:
            raise RoundFailed(error, charged=self.charged) from error
        finally:
            for member in self.invited:
                if connection := self._hub.get(member):
                    connection.rounds.pop(self.id, None)
            for sink in self._uploading.values():
                sink.drop()

    async def _steps(self, on_decided: Callable[[], Awaitable[None]]) -> Ring:
        self._on_step("announced", self.invited)
        joined = await self._wait(self._deadlines.join)  # everyone's decision belongs into the log, also where it is no
        logged = asyncio.ensure_future(on_decided())
        try:
            self._refuse_if_denied(joined)
            if self.parameters.drawn:
                await self._draw(joined)
            rosters = await self._make_rosters(len(joined))
            self._on_step("joined", self.roster)
            # Nobody uploads before everybody has opened their shares: an agent sends one vector per request, so a
            # cheating dealer must be found while the round can still be begun anew.
            self._begin("roster", self.roster)
            self._send("roster", rosters)
            agreed = await self._wait(self._deadlines.join)
            if self._core.accused:
                raise RoundRestart(self._core.accused)
            self._begin("upload", agreed)
            self._send("upload", dict.fromkeys(agreed, b""))
            await self._wait(self._deadlines.upload)
            async with self._adding:
                survivors = self._core.close_uploads()
            self._on_step("uploaded", self.survivors)
            alive = self._alive(self.roster)
            self._begin("confirm", alive)
            self._send("survivors", dict.fromkeys(alive, survivors))
            confirmed = await self._wait(self._deadlines.confirm)
            confirmations = self._core.close_confirms()
            self._on_step("confirmed", confirmed)
        finally:
            await logged
        alive = self._alive(confirmed)
        self._asked_to_reveal = frozenset(alive)
        self._begin("reveal", alive)
        self._send("confirmations", dict.fromkeys(alive, confirmations))
        revealed = await self._wait(self._deadlines.reveal, done=self._core.ready)
        self._on_step("revealed", revealed)
        return await asyncio.to_thread(self._core.result)

    async def _draw(self, registered: tuple[str, ...]) -> None:
        """Where there are too many for everybody to be everybody's neighbour: take JOINs with neighbours drawn."""
        cohort = self._core.close_registration()
        self._on_step("registered", registered)
        self._begin("cohort", registered)
        self._send("cohort", dict.fromkeys(registered, cohort))
        await self._wait(self._deadlines.join)

    async def _make_rosters(self, members: int) -> dict[str, bytes]:
        """Close the joins. Nobody is expected to join any more, so no message changes what a thread works on."""
        if members > LARGE_ROSTER:
            return await asyncio.to_thread(self._core.close_joins)
        return self._core.close_joins()

    def _begin(self, step: str, expected: Iterable[str]) -> None:
        self._step = step
        self._reached = []
        self._waiting = set(expected) - self._gone

    async def _wait(self, seconds: float, *, done: Callable[[], bool] | None = None) -> tuple[str, ...]:
        """Wait until everyone expected has answered or is gone, or until `done()`; return who answered."""
        now = asyncio.get_running_loop().time()
        end, why = now + seconds, f"no answer within {seconds:g} s"
        if self._seconds and self._step not in _LATE_STEPS:
            whole = self._began + self._seconds
            if self._step == "upload" or whole < end:
                end, why = whole, f"not done within the {self._seconds:,} s that the job gives a round"
        while self._waiting and not (done and done()):
            self._progressed.clear()
            try:
                async with asyncio.timeout_at(end):  # wait_for of Python 3.11 can lose a cancellation
                    await self._progressed.wait()
            except TimeoutError:
                for member in sorted(self._waiting):
                    self.drop(member, why)
        return tuple(sorted(m for m in self._reached if m not in self._gone))

    def _refuse_if_denied(self, joined: tuple[str, ...]) -> None:
        """Where fewer than t joined because institutions said no, that is what the analyst reads."""
        denied = {m: d.decision for m, d in self.decisions.items() if not d.decision.allowed}
        if len(joined) >= self.parameters.threshold or not denied:
            return
        codes = Counter(decision.code for decision in denied.values())
        code = min(codes, key=lambda c: (-codes[c], c))  # the reason most give
        first = next(denied[m] for m in sorted(denied) if denied[m].code == code)
        raise from_code(
            code,
            f"{len(denied)} of {len(self.parameters.invited)} institutions refused: {first.message}",
            first.hint,
            {"rule": first.rule},
        )

    def _alive(self, members: Iterable[str]) -> tuple[str, ...]:
        return tuple(m for m in members if m not in self._gone)

    def _send(self, step: str, payloads: Mapping[str, bytes]) -> None:
        for member, payload in payloads.items():
            connection = self._hub.get(member)
            if connection is None:
                self.lost(member)
            else:
                message = agent_pb2.RoundMessage(round_id=self.id, step=step, payload=payload)
                connection.send(agent_pb2.ToAgent(round=message))

    @property
    def invited(self) -> tuple[str, ...]:
        """The cohort that was asked."""
        return self.parameters.invited

    @property
    def to_be_told(self) -> tuple[str, ...]:
        """Whom to tell that the round is over: an agent that is asked to reveal takes it as the end by itself."""
        refused = {m for m, signed in self.decisions.items() if not signed.decision.allowed}
        return tuple(m for m in self.invited if m not in refused | self._asked_to_reveal)

    @property
    def roster(self) -> tuple[str, ...]:
        """Who joined; empty before the joins are closed."""
        return self._core.roster

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose vectors the sum holds; empty before the uploads are closed."""
        return self._core.survivors

    @property
    def layer_keys(self) -> tuple[tuple[bytes, ...], ...]:
        """Of every survivor, once there is a sum: the keys of the noise layers that were opened."""
        return self._core.layer_keys

    @property
    def charged(self) -> bool:
        """Whether somebody's masked vector has arrived whole: then budget has been spent."""
        return bool(self._uploaded)

    @property
    def losses(self) -> tuple[Dropout, ...]:
        """Who did not finish the round, or was found cheating in it, and how."""
        gone = {dropout.institution for dropout in self.dropouts}
        found = [Dropout(member, "blamed", why) for member, why in self._core.blamed.items() if member not in gone]
        return (*self.dropouts, *found)
