"""Every sample reply means to its vendor's adapter what the sample says."""

import json
from datetime import date
from pathlib import Path
from typing import Any, Final

import pytest

from app.domain.failures import UpstreamFailure
from app.upstreams.contract import Finished, Reply
from app.upstreams.registry import adapter

SAMPLES: Final = Path(__file__).parents[1] / "samples"
FILES: Final = sorted(SAMPLES.glob("*/*.json"))


def outcome_of(vendor: str, sample: dict[str, Any]) -> str:
    reply = sample["reply"]
    read = Reply(
        status=reply["status"],
        headers=reply["headers"],
        body=reply.get("body"),
        is_json="body" in reply,
    )
    try:
        outcome = adapter(vendor).read(read, sample.get("ticket"))
    except UpstreamFailure as failure:
        return failure.kind.value
    return "finished" if isinstance(outcome, Finished) else "waiting"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_sample_is_read_as_it_says(path: Path) -> None:
    sample = json.loads(path.read_text(encoding="utf-8"))

    assert sample["source"]
    assert sample["how"]
    assert date.fromisoformat(sample["read_on"]).year >= 2026
    assert outcome_of(path.parent.name, sample) == sample["outcome"]
