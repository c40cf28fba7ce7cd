"""An edit that fails over leaves no key, prompt, picture or signed link in any log, at the most talkative level."""

import base64
import io
import json
from pathlib import Path

import pytest

from tests.assets.pictures import SAMPLES
from tests.house import opener
from tests.kitchen import ADMIN_KEY, API_KEY
from tests.simulators.imarouter import ImaRouter
from tests.simulators.openai import OpenAi
from tests.simulators.therouter import TheRouter

PROMPT = "canary-prompt-7c1e a boat nobody may read of"
VENDOR_KEY = "sk-canary-4b9d0f"
USER = "canary-user-88aa"


async def test_an_edit_that_fails_over_tells_no_secret(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    sqlite_url: str,
    talkative: io.StringIO,
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = opener(monkeypatch, tmp_path, sqlite_url)
    data_url = f"data:image/png;base64,{base64.b64encode(SAMPLES['png']).decode()}"
    body = {
        "model": "gpt-image-2", "prompt": PROMPT, "user": USER, "images": [{"image_url": data_url}],
        "response_format": "url",
    }  # fmt: skip
    async with (
        OpenAi(api_key=VENDOR_KEY) as first,
        ImaRouter(api_key=VENDOR_KEY) as second,
        TheRouter(api_key=VENDOR_KEY) as third,
        house(first, second, third) as running,
    ):
        first.script("401")
        second.script("503")
        answer = await running.client.post("/v1/images/edits", json=body)
        assert answer.status_code == 200, answer.text
        (link,) = [item["url"] for item in answer.json()["data"]]
        assert (await running.client.get(link)).status_code == 200
        refused = await running.client.post("/v1/images/edits", json={**body, "size": "17x17"})
        assert refused.status_code == 400
        assert third.ledger.pictures == 1

    written = talkative.getvalue()
    # Ours hand no secret to a logger in the first place; redaction is the second net.
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("app.")]
    assert ours
    told = "\n".join([written, *ours])
    events = [json.loads(line)["event"] for line in written.splitlines()]
    assert events.count("attempt.failed") == 2
    assert "attempt.succeeded" in events
    signature = link.partition("sig=")[2]
    assert signature
    for secret in (
        PROMPT,
        "canary-prompt",
        USER,
        VENDOR_KEY,
        API_KEY,
        ADMIN_KEY,
        signature,
        "sig=",
        data_url[:60],
    ):
        assert secret not in told, secret
