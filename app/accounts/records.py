"""Teams, keys and callers as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.kit.json import Json


class Role(StrEnum):
    """What a key opens."""

    TEAM = "team"
    """The public API, on its team's account."""
    ADMIN = "admin"
    """The operators' API and the metrics."""
    ADMIN_READ = "admin_read"
    """What `admin` may look at, without changing it."""

    @property
    def is_operator(self) -> bool:
        """Whether it is no team's key."""
        return self is not Role.TEAM


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is asking, once their key has been found to be right."""

    team_id: str
    api_key_id: str
    role: Role
    limits: Mapping[str, Json]
    """The key's own limits (contract 9); absent ones do not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """One row of `teams`."""

    id: str
    name: str
    limits: Mapping[str, Json]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One row of `api_keys`, without its digest."""

    id: str
    team_id: str
    name: str
    role: Role
    hint: str
    """The first characters, to recognise it by."""
    limits: Mapping[str, Json]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    line_id: str | None
    """The key whose budgets and rates it goes on with, after rotations; None: its own."""
    replaced_by: str | None
    """The key that a rotation put in its place."""


def team_from(row: Mapping[str, Any]) -> Team:
    """Read a row of `teams`."""
    return Team(**{name: row[name] for name in Team.__slots__})


def key_from(row: Mapping[str, Any]) -> ApiKey:
    """Read a row of `api_keys`."""
    values = {name: row[name] for name in ApiKey.__slots__ if name != "role"}
    return ApiKey(**values, role=Role(row["role"]))
