"""What operators did, as values."""

from dataclasses import dataclass
from datetime import datetime

from app.kit.json import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One row of `audit_entries`."""

    id: str
    at: datetime
    actor_id: str
    """The key that was used; or `process:` and the name of one, or `darkroom`, when nobody's key was."""
    actor_name: str | None
    """The key's name as it was then."""
    action: str
    """In the past tense, such as `key.revoked`."""
    object: str
    """What was acted on: an id or a name."""
    before: JsonObject | None
    after: JsonObject | None
    request_id: str | None
