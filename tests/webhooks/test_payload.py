"""What an event says, and what it leaves out when there is too much to say."""

import json
from datetime import UTC, datetime
from typing import Any

from app.webhooks.payload import BODY_BYTES, body_of
from app.webhooks.records import Event, EventType

EVENT = Event(
    id="evt_1",
    job_id="job_1",
    team_id="team_1",
    type=EventType.SUCCEEDED,
    created_at=datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
)
JOB: dict[str, Any] = {"id": "job_1", "polling_url": "https://x/v1/jobs/job_1", "metadata": {}, "late": []}


def test_an_event_names_itself_and_holds_the_job() -> None:
    assert json.loads(body_of(EVENT, JOB, 7)) == {
        "id": "evt_1",
        "object": "event",
        "type": "job.succeeded",
        "timestamp": "2026-11-21T12:00:00Z",
        "created_at": 1795262400,
        "sequence": 7,
        "data": JOB,
    }


def test_the_least_wanted_goes_first_and_is_named() -> None:
    attempts = [{"upstream": "u" * 90, "outcome": "busy"}] * 300
    large = {**JOB, "attempts": attempts, "metadata": {"k": "v"}, "late": [{"url": "u"}]}
    body = body_of(EVENT, large, 1)
    event = json.loads(body)
    assert len(body) <= BODY_BYTES
    assert event["trimmed"] == ["late", "attempts"]
    assert (event["data"]["attempts"], event["data"]["metadata"]) == ([], {"k": "v"})
    assert len(large["attempts"]) == 300


def test_metadata_of_the_widest_letters_still_fits() -> None:
    metadata = {f"{number:064}": "\U0001f58c" * 512 for number in range(16)}
    body = body_of(EVENT, {**JOB, "metadata": metadata}, 1)
    assert len(body) <= BODY_BYTES
    assert json.loads(body)["trimmed"] == ["metadata"]


def test_text_that_is_no_text_does_not_stop_an_event() -> None:
    assert json.loads(body_of(EVENT, {**JOB, "metadata": {"k": "\ud800"}}, 1))["data"]["metadata"]
