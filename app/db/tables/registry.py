"""All tables together, for migrations and for the comparison of both."""

from sqlalchemy import Table

from app.db.tables.api_keys import api_keys
from app.db.tables.assets import assets
from app.db.tables.attempts import attempts
from app.db.tables.audit_entries import audit_entries
from app.db.tables.budgets import budgets
from app.db.tables.catalogs import catalogs
from app.db.tables.idempotency_keys import idempotency_keys
from app.db.tables.job_metadata import job_metadata
from app.db.tables.jobs import jobs
from app.db.tables.ledger_entries import ledger_entries
from app.db.tables.switches import switches
from app.db.tables.teams import teams
from app.db.tables.upstream_states import upstream_states
from app.db.tables.webhook_deliveries import webhook_deliveries
from app.db.tables.webhook_endpoints import webhook_endpoints
from app.db.tables.webhook_events import webhook_events
from app.db.tables.webhook_secrets import webhook_secrets

TABLES: tuple[Table, ...] = (
    teams,
    api_keys,
    jobs,
    job_metadata,
    attempts,
    assets,
    idempotency_keys,
    upstream_states,
    audit_entries,
    catalogs,
    switches,
    budgets,
    ledger_entries,
    webhook_events,
    webhook_endpoints,
    webhook_secrets,
    webhook_deliveries,
)
"""In an order in which each table follows those that it refers to."""
