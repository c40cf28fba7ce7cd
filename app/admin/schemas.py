"""What crosses the operators' HTTP, for `/openapi.json` alone: requests are read by `parameters.py`."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.schemas import query, schema_of

ADMIN_BEARER: Final = Security(
    HTTPBearer(auto_error=False, scheme_name="AdminKey", description="An operator's key.")
)
"""Documents that an endpoint wants an operator's key; the middleware has checked it long before."""


Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")]
Moment: TypeAlias = (
    Annotated[float, Field(ge=0, lt=253_402_300_800)]
    | Annotated[str, Field(json_schema_extra={"format": "date-time"})]
)
"""Unix seconds, ISO 8601 with its zone, or a date, whose first moment (UTC) is meant."""
_Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Dollars: TypeAlias = (
    Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$")]
    | Annotated[int, Field(ge=0, le=1_000_000_000)]
    | float
)


class _Body(BaseModel):
    """What is not known in it is refused."""

    model_config = ConfigDict(extra="forbid")


class Limits(_Body):
    """What a team, or one key, may do. Absent: no limit."""

    allowed_models: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Names of the catalog."
    )
    requests_per_minute: _Count | None = None
    images_per_minute: _Count | None = None
    max_jobs: _Count | None = Field(None, description="Jobs at once.")
    max_queued: _Count | None = Field(
        None, description="Jobs that wait at once; of a team 10 000 unless it is given."
    )
    budget_day_usd: _Dollars | None = Field(None, description="US dollars, best as a string.")
    budget_month_usd: _Dollars | None = Field(None, description="US dollars, best as a string.")


class NewTeam(_Body):
    """A team to create."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "posters", "limits": {"budget_month_usd": "250.00"}}}
    )

    name: Name
    limits: Limits | None = None


class TeamChange(_Body):
    """What to change of a team. A limit that is null is lifted, one that is absent stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"limits": {"max_jobs": 20}}})

    name: Name | None = None
    limits: Limits | None = None


class TeamObject(BaseModel):
    """A team."""

    id: str
    name: str
    limits: Limits
    created_at: int = Field(description="Unix seconds.")


_EXPIRY: Final = (
    "When it stops working: Unix seconds, ISO 8601 with its zone, or a date, at whose beginning (UTC)."
)


class NewKey(_Body):
    """A key to create."""

    model_config = ConfigDict(json_schema_extra={"example": {"team_id": "default", "name": "batch"}})

    team_id: str = Field(min_length=1)
    name: Name
    role: Literal["team", "admin", "admin_read"] | None = Field(None, description="`team` unless given.")
    limits: Limits | None = None
    expires_at: Moment | None = Field(None, description=_EXPIRY)


class KeyChange(_Body):
    """What to change of a key. A limit that is null is lifted, one that is absent stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"limits": {"requests_per_minute": 60}}})

    name: Name | None = None
    limits: Limits | None = None
    expires_at: Moment | None = Field(None, description=f"{_EXPIRY} Null: never; absent: it stays.")


class Rotation(_Body):
    """How to rotate a key."""

    model_config = ConfigDict(json_schema_extra={"example": {"overlap_s": 3600}})

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


class WouldRotate(KeyObject):
    """A key that would be rotated."""

    dry_run: Literal[True]
    would: dict[str, Any] = Field(description="When it would expire.")


class RevokedKey(KeyObject):
    """A key just revoked."""

    cancelled_jobs: int | None = Field(
        None, description="Its jobs that were cancelled before they were sent; not with `dry_run`."
    )
    dry_run: Literal[True] | None = None
    would: dict[str, Any] | None = Field(None, description="With `dry_run`: what would happen.")


class Maintenance(BaseModel):
    """Whether new jobs are turned away."""

    drain: bool
    since: int | None
    queued: int
    in_progress: int


class MaintenanceChange(_Body):
    """What to do with new jobs."""

    model_config = ConfigDict(json_schema_extra={"example": {"drain": False}})

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
    loaded_at: int | None
    dry_run: Literal[True] | None = None
    would: dict[str, Any] | None = Field(None, description="With `dry_run`: what would be in force.")


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
MOMENT: Final = {
    "type": "string",
    "anyOf": [{"format": "date-time"}, {"format": "date"}, {"pattern": "^[0-9]{0,11}$"}],
    "example": "2027-01-31",
}
DRY_RUN: Final = query(
    "dry_run", "Only say what would happen.", {"type": "boolean", "default": False}
)  # fmt: skip


def answer(model: type[BaseModel], description: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """Document what an endpoint answers."""
    return {status: {"model": model, "description": description}}


def body(model: type[BaseModel]) -> dict[str, Any]:
    """Document the body that an endpoint reads by itself."""
    schema = schema_of(model)
    is_required = bool(schema.get("required"))
    return {"requestBody": {"required": is_required, "content": {"application/json": {"schema": schema}}}}
