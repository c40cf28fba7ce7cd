"""Writes the body of an event, as it is signed and sent. Pure; the job object in it is the public one."""

import json
from collections.abc import Mapping
from datetime import UTC
from typing import Final

from app.webhooks.records import Event

BODY_BYTES: Final = 20_000
"""The most that a body may have (Standard Webhooks: 20 kB)."""
# What a receiver can look up under the job's `polling_url`, the least wanted first, and what is sent in its place.
_SPARED: Final[Mapping[str, object]] = {"late": [], "attempts": [], "metadata": {}}


def body_of(event: Event, job: Mapping[str, object], sequence: int) -> bytes:
    """Write an event about a job, in as few bytes as JSON allows.

    `sequence` grows with every change of the job, so of two bodies the one with the higher number is the newer. Where
    the job object is too large, parts are left out, and `trimmed` names them.
    """
    shown, trimmed = dict(job), list[str]()
    for name, nothing in _SPARED.items():
        body = _written(event, shown, sequence, trimmed)
        if len(body) <= BODY_BYTES:
            return body
        if shown.get(name):
            shown[name] = nothing
            trimmed.append(name)
    return _written(event, shown, sequence, trimmed)


def _written(event: Event, job: Mapping[str, object], sequence: int, trimmed: list[str]) -> bytes:
    document = {
        "id": event.id,
        "object": "event",
        "type": event.type.value,
        "timestamp": event.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "created_at": int(event.created_at.timestamp()),
        "sequence": sequence,
        "data": job,
        **({"trimmed": trimmed} if trimmed else {}),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", "backslashreplace"
    )
