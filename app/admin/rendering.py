"""Writes what operators see. Reads nothing and decides nothing; a key's text is in one answer only."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from app.accounts.records import ApiKey, Team
from app.kit.json import JsonObject

T = TypeVar("T")


def team_document(team: Team) -> JsonObject:
    """A team."""
    return {
        "id": team.id,
        "name": team.name,
        "limits": dict(team.limits),
        "created_at": seconds(team.created_at),
    }


def key_document(key: ApiKey) -> JsonObject:
    """A key, without its text."""
    return {
        "id": key.id,
        "team_id": key.team_id,
        "name": key.name,
        "role": key.role.value,
        "hint": key.hint,
        "limits": dict(key.limits),
        "created_at": seconds(key.created_at),
        "expires_at": seconds(key.expires_at),
        "revoked_at": seconds(key.revoked_at),
    }


def listing(items: Sequence[T], has_more: bool, render: Callable[[T], JsonObject]) -> JsonObject:
    """A page of a list, as OpenAI has it."""
    data = [render(item) for item in items]
    return {
        "object": "list",
        "data": list(data),
        "has_more": has_more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def seconds(moment: datetime | None) -> int | None:
    """Unix seconds."""
    return None if moment is None else int(moment.timestamp())
