"""`cohortium-agent run`: opens what the agent's folder holds, keeps the link up, stops cleanly on SIGTERM and SIGINT.

The one place where the agent's parts are put together; none of them knows the folder's layout but through here.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import structlog

from analytics_client import evidence
from analytics_client import profile as profiles
from analytics_client.agent import config as configuration
from analytics_client.agent import ledger_care as care
from analytics_client.agent.journal import FILE as JOURNAL
from analytics_client.agent.journal import Journal
from analytics_client.agent.ledger import Ledger
from analytics_client.agent.link import Link
from analytics_client.agent.owed import Owed
from analytics_client.agent.policy_file import PolicyFile
from analytics_client.agent.responder import Responder
from analytics_client.agent.served import Granted, Served
from analytics_client.agent.sources import Source, open_source
from analytics_client.enrolment import renew_if_due
from protos.v1 import agent_pb2
from queries.errors import ConfigError, LogError
from queries.schema import Dataset
from trust.identity import files, keys, membership
from trust.identity.activity import Activity
from trust.identity.dataset import verify_dataset
from trust.identity.membership import MembershipDocument
from trust.rpc.channel import TlsIdentity
from trust.rpc.process import run_until_signal
from trust.secagg import PairKeys
from trust.tlog import notes
from trust.tlog.checkpoint import open_checkpoint, parse
from trust.tlog.cosignature import CosignatureVerifier
from trust.tlog.evidence import Contradiction
from trust.tlog.witness import Witness

LEDGER = "ledger.sqlite"
MEMBERSHIP = "membership.dsse"
SALT = "row-selection.salt"
LOCK = "agent.lock"
logger = structlog.get_logger("cohortium.agent")


class Agent:
    """An institution's agent: one folder, one ledger, one link."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._profile = profiles.load(folder)
        if self._profile.role != "agent":
            raise ConfigError(
                f"{folder} is the folder of a {self._profile.role}, not of an agent",
                hint="enrol one: cohortium-agent enrol TOKEN DIR",
            )
        self._file = PolicyFile(folder)
        self._config = self._file.current()
        self._lock = _lock(folder)
        try:
            self._ledger = Ledger.open(folder / LEDGER)
            self._journal = Journal.open(folder / JOURNAL)
        except BaseException:
            os.close(self._lock)
            raise
        self._salt = self._load_salt()
        self._membership = self._load_membership()
        self._witness: Witness | None = None
        self._owed = Owed()
        self._activities: dict[int, tuple[Activity, ...]] = {}
        self._sources: dict[str, tuple[bytes, Source]] = {}
        self._identity_key = self._profile.identity_key()
        self._epoch_key = self._profile.epoch_key()
        self._pair_keys = PairKeys(self._epoch_key)
        self._work = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2), thread_name_prefix="work")

    @property
    def id(self) -> str:
        """The institution's id."""
        return self._profile.id

    async def run(self) -> None:
        """Serve until cancelled. Raises CohortiumError where waiting would not help."""
        link = Link(
            address=self._profile.address,
            identity=self._tls,
            log_size=lambda: self._ledger.head()[0],
            prepare=self._prepare,
            on_serving=self._announce,
            on_refused_log=self._keep_evidence,
            owed=self._owed,
        )
        try:
            await link.run()
        finally:
            link.close()
            self._work.shutdown(wait=True)
            self._ledger.close()
            self._journal.close()
            os.close(self._lock)

    def _announce(self, datasets: tuple[str, ...]) -> None:
        logger.info("serving", institution=self._profile.id, datasets=list(datasets))

    def _keep_evidence(self, error: LogError) -> None:
        """Write down two heads that are not of one log; what is merely malformed shows nothing."""
        if isinstance(error, Contradiction) and self._membership is not None:
            envelopes, governance = [self._membership.envelope], self._profile.governance_key
            path = evidence.keep(error, self._folder, self.id, envelopes, governance)
            logger.error("evidence is kept", file=str(path), hint="cohortium audit evidence FILE")

    # --- what governance published -------------------------------------------------------------------------------

    def _prepare(self, welcome: agent_pb2.Welcome) -> Responder:
        """Verify the membership and descriptions that the coordinator relays, and load the data they describe."""
        governance = self._profile.governance_key
        envelope = welcome.membership.SerializeToString(deterministic=True)
        document = membership.verify(envelope, governance, self._membership, consortium=self._profile.consortium)
        self._take_up(document)
        self._check_self(document)
        if self._membership is None or document.hash != self._membership.hash:
            files.replace(self._folder / MEMBERSHIP, envelope, secret=False)
            self._membership = document
        self._activities[document.epoch] = document.activities
        self._compare(document, welcome.cosigned)
        self._state_policy()
        size, root = self._ledger.head()
        witness = Witness(
            name=self.id,
            key=self._identity_key,
            origin=document.log_origin,
            log_key=document.log_key,
            size=size,
            root=root,
            note=self._note_of(size, root, welcome.cosigned),
        )
        self._witness = witness
        published = {}
        for description in welcome.datasets:
            dataset, schema_hash = verify_dataset(description.SerializeToString(deterministic=True), governance)
            published[dataset.name] = (dataset, schema_hash)
        return Responder(
            me=self.id,
            identity_key=self._identity_key,
            epoch_key=self._epoch_key,
            pair_keys=self._pair_keys,
            ledger=self._ledger,
            granted=partial(self._granted, {name: dataset for name, (dataset, _) in published.items()}),
            served=self._serve(published),
            membership=document,
            witness=witness,
            journal=self._journal,
            owed=self._owed,
            activities=self._activities,
            salt=self._salt,
            work=self._work,
        )

    def _note_of(self, size: int, root: bytes, cosigned: bytes) -> bytes:
        """Return the head of the ledger as the log signed it, where that is at hand: it makes evidence complete."""
        last = self._witness
        if last is not None and (last.size, last.root) == (size, root):
            return last.note
        if cosigned:
            head = parse(notes.parse(cosigned).text)
            return cosigned if (head.size, head.root) == (size, root) else b""
        return b""

    def _compare(self, document: MembershipDocument, cosigned: bytes) -> None:
        """Hold the ledger against the newest head that this agent is shown to have cosigned.

        Raises ConfigError where the ledger does not know it, LogError where the head is not what it must be.
        """
        if not cosigned:
            return
        mine = [CosignatureVerifier(self.id, key) for key in document.keys_of(self.id)]
        signed = {line.key_id for line in notes.parse(cosigned).lines}
        chosen = next((verifier for verifier in mine if verifier.key_id in signed), mine[0])
        head = open_checkpoint(cosigned, document.log_origin, chosen)
        care.compare(self._ledger, head.size, head.root)

    def _state_policy(self) -> None:
        """Have the log say which policy is in force, where it does not say so yet."""
        digest = self._file.digest
        if digest != care.latest_subject(self._ledger, "policy"):
            with self._ledger.transaction() as connection:
                care.state(connection, "a new policy is in force", about="policy", subject=digest)

    def _granted(self, published: dict[str, Dataset]) -> Granted:
        """What agent.toml grants now. Raises ConfigError while it cannot be understood."""
        config = self._file.current()
        self._state_policy()
        budgets = configuration.budgets(config, published)
        return Granted(configuration.policy(config), budgets, self._file.digest, configuration.models(config))

    def _take_up(self, document: MembershipDocument) -> None:
        """Sign with the rotated keys from the membership on that lists them."""
        if self._profile.take_up(document.institution(self.id).identity_key):
            self._identity_key, self._epoch_key = self._profile.identity_key(), self._profile.epoch_key()
            self._pair_keys = PairKeys(self._epoch_key)
            logger.info("the rotated key is in force", institution=self.id, epoch=document.epoch)

    def _check_self(self, document: MembershipDocument) -> None:
        """Governance must have certified the keys that are in this folder, and no others under this name."""
        listed = document.institution(self._profile.id)
        ours = keys.public_bytes(self._identity_key), keys.public_bytes(self._epoch_key)
        if (listed.identity_key, listed.epoch_key) != ours:
            raise ConfigError(
                f"the membership lists other keys for {self._profile.id!r} than this folder holds",
                hint="another agent may have enrolled under this name: ask the operator",
            )

    def _serve(self, published: dict[str, tuple[Dataset, bytes]]) -> dict[str, Served]:
        served = {}
        for name, local in self._config.datasets.items():
            if name not in published:
                logger.warning(
                    "not published yet", dataset=name, hint="the operator runs: cohortium-server dataset add"
                )
                continue
            dataset, schema_hash = published[name]
            if not local.accepts(schema_hash):
                logger.error(
                    "not served: another description than the one pinned in agent.toml",
                    dataset=name,
                    published=schema_hash.hex(),
                )
                continue
            known = self._sources.get(name)
            if known is None or known[0] != schema_hash:
                self._sources[name] = (schema_hash, open_source(local, dataset, threads=self._config.engine.threads))
            served[name] = Served(dataset, schema_hash, self._sources[name][1])
        return served

    def _tls(self) -> TlsIdentity:
        """The certificate to connect with, renewed when it is about to expire."""
        if renew_if_due(self._profile):
            logger.info("certificate renewed", institution=self.id)
        return self._profile.tls()

    # --- the folder ----------------------------------------------------------------------------------------------

    def _load_membership(self) -> MembershipDocument | None:
        path = self._folder / MEMBERSHIP
        if not path.exists():
            return None
        return membership.verify(path.read_bytes(), self._profile.governance_key, consortium=self._profile.consortium)

    def _load_salt(self) -> bytes:
        path = self._folder / SALT
        if not path.exists():
            files.write_new(path, secrets.token_bytes(32), secret=True)
        return files.read_secret(path)


def _lock(folder: Path) -> int:
    """Hold the folder against a second agent; the system lets go of it with the process, however that ends."""
    held = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise ConfigError(f"an agent is already running in {folder}", hint="stop it first") from None
    return held


def run(folder: Path) -> None:
    """Run the agent of a folder until SIGTERM or SIGINT. Raises CohortiumError where it cannot serve at all."""
    agent = Agent(folder)
    run_until_signal(agent.run)
    logger.info("stopped", institution=agent.id)
