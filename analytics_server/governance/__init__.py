"""What governance does: found a consortium, publish who belongs to it and what its datasets are.

Its keys live in a folder of their own that can be taken off the coordinator's machine; only the functions here read
them, and the running coordinator never does.
"""

from analytics_server.governance.founding import (
    initialise,
    renew_issuing_authority,
)
from analytics_server.governance.office import (
    COUNCIL,
    FOLDER,
    Governance,
    current_membership,
    load_council,
    open_governance,
    opened,
    stamped,
)
from analytics_server.governance.people import (
    erase_identity,
    identify,
    revoke,
    scope_service,
)
from analytics_server.governance.publishing import (
    Changes,
    pending,
    propose_dataset,
    propose_membership,
    publish_dataset,
    publish_membership,
    publish_signed,
    publish_signed_dataset,
)

__all__ = [
    "COUNCIL",
    "FOLDER",
    "Changes",
    "Governance",
    "current_membership",
    "erase_identity",
    "identify",
    "initialise",
    "load_council",
    "open_governance",
    "opened",
    "pending",
    "propose_dataset",
    "propose_membership",
    "publish_dataset",
    "publish_membership",
    "publish_signed",
    "publish_signed_dataset",
    "renew_issuing_authority",
    "revoke",
    "scope_service",
    "stamped",
]
