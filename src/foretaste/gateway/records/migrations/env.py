"""Runs the migrations on the connection that ``records.store.migrate`` gives."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
