"""Jobs and attempts as values, read from their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from app.domain.failures import FailureKind
from app.domain.money import Certainty
from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest, InputPicture, Operation
from app.domain.results import Usage
from app.jobs.lifecycle import AttemptFact, AttemptState, Status
from app.kit.json import Json, JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of `jobs`."""

    id: str
    team_id: str
    api_key_id: str
    dialect: str
    request: ImageRequest
    catalog_version: str
    metadata: Mapping[str, str]
    webhook_url: str | None
    priority: int
    status: Status
    lease_token: int
    lease_until: datetime | None
    claims: int
    available_at: datetime
    deadline_at: datetime
    cancel_at: datetime | None
    to_buy: int
    spare: int
    picture_hold_micros: int | None
    budgets: Sequence[str]
    """The ids of the budgets that it counts towards, in their order."""
    error: JsonObject | None
    result: JsonObject | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime
    purged_at: datetime | None
    requeued_from: str | None
    trace_parent: str | None
    revision: int
    is_expired: bool = False
    """Its `expires_at` has come, by the database's clock; only told where a job is looked at or locked by its id."""

    @property
    def n(self) -> int:
        """How many pictures were asked for."""
        return self.request.n

    @property
    def inputs(self) -> int:
        """How many pictures were handed in, a mask included."""
        return len(self.request.images) + (self.request.mask is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One row of `attempts`."""

    id: str
    job_id: str
    number: int
    round: int
    upstream: str
    target: JsonObject
    pictures: int
    owner_token: int
    state: AttemptState
    ticket: str | None
    failure: FailureKind | None
    detail: str | None
    param: str | None
    opened_at: datetime
    outcome_due: datetime
    finished_at: datetime | None
    usage: Usage | None
    resolved: JsonObject | None
    hold_micros: int | None
    cost_micros: int | None
    certainty: Certainty | None

    def fact(self) -> AttemptFact:
        """What the lifecycle judges by."""
        return AttemptFact(state=self.state, pictures=self.pictures, round=self.round, failure=self.failure)


def job_from(row: Mapping[str, Any]) -> Job:
    """Read a row of `jobs`."""
    names = Job.__slots__
    coded = ("request", "status", "budgets", "is_expired")
    values = {name: row[name] for name in names if name not in coded}
    return Job(
        **values,
        request=request_from_json(row["request"]),
        status=Status(row["status"]),
        budgets=tuple(row["budgets"] or ()),
        is_expired=bool(row.get("is_expired", False)),
    )


def attempt_from(row: Mapping[str, Any]) -> Attempt:
    """Read a row of `attempts`."""
    coded = ("state", "failure", "usage", "certainty")
    values = {name: row[name] for name in Attempt.__slots__ if name not in coded}
    return Attempt(
        **values,
        state=AttemptState(row["state"]),
        failure=FailureKind(row["failure"]) if row["failure"] else None,
        usage=Usage(**row["usage"]) if row["usage"] else None,
        certainty=Certainty(row["certainty"]) if row["certainty"] else None,
    )


def request_to_json(request: ImageRequest) -> dict[str, Json]:
    """Write a request as it is stored; fields that the client did not set are left out."""
    return {
        name: value
        for name, value in asdict(request).items()
        if not (value is None or value is False or value in ((), {}))
    }


def request_from_json(document: Mapping[str, Any]) -> ImageRequest:
    """Read what `request_to_json` wrote."""
    values = dict(document)
    values["operation"] = Operation(values["operation"])
    values["images"] = tuple(_input_from_json(picture) for picture in values.get("images", ()))
    values["adjusted"] = tuple(values.get("adjusted", ()))
    values["mask"] = _input_from_json(values["mask"]) if values.get("mask") else None
    return ImageRequest(**values)


def _input_from_json(document: Mapping[str, Any]) -> InputPicture:
    return InputPicture(**{**document, "format": PictureFormat(document["format"])})
