"""What crosses the operators' HTTP, for `/openapi.json` alone: requests are read by `parameters.py`."""

from typing import Any, Final, Literal

from fastapi import Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field

from app.api.schemas import query

ADMIN_BEARER: Final = Security(
    HTTPBearer(auto_error=False, scheme_name="AdminKey", description="An operator's key.")
)
"""Documents that an endpoint wants an operator's key; the middleware has checked it long before."""


class Limits(BaseModel):
    """What a team, or one key, may do. Absent: no limit."""

    allowed_models: list[str] | None = Field(None, description="Names of the catalog.")
    requests_per_minute: int | None = Field(None, ge=1)
    images_per_minute: int | None = Field(None, ge=1)
    max_jobs: int | None = Field(None, ge=1, description="Jobs at once.")
    budget_day_usd: str | float | None = Field(None, description="US dollars, best as a string.")
    budget_month_usd: str | float | None = Field(None, description="US dollars, best as a string.")


class NewTeam(BaseModel):
    """A team to create."""

    name: str
    limits: Limits | None = None


class TeamChange(BaseModel):
    """What to change of a team. A limit that is null is lifted, one that is absent stays."""

    name: str | None = None
    limits: Limits | None = None


class TeamObject(BaseModel):
    """A team."""

    id: str
    name: str
    limits: Limits
    created_at: int = Field(description="Unix seconds.")


class NewKey(BaseModel):
    """A key to create."""

    team_id: str
    name: str
    role: Literal["team", "admin", "admin_read"] = "team"
    limits: Limits | None = None
    expires_at: int | str | None = Field(None, description="Unix seconds, or ISO 8601 with its zone.")


class KeyChange(BaseModel):
    """What to change of a key. A limit that is null is lifted, one that is absent stays."""

    name: str | None = None
    limits: Limits | None = None


class Rotation(BaseModel):
    """How to rotate a key."""

    overlap_s: float | None = Field(
        None, ge=0, le=604_800, description="How long the old key still works; a day unless it is given."
    )


class KeyObject(BaseModel):
    """A key, without its text."""

    id: str
    team_id: str
    name: str
    role: Literal["team", "admin", "admin_read"]
    hint: str = Field(description="The first characters, to recognise it by.")
    limits: Limits
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class ShownKey(KeyObject):
    """A key just made."""

    key: str = Field(description="Its text, shown this once.")


class RevokedKey(KeyObject):
    """A key just revoked."""

    cancelled_jobs: int = Field(description="Its jobs that were cancelled before they were sent.")


class Maintenance(BaseModel):
    """Whether new jobs are turned away."""

    drain: bool
    since: int | None
    queued: int
    in_progress: int


class MaintenanceChange(BaseModel):
    """What to do with new jobs."""

    drain: bool = Field(description="Whether to turn them away.")


class Mistake(BaseModel):
    """One mistake of a catalog file."""

    line: int | None
    key: str
    problem: str
    fix: str
    message: str


class CheckedConfig(BaseModel):
    """What a check of a catalog file found."""

    valid: bool
    version: str | None
    mistakes: list[Mistake]


class ReloadedConfig(BaseModel):
    """What is in force after a reload."""

    version: str
    loaded_at: int


class Config(BaseModel):
    """The catalog in force."""

    version: str = Field(description="What this process serves from.")
    in_force: str | None = Field(description="What every process is to serve from.")
    loaded_at: int | None
    content: str | None = Field(description="The file, as it was loaded.")
    upstreams: dict[str, Any]
    models: dict[str, Any]


PAGE: Final = [
    query("limit", "Items in one page.", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
    query("after", "The last item of the page before.", {"type": "string"}),
]
DRY_RUN: Final = query(
    "dry_run", "Only say what would happen.", {"type": "boolean", "default": False}
)  # fmt: skip


def answer(model: type[BaseModel], description: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """Document what an endpoint answers."""
    return {status: {"model": model, "description": description}}


def body(model: type[BaseModel]) -> dict[str, Any]:
    """Document the body that an endpoint reads by itself."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
