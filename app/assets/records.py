"""Pictures that we keep, as values: one just stored, and one read from its row."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from app.domain.pictures import PictureFormat


class AssetKind(StrEnum):
    """Why we keep a picture."""

    RESULT = "result"
    """Made for a job that waited for it."""
    PARTIAL = "partial"
    """A coarse version, made while the job's picture was being drawn."""
    LATE = "late"
    """Made for a job that had ended without it."""
    UPLOAD = "upload"
    """Uploaded by a client, for later use."""
    INPUT = "input"
    """Part of one job's request; deleted when the job is final."""


MADE: Final = (AssetKind.RESULT, AssetKind.LATE, AssetKind.PARTIAL)
"""What we made, as opposed to what we were given."""
OUTPUT: Final = "assistants_output"
"""The purpose that files of ours are shown with: OpenAI's word for what the API made itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture whose bytes are in storage, and whose row is about to be written."""

    file_id: str
    key: str
    """Where storage keeps the bytes."""
    format: PictureFormat
    width_px: int
    height_px: int
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One row of `assets`."""

    id: str
    team_id: str
    kind: AssetKind
    job_id: str | None
    attempt_id: str | None
    index: int
    key: str
    filename: str
    purpose: str
    format: PictureFormat
    width_px: int
    height_px: int
    size_bytes: int
    created_at: datetime
    expires_at: datetime

    @property
    def file_id(self) -> str:
        """Its id, under the name that a picture without a row has for it."""
        return self.id

    @property
    def shown_purpose(self) -> str:
        """What the file is for, in OpenAI's words."""
        return OUTPUT if self.kind in MADE else self.purpose


def asset_from(row: Mapping[str, Any]) -> Asset:
    """Read a row of `assets`."""
    values = {name: row[name] for name in Asset.__slots__ if name not in ("kind", "format")}
    return Asset(**values, kind=AssetKind(row["kind"]), format=PictureFormat(row["format"]))
