"""Alembic's entry: run the migrations on the connection that `analytics_server.store.schema` hands over."""

from __future__ import annotations

from alembic import context

from analytics_server.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
