"""Before governance signs a newcomer in: what an identity provider said of the person, checked again.

The coordinator checked it at the enrolment, but governance need not believe that: the token is kept until then, and its
signature, its claims, and the identity key that its nonce commits to are verified here with the provider's keys of now.
"""

from __future__ import annotations

from analytics_server.config import ServerConfig
from analytics_server.governance.office import current_membership
from analytics_server.store import Store, UnitOfWork
from analytics_server.vouching import Expected, Provider, check_token
from queries.errors import ConfigError, IdentityError


def needing_proof(uow: UnitOfWork) -> frozenset[str]:
    """Return who may be listed only if an identity provider vouches for them."""
    found = {row.id: uow.invitation_of(row.id) for row in uow.participants() if not row.revoked and row.role != "agent"}
    return frozenset(name for name, invited in found.items() if invited is not None and invited.person)


def check_vouched(store: Store, config: ServerConfig) -> frozenset[str]:
    """Return the newcomers whose proof holds; raise IdentityError on the first whose does not, ServiceError else."""
    with store.read() as uow:
        document = current_membership(uow, config)
        listed = frozenset(document.identity_keys) if document is not None else frozenset()
        waiting = [
            (row, uow.invitation_of(row.id), uow.proof(row.id))
            for row in uow.participants()
            if row.id in needing_proof(uow) - listed
        ]
    if not waiting:
        return frozenset()
    if config.oidc is None:
        raise ConfigError("newcomers need an identity provider to vouch for them", hint="set [oidc] in server.toml")
    keys = Provider(config.oidc.issuer).keys()
    for row, invited, proof in waiting:
        assert invited is not None  # noqa: S101 - by `needing_proof`
        expected = Expected.from_text(invited.person)
        if proof is None or expected is None or expected.issuer != config.oidc.issuer:
            raise IdentityError(
                f"nothing shows that the identity provider vouches for {row.id!r}",
                hint="revoke it and invite the person anew",
            )
        try:
            check_token(
                proof[0],
                keys,
                expected,
                consortium=config.consortium,
                invitation_id=invited.id,
                identity_key=row.identity_key,
                now=proof[1],
            )
        except IdentityError as error:
            raise IdentityError(
                f"{row.id!r} is not the person who was invited: {error.message}", hint="revoke it, and look into it"
            ) from error
    return frozenset(row.id for row, _, _ in waiting)
