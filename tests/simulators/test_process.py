"""Simulators as processes, told and asked through their control API."""

import httpx2
import pytest

from tests.simulators.process import running


@pytest.mark.parametrize("name", ["openai", "xairouter", "therouter"])
async def test_a_simulator_runs_on_its_own_and_is_scripted_over_http(name: str) -> None:
    async with running(name) as vendor, httpx2.AsyncClient(trust_env=False) as client:

        async def buy() -> int:
            model = "openai/gpt-image-2" if name == "therouter" else "gpt-image-2"
            reply = await client.post(
                f"{vendor.base_url}/images/generations",
                json={"model": model, "prompt": "a secret garden"},
                headers={"authorization": f"Bearer {vendor.api_key}", "idempotency-key": "att_1"},
            )
            return reply.status_code

        await vendor.script("429:7", "ok")
        statuses = [await buy(), await buy()]
        ledger = await vendor.ledger(calls=True)
        await vendor.reset()
        empty = await vendor.ledger()

    assert statuses == [429, 200]
    assert (ledger["posts"], ledger["charges"], ledger["attempts"]["att_1"]["charges"]) == (2, 1, 1)
    assert ledger["calls"][0]["step"] == "429:7"
    assert vendor.api_key not in str(ledger)
    assert "secret garden" not in str(ledger)
    assert (empty["posts"], empty["attempts"]) == (0, {})


async def test_a_step_that_is_not_known_is_refused() -> None:
    async with running("openai", "--chance", "500=0.5", "--seed", "3", "--latency", "0-0") as vendor:
        with pytest.raises(httpx2.HTTPStatusError, match="400"):
            await vendor.script("nothing_such")
