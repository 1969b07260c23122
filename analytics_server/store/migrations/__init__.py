"""Alembic's migrations of the coordinator's store, oldest first in `versions`; each is frozen once released."""
